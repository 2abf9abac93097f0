"""Bundles of several sub-networks: what they hold, how they run by themselves, and under calls from many threads."""

import json
import math
import re
import shutil
import subprocess
import sys
import tempfile
from collections import Counter
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
from bundles import SNIPS_LABELS, WITHOUT_PACKAGE, make_bundle, make_model
from commands import run_command, run_script
from conftest import ROOT, SNIPS
from test_bundle_bad_input import seal

import dynabert_paddle as db
from dynabert_paddle.bundle.manifest import read_bundle
from dynabert_paddle.bundle.members import unpack
from dynabert_paddle.errors import DynabertError, UsageError
from dynabert_paddle.serving.queue import BatchQueue

pytestmark = pytest.mark.full

NAMES = ["w1.00d1.00", "w0.50d1.00", "w0.25d0.50"]
TEXTS = [line.split("\t")[0] for line in (SNIPS / "dev.tsv").read_text(encoding="utf-8").splitlines()[1:121]]


@pytest.fixture(scope="module")
def model(make_once):
    return make_model(make_once, "snips")


@pytest.fixture(scope="module")
def bundle(model, tmp_path_factory):
    # This model's random weights are large, and so are its logits.
    folder = tmp_path_factory.mktemp("bundles") / "several"
    return db.export(model, folder, subnets=" ".join(NAMES), tolerance=1e-4)


@pytest.fixture(scope="module")
def single(model, tmp_path_factory):
    """A bundle of the second one alone."""
    return db.export(model, tmp_path_factory.mktemp("bundles") / "single", subnet=NAMES[1], tolerance=1e-4)


@pytest.fixture(scope="module")
def adaptive(bundle):
    return db.AdaptivePredictor(bundle)


@pytest.fixture(scope="module")
def alone(bundle):
    """What each sub-network by itself says of the texts."""
    return {name: db.Predictor(bundle, subnet=name)(TEXTS) for name in NAMES}


def assert_same(found, expected):
    """Padding and batches leave a difference of rounding."""
    assert [one.label for one in found] == [one.label for one in expected]
    scores = ([list(one.scores.values()) for one in predictions] for predictions in (found, expected))
    np.testing.assert_allclose(*scores, atol=1e-5)


def test_members_are_ranked_and_checked(bundle):
    description = read_bundle(bundle)
    members = description["members"]
    assert sorted(member["subnet"] for member in members) == sorted(NAMES)
    order = [(member["score"], member["macs"]) for member in members]
    assert order == sorted(order, reverse=True)
    assert description["ranked_by"] == {"metric": "accuracy", "split": "dev", "num_examples": 700}
    differences = [member["verification"]["max_abs_diff"] for member in members]
    assert description["verification"]["max_abs_diff"] == max(differences) <= 1e-4
    assert {"model.npz", "model.1.pdmodel", "model.2.pdmodel", "model.3.pdmodel"} < set(description["files"])


def test_a_member_has_the_same_bytes_as_its_own_bundle(bundle, single, tmp_path):
    unpack(bundle, read_bundle(bundle), NAMES[1], tmp_path)
    assert (tmp_path / "model.pdiparams").read_bytes() == (single / "model.pdiparams").read_bytes()
    assert sorted(path.name for path in tmp_path.iterdir()) == ["model.pdiparams", "model.pdmodel"]


def test_shared_weights_are_stored_once(bundle, tmp_path):
    unpack(bundle, read_bundle(bundle), NAMES[0], tmp_path)
    of_all = (tmp_path / "model.pdiparams").stat().st_size
    assert (bundle / "model.npz").stat().st_size < 1.02 * of_all


def test_a_predictor_runs_the_best_member_or_the_one_that_is_named(bundle, single, alone):
    best = read_bundle(bundle)["members"][0]["subnet"]
    assert_same(db.Predictor(bundle)(TEXTS), alone[best])
    assert_same(db.Predictor(single)(TEXTS), alone[NAMES[1]])
    assert [one.score for one in alone[NAMES[0]]] != [one.score for one in alone[NAMES[2]]]


def test_nothing_temporary_is_left(bundle, tmp_path, monkeypatch):
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    db.Predictor(bundle, subnet=NAMES[2])
    assert not list(tmp_path.iterdir())
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path / "none"))
    with pytest.raises(DynabertError, match="no temporary folder: .*: make room, or set TMPDIR"):
        db.Predictor(bundle)


def test_other_verbs_run_such_a_bundle(capsys, bundle, tmp_path, alone):
    (tmp_path / "texts.txt").write_text("\n".join(TEXTS[:3]) + "\n", encoding="utf-8")
    done = run_command(capsys, "predict", bundle, "-i", tmp_path / "texts.txt", "--subnet", NAMES[2], "--json")
    assert [json.loads(line)["label"] for line in done.out.splitlines()] == [one.label for one in alone[NAMES[2]][:3]]
    done = run_command(capsys, "predict", bundle, "-i", tmp_path / "texts.txt", "--subnet", "w0.25d0.5")
    assert done.code == 1
    assert done.err.startswith(f"error: {bundle}: has no sub-network 'w0.25d0.5', only ")
    assert done.err.endswith(" Did you mean 'w0.25d0.50'?\n")
    sizes = ("--batch_size", 1, "--seq_length", 8, "--rounds", 1)
    rows = json.loads(run_command(capsys, "bench", bundle, *sizes, "--json").out)["rows"]
    assert [row["name"] for row in rows] == [f"{bundle} ({one['subnet']})" for one in read_bundle(bundle)["members"]]
    assert rows[0]["size_mb"] > 1


def test_its_script_needs_nothing_else(bundle, alone):
    command = [sys.executable, "-c", WITHOUT_PACKAGE, bundle / "infer.py", "--subnet", NAMES[1], "--json", TEXTS[0]]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)["label"] == alone[NAMES[1]][0].label


@pytest.mark.parametrize(
    ("format", "precision", "tolerance"), [("pir", "fp32", 1e-4), ("openvino", "fp32", 1e-4), ("paddle", "bf16", 0.05)]
)
def test_other_formats_share_weights_too(model, alone, tmp_path, format, precision, tolerance):
    kind = {"format": format, "precision": precision, "tolerance": tolerance}
    made = db.export(model, tmp_path / "bundle", subnets=NAMES[1:], **kind)
    found = db.Predictor(made, subnet=NAMES[2])(TEXTS)
    scores = ([one.score for one in predictions] for predictions in (found, alone[NAMES[2]]))
    np.testing.assert_allclose(*scores, atol=tolerance)


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        ({"format": "onnx"}, "formats paddle, pir, openvino in fp32 or bf16, not onnx in fp32"),
        ({"precision": "int8"}, "formats paddle, pir, openvino in fp32 or bf16, not paddle in int8"),
        ({"subnet": "w0.50d0.50"}, "give one of them"),
    ],
)
def test_an_impossible_export_is_refused(model, tmp_path, settings, said):
    with pytest.raises(UsageError, match=said):
        db.export(model, tmp_path / "bundle", **{"subnets": NAMES, **settings})
    assert not list(tmp_path.iterdir())


def test_without_a_search_pareto_names_the_search_command(capsys, model, tmp_path):
    done = run_command(capsys, "export", model, "--subnets", "pareto:2", "--output_dir", tmp_path / "bundle")
    assert done.code == 1
    assert f"run 'dynabert search {model}' first" in done.err
    with pytest.raises(UsageError, match="pareto:N reads the search result in a model folder"):
        db.export(db.load_model(model), tmp_path / "bundle", subnets="pareto:2")


def test_a_damaged_file_of_weights_is_named(bundle, tmp_path):
    damaged = shutil.copytree(bundle, tmp_path / "bundle")
    (damaged / "model.npz").write_bytes((damaged / "model.npz").read_bytes()[:-9])
    with pytest.raises(DynabertError, match=r"model.npz: truncated or altered since the export"):
        db.AdaptivePredictor(damaged)


def compress(path):
    """Zeros without end fit into a small file so."""
    with np.load(path) as weights:
        np.savez_compressed(path, *weights.values())


def drop_one_weight(path):
    with np.load(path) as weights:
        np.savez(path, *list(weights.values())[:-1])


def write_nonsense(path):
    path.write_bytes(b"PK\x03\x04" * 20)


@pytest.mark.parametrize("damage", [compress, drop_one_weight, write_nonsense])
def test_a_forged_file_of_weights_is_refused(bundle, tmp_path, damage):
    damaged = shutil.copytree(bundle, tmp_path / "bundle")
    damage(damaged / "model.npz")
    seal(damaged)
    with pytest.raises(DynabertError) as caught:
        db.Predictor(damaged)
    assert str(caught.value) == f"{damaged / 'model.npz'}: damaged: copy the bundle again, or export it again"


def test_a_weight_of_a_wrong_shape_is_one_line(bundle, tmp_path):
    damaged = shutil.copytree(bundle, tmp_path / "bundle")

    def cut(content):
        for member in content["members"]:
            member["parameters"] = [[index, [1 for _ in shape]] for index, shape in member["parameters"]]
        return content

    seal(damaged, cut)
    with pytest.raises(DynabertError, match=r"bundle: Paddle .* cannot (run|load) it: ") as caught:
        db.Predictor(damaged)(TEXTS[:1])
    assert "\n" not in str(caught.value)


def test_calls_from_many_threads_use_the_sub_network_that_they_name(adaptive, alone):
    """Some call for one text and some for many, half of them in no hurry."""
    rng = np.random.default_rng(0)
    calls = [rng.integers(len(TEXTS), size=rng.choice([1, 1, 1, 5, 40])).tolist() for _ in range(200)]
    deadlines = [math.inf] * 100 + rng.choice([0.1, 20, 300], 100).tolist()
    with ThreadPoolExecutor(16) as pool:
        texts = [[TEXTS[row] for row in rows] for rows in calls]
        found = list(pool.map(lambda rows, ms: adaptive(rows, deadline_ms=ms), texts, deadlines))
    for rows, predictions, deadline_ms in zip(calls, found, deadlines, strict=True):
        assert_same(predictions, [alone[predictions.subnet][row] for row in rows])
        assert predictions.on_time == (predictions.latency_ms <= deadline_ms)
    used = {predictions.subnet for predictions in found}
    assert len(used) > 1, "0.1 ms is for the cheapest, and all the time in the world for the best"


def test_without_a_deadline_the_best_is_used_and_with_an_impossible_one_the_cheapest(adaptive):
    names = list(adaptive.latencies_ms)
    assert adaptive(TEXTS[0]).subnet == names[0]
    late = adaptive("play music", deadline_ms=1e-6)  # as short as the texts of latencies_ms
    assert not late.on_time
    assert late.subnet == min(adaptive.latencies_ms, key=adaptive.latencies_ms.get)
    assert len(late) == 1


def test_no_texts_have_no_predictions(adaptive):
    assert adaptive([]) == []
    assert adaptive([], deadline_ms=5).on_time


@pytest.mark.parametrize("deadline_ms", [0, -1, math.nan, -math.inf, "15", None, True])
def test_a_deadline_must_be_a_positive_number(adaptive, deadline_ms):
    with pytest.raises(UsageError, match="deadline_ms must be a number of milliseconds above 0, not"):
        adaptive(TEXTS[0], deadline_ms=deadline_ms)


def test_an_input_that_is_not_a_text_is_refused_and_the_next_call_succeeds(adaptive):
    for texts, pairs, said in (([1], None, "row 1 is"), (7, None, "texts are a list"), (["a"], ["b"], "single texts")):
        with pytest.raises(DynabertError, match=said):
            adaptive(texts, pairs, deadline_ms=50)
    assert adaptive.labels == SNIPS_LABELS
    assert len(adaptive(TEXTS[:2], deadline_ms=50)) == 2


def test_a_failure_in_the_model_reaches_every_caller(adaptive, monkeypatch):
    def fail(*_, **__):
        raise db.DynabertError("not finite")

    monkeypatch.setattr(adaptive._bundle, "run", fail)
    with ThreadPoolExecutor(4) as pool:
        calls = [pool.submit(adaptive, TEXTS[0]) for _ in range(8)]
        assert {str(call.exception(timeout=60)) for call in calls} == {"not finite"}


def test_a_failure_in_the_schedule_reaches_the_caller_and_the_next_call_succeeds(adaptive, monkeypatch):
    with monkeypatch.context() as patch:
        patch.setattr("dynabert_paddle.serving.queue.choose", lambda *_, **__: 1 / 0)
        with ThreadPoolExecutor(4) as pool:
            calls = [pool.submit(adaptive, TEXTS[0]) for _ in range(8)]
            assert {type(call.exception(timeout=60)) for call in calls} == {ZeroDivisionError}
    assert len(adaptive(TEXTS[:2])) == 2


def test_an_interrupted_call_does_not_block_others(adaptive, monkeypatch):
    def interrupt(*_):
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(adaptive._bundle, "submit", interrupt)
        with pytest.raises(KeyboardInterrupt):
            adaptive(TEXTS)
    with ThreadPoolExecutor(1) as pool:
        call = pool.submit(adaptive, TEXTS[0])
        try:
            assert len(call.result(timeout=30)) == 1
        finally:
            adaptive._queue._serve()  # a call that still waits would keep pytest from ending


AFTER_MAIN = """
import os, sys, threading, time
import dynabert_paddle as db

predictor = db.AdaptivePredictor(sys.argv[1])

def call():
    try:
        predictor("hello")
    except db.DynabertError as error:
        print(error, flush=True)

if os.fork() == 0:
    call()
    os._exit(0)
os.wait()
threading.Thread(target=lambda: [threading.main_thread().join(), call()]).start()
"""


def test_calls_after_a_fork_or_at_exit_are_refused_in_one_line(bundle):
    command = [sys.executable, "-c", AFTER_MAIN, bundle]
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=120)
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines() == [
        "an AdaptivePredictor cannot be used after a fork: create one in each process",
        "Python is about to exit: let the main thread wait for those that predict",
    ]


def test_calibration_at_load_alternates_between_the_sub_networks(bundle, monkeypatch):
    order, run = [], BatchQueue._run

    def note(self, subnet, windows):
        order.append(subnet)
        return run(self, subnet, windows)

    monkeypatch.setattr(BatchQueue, "_run", note)
    db.AdaptivePredictor(bundle)
    half = len(order) // 2
    assert Counter(order[:half]) == Counter(order[half:])


def test_a_bundle_of_one_sub_network_always_uses_it(single, alone):
    predictor = db.AdaptivePredictor(single)
    found = predictor(TEXTS[:20], deadline_ms=1e-6)
    assert list(predictor.latencies_ms) == [found.subnet] == [NAMES[1]]
    assert_same(found, alone[NAMES[1]][:20])


def test_the_load_test_loses_nothing(bundle, tmp_path):
    lines = (SNIPS / "dev.tsv").read_text(encoding="utf-8").splitlines()[:60]
    data = tmp_path / "rows.tsv"
    data.write_text("\n".join(lines) + "\n", encoding="utf-8")
    words = (bundle, "--data", data, "--seconds", "1", "--load", "2", "--deadline_ms", "200")
    command = [sys.executable, ROOT / "scripts/load_test.py", *words]
    done = subprocess.run(list(map(str, command)), capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert ", lost 0\n" in done.stdout
    assert "answers that differ from the prediction of the same sub-network alone: 0" in done.stdout
    assert re.search(r"^accuracy 0\.\d{4} of the answers, ", done.stdout, re.MULTILINE)


PAIRS = "sentence\tanswer\tlabel\nDo you know it?\tNo.\t不\nIs it late?\tYes.\t是\n"


@pytest.mark.parametrize(
    ("kind", "name", "content", "accuracy"),
    [
        ("plain", "texts.txt", "play some jazz\nstop it\n", False),
        ("values", "rows.tsv", "sentence\tlabel\nplay some jazz\t0.5\n", False),
        ("pairs", "rows.tsv", PAIRS, True),
        ("tabs", "rows.csv", 'body,label\nplay,"a\tttab"\nstop,"a\ttab"\n', True),
    ],
)
def test_the_load_test_takes_texts_of_any_task(make_once, tmp_path, capsys, kind, name, content, accuracy):
    (tmp_path / name).write_text(content, encoding="utf-8")
    words = (make_bundle(make_once, kind), "--data", tmp_path / name, "--seconds", 1)
    done = run_script(capsys, "load_test.py", *words)
    assert done.code == 0, done.err
    assert ", lost 0\n" in done.out
    assert ("accuracy" in done.out) == accuracy


@pytest.mark.parametrize(
    ("kind", "words", "seen"),
    [
        (
            "pairs",
            (),
            "the bundle is of task 'custom', whose data is not built in: name a file of its texts with --data",
        ),
        (
            "tabs",
            ("--data", SNIPS / "dev.tsv"),
            "its labels, such as 'BookRestaurant', are none of the bundle's",
        ),
        ("plain", ("--data", SNIPS / "dev.tsv", "--label_column", "intent"), "has no column 'intent'; its columns are"),
    ],
)
def test_the_load_test_refuses_texts_of_another_task(make_once, capsys, kind, words, seen):
    done = run_script(capsys, "load_test.py", make_bundle(make_once, kind), *words)
    assert (done.code, done.out) == (2, "")
    assert seen in done.err and done.err.count("\n") == 1
