"""Run by test_forms.py in a process of its own: how far every form of a sub-network is from its slice of the supernet.

FLAGS_enable_pir_api=0 python forms.py NUM_RANDOM LITE_STEP RESULT.json
"""

import json
import sys
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np

sys.path.insert(0, str(Path(__file__).parents[1]))

from conftest import make_bert

import dynabert_paddle as db
from dynabert_paddle.backbone.loading import find_backbone
from dynabert_paddle.bundle.engines import open_engine
from dynabert_paddle.exporting import lite_converter
from dynabert_paddle.exporting.check import random_batches, source_logits
from dynabert_paddle.exporting.inference import save_graph
from dynabert_paddle.exporting.onnx import to_onnx
from dynabert_paddle.exporting.program import matmul_to_mul, rewrite
from dynabert_paddle.supernet.supernet import to_tensors

NUM_RANDOM, LITE_STEP, RESULT = int(sys.argv[1]), int(sys.argv[2]), Path(sys.argv[3])
LENGTH = 24


def random_subnet(full, rng):
    layers = np.sort(rng.choice(len(full.layers), rng.integers(1, len(full.layers) + 1), replace=False)).tolist()
    heads = [int(rng.integers(1, full.heads[layer] + 1)) for layer in layers]
    neurons = [int(rng.integers(1, full.neurons[layer] + 1)) for layer in layers]
    return db.Subnet(tuple(layers), tuple(heads), tuple(neurons))


def run_engine(folder, format):
    engine = open_engine(folder, {"format": format, "precision": "fp32"})
    return [engine(batch) for batch in BATCHES]


def run_lite(folder, python):
    rewrite(folder / "model.pdmodel", matmul_to_mul)
    lite_converter.convert(folder, folder / "model_x86.nb", target="x86", precision="fp32", python=python)
    return lite_converter.run_x86(folder / "model_x86.nb", BATCHES, python=python)


def forms(small, folder, *, with_lite):
    """Every form of an extracted model, and its logits."""
    graph = folder / "graph"
    graph.mkdir()
    save_graph(small, graph)
    if (graph / "model.json").exists():
        yield "pir", run_engine(graph, "pir")
        return
    yield "extracted", source_logits(small, BATCHES)
    small.save_pretrained(folder / "model")
    yield "reloaded", source_logits(db.load_model(folder / "model"), BATCHES)
    yield "paddle", run_engine(graph, "paddle")
    to_onnx(graph, graph / "model.onnx")
    yield "onnx", run_engine(graph, "onnx")
    if with_lite:
        yield "lite", run_lite(graph, lite_converter.find_converter())


supernet = db.Supernet(make_bert(num_labels=5), db.Tokenizer.from_pretrained(find_backbone("minilm-l6")))
BATCHES = random_batches(supernet.model.config.vocab_size, LENGTH)
supernet.eval()
rng = np.random.default_rng(0)
subnets = supernet.search_space().grid()
subnets |= {str(subnet): subnet for subnet in (random_subnet(supernet.full, rng) for _ in range(NUM_RANDOM))}
differences = {}
for number, (name, subnet) in enumerate(subnets.items()):
    expected = [supernet(subnet, **to_tensors(batch)).logits.numpy() for batch in BATCHES]
    with TemporaryDirectory() as folder:
        differences[name] = {
            form: max(float(np.abs(a - b).max()) for a, b in zip(expected, found, strict=True))
            for form, found in forms(db.extract(supernet, subnet), Path(folder), with_lite=number % LITE_STEP == 0)
        }
RESULT.write_text(json.dumps(differences))
