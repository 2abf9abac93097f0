"""evaluate --per_class and --errors_file, and the report's charts of classes, on a small real run."""

import csv
import gzip
import json

import numpy as np
import pytest

import dynabert_paddle as db
from dynabert_paddle.training.evaluate import run_on_dev

SMALL, FULL = "w0.25d0.50", "w1.00d1.00"
TEXTS = ("a\ttab", 'a "quoted" word', "two\nlines", "carriage\rreturn", "comma, and; semicolon", " spaces ", "播放音乐")


@pytest.fixture(scope="module")
def model_dir(tiny_folder, task, tmp_path_factory):
    """A model that has learnt nothing, and so does not take all texts for the same."""
    config = db.FinetuneConfig(max_steps=1, learning_rate=1e-9)
    out = tmp_path_factory.mktemp("model") / "finetuned"
    db.finetune(tiny_folder, task, output_dir=out, config=config, max_seq_length=16)
    return out


@pytest.fixture(scope="module")
def nasty(model_dir, task, tmp_path_factory):
    """A dev file whose texts need quotes, and whose labels are the full model's predictions."""
    model = db.load_model(model_dir)
    texts = [*TEXTS, *(task.dev.texts[row] for row in range(len(task.dev)))]
    path = tmp_path_factory.mktemp("nasty") / "dev.jsonl"

    def write(labels):
        lines = [json.dumps({"sentence": text, "label": label}) for text, label in zip(texts, labels, strict=True)]
        path.write_text("".join(f"{line}\n" for line in lines), encoding="utf-8")
        return run_on_dev(model, db.load_task("snips", train_file=task.train.source, dev_file=path), [SMALL, FULL])

    outputs = write([task.labels[number % 7] for number in range(len(texts))])
    right = [task.labels[index] for index in outputs.logits[FULL].argmax(axis=1)]
    right[:2] = [
        next(name for name in task.labels if name != label) for label in right[:2]
    ]  # both models' or one's error
    return path, write(right), texts


def is_missed(outputs):
    labels = outputs.task.dev.labels
    small, full = (outputs.logits[name].argmax(axis=1) for name in (SMALL, FULL))
    return np.flatnonzero((small != labels) & (full == labels))


@pytest.mark.parametrize("ending", [".tsv", ".csv", ".jsonl.gz"])
def test_errors_are_the_rows_that_the_teacher_gets_right(model_dir, nasty, dynabert, tmp_path, ending):
    path, outputs, texts = nasty
    rows = is_missed(outputs)
    assert len(rows) > 3
    file = tmp_path / f"errors{ending}"
    words = ["evaluate", model_dir, "--subnet", SMALL, "--dev_file", path, "--errors_file", file]
    done = dynabert(*words)
    assert done.code == 0, done.err
    assert f"{SMALL} gets {len(rows)} rows wrong that the teacher gets right" in done.err
    assert f"wrote {file}" in done.err
    read = gzip.open if ending.endswith(".gz") else open
    with read(file, "rt", encoding="utf-8", newline="") as stream:
        if ending == ".jsonl.gz":
            found = [json.loads(line) for line in stream]
        else:
            found = list(csv.DictReader(stream, delimiter="\t" if ending == ".tsv" else ","))
    assert [row["text"] for row in found] == [texts[row] for row in rows]
    probabilities = {}
    for name, logits in outputs.logits.items():
        weights = np.exp(np.asarray(logits, dtype=np.float64))
        probabilities[name] = weights / weights.sum(axis=1, keepdims=True)
    names, labels = outputs.task.labels, outputs.task.dev.labels
    for row, line in zip(rows, found, strict=True):
        small = probabilities[SMALL][row]
        assert (line["label"], line["prediction"]) == (names[labels[row]], names[small.argmax()])
        scores = [float(line[key]) for key in ("score", "label_score", "teacher_score")]
        expected = [small.max(), small[labels[row]], probabilities[FULL][row, labels[row]]]
        assert scores == pytest.approx(expected, abs=2e-5)


def test_a_model_of_its_own_needs_a_teacher_and_may_name_one(chain, finetuned, nasty, dynabert, tmp_path):
    path, file = nasty[0], tmp_path / "errors.tsv"
    done = dynabert("evaluate", finetuned, "--dev_file", path, "--errors_file", file)
    assert done.code == 2 and "or a teacher with --teacher_name_or_path" in done.err
    words = [
        "evaluate",
        chain / "depth",
        "--dev_file",
        path,
        "--errors_file",
        file,
        "--teacher_name_or_path",
        finetuned,
    ]
    assert dynabert(*words).code == 0
    assert file.read_text(encoding="utf-8").startswith("text\tlabel\tprediction\tscore\tlabel_score\tteacher_score\n")
    done = dynabert(*words)
    assert done.code == 2 and f"{file} exists: pass --overwrite_output_file to replace it" in done.err
    assert "name another --errors_file" in done.err
    done = dynabert(*words, "--grid", "--overwrite_output_file")
    assert done.code == 2 and "--errors_file is of one sub-network" in done.err
    done = dynabert("evaluate", chain / "depth", "--teacher_name_or_path", finetuned)
    assert done.code == 2 and "is for --errors_file" in done.err
    done = dynabert("evaluate", chain / "depth", "--subnet", SMALL, "--dev_file", path, "--errors_file", path)
    assert done.code == 2 and "is the file to read" in done.err


def test_scores_of_each_class_agree_with_the_metrics(chain, dynabert):
    done = dynabert("evaluate", chain / "depth", "--subnet", SMALL, "--per_class", "--json")
    assert done.code == 0, done.err
    (row,) = json.loads(done.out)["rows"]
    confusion = np.array(row["per_class"]["confusion"]["counts"])
    assert confusion.sum() == 42 and np.trace(confusion) / 42 == pytest.approx(row["accuracy"])
    classes = [score for score in row["per_class"]["classes"] if score["support"] or score["f1"]]
    assert sum(score["support"] for score in classes) == 42
    table = dynabert("evaluate", chain / "depth", "--subnet", SMALL, "--per_class").out
    for words in ("precision", "recall", "support", "confusion matrix", "expected calibration error (ECE): 0."):
        assert words in table


@pytest.mark.full
def test_the_grid_has_the_f1_of_each_class(chain, dynabert):
    out = dynabert("evaluate", chain / "depth", "--grid", "--per_class").out
    assert "F1 of each class on dev" in out and "(ECE)" in out
    rows = json.loads(dynabert("evaluate", chain / "depth", "--grid", "--per_class", "--json").out)["rows"]
    assert len(rows) == 12 and all(len(row.pop("per_class")["classes"]) == 7 for row in rows)
    assert json.loads(dynabert("evaluate", chain / "depth", "--grid", "--json").out)["rows"] == rows


@pytest.mark.full
def test_the_report_shows_the_classes_of_the_full_and_the_recommended_model(chain, dynabert, tmp_path):
    page = tmp_path / "page.html"
    done = dynabert("report", chain, "--per_class", "--no_visualdl", "--output_file", page)
    assert done.code == 0, done.err
    text = page.read_text(encoding="utf-8")
    for name in ("class-f1", "confusion", "calibration"):
        assert f'<figure id="{name}">' in text
    assert "各类别" in text and "Expected calibration error (ECE): w1.00d1.00 0." in text
    assert "class-f1" not in db.report(chain, visualdl=False, output_file=tmp_path / "plain.html").read_text()
