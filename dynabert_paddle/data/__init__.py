"""From data files to batches: tasks, readers, tokenized features and metrics."""
