"""Key sessions at the controller: who has registered, what is open, what nodes are told of it."""
