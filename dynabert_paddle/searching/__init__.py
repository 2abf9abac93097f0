"""Finding the best sub-networks for a budget."""
