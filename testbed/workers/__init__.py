"""One network on several machines: at home, what reaches workers; on a worker, what builds its share."""
