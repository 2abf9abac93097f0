"""Text to token ids and back: tokenizers, encoding, decoding of predictions."""
