"""Wire formats of ETSI GS QKD 004, 014 and 015: pure data, no socket, nothing of ours imported."""
