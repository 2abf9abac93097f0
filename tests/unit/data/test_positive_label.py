"""The class whose F1 the metric `f1` is: chosen by name, named, and kept wherever the examples go."""

import logging
from pathlib import Path

import numpy as np
import pytest

import dynabert_paddle as db
from dynabert_paddle.backbone.loading import find_backbone
from dynabert_paddle.cli.table import show_grid
from dynabert_paddle.data import stored_texts
from dynabert_paddle.data.described_tasks import load_described_task
from dynabert_paddle.data.tasks import load_task
from dynabert_paddle.errors import UsageError

LABELS = ["duplicate", "not_duplicate", "duplicate", "duplicate", "not_duplicate"]
# Predictions of "duplicate" for the first three rows: 2 of 3 are right, 1 of 3 duplicates is missed.
PREDICTED = ["duplicate", "duplicate", "duplicate", "not_duplicate", "not_duplicate"]
F1 = {"duplicate": 2 / 3, "not_duplicate": 1 / 2}


@pytest.fixture
def folder(tmp_path):
    for name in ("train.tsv", "dev.tsv"):
        rows = "".join(f"good film {i}\t{label}\n" for i, label in enumerate(LABELS))
        (tmp_path / name).write_text("sentence\tlabel\n" + rows)
    return tmp_path


def f1_of(task, *, rows=None):
    tokenizer = db.Tokenizer.from_pretrained(find_backbone("minilm-l6"))
    features = task.dev.tokenize(tokenizer, max_seq_length=16)
    logits = np.eye(2)[[task.labels.index(name) for name in PREDICTED]]
    if rows is not None:
        features, logits = features.select(rows), logits[rows]
    return features.score(("f1",), logits)["f1"]


@pytest.mark.parametrize("labels", [None, ["not_duplicate", "duplicate"]])
@pytest.mark.parametrize("positive", [None, "duplicate", "not_duplicate"])
def test_f1_is_that_of_the_positive_label(folder, positive, labels, caplog):
    with caplog.at_level(logging.INFO, logger="dynabert_paddle"):
        task = load_task("custom", data_dir=folder, metrics=["f1"], positive_label=positive, labels=labels)
    expected = positive or task.labels[1]  # as before: the second
    assert task.positive_label == expected
    assert f"f1 is that of the label '{expected}'" in caplog.text
    assert f1_of(task) == pytest.approx(F1[expected])
    # In another order of the logits, of a selection, of the train rows, and of the task loaded again, it stays.
    assert f1_of(task.with_labels(tuple(reversed(task.labels)))) == pytest.approx(F1[expected])
    assert f1_of(task, rows=np.arange(5)) == pytest.approx(F1[expected])
    assert task.train.select(np.arange(3)).positive == task.labels.index(expected)
    assert load_described_task(task.to_dict()).positive_label == expected


def test_of_texts_on_the_disk_too(folder, monkeypatch):
    monkeypatch.setattr(stored_texts, "_LARGE_FILE", 0)
    task = load_task("custom", data_dir=folder, metrics=["f1"], positive_label="duplicate")
    assert isinstance(task.dev.texts, stored_texts.StoredTexts)
    assert f1_of(task) == pytest.approx(F1["duplicate"])
    assert f1_of(task, rows=np.arange(5)) == pytest.approx(F1["duplicate"])


def test_a_number_can_be_written_in_another_way(tmp_path):
    for name in ("train.jsonl", "dev.jsonl"):
        (tmp_path / name).write_text("".join(f'{{"sentence": "s", "label": {label}}}\n' for label in (0, 1)))
    assert load_task("custom", data_dir=tmp_path, metrics=["f1"], positive_label="0.0").positive_label == "0"


def test_without_f1_it_has_no_effect_and_a_warning(folder, caplog):
    with caplog.at_level(logging.INFO, logger="dynabert_paddle"):
        task = load_task("custom", data_dir=folder, positive_label="duplicate")
    assert task.positive_label is None and "positive_label" not in task.to_dict()
    assert "positive_label 'duplicate' changes nothing: the metrics are accuracy, macro_f1, without f1" in caplog.text


@pytest.mark.parametrize(
    ("options", "seen"),
    [
        ({"positive_label": "duplicat"}, "not one of the task's labels, 'duplicate', 'not_duplicate'. Did you mean"),
        ({"positive_label": "1", "kind": "regression", "metrics": None}, "positive_label is for classification"),
    ],
)
def test_labels_that_are_not_the_tasks_are_refused(folder, options, seen):
    with pytest.raises(UsageError) as caught:
        load_task("custom", **{"data_dir": folder, "metrics": ["f1"], **options})
    assert seen in str(caught.value) and "\n" not in str(caught.value)


def test_glue_keeps_its_own():
    samples = Path(__file__).parents[2] / "samples" / "glue"
    for name in ("mrpc", "qqp"):
        task = load_task(name, data_dir=samples)
        assert (task.labels, task.positive_label) == (("0", "1"), "1")


def test_the_table_names_the_positive_label(capsys):
    row = {"subnet": "w1.00d1.00", "accuracy": 0.5, "f1": 0.25, "params": 1, "params_without_embeddings": 1, "macs": 1}
    show_grid([row], split="dev", as_json=False, positive_label="duplicate")
    assert "f1 (duplicate)" in capsys.readouterr().out
    show_grid([row], split="dev", as_json=True, positive_label="duplicate")
    assert '"positive_label": "duplicate"' in capsys.readouterr().out
    show_grid([row], split="dev", as_json=True)
    assert "positive" not in capsys.readouterr().out
