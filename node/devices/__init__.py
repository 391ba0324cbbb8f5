"""QCs whose key material comes from QKD devices that speak GS QKD 014: one KME of the device at each end."""
