"""From a snapshot to words, tables and drawings. Pure."""
