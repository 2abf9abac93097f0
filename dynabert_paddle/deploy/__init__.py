"""Running bundles: needs paddle, numpy and tokenizers, and nothing of PaddleNLP."""
