"""What every exported bundle ships and reads: its manifest, the runtimes, the inference scripts. Never PaddleNLP."""
