"""The files of runs and models: atomic writes, locks, checksums, weights, metadata."""
