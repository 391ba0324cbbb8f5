"""The ports of a node: KME, agent, RESTCONF."""
