"""The HTTPS server's connections: what happens in its event loop, from the handshake to the last byte."""
