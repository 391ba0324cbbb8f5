"""SDN controller: admits key sessions, chooses trusted-relay paths, forwards classical traffic over OpenFlow."""
