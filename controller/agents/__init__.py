"""Calls to the agents of nodes, and documents for them."""
