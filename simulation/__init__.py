"""Engine two: a scenario in virtual time, by the decisions that nodes and controller make. No process, no message."""
