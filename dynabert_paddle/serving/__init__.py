"""Predictors on top of bundles, and their benchmark."""
