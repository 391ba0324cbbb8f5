"""The fault storm: a real network under thousands of faults, and whether it heals by itself each time."""
