"""One training loop, and the specification of each stage."""
