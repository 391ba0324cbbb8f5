"""The SDN agent: carries out what is configured, and reports."""
