"""Who follows the agents of the nodes: what they announce is done, and what they are to know they are told."""
