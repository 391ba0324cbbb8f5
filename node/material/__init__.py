"""Key material of a node: from blocks of QCs to ranges that are used once, here and in the shared database."""
