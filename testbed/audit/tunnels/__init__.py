"""The audit of tunnels: what gateways tell of them, and whether their keys were right."""
