"""A model as a static graph that other runtimes execute, verified against its source."""
