"""How a network comes up: a module a stage."""
