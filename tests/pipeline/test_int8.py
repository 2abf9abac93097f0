"""int8 on real models and real data: what accuracy it costs, and that the batch does not change what it computes."""

import json
from pathlib import Path

import numpy as np
import pytest

import dynabert_paddle as db

pytestmark = pytest.mark.full

SST2 = Path(__file__).parents[3] / "shared" / "data" / "glue" / "SST-2"
EXPORTS = [("paddle", "int8"), ("openvino", "int8"), ("onnx", "int8"), ("lite", "int8")]


@pytest.fixture(scope="module")
def snips(tmp_path_factory):
    folder = tmp_path_factory.mktemp("snips") / "model"
    db.finetune(
        "minilm-l6",
        db.load_task("snips"),
        config=db.FinetuneConfig(max_steps=70, learning_rate=1e-4),
        output_dir=folder,
    )
    return folder


@pytest.fixture(scope="module")
def sst2(tmp_path_factory):
    if not SST2.is_dir():
        pytest.skip("SST-2 is not here")
    folder = tmp_path_factory.mktemp("sst2") / "model"
    task = db.load_task("custom", data_dir=SST2)
    db.finetune("minilm-l6", task, config=db.FinetuneConfig(max_steps=200, learning_rate=1e-4), output_dir=folder)
    return folder


@pytest.mark.parametrize("data", ["snips", "sst2"])
@pytest.mark.parametrize(("format", "precision"), EXPORTS)
def test_int8_loses_at_most_half_a_point(data, format, precision, request, tmp_path):
    if format == "lite":
        request.getfixturevalue("converter")
    bundle = db.export(request.getfixturevalue(data), tmp_path / "bundle", format=format, precision=precision)
    checked = json.loads((bundle / "bundle.json").read_text())["verification"]
    print(data, format, checked)
    assert checked["source"] - checked["exported"] <= 0.005
    assert checked["source"] > {"snips": 0.95, "sst2": 0.8}[data]
    weights = sum(path.stat().st_size for path in bundle.glob("model*") if path.name != "model_arm.nb")
    # Lite leaves the embeddings in float32, and they are half of this model.
    assert weights < {"paddle": 0.3, "openvino": 0.3, "onnx": 0.3, "lite": 0.7}[format] * 91e6


@pytest.mark.parametrize("format", ["paddle", "openvino"])
def test_int8_does_not_depend_on_the_batch(snips, tmp_path, format):
    """Paddle's int8 products of activations compute garbage once the shape changes: none may be left in the graph."""
    predictor = db.Predictor(db.export(snips, tmp_path / "bundle", format=format, precision="int8"))
    texts = db.load_task("snips").dev.texts[:100]
    alone = [predictor([text])[0].score for text in texts]
    for batch_size in (7, 32, 100, 7):
        together = [prediction.score for prediction in predictor(texts, batch_size=batch_size)]
        assert np.abs(np.subtract(alone, together)).max() < 1e-5
