"""The rows, and words of sentences, that a small model gets wrong and its teacher right."""

from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest

from dynabert_paddle.data.features import Features
from dynabert_paddle.data.readers import Columns, Examples
from dynabert_paddle.data.token_classification import Sentences
from dynabert_paddle.data.word_features import WordFeatures
from dynabert_paddle.text.word_labels import WordLabelScheme
from dynabert_paddle.text.word_windows import WordWindow
from dynabert_paddle.training.evaluate import DevOutputs
from dynabert_paddle.training.missed_rows import missed_columns, missed_rows


def logits_of(classes, num_labels):
    """Logits by which each class has a probability of 0.9."""
    others = np.log(0.1 / (num_labels - 1))
    return np.where(np.eye(num_labels)[classes] == 1, np.log(0.9), others).astype("float32")


def outputs(labels, names, predicted, *, pairs=None):
    """What a model computes for rows of a classification, its labels in an order of its own."""
    indices = np.array([names.index(label) for label in labels])
    texts = [f"text {number}" for number in range(len(labels))]
    dev = Examples(texts, pairs, indices, Path("dev.tsv"))
    offsets = np.arange(len(labels) + 1)
    features = Features(np.zeros(len(labels), "int32"), np.zeros(len(labels), "uint8"), offsets, indices)
    task = SimpleNamespace(
        kind="classification", dev=dev, labels=names, columns=Columns("text", "pair" if pairs else None, "label")
    )
    logits = {"model": logits_of([names.index(label) for label in predicted], len(names))}
    return DevOutputs(task, features, logits)


@pytest.mark.parametrize("pairs", [None, ["p0", "p1", "p2", "p3"]])
@pytest.mark.parametrize("order", [("a", "b", "c"), ("c", "a", "b")])
def test_rows_are_compared_by_the_names_of_labels(order, pairs):
    labels = ["a", "b", "c", "a"]
    small = outputs(labels, ("a", "b", "c"), ["b", "b", "a", "c"], pairs=pairs)
    teacher = outputs(labels, order, ["a", "c", "b", "a"], pairs=pairs)
    found = list(missed_rows(small, "model", teacher, "model"))
    assert [(row["text"], row["label"], row["prediction"]) for row in found] == [
        ("text 0", "a", "b"),
        ("text 3", "a", "c"),
    ]
    assert [row.get("text_pair") for row in found] == ([None, None] if pairs is None else ["p0", "p3"])
    for row in found:
        assert list(row) == missed_columns(small.task)
        assert (row["score"], row["label_score"], row["teacher_score"]) == pytest.approx((0.9, 0.05, 0.9))


def words_of(predicted, num_read):
    names = ("O", "B-PER", "I-PER")
    words, labels = [["Ada", "Lovelace", "wrote"], ["He", "left"]], [["B-PER", "I-PER", "O"], ["O", "O"]]
    features = WordFeatures(
        np.zeros(5, "int32"),
        np.zeros(5, "uint8"),
        np.array([0, 3, 5]),
        None,
        token_labels=np.zeros(5, "int64"),
        windows=[[WordWindow(0, 3, np.arange(num), np.arange(num))] for num in num_read],
        before=0,
        word_labels=labels,
        num_cut=np.zeros(2, int),
        names=names,
        scheme=WordLabelScheme(names, "IOB2"),
        decode="free",
    )
    task = SimpleNamespace(dev=Sentences(words, labels, names, Path("x")), labels=names, columns=Columns("tokens"))
    return DevOutputs(
        task, features, {"model": [logits_of([names.index(name) for name in row], 3) for row in predicted]}
    )


def test_of_sentences_each_word_is_a_row():
    small = words_of([["O", "I-PER", "B-PER"], ["B-PER", "B-PER"]], (3, 1))
    teacher = words_of([["B-PER", "O", "O"], ["O", "O"]], (3, 2))
    found = list(missed_rows(small, "model", teacher, "model"))
    assert [list(row.values())[:5] for row in found] == [
        ["Ada Lovelace wrote", "Ada", 1, "B-PER", "O"],
        ["Ada Lovelace wrote", "wrote", 3, "O", "B-PER"],
        ["He left", "He", 1, "O", "B-PER"],  # the small model has not read the last word, which was cut off
    ]
    for row in found:
        assert list(row) == missed_columns(small.task)
        assert (row["score"], row["label_score"], row["teacher_score"]) == pytest.approx((0.9, 0.05, 0.9))


def set_outputs(names, expected, predicted, threshold):
    """What a model computes for rows with several labels: 0.9 for each predicted one, 0.2 for others."""
    labels = np.array([[name in own for name in names] for own in expected])
    found = np.array([[name in own for name in names] for own in predicted])
    dev = Examples([f"text {number}" for number in range(len(labels))], None, labels, Path("dev.tsv"))
    offsets = np.arange(len(labels) + 1)
    features = Features(np.zeros(len(labels), "int32"), np.zeros(len(labels), "uint8"), offsets, labels)
    task = SimpleNamespace(kind="multi_label", dev=dev, labels=names, columns=Columns("text", None, "labels"))
    logits = np.where(found, np.log(0.9 / 0.1), np.log(0.2 / 0.8)).astype("float32")
    return DevOutputs(task, features, {"model": logits}, {"model": np.full(len(names), threshold)})


@pytest.mark.parametrize("order", [("a", "b", "c"), ("c", "a", "b")])
def test_rows_with_several_labels_are_right_if_all_labels_are(order):
    expected = [["a"], ["a", "b"], [], ["c"]]
    small = set_outputs(("a", "b", "c"), expected, [["a", "c"], ["a", "b"], ["b"], []], 0.5)
    teacher = set_outputs(order, expected, [["a"], ["b"], [], ["c"]], 0.3)
    found = list(missed_rows(small, "model", teacher, "model"))
    assert [(row["text"], row["label"], row["prediction"]) for row in found] == [
        ("text 0", ["a"], ["a", "c"]),
        ("text 2", [], ["b"]),
        ("text 3", ["c"], []),
    ]
    scores = [(row["score"], row["label_score"], row["teacher_score"]) for row in found]
    np.testing.assert_allclose(scores[0], (0.9 * 0.8 * 0.9, 0.9 * 0.8 * 0.1, 0.9 * 0.8 * 0.8), atol=1e-6)
    np.testing.assert_allclose(scores[1], (0.9 * 0.8 * 0.8, 0.1 * 0.8 * 0.8, 0.8**3), atol=1e-6)
    # With a lower threshold every label is predicted, and every row is wrong.
    small = set_outputs(("a", "b", "c"), expected, [["a"], ["a", "b"], [], ["c"]], 0.1)
    assert len(list(missed_rows(small, "model", teacher, "model"))) == 3
