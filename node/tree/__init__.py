"""What is configured of a node, what it tells of itself, and to whom (GS QKD 015)."""
