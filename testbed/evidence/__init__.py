"""What a run leaves behind: its journals, read, and its summary."""
