"""Secure application entities: 014 client, master and slave roles, rekeying, demonstration applications."""
