#!/usr/bin/env python
"""Used by embedding.py: what sentence-transformers computes for texts. Runs under a Python that has it.

embedding_reference.py MODEL_DIR TEXTS.json VECTORS.npy POOLING NORMALIZE PROMPT MAX_SEQ_LENGTH
"""

import json
import sys
from pathlib import Path

import numpy as np
from sentence_transformers import SentenceTransformer, models


def main(model_dir, texts, vectors, pooling, normalize, prompt, max_seq_length):
    """Write the vectors of a file's texts; a folder without `modules.json` gets pooling and normalisation as given."""
    if (Path(model_dir) / "modules.json").is_file():
        encoder = SentenceTransformer(model_dir, device="cpu")
    else:
        transformer = models.Transformer(model_dir)
        parts = [transformer, models.Pooling(transformer.get_embedding_dimension(), pooling_mode=pooling)]
        if normalize == "true":
            parts.append(models.Normalize())
        encoder = SentenceTransformer(modules=parts, device="cpu")
    encoder = encoder.float()  # recent versions compute in float16 if a folder's weights are stored so
    encoder.max_seq_length = int(max_seq_length)
    found = encoder.encode(json.loads(Path(texts).read_text()), prompt=prompt or None, convert_to_numpy=True)
    np.save(vectors, found.astype(np.float32))


if __name__ == "__main__":
    main(*sys.argv[1:])
