"""Runs in a virtual machine of their own."""
