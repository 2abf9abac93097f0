"""The folder contract: files and folders that are whole or absent, locks, hashes, weights, metadata."""
