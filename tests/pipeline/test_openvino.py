"""Bundles on OpenVINO, which a Paddle wheel brings or not: the same bundle on Paddle's own operators is the oracle."""

import json
import os
import subprocess
import sys
import threading

import numpy as np
import pytest
from conftest import FORMATS, make_bert
from paddle.base.proto.framework_pb2 import ProgramDesc

import dynabert_paddle as db
from dynabert_paddle.backbone import find_backbone
from dynabert_paddle.deploy.bench import bench, make_batch
from dynabert_paddle.deploy.bundle_files import BundleError
from dynabert_paddle.deploy.engines import open_engine
from dynabert_paddle.deploy.openvino import OPENVINO, configure_openvino, has_openvino
from dynabert_paddle.errors import DynabertError

TEXTS = ["play some jazz", "", "book a table for two in the evening, please, and then " * 20]
NAMES = ("w1.00d1.00", "w0.50d0.50")

needs_openvino = pytest.mark.skipif(
    FORMATS[0] != "paddle" or not has_openvino(), reason="this Paddle brings no OpenVINO, or writes PIR alone"
)


def save_model(folder, *, seed=0):
    supernet = db.Supernet(make_bert(num_labels=3, seed=seed), db.Tokenizer.from_pretrained(find_backbone("minilm-l6")))
    return supernet.save_pretrained(folder)


@pytest.fixture(scope="module")
def bundle(tmp_path_factory):
    folder = tmp_path_factory.mktemp("openvino")
    return db.export(save_model(folder / "model"), folder / "bundle")


@pytest.fixture(scope="module")
def adaptive(tmp_path_factory):
    folder = tmp_path_factory.mktemp("openvino")
    return db.export(save_model(folder / "model"), folder / "bundle", subnets=" ".join(NAMES))


def engine(bundle, device=OPENVINO):
    return open_engine(bundle, json.loads((bundle / "bundle.json").read_text()), device=device)


def assert_same(found, expected):
    assert [one.label for one in found] == [one.label for one in expected]
    np.testing.assert_allclose([one.score for one in found], [one.score for one in expected], atol=1e-5)


@needs_openvino
def test_predictions_are_those_of_paddles_operators(bundle):
    found, expected = (db.Predictor(bundle, device=device)(TEXTS) for device in (OPENVINO, "cpu"))
    assert_same(found, expected)


@needs_openvino
def test_sub_networks_of_one_bundle(adaptive):
    for name in NAMES:
        found, expected = (db.Predictor(adaptive, subnet=name, device=device)(TEXTS) for device in (OPENVINO, "cpu"))
        assert_same(found, expected)
    assert len(db.AdaptivePredictor(adaptive, device=OPENVINO, num_threads=1)(TEXTS)) == len(TEXTS)


@needs_openvino
def test_graphs_of_equal_names_keep_their_weights(bundle, tmp_path):
    other = db.export(save_model(tmp_path / "model", seed=1), tmp_path / "bundle")
    batch = make_batch(2, 9, 1000)
    expected = [engine(folder, "cpu")(batch) for folder in (bundle, other)]
    assert np.abs(expected[0] - expected[1]).max() > 0.1
    engines = [engine(folder) for _ in range(8) for folder in (bundle, other)]
    for index, run in enumerate(engines):
        np.testing.assert_allclose(run(batch), expected[index % 2], atol=1e-5)


@needs_openvino
def test_no_two_engines_have_a_graph_of_equal_names(bundle, tmp_path):
    names = []
    for scratch in (tmp_path / "one", tmp_path / "two"):
        scratch.mkdir()
        configure_openvino(bundle, json.loads((bundle / "bundle.json").read_text()), scratch, 1)
        program = ProgramDesc.FromString((scratch / "model.pdmodel").read_bytes())
        names.append({variable.name for variable in program.blocks[0].vars})
    assert [len(own) for own in (names[0] - names[1], names[1] - names[0])] == [1, 1]


@needs_openvino
def test_threads_with_an_engine_each(bundle):
    batches = [make_batch(rows, length, 1000) for rows, length in ((1, 3), (2, 17), (5, 64))]
    expected = [engine(bundle, "cpu")(batch) for batch in batches]
    largest = []

    def work(run, turn):
        for index in range(turn, turn + 30):
            found = run(batches[index % 3])
            largest.append(float(np.abs(found - expected[index % 3]).max()))

    threads = [threading.Thread(target=work, args=(engine(bundle), turn)) for turn in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(largest) == 90
    assert max(largest) < 1e-5


@needs_openvino
def test_nothing_is_left_on_the_disk(bundle, tmp_path, monkeypatch):
    scratch, here = tmp_path / "scratch", tmp_path / "here"
    for folder in (scratch, here):
        folder.mkdir()
    monkeypatch.chdir(here)
    monkeypatch.setattr("tempfile.tempdir", str(scratch))
    before = {path: path.stat().st_mtime_ns for path in bundle.rglob("*")}
    engine(bundle)(make_batch(1, 5, 1000))
    assert list(scratch.iterdir()) == list(here.iterdir()) == []
    assert {path: path.stat().st_mtime_ns for path in bundle.rglob("*")} == before


@needs_openvino
def test_the_script_in_a_bundle(bundle):
    command = [sys.executable, bundle / "infer.py", "--device", OPENVINO, "--json", TEXTS[0]]
    done = subprocess.run(command, capture_output=True, text=True, env=os.environ, check=False)
    assert done.returncode == 0, done.stderr
    (expected,) = db.Predictor(bundle)(TEXTS[:1])
    found = json.loads(done.stdout)
    assert found["label"] == expected.label
    assert found["score"] == pytest.approx(expected.score, abs=1e-5)
    assert done.stderr == ""


@needs_openvino
@pytest.mark.parametrize(
    ("change", "seen"),
    [
        ({"input_ids": np.array([[101, 30522]])}, "a token has the id 30522, the model has a vocabulary of 30522"),
        ({"input_ids": np.array([[-1, 102]])}, "a token has the id -1, the model has a vocabulary of 30522"),
        (make_batch(1, 129, 1000), "a row has 129 tokens, the model takes at most 128"),
    ],
)
def test_inputs_that_the_model_does_not_take(bundle, change, seen):
    with pytest.raises(BundleError, match=seen):
        engine(bundle)(make_batch(1, 2, 1000) | change)


@needs_openvino
def test_bench_runs_it_beside_paddles_operators(bundle):
    report = bench([bundle], batch_sizes=[1], seq_lengths=[8], vs="openvino", rounds=1, num_threads=1)
    assert [row["name"] for row in report["rows"]] == [str(bundle), f"{bundle} (openvino)"]
    assert all(row["p50_ms"] > 0 and row["peak_memory_mb"] > 10 for row in report["rows"])


@pytest.mark.parametrize(
    ("format", "precision"), [("paddle", "int8"), ("pir", "fp32"), ("onnx", "fp32"), ("lite", "fp32")]
)
def test_what_openvino_does_not_run_is_named(tmp_path, format, precision):
    words = f"device 'cpu:openvino' runs format paddle in fp32 or bf16, not {format} in {precision}: use cpu"
    with pytest.raises(BundleError, match=words):
        open_engine(tmp_path, {"format": format, "precision": precision}, device=OPENVINO)


@pytest.mark.skipif(has_openvino() or FORMATS[0] != "paddle", reason="this Paddle brings OpenVINO, or writes PIR alone")
def test_a_paddle_without_openvino_says_so(bundle):
    with pytest.raises(DynabertError, match=r"device 'cpu:openvino': Paddle \S+ as installed has no OpenVINO: use cpu"):
        db.Predictor(bundle, device=OPENVINO)
