"""The supernet, a model that can run any of its sub-networks, and the small models extracted from it."""
