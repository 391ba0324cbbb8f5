"""What a planner that knows everything could carry, and the model by which a load is looked for."""
