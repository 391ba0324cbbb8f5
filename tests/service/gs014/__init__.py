"""Conformance with GS QKD 014 V1.1.1: one test a rule, against real KMEs, by clients that know the standard only."""
