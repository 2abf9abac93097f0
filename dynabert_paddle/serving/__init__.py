"""Prediction with bundles, and their benchmark."""
