"""What is emulated: networks, and the shapes of their fibres. Files in, values out. Pure."""
