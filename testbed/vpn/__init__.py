"""Tunnels of a running network: gateways are started where one ends, and told what to do."""
