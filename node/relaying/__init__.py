"""Keys over trusted relays: ways, hops, ciphers."""
