"""Documents in windows through all stages, the exports, and every runtime in use."""

import json
import os
import subprocess
import sys
from dataclasses import asdict

import numpy as np
import pytest
from bundles import WITHOUT_PACKAGE
from commands import run_command
from conftest import make_bert
from servers import Server

import dynabert_paddle as db
from dynabert_paddle.backbone.loading import find_backbone
from dynabert_paddle.bundle import manifest
from dynabert_paddle.config.loading import resolve_config
from dynabert_paddle.files.metadata import read_metadata
from dynabert_paddle.text.decode import softmax
from dynabert_paddle.training.inputs import tokenize_examples
from dynabert_paddle.training.predict import predict_logits

pytestmark = pytest.mark.full

MARKS = {"city": "paris", "person": "maria", "food": "bread"}
OTHERS = ["the", "a", "house", "river", "went", "to", "with", "stone", "from", "over", "never"]
STAGES = ("finetune", "rewire", "width", "depth", "final")
HALF = "w0.50d1.00"


def make_rows(count, *, seed):
    """Pairs whose second text has up to 90 words, with its label's mark behind the first windows."""
    rng = np.random.default_rng(seed)
    for _ in range(count):
        words = [str(word) for word in rng.choice(OTHERS, rng.integers(30, 90))]
        label = str(rng.choice(list(MARKS)))
        for place in rng.permutation(np.arange(20, len(words)))[: len(words) // 5]:
            words[place] = MARKS[label]
        yield {"first": " ".join(rng.choice(OTHERS, rng.integers(1, 4))), "text": " ".join(words), "label": label}


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    """The task's arguments, the folder of a run through all stages, and its rows."""
    folder = tmp_path_factory.mktemp("windows")
    for name, count, seed in (("train", 200, 0), ("dev", 30, 1)):
        rows = make_rows(count, seed=seed)
        (folder / f"{name}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    tokenizer = db.Tokenizer.from_pretrained(find_backbone("minilm-l6"))
    start = db.Supernet(make_bert(num_labels=2, num_layers=2, hidden_size=64), tokenizer)
    columns = {"text_column": "first", "text_pair_column": "text", "label_column": "label"}
    data = {"name": "custom", "data_dir": str(folder), **columns, "long_text": "windows", "doc_stride": 12}
    config = {
        "model_name_or_path": str(start.save_pretrained(folder / "start")),
        "output_dir": str(folder / "out"),
        "device": "cpu",
        "stages": STAGES,
        "task": {**data, "max_seq_length": 32},
        "space": {"width_mult_list": [1.0, 0.5], "depth_mult_list": [1.0, 0.5]},
    }
    for stage, steps, rate in (("finetune", 60, 3e-3), ("width", 15, 1e-3), ("depth", 15, 1e-3), ("final", 3, 2e-4)):
        config[stage] = {"max_steps": steps, "learning_rate": rate, "eval_steps": 1000, "logging_steps": 20}
    return data, folder, db.run(resolve_config(db.Config, config))


@pytest.fixture(scope="module")
def bundle(trained, tmp_path_factory):
    _, folder, _ = trained
    return db.export(folder / "out" / "final", tmp_path_factory.mktemp("bundles") / "b", subnet=HALF)


def dev_logits(folder, data):
    """Those of one sub-network, pooled, and the logits of the windows with the documents that own them."""
    supernet = db.load_model(folder / "out" / "final")
    task = db.load_task(**data)
    features = tokenize_examples(task.dev, supernet)
    (logits,) = predict_logits(supernet, features, [supernet.search_space().parse(HALF)])
    return task, features, logits


def scores_of(task, predictions):
    return np.array([[row["scores"][label] for label in task.labels] for row in predictions])


def test_all_of_a_text_counts(trained):
    """The marks stand after what a row without windows holds: such a model cannot know the label."""
    data, folder, rows = trained
    scores = [row[db.load_task(**data).metrics[0]] for row in rows]
    assert scores[0] > 0.9 and min(scores) > 0.75, scores
    recorded = read_metadata(folder / "out" / "final").task
    expected = {"long_text": "windows", "doc_stride": 12, "window_pooling": "mean"}
    assert recorded.items() >= expected.items()


def test_settings_that_are_not_given_are_the_models(capsys, trained):
    data, folder, rows = trained
    short = {key: value for key, value in data.items() if key not in ("long_text", "doc_stride")}
    task = db.load_task(**short)
    own = db.evaluate_grid(db.load_model(folder / "out" / "final"), task)
    assert [row[task.metrics[0]] for row in own] == pytest.approx([row[task.metrics[0]] for row in rows])
    done = run_command(capsys, "evaluate", folder / "out" / "final", "--json", "--long_text", "truncate")
    assert done.code == 0, done.err
    assert json.loads(done.out)["rows"][0][task.metrics[0]] != pytest.approx(rows[0][task.metrics[0]])
    assert "longer than max_seq_length 32" in done.err


def test_a_bundle_answers_as_the_model_does(trained, bundle, tmp_path):
    data, folder, _ = trained
    task, features, logits = dev_logits(folder, data)
    assert features.num_scored == 30 and len(features) > 90
    description = manifest.read_bundle(bundle)
    assert description["task"].items() >= {"doc_stride": 12, "window_pooling": "mean"}.items()
    predictor = db.Predictor(bundle)
    found = [asdict(row) for row in predictor(task.dev.texts, task.dev.pairs, batch_size=7)]
    np.testing.assert_allclose(scores_of(task, found), softmax(logits), atol=1e-5)
    assert not predictor.input_warnings()
    timed = db.AdaptivePredictor(bundle)(task.dev.texts, task.dev.pairs)
    np.testing.assert_allclose(scores_of(task, list(map(asdict, timed))), softmax(logits), atol=1e-5)
    # The bundle's own script, where this package is not installed.
    rows = [{"first": first, "text": text} for first, text in zip(task.dev.texts, task.dev.pairs, strict=True)]
    (tmp_path / "rows.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    command = [sys.executable, "-c", WITHOUT_PACKAGE, bundle / "infer.py", "-i", tmp_path / "rows.jsonl", "--json"]
    environment = {**os.environ, "PYTHONPATH": ""}
    alone = subprocess.run(command, capture_output=True, text=True, cwd=tmp_path, env=environment, check=True)
    rows = [json.loads(line) for line in alone.stdout.splitlines()]
    np.testing.assert_allclose(scores_of(task, rows), softmax(logits), atol=1e-5)
    assert "longer than" not in alone.stderr


def test_lite_answers_the_same(trained, converter, tmp_path):
    data, folder, _ = trained
    made = db.export(folder / "out" / "final", tmp_path / "b", format="lite", subnet=HALF)
    task, _, logits = dev_logits(folder, data)
    lines = map("\t".join, zip(task.dev.texts, task.dev.pairs, strict=True))
    (tmp_path / "rows.txt").write_text("\n".join(lines) + "\n", encoding="utf-8")
    command = [converter, made / "infer_lite.py", "-i", tmp_path / "rows.txt", "--json"]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    found = [json.loads(line) for line in done.stdout.splitlines() if line.startswith("{")]
    np.testing.assert_allclose(scores_of(task, found), softmax(logits), atol=1e-3)


def test_a_server_answers_the_same(trained, bundle):
    data, folder, _ = trained
    task, _, logits = dev_logits(folder, data)
    with Server(f"documents={bundle}") as server:
        body = {"pairs": list(map(list, zip(task.dev.texts, task.dev.pairs, strict=True))), "top_k": 3}
        answer = server.client.post("/predict", json=body).json()
        for row, expected in zip(answer["predictions"], softmax(logits), strict=True):
            scores = {one["label"]: one["score"] for one in row["top"]}
            assert [scores[label] for label in task.labels] == pytest.approx(expected.tolist(), abs=1e-4)
        refused = server.client.post("/predict", json={"pairs": [["a " * 40, "the " * 60]]})
        assert refused.status_code == 422 and "first text has" in refused.text, refused.text
        assert server.stop() == 0, server.errors


def test_a_first_text_without_room_is_refused_by_name(capsys, bundle, tmp_path):
    rows = f"first\ttext\na house\tthe river\n{'a ' * 40}\t{'the ' * 60}\n"
    (tmp_path / "rows.tsv").write_text(rows, encoding="utf-8")
    done = run_command(capsys, "predict", bundle, "-i", tmp_path / "rows.tsv")
    assert done.code == 1
    assert "row 2 ('a a a" in done.err and "its first text has more than 29 tokens" in done.err
