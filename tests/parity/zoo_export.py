"""Run by test_backbones.py in a process of its own: how far each exported model is from its source, in each format.

FLAGS_enable_pir_api=0 python zoo_export.py RESULT.json NAME...        # 1 for a Paddle that writes PIR alone
"""

import json
import sys
from dataclasses import replace
from pathlib import Path
from tempfile import TemporaryDirectory

from dynabert_paddle.runtime.environment import import_paddle

import_paddle()

import numpy as np  # noqa: E402 - Paddle's environment comes first
from zoo import VOCAB, build, heterogeneous  # noqa: E402

import dynabert_paddle as db  # noqa: E402
from dynabert_paddle.bundle.engines import open_engine  # noqa: E402
from dynabert_paddle.bundle.openvino import has_openvino  # noqa: E402
from dynabert_paddle.exporting.check import random_batches, source_logits  # noqa: E402
from dynabert_paddle.exporting.formats import paddle_format  # noqa: E402
from dynabert_paddle.exporting.inference import save_graph  # noqa: E402
from dynabert_paddle.supernet.elastic_embedding import make_embedding_elastic  # noqa: E402

BATCHES = random_batches(VOCAB, 24)
DESCRIPTION = {"precision": "fp32", "vocab_size": VOCAB, "max_positions": 24}
# The graph of format openvino is that of format paddle.
FORMATS = ("paddle", "openvino") if paddle_format() == "paddle" and has_openvino() else (paddle_format(),)
differences = {}
for name in sys.argv[2:]:
    with TemporaryDirectory() as folder:
        supernet = db.Supernet(build(name, folder))
        size = supernet.search_space().embedding_size
        make_embedding_elastic(supernet.model, np.linalg.qr(np.random.default_rng(0).normal(size=(size, size)))[0])
        small = db.extract(supernet, replace(heterogeneous(supernet.full), embedding_rank=9))
        expected = source_logits(small, BATCHES)
        save_graph(small, Path(folder))
        for format in FORMATS:
            engine = open_engine(Path(folder), {**DESCRIPTION, "format": format})
            found = [engine(batch) for batch in BATCHES]
            assert [a.shape for a in found] == [b.shape for b in expected], name
            largest = max(float(np.abs(a - b).max()) for a, b in zip(expected, found, strict=True))
            differences[f"{name} {format}"] = largest
Path(sys.argv[1]).write_text(json.dumps(differences))
