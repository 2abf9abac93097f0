"""Run by scripts/test_matrix.sh on every line of Paddle: a model, its logits, and bundles of it, for the other lines.

python make.py FOLDER
"""

import sys
from pathlib import Path

import numpy as np

sys.path.insert(0, str(Path(__file__).parents[1]))

from conftest import FORMATS, make_bert

import dynabert_paddle as db
from dynabert_paddle.backbone.loading import find_backbone
from dynabert_paddle.exporting.check import random_batches, source_logits

folder = Path(sys.argv[1])
supernet = db.Supernet(make_bert(), db.Tokenizer.from_pretrained(find_backbone("minilm-l6")))
small = db.extract(supernet, db.Subnet.parse("l0h3f40-l2h1f16-l3h4f48"))
small.save_pretrained(folder / "model")
np.savez(folder / "logits.npz", *source_logits(small, random_batches(30522, 16)))
for name in FORMATS:
    if name != "lite":  # its runtime is not Paddle
        db.export(folder / "model", folder / "bundles" / name, format=name)
