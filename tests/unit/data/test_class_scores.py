"""Scores of each class against scikit-learn and seqeval, and calibration against its definition."""

import itertools
import json

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from seqeval.metrics import classification_report as seqeval_report
from sklearn.metrics import classification_report, f1_score

from dynabert_paddle.data.class_scores import NUM_BINS, calibrate, score_classes
from dynabert_paddle.data.features import Features
from dynabert_paddle.data.metrics import compute_metrics
from dynabert_paddle.data.word_features import WordFeatures
from dynabert_paddle.text.word_labels import WordLabelScheme
from dynabert_paddle.text.word_windows import WordWindow

NAMES = ("a", "b", "c", "never")


def make_features(labels):
    num = len(labels)
    return Features(np.zeros(num, "int32"), np.zeros(num, "uint8"), np.arange(num + 1), np.asarray(labels))


@pytest.fixture
def scored():
    rng = np.random.default_rng(0)
    labels = rng.integers(0, 3, 200)  # no row of the last class
    logits = rng.normal(0, 1, (200, 4)) + 2 * np.eye(4)[labels]
    logits[:, 3] -= 100  # and no prediction of it
    return labels, logits.astype("float32"), score_classes(make_features(labels), logits, NAMES)


def test_classes_have_scikit_learns_scores(scored):
    labels, logits, found = scored
    expected = classification_report(
        labels, logits.argmax(axis=1), labels=range(4), target_names=NAMES, output_dict=True, zero_division=0.0
    )
    assert [score.name for score in found.classes] == list(NAMES)
    for score in found.classes:
        wanted = expected[score.name]
        assert (score.precision, score.recall, score.f1) == pytest.approx(
            (wanted["precision"], wanted["recall"], wanted["f1-score"])
        )
        assert score.support == wanted["support"]
    occurring = [score.f1 for score in found.classes if score.name != "never"]
    assert np.mean(occurring) == pytest.approx(compute_metrics(["macro_f1"], logits, labels)["macro_f1"])


def test_the_confusion_matrix_counts_labels_in_rows_and_predictions_in_columns(scored):
    labels, logits, found = scored
    predicted = logits.argmax(axis=1)
    for i in range(4):
        for j in range(4):
            assert found.confusion[i, j] == ((labels == i) & (predicted == j)).sum()
    assert np.trace(found.confusion) / 200 == pytest.approx(compute_metrics(["accuracy"], logits, labels)["accuracy"])
    commonest = found.confusions()
    assert sum(count for _, _, count in commonest) == 200 - np.trace(found.confusion)
    assert [count for _, _, count in commonest] == sorted((count for _, _, count in commonest), reverse=True)
    assert all(label != predicted for label, predicted, _ in commonest)


def test_scores_are_written_as_json(scored):
    found = json.loads(json.dumps(scored[2].to_dict()))
    assert found["confusion"] == {"labels": list(NAMES), "counts": scored[2].confusion.tolist()}
    assert found["calibration"]["ece"] == scored[2].calibration.ece
    assert [score["name"] for score in found["classes"]] == list(NAMES)


@settings(max_examples=60, deadline=None)
@given(st.lists(st.tuples(st.floats(0.01, 1.0), st.booleans()), min_size=1, max_size=60))
def test_the_calibration_error_is_that_of_its_definition(pairs):
    confidences, is_right = (np.array(values) for values in zip(*pairs, strict=True))
    expected = 0.0
    edges = [number / NUM_BINS for number in range(NUM_BINS + 1)]
    for low, high in itertools.pairwise(edges):
        inside = (confidences > low) & (confidences <= high)
        if inside.any():
            expected += inside.mean() * abs(is_right[inside].mean() - confidences[inside].mean())
    found = calibrate(confidences, is_right)
    assert found.ece == pytest.approx(expected, abs=1e-9)
    assert sum(found.counts) == len(pairs)


def test_a_model_that_is_right_as_often_as_it_says_is_calibrated():
    confidences = np.repeat([0.55, 0.75, 0.95], 100)
    is_right = np.tile(np.arange(100), 3) < np.rint(100 * confidences)
    assert calibrate(confidences, is_right).ece == pytest.approx(0, abs=1e-12)
    assert calibrate(np.full(10, 0.9), np.zeros(10, bool)).ece == pytest.approx(0.9)
    assert calibrate(np.array([]), np.array([])).ece == 0


# Sentences of one token a word, as (label, prediction) pairs.
SENTENCES = [
    [("B-PER", "B-PER"), ("I-PER", "I-PER"), ("O", "O"), ("B-LOC", "B-PER")],
    [("O", "B-LOC"), ("B-LOC", "B-LOC"), ("I-LOC", "O"), ("O", "O")],
    [("B-ORG", "O"), ("O", "O")],
]
WORD_NAMES = ("O", "B-LOC", "I-LOC", "B-ORG", "B-PER", "I-PER")


def make_words(*, cut=0):
    """Features of the sentences, of whose last one some words were cut off, and logits for their predictions."""
    labels = [[label for label, _ in sentence] for sentence in SENTENCES]
    sizes = [len(sentence) for sentence in SENTENCES]
    read = [np.arange(size) for size in (*sizes[:-1], sizes[-1] - cut)]
    features = WordFeatures(
        np.zeros(sum(sizes), "int32"),
        np.zeros(sum(sizes), "uint8"),
        np.cumsum([0, *sizes]),
        None,
        token_labels=np.zeros(sum(sizes), "int64"),
        windows=[[WordWindow(0, size, words, words)] for size, words in zip(sizes, read, strict=True)],
        before=0,
        word_labels=labels,
        num_cut=np.array([0, 0, cut]),
        names=WORD_NAMES,
        scheme=WordLabelScheme(WORD_NAMES, "IOB2"),
        decode="free",
    )
    logits = [np.array([5.0 * np.eye(6)[WORD_NAMES.index(predicted)] for _, predicted in row]) for row in SENTENCES]
    return features, logits


def test_entities_have_seqevals_scores():
    features, logits = make_words()
    found = score_classes(features, logits, WORD_NAMES)
    predicted = [[predicted for _, predicted in sentence] for sentence in SENTENCES]
    expected = seqeval_report(features.word_labels, predicted, output_dict=True, zero_division=0)
    assert found.unit == "entity"
    assert {score.name for score in found.classes} == {"LOC", "ORG", "PER"}
    for score in found.classes:
        wanted = expected[score.name]
        assert (score.precision, score.recall, score.f1) == pytest.approx(
            (wanted["precision"], wanted["recall"], wanted["f1-score"])
        )
        assert score.support == wanted["support"]
    assert found.labels == WORD_NAMES
    assert found.confusion.sum() == 10 and np.trace(found.confusion) == 6
    confidence = np.exp(5) / (np.exp(5) + 5)
    assert found.calibration.ece == pytest.approx(confidence - 0.6)


def test_words_that_were_cut_off_are_predicted_to_be_outside_and_have_no_probability():
    features, logits = make_words(cut=2)
    found = score_classes(features, logits, WORD_NAMES)
    assert found.confusion.sum() == 10
    assert sum(found.calibration.counts) == 8
    # The label of words outside may be none of the task's.
    features.word_labels[-1][:] = ["B-ORG", "B-ORG"]
    assert score_classes(features, logits, WORD_NAMES).confusion[3, 0] == 2


def test_the_mean_f1_of_classes_is_macro_f1():
    labels = np.array([0, 0, 1, 2])
    logits = np.eye(4)[[0, 1, 1, 1]]
    found = score_classes(make_features(labels), logits, NAMES)
    mean = np.mean([score.f1 for score in found.classes[:3]])
    assert mean == pytest.approx(f1_score(labels, logits.argmax(axis=1), average="macro", zero_division=0.0))


def make_label_sets():
    rng = np.random.default_rng(4)
    labels = rng.random((60, 4)) < [0.5, 0.3, 0.1, 0.0]
    logits = (rng.normal(0, 1, (60, 4)) + np.where(labels, 1.0, -1.0)).astype("float32")
    return labels, logits, np.array([0.4, 0.5, 0.7, 0.5])


def test_labels_of_texts_with_several_have_scikit_learns_scores():
    labels, logits, thresholds = make_label_sets()
    probabilities = 1 / (1 + np.exp(-logits.astype(np.float64)))
    predicted = probabilities >= thresholds
    found = score_classes(make_features(labels), logits, NAMES, thresholds)
    expected = classification_report(labels, predicted, target_names=NAMES, output_dict=True, zero_division=0.0)
    for score in found.classes:
        wanted = expected[score.name]
        assert (score.precision, score.recall, score.f1, score.support) == pytest.approx(
            (wanted["precision"], wanted["recall"], wanted["f1-score"], wanted["support"])
        )
    assert found.is_several and found.labels == (*NAMES, "(none)")
    assert (found.num_right, found.num_scored) == ((predicted == labels).all(axis=1).sum(), 60)
    assert found.calibration.ece == pytest.approx(calibrate(probabilities.ravel(), labels.ravel()).ece)
    json.dumps(found.to_dict())


def test_confusions_of_several_labels_are_counted_text_by_text():
    labels, logits, thresholds = make_label_sets()
    predicted = 1 / (1 + np.exp(-logits.astype(np.float64))) >= thresholds
    found = score_classes(make_features(labels), logits, NAMES, thresholds)
    expected, totals = np.zeros((5, 5), int), np.zeros(5, int)
    for own, others in zip(labels, predicted, strict=True):
        missed = [label for label in range(4) if own[label] and not others[label]] or [4]
        surplus = [label for label in range(4) if others[label] and not own[label]] or [4]
        for pair in itertools.product(missed, surplus):
            expected[pair] += 1
        for label in np.flatnonzero(own & others):
            expected[label, label] += 1
        totals[np.flatnonzero(own)] += 1
        totals[4] += missed == [4]
    np.testing.assert_array_equal(found.confusion, expected)
    np.testing.assert_array_equal(found.totals, totals)


def test_a_label_may_be_called_none():
    labels, logits, thresholds = make_label_sets()
    names = ("(none)", "a", "b", "c")
    assert score_classes(make_features(labels), logits, names, thresholds).labels[-1] == "((none))"
