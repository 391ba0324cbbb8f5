"""Key sessions that end at a node, from registration to end."""
