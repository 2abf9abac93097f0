"""Search for the best sub-networks within a budget, and their latency."""
