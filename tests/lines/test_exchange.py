"""What one line of Paddle has written on the others; scripts/test_matrix.sh has each write it, and names the folder."""

from pathlib import Path

import numpy as np
import pytest
from conftest import FORMATS

import dynabert_paddle as db
from dynabert_paddle.bundle.engines import open_engine
from dynabert_paddle.bundle.manifest import read_bundle
from dynabert_paddle.bundle.openvino import has_openvino
from dynabert_paddle.exporting.check import random_batches, source_logits

BATCHES = random_batches(30522, 16)


def pytest_generate_tests(metafunc):
    folder = metafunc.config.getoption("--lines_dir")
    made = sorted(Path(folder).iterdir()) if folder else []
    metafunc.parametrize("made", made, ids=[path.name for path in made])


def difference(made, logits):
    with np.load(made / "logits.npz") as expected:
        pairs = zip(expected.values(), logits, strict=True)
        return max(float(np.abs(a - b).max()) for a, b in pairs)


def test_a_model_folder_of_any_line_computes_what_it_did_there(made):
    assert difference(made, source_logits(db.load_model(made / "model"), BATCHES)) <= 1e-5


def test_a_bundle_of_any_line_runs_here_or_is_refused_with_the_remedy(made):
    for bundle in sorted((made / "bundles").iterdir()):
        if bundle.name == "pir" and "pir" not in FORMATS:
            with pytest.raises(db.DynabertError, match=r"format pir needs Paddle 3, this is 2\.6"):
                db.Predictor(bundle)
            continue
        if bundle.name == "openvino" and not has_openvino():
            with pytest.raises(db.DynabertError, match="format openvino needs the OpenVINO that paddlepaddle 3 brings"):
                db.Predictor(bundle)
            continue
        engine = open_engine(bundle, read_bundle(bundle))
        assert difference(made, [engine(batch) for batch in BATCHES]) <= (1e-4 if bundle.name == "onnx" else 1e-5)
        assert db.Predictor(bundle)("play some jazz")
