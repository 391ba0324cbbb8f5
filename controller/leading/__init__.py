"""Two controllers for one network: which of them leads, in what term, and what both must not forget."""
