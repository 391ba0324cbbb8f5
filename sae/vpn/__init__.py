"""Gateways: SAEs that key tunnels between datacenters by IPsec or WireGuard, and drive the daemons that carry them."""
