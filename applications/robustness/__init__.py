"""Wrong pairs among the right ones: which loss forgives them, and which conditionals can be believed."""
