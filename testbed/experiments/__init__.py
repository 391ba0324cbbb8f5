"""The paper's experiments and our own, on real networks: `run.py experiment`."""
