"""What the live view has seen of a run: counts, curves, one snapshot a second."""
