"""A network that runs."""
