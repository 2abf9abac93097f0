"""The supernet: a model of which any sub-network can run, and the small models cut from it."""
