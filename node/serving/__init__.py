"""Keys for SAEs: made, pooled, handed out."""
