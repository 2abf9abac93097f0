"""Metrics and thresholds of several labels a text, compared with brute force and with scikit-learn."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.metrics import accuracy_score, f1_score

from dynabert_paddle.data.label_set_metrics import LABEL_SET_METRICS, choose_thresholds
from dynabert_paddle.data.metrics import check_metrics, compute_metrics
from dynabert_paddle.errors import UsageError


def sigmoid(x):
    return 1 / (1 + np.exp(-x.astype(np.float64)))


def random_case(seed, num_rows=30, num_labels=5):
    rng = np.random.default_rng(seed)
    labels = rng.random((num_rows, num_labels)) < rng.random(num_labels) * 0.6
    logits = (rng.normal(size=labels.shape) + labels).astype(np.float32)
    return logits, labels, rng.uniform(0.05, 0.95, num_labels)


def ranking_precision(logits, labels):
    """For each label of a row, which share of the labels ranked at least as high it has; the mean over both."""
    rows = []
    for scores, own in zip(logits, labels, strict=True):
        shares = [own[scores >= score].mean() for score in scores[own]]
        rows.append(1.0 if own.all() or not own.any() else np.mean(shares))
    return np.mean(rows)


@settings(deadline=None, max_examples=20)
@given(seed=st.integers(0, 2**32 - 1))
def test_metrics_equal_their_definitions(seed):
    logits, labels, thresholds = random_case(seed)
    predicted = sigmoid(logits) >= thresholds
    scores = compute_metrics(LABEL_SET_METRICS, logits, labels, thresholds=thresholds)
    assert scores == pytest.approx(
        {
            "micro_f1": f1_score(labels, predicted, average="micro", zero_division=0),
            "macro_f1": f1_score(labels, predicted, average="macro", zero_division=0),
            "subset_accuracy": accuracy_score(labels, predicted),
            "lrap": ranking_precision(logits, labels),
        }
    )
    assert {type(score) for score in scores.values()} == {float}


def test_a_single_label_has_the_f1_of_its_texts():
    """scikit-learn takes one column for a binary task, and counts the texts without the label, too."""
    logits, labels = np.array([[2.0], [-1.0], [1.0], [-3.0]]), np.array([[True], [True], [False], [False]])
    scores = compute_metrics(["micro_f1", "macro_f1"], logits, labels, thresholds=np.array([0.5]))
    assert scores == {"micro_f1": 0.5, "macro_f1": 0.5}  # 1 hit, 1 missed, 1 wrong


def test_labels_that_no_text_has():
    labels = np.zeros((3, 2), dtype=bool)
    scores = compute_metrics(LABEL_SET_METRICS, np.full((3, 2), -9.0), labels, thresholds=np.full(2, 0.5))
    assert scores == {"micro_f1": 0.0, "macro_f1": 0.0, "subset_accuracy": 1.0, "lrap": 1.0}


@settings(deadline=None, max_examples=60)
@given(seed=st.integers(0, 2**32 - 1), is_rounded=st.booleans())
def test_thresholds_maximize_f1(seed, is_rounded):
    """Against every threshold on a fine lattice; with rounded probabilities many are equal."""
    logits, labels, _ = random_case(seed, num_rows=14, num_labels=3)
    probabilities = np.round(sigmoid(logits), 1) if is_rounded else sigmoid(logits)
    chosen = choose_thresholds(probabilities, labels)
    assert ((chosen > 0) & (chosen < 1)).all()
    lattice = np.linspace(0.001, 0.999, 999)
    for column, truth, threshold in zip(probabilities.T, labels.T, chosen, strict=True):
        if not truth.any():
            assert threshold == 0.5
            continue
        predicted = column >= np.append(lattice, [0.5, threshold])[:, None]  # [thresholds, n]
        f1 = 2 * (predicted & truth).sum(axis=1) / (predicted.sum(axis=1) + truth.sum())
        assert f1[-1] >= f1.max() - 1e-12
        if f1[-2] >= f1.max() - 1e-12:
            assert threshold == 0.5


def test_the_nearest_of_the_best_thresholds_is_taken():
    probabilities = np.array([[0.9, 0.3, 0.5], [0.7, 0.1, 0.5], [0.2, 0.05, 0.5]])
    labels = np.array([[1, 1, 1], [0, 0, 1], [1, 0, 0]], dtype=bool)
    # Of the first label F1 is 2/3 above 0.7, and 4/5 below 0.2; the second is predicted alone from 0.1 to 0.3.
    np.testing.assert_allclose(choose_thresholds(probabilities, labels), [0.1, 0.2, 0.5])


def test_saturated_probabilities_have_thresholds_within_bounds():
    labels = np.array([[1, 0], [1, 1], [0, 0]], dtype=bool)
    for probabilities in (np.zeros((3, 2)), np.ones((3, 2)), np.array([[1, 1], [1, 0], [0, 0.0]])):
        chosen = choose_thresholds(probabilities, labels)
        assert ((chosen > 0) & (chosen < 1)).all()


def test_without_thresholds_the_best_ones_count():
    logits, labels, _ = random_case(5)
    best = choose_thresholds(sigmoid(logits), labels)
    names = list(LABEL_SET_METRICS)
    assert compute_metrics(names, logits, labels) == compute_metrics(names, logits, labels, thresholds=best)
    half = compute_metrics(names, logits, labels, thresholds=np.full(5, 0.5))
    assert compute_metrics(names, logits, labels)["macro_f1"] > half["macro_f1"]


def test_metrics_of_other_kinds_are_refused():
    check_metrics(LABEL_SET_METRICS, kind="multi_label", num_labels=3)
    for name in ("accuracy", "f1", "pearson", "entity_f1"):
        with pytest.raises(UsageError, match=f"metric '{name}' is not for multi_label; choose from micro_f1"):
            check_metrics([name], kind="multi_label", num_labels=2)
    with pytest.raises(UsageError, match="metric 'micro_f1' is not for classification"):
        check_metrics(["micro_f1"], kind="classification", num_labels=2)
