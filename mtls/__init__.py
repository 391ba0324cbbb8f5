"""One way to serve and one way to call over mutual TLS, the test PKI, and who a certificate is."""
