"""What the IETF wrote: YANG data (RFC 7950, 7951) and RESTCONF (RFC 8040). Pure."""
