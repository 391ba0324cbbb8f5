"""What quantum channels make: models as values, and the physics of one of them. PURE."""
