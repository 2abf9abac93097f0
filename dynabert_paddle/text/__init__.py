"""Tokenizers, encoding of texts, decoding of predictions."""
