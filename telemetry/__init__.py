"""Journal and metrics; the one place that enforces that no key is written anywhere."""
