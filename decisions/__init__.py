"""What the network decides, as functions of values: no socket, no file, no clock, no thread. Known to both sides."""
