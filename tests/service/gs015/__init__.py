"""The SDN agent is asked by controllers that we did not write: GS QKD 015 V2.1.1 over RESTCONF (RFC 8040)."""
