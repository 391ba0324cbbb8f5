"""Fibres: shaped, measured, captured."""
