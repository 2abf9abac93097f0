"""PaddleNLP and Hugging Face encoders as starting points."""
