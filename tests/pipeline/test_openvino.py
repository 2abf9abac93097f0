"""Bundles of format openvino: the same model's bundle of format paddle is the oracle."""

import json
import subprocess
import sys
import threading

import numpy as np
import pytest
from conftest import FORMATS, make_bert
from paddle.base.proto.framework_pb2 import ProgramDesc

import dynabert_paddle as db
from dynabert_paddle.backbone.loading import find_backbone
from dynabert_paddle.bundle.engines import open_engine
from dynabert_paddle.bundle.manifest import BundleError, read_bundle
from dynabert_paddle.bundle.openvino import configure_openvino
from dynabert_paddle.bundle.timing import make_batch
from dynabert_paddle.serving.bench import bench

TEXTS = ["play some jazz", "", "book a table for two in the evening, please, and then " * 20]
NAMES = ("w1.00d1.00", "w0.50d0.50")

pytestmark = [
    pytest.mark.full,
    pytest.mark.skipif("openvino" not in FORMATS, reason="this line of Paddle does not export to it"),
]


def save_model(folder, *, seed=0):
    supernet = db.Supernet(make_bert(num_labels=3, seed=seed), db.Tokenizer.from_pretrained(find_backbone("minilm-l6")))
    return supernet.save_pretrained(folder)


@pytest.fixture(scope="module")
def bundles(tmp_path_factory):
    folder = tmp_path_factory.mktemp("openvino")
    model = save_model(folder / "model")
    return {format: db.export(model, folder / format, format=format) for format in ("openvino", "paddle")}


def engine(bundle, **settings):
    return open_engine(bundle, read_bundle(bundle), **settings)


def test_predictions_are_those_of_paddles_operators(bundles):
    found, expected = (db.Predictor(bundles[format])(TEXTS) for format in ("openvino", "paddle"))
    assert [one.label for one in found] == [one.label for one in expected]
    np.testing.assert_allclose([one.score for one in found], [one.score for one in expected], atol=1e-5)


def test_sizes_that_switch(tmp_path):
    bundle = db.export(save_model(tmp_path / "model"), tmp_path / "bundle", format="openvino", subnets=NAMES)
    answer = db.AdaptivePredictor(bundle, num_threads=1)(TEXTS, deadline_ms=60_000)
    assert (len(answer), answer.on_time) == (len(TEXTS), True)


def test_graphs_of_equal_names_keep_their_weights(bundles, tmp_path):
    model = save_model(tmp_path / "model", seed=1)
    others = {format: db.export(model, tmp_path / format, format=format) for format in bundles}
    batch = make_batch(2, 9, 1000)
    expected = [engine(folders["paddle"])(batch) for folders in (bundles, others)]
    assert np.abs(expected[0] - expected[1]).max() > 0.1
    engines = [engine(folders["openvino"]) for _ in range(8) for folders in (bundles, others)]
    for index, run in enumerate(engines):
        np.testing.assert_allclose(run(batch), expected[index % 2], atol=1e-5)


def test_no_two_engines_have_a_graph_of_equal_names(bundles, tmp_path):
    names = []
    for scratch in (tmp_path / "one", tmp_path / "two"):
        scratch.mkdir()
        configure_openvino(bundles["openvino"], {"precision": "fp32"}, scratch, 1)
        program = ProgramDesc.FromString((scratch / "model.pdmodel").read_bytes())
        names.append({variable.name for variable in program.blocks[0].vars})
    assert [len(own) for own in (names[0] - names[1], names[1] - names[0])] == [1, 1]


def test_threads_with_an_engine_each(bundles):
    batches = [make_batch(rows, length, 1000) for rows, length in ((1, 3), (2, 17), (5, 64))]
    expected = [engine(bundles["paddle"])(batch) for batch in batches]
    largest = []

    def work(run, turn):
        for index in range(turn, turn + 30):
            found = run(batches[index % 3])
            largest.append(float(np.abs(found - expected[index % 3]).max()))

    threads = [threading.Thread(target=work, args=(engine(bundles["openvino"]), turn)) for turn in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(largest) == 90
    assert max(largest) < 1e-5


def test_nothing_is_left_on_the_disk(bundles, tmp_path, monkeypatch):
    bundle = bundles["openvino"]
    scratch, here = tmp_path / "scratch", tmp_path / "here"
    for folder in (scratch, here):
        folder.mkdir()
    monkeypatch.chdir(here)
    monkeypatch.setattr("tempfile.tempdir", str(scratch))
    before = {path: path.stat().st_mtime_ns for path in bundle.rglob("*")}
    engine(bundle)(make_batch(1, 5, 1000))
    assert list(scratch.iterdir()) == list(here.iterdir()) == []
    assert {path: path.stat().st_mtime_ns for path in bundle.rglob("*")} == before


def test_the_script_in_a_bundle(bundles):
    command = [sys.executable, bundles["openvino"] / "infer.py", "--json", TEXTS[0]]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (0, "")
    (expected,) = db.Predictor(bundles["paddle"])(TEXTS[:1])
    found = json.loads(done.stdout)
    assert found["label"] == expected.label
    assert found["score"] == pytest.approx(expected.score, abs=1e-5)


@pytest.mark.parametrize(
    ("change", "seen"),
    [
        ({"input_ids": np.array([[101, 30522]])}, "a token has the id 30522, the model has a vocabulary of 30522"),
        ({"input_ids": np.array([[-1, 102]])}, "a token has the id -1, the model has a vocabulary of 30522"),
        (make_batch(1, 129, 1000), "a row has 129 tokens, the model takes at most 128"),
    ],
)
def test_inputs_that_the_model_does_not_take(bundles, change, seen):
    with pytest.raises(BundleError, match=seen):
        engine(bundles["openvino"])(make_batch(1, 2, 1000) | change)


def test_it_runs_on_cpus_alone(bundles):
    with pytest.raises(BundleError, match="device 'gpu:0': format openvino runs on CPUs only: use cpu"):
        engine(bundles["openvino"], device="gpu:0")


def test_bench_runs_it_beside_others(bundles):
    settings = {"batch_sizes": [1], "seq_lengths": [8], "rounds": 1, "num_threads": 1}
    report = bench(list(bundles.values()), vs="onnxruntime", **settings)
    names = [f"{bundle}{other}" for bundle in bundles.values() for other in ("", " (onnxruntime)")]
    assert [row["name"] for row in report["rows"]] == names
    assert all(row["p50_ms"] > 0 and row["peak_memory_mb"] > 10 for row in report["rows"])
