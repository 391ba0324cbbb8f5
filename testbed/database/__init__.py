"""The shared database of a run."""
