"""What an operator does to a run, and the command line for it."""
