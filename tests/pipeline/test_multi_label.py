"""Several labels or none a text, through all stages, the export, and every runtime in use."""

import csv
import io
import json
import os
import subprocess
import sys
from dataclasses import asdict

import numpy as np
import pytest
from bundles import WITHOUT_PACKAGE
from commands import run_command
from conftest import FORMATS, make_bert

import dynabert_paddle as db
from dynabert_paddle.backbone.loading import find_backbone
from dynabert_paddle.bundle import manifest
from dynabert_paddle.config.loading import resolve_config
from dynabert_paddle.files.metadata import read_metadata
from dynabert_paddle.training.inputs import tokenize_examples
from dynabert_paddle.training.predict import predict_logits

MARKS = {"city": ["paris", "london", "madrid"], "person": ["maria", "john", "peter"], "rare food": ["bread", "rice"]}
SHARES = {"city": 0.5, "person": 0.4, "rare food": 0.12}
OTHERS = ["the", "a", "house", "river", "went", "to", "with", "stone", "from", "over", "never"]
STAGES = ("finetune", "rewire", "width", "depth", "final")
GRID = ["w1.00d1.00", "w0.50d1.00", "w1.00d0.50", "w0.50d0.50"]
HALF = "w0.50d1.00"


def make_rows(count, *, seed):
    """Texts with a word for each of their labels."""
    rng = np.random.default_rng(seed)
    rows = []
    for _ in range(count):
        labels = [label for label, share in SHARES.items() if rng.random() < share]
        words = [*rng.choice(OTHERS, rng.integers(2, 6)), *(rng.choice(MARKS[label]) for label in labels)]
        rows.append((" ".join(rng.permutation(words)), labels))
    return rows


def write_label_sets(path, count, *, seed):
    lines = [json.dumps({"sentence": text, "labels": labels}) + "\n" for text, labels in make_rows(count, seed=seed)]
    path.write_text("".join(lines), encoding="utf-8")


def write_table(path, count, *, seed):
    rows = [("sentence", "labels"), *((text, "|".join(labels)) for text, labels in make_rows(count, seed=seed))]
    path.write_text("".join("\t".join(row) + "\n" for row in rows), encoding="utf-8")


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    """A task, and the folder of a run through all stages."""
    folder = tmp_path_factory.mktemp("multi_label")
    for name, count, seed in (("train", 400, 0), ("dev", 60, 1)):
        write_table(folder / f"{name}.tsv", count, seed=seed)
    tokenizer = db.Tokenizer.from_pretrained(find_backbone("minilm-l6"))
    start = db.Supernet(make_bert(num_labels=2, num_layers=2, hidden_size=64), tokenizer)
    data = {"name": "custom", "kind": "multi_label", "data_dir": str(folder), "label_separator": "|"}
    values = {
        "model_name_or_path": str(start.save_pretrained(folder / "start")),
        "output_dir": str(folder / "out"),
        "device": "cpu",
        "stages": STAGES,
        "task": {**data, "max_seq_length": 32},
        "space": {"width_mult_list": [1.0, 0.5], "depth_mult_list": [1.0, 0.5]},
    }
    for stage, steps, rate in (
        ("finetune", 200, 2e-3),
        ("width", 60, 1e-3),
        ("depth", 60, 1e-3),
        ("final", 10, 2e-4),
    ):
        values[stage] = {"max_steps": steps, "learning_rate": rate, "eval_steps": 1000, "logging_steps": 20}
        values[stage] |= {} if stage in ("finetune", "final") else {"temperature": 2.0}
    rows = db.run(resolve_config(db.Config, values))
    return db.load_task(**data), folder, rows


@pytest.fixture(scope="module")
def bundle(trained, tmp_path_factory):
    _, folder, _ = trained
    return db.export(folder / "out" / "final", tmp_path_factory.mktemp("bundles") / "b", subnet=HALF)


def expected_sets(supernet, task, name, thresholds):
    """The label sets of the dev rows that a sub-network predicts, `[n, c]`."""
    features = tokenize_examples(task.dev, supernet)
    (logits,) = predict_logits(supernet, features, [supernet.search_space().parse(name)])
    return 1 / (1 + np.exp(-logits.astype(np.float64))) >= [thresholds[label] for label in task.labels]


def as_matrix(predictions, labels):
    return np.array([[label in row.labels for label in labels] for row in predictions])


def write_dev(path, task):
    path.write_text("".join(f"{text}\n" for text in task.dev.texts), encoding="utf-8")
    return path


def run_alone(bundle, folder, *words):
    """The bundle's own script, where this package is not installed."""
    command = [sys.executable, "-c", WITHOUT_PACKAGE, str(bundle / "infer.py"), *map(str, words)]
    return subprocess.run(command, capture_output=True, text=True, cwd=folder, env={**os.environ, "PYTHONPATH": ""})


@pytest.mark.full
def test_every_sub_network_learns_and_has_thresholds(trained):
    task, folder, rows = trained
    assert [row["subnet"] for row in rows] == GRID
    scores = [row["micro_f1"] for row in rows]
    assert scores[0] > 0.95 and min(scores) > 0.8, scores
    assert list(rows[0])[1:5] == ["micro_f1", "macro_f1", "subset_accuracy", "lrap"]
    for stage, names in (("finetune", GRID[:1]), ("rewire", GRID[:1]), ("width", GRID[:2]), ("final", GRID)):
        thresholds = read_metadata(folder / "out" / stage).thresholds
        assert list(thresholds) == names
        assert all(set(values) == set(task.labels) for values in thresholds.values())
        assert all(0 < value < 1 for values in thresholds.values() for value in values.values())


@pytest.mark.full
def test_a_bundle_predicts_what_the_model_does(trained, bundle):
    task, folder, rows = trained
    supernet = db.load_model(folder / "out" / "final")
    thresholds = supernet.metadata.thresholds[HALF]
    expected = expected_sets(supernet, task, HALF, thresholds)
    found = db.Predictor(bundle)(task.dev.texts, batch_size=7)
    np.testing.assert_array_equal(as_matrix(found, task.labels), expected)
    assert json.loads((bundle / "bundle.json").read_text())["thresholds"] == thresholds
    hits = (expected & task.dev.labels).sum()
    score = next(row["micro_f1"] for row in rows if row["subnet"] == HALF)
    assert 2 * hits / (expected.sum() + task.dev.labels.sum()) == pytest.approx(score)
    for row in found:
        scores = [row.scores[label] for label in row.labels]
        assert scores == sorted(scores, reverse=True)
    several = db.Predictor(bundle, threshold=1e-6)(["paris"])[0]
    assert len(several.labels) == 3 and several.labels == db.Predictor(bundle, top_k=9)(["paris"])[0].labels
    assert db.Predictor(bundle, top_k=1)(["paris"])[0].labels == ["city"]
    with pytest.raises(db.DynabertError, match="threshold is 2: give a number above 0 and below 1"):
        db.Predictor(bundle, threshold=2)
    with pytest.raises(db.DynabertError, match="threshold of 'town', which is not one of the bundle's labels, 'city'"):
        db.Predictor(bundle, threshold={"town": 0.5})


@pytest.mark.full
def test_the_bundles_own_script(trained, bundle, tmp_path):
    task, _, _ = trained
    texts = write_dev(tmp_path / "texts.txt", task)
    for words, options in (
        ((), {}),
        (("--threshold", "rare food=0.001", "--top_k", 2), {"threshold": {"rare food": 0.001}, "top_k": 2}),
    ):
        done = run_alone(bundle, tmp_path, "-i", texts, "--json", *words)
        assert done.returncode == 0, done.stderr
        found = [json.loads(line) for line in done.stdout.splitlines()]
        expected = db.Predictor(bundle, **options)(task.dev.texts)
        assert [row["labels"] for row in found] == [row.labels for row in expected]
        assert set(found[0]) == {"labels", "scores"} and set(found[0]["scores"]) == set(task.labels)
    (row,) = db.Predictor(bundle, threshold=0.3)(["went to paris with maria"])
    done = run_alone(bundle, tmp_path, "went to paris with maria", "--threshold", 0.3)
    assert done.stdout.split("\t")[0].split("|") == row.labels and "city" in row.labels, done
    for words in (("--threshold", 0), ("--threshold", "town=0.5")):
        done = run_alone(bundle, tmp_path, "paris", *words)
        assert (done.returncode, done.stdout) == (1, "") and done.stderr.startswith("error: "), done
        assert done.stderr.count("\n") == 1


@pytest.mark.full
@pytest.mark.parametrize(("format", "precision"), [("onnx", "fp32"), ("openvino", "int8")])
def test_other_formats(trained, tmp_path, format, precision):
    task, folder, _ = trained
    made = db.export(folder / "out" / "finetune", tmp_path / "b", format=format, precision=precision, tolerance=0.05)
    check = manifest.read_bundle(made)["verification"]
    assert check["max_abs_diff"] < (1e-4 if precision == "fp32" else 10)
    found = as_matrix(db.Predictor(made)(task.dev.texts), task.labels)
    hits = (found & task.dev.labels).sum()
    score = 2 * hits / (found.sum() + task.dev.labels.sum())
    if precision == "int8":
        assert check["metric"] == "micro_f1" and check["examples"] == 60
        assert abs(check["source"] - check["exported"]) <= 0.05
        assert score == pytest.approx(check["exported"])
    else:
        supernet = db.load_model(folder / "out" / "finetune")
        thresholds = supernet.metadata.thresholds[GRID[0]]
        np.testing.assert_array_equal(found, expected_sets(supernet, task, GRID[0], thresholds))


@pytest.mark.full
def test_lite_predicts_the_same(trained, bundle, converter, tmp_path):
    """Under the converter's interpreter, with the tokenizer in plain Python."""
    task, folder, _ = trained
    made = db.export(folder / "out" / "final", tmp_path / "b", format="lite", subnet=HALF)
    texts = write_dev(tmp_path / "texts.txt", task)
    for words, options in (((), {}), (("--threshold", "city=0.01", "--top_k", "2"), {"threshold": {"city": 0.01}})):
        command = [converter, made / "infer_lite.py", "-i", texts, "--json", *words]
        done = subprocess.run(command, capture_output=True, text=True, check=True)
        found = [json.loads(line) for line in done.stdout.splitlines() if line.startswith("{")]
        expected = [
            asdict(row) for row in db.Predictor(bundle, top_k=2 if options else None, **options)(task.dev.texts)
        ]
        assert [row["labels"] for row in found] == [row["labels"] for row in expected]
        for row, other in zip(found, expected, strict=True):
            assert row["scores"] == pytest.approx(other["scores"], abs=1e-4)


@pytest.mark.full
def test_each_sub_network_of_a_bundle_has_its_own_thresholds(trained, tmp_path):
    """One beyond the grid has thresholds that are chosen when it is exported."""
    task, folder, _ = trained
    names = [*GRID[:2], "l0h4f48-l1h2f12"]
    made = db.export(folder / "out" / "final", tmp_path / "b", subnets=" ".join(names))
    members = {member["subnet"]: member["thresholds"] for member in manifest.read_bundle(made)["members"]}
    supernet = db.load_model(folder / "out" / "final")
    assert {name: members[name] for name in GRID[:2]} == {n: supernet.metadata.thresholds[n] for n in GRID[:2]}
    assert members[names[2]] not in supernet.metadata.thresholds.values()
    adaptive = db.AdaptivePredictor(made)
    for deadline in (1e9, 1e-3):
        found = adaptive(task.dev.texts[:20], deadline_ms=deadline)
        expected = db.Predictor(made, subnet=found.subnet)(task.dev.texts[:20])
        assert [row.labels for row in found] == [row.labels for row in expected]
    for name in names:
        found = as_matrix(db.Predictor(made, subnet=name)(task.dev.texts), task.labels)
        np.testing.assert_array_equal(found, expected_sets(supernet, task, name, members[name]))
    assert [len(row.labels) for row in db.AdaptivePredictor(made, threshold=0.9, top_k=1)(["paris maria"])] == [1]


@pytest.mark.full
def test_command_line(capsys, trained, bundle, tmp_path):
    task, folder, rows = trained
    done = run_command(capsys, "evaluate", folder / "out" / "final", "--grid", "--json")
    assert json.loads(done.out)["rows"] == rows, done.err
    texts = write_dev(tmp_path / "texts.txt", task)
    done = run_command(capsys, "predict", bundle, "-i", texts)
    assert done.code == 0, done.err
    header, *lines = csv.reader(io.StringIO(done.out), delimiter="\t")
    expected = db.Predictor(bundle)(task.dev.texts)
    assert header == ["labels", "scores"]
    assert [cell.split("|") if cell else [] for cell, _ in lines] == [row.labels for row in expected]
    done = run_command(capsys, "predict", bundle, "-i", texts, "--threshold", "0.2", "--top_k", "1", "--json")
    assert {len(json.loads(line)["labels"]) for line in done.out.splitlines()} <= {0, 1}
    for words, seen in (
        (("--threshold", "1"), "--threshold is '1': give a number above 0 and below 1, or label=number"),
        (("--top_k", "0"), "--top_k"),
    ):
        done = run_command(capsys, "predict", bundle, "-i", texts, *words)
        assert done.code == 2 and seen in done.err, done.err
    done = run_command(capsys, "bench", bundle, "--batch_size", "1", "--seq_length", "16", "--rounds", "1", "--json")
    assert done.code == 0, done.err
    done = run_command(capsys, "extract", folder / "out" / "final", HALF, "--output_dir", tmp_path / "half")
    done = run_command(capsys, "evaluate", tmp_path / "half", "--json")
    (row,) = json.loads(done.out)["rows"]
    metrics = {key: row[key] for key in task.metrics}
    assert metrics == pytest.approx({key: rows[1][key] for key in task.metrics})


@pytest.mark.full
def test_search_and_report(capsys, trained, tmp_path):
    _, folder, _ = trained
    words = ["--max_params", "1e9", "--num_evaluations", 6, "--population_size", 3, "--json"]
    done = run_command(capsys, "search", folder / "out" / "final", *words, "--output_dir", tmp_path / "s")
    assert done.code == 0, done.err
    result = json.loads(done.out)
    assert result["metric"] == "micro_f1" and result["best"]["score"] > 0.9
    words = [*words, "--score", "agreement", "--finetune_steps", 2, "--output_dir", tmp_path / "agreement"]
    done = run_command(capsys, "search", folder / "out" / "final", *words)
    assert done.code == 0, done.err
    assert json.loads(done.out)["full"]["score"] == 1.0
    assert list(read_metadata(tmp_path / "agreement" / "best").thresholds) == [GRID[0]]
    done = run_command(capsys, "report", folder / "out", "--output_file", tmp_path / "report.html")
    assert done.code == 0, done.err
    assert "micro_f1" in (tmp_path / "report.html").read_text(encoding="utf-8")


@pytest.mark.full
def test_compression_chooses_thresholds_anew(capsys, trained, tmp_path):
    task, folder, _ = trained
    source = folder / "out" / "final"
    done = run_command(
        capsys, "compress", "low_rank", source, "--rank_share", "0.3", "--output_dir", tmp_path / "small"
    )
    assert done.code == 0, done.err
    small = read_metadata(tmp_path / "small")
    assert list(small.thresholds) == GRID
    assert small.thresholds != read_metadata(source).thresholds
    after = small.compression[-1]["after"]["metrics"]
    done = run_command(capsys, "evaluate", tmp_path / "small", "--json")
    assert {key: json.loads(done.out)["rows"][0][key] for key in task.metrics} == after


@pytest.mark.full_on_reference
def test_a_short_run_of_pairs_from_data_to_predictions(dynabert, tiny_folder, tmp_path):
    """As fast as it can be, on every line of Paddle: fine-tune, evaluate, export, predict, each as a command."""
    for name, count, seed in (("train", 40, 0), ("dev", 12, 1)):
        rows = make_rows(count, seed=seed)
        lines = [json.dumps({"a": text, "b": "the river", "labels": labels}) + "\n" for text, labels in rows]
        (tmp_path / f"{name}.jsonl").write_text("".join(lines), encoding="utf-8")
    words = ["--task_name", "custom", "--kind", "multi_label", "--data_dir", tmp_path, "--max_seq_length", 16]
    words += ["--text_column", "a", "--text_pair_column", "b", "--max_steps", 2, "--output_dir", tmp_path / "out"]
    done = dynabert("finetune", "--model_name_or_path", tiny_folder, *words)
    assert done.code == 0, done.err
    done = dynabert("evaluate", tmp_path / "out", "--json")
    (row,) = json.loads(done.out)["rows"]
    done = dynabert("export", tmp_path / "out", "--output_dir", tmp_path / "bundle", "--format", FORMATS[0])
    assert done.code == 0, done.err
    dev = [json.loads(line) for line in (tmp_path / "dev.jsonl").read_text().splitlines()]
    done = dynabert("predict", tmp_path / "bundle", "-i", tmp_path / "dev.jsonl", "--json")
    found = [json.loads(line) for line in done.out.splitlines()]
    hits = sum(len(set(row["labels"]) & set(own["labels"])) for row, own in zip(found, dev, strict=True))
    total = sum(len(row["labels"]) + len(own["labels"]) for row, own in zip(found, dev, strict=True))
    assert 2 * hits / total == pytest.approx(row["micro_f1"])
    found = db.Predictor(tmp_path / "bundle", threshold=1e-4)(["paris", "rice"], ["the river"] * 2)
    assert [len(row.labels) for row in found] == [3, 3]
    done = dynabert("evaluate", tmp_path / "out", "--kind", "classification")
    message = "error: --kind is 'classification', and the model is for multi_label: leave it out\n"
    assert (done.code, done.err) == (2, message)
