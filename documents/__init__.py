"""What comes from outside: members checked and refused by name, and secrets that no text shows. Pure."""
