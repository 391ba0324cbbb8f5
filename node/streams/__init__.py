"""Chunk streams, which GS QKD 004 V2.1.1 calls key streams: both applications take the same chunks by their indexes."""
