"""What people and tools ask of the controller."""
