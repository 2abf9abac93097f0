"""Importance of heads and neurons, and sorting them by it."""
