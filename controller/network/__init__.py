"""The network as the controller knows it, and what its operator has set."""
