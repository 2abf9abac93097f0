"""One training loop, and what each stage supplies to it."""
