"""The code of exported bundles: manifest, runtimes, inference scripts. Never imports PaddleNLP."""
