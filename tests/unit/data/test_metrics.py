"""Metrics compared with their definitions in NumPy."""

import warnings

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from dynabert_paddle.data.metrics import compute_metrics
from dynabert_paddle.errors import UsageError


@pytest.fixture(autouse=True)
def warnings_are_errors():
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        yield


def confusion(labels, predictions, num_classes) -> np.ndarray:
    """Counts `[c, c]`: rows are labels, columns are predictions."""
    return np.array(
        [[np.sum((labels == i) & (predictions == j)) for j in range(num_classes)] for i in range(num_classes)]
    )


def f1_of_class(counts, index) -> float:
    """F1 = 2 TP / (2 TP + FP + FN)."""
    return 2 * counts[index, index] / (counts[index].sum() + counts[:, index].sum())


@settings(deadline=None)
@given(seed=st.integers(0, 2**32 - 1), num_classes=st.integers(2, 5))
def test_classification_metrics_equal_their_definitions(seed, num_classes):
    rng = np.random.default_rng(seed)
    labels = np.concatenate([np.arange(num_classes), rng.integers(num_classes, size=40)])
    logits = rng.normal(size=(len(labels), num_classes)).astype(np.float32)
    counts = confusion(labels, logits.argmax(1), num_classes)
    total, diagonal = counts.sum(), np.trace(counts)
    by_label, by_prediction = counts.sum(1), counts.sum(0)
    # Gorodkin's R_K, which is Matthews' coefficient for two classes.
    covariance = diagonal * total - by_label @ by_prediction
    spread = np.sqrt(float(total**2 - by_prediction @ by_prediction) * float(total**2 - by_label @ by_label))
    expected = {
        "accuracy": diagonal / total,
        "macro_f1": np.mean([f1_of_class(counts, index) for index in range(num_classes)]),
        "matthews": covariance / spread,
    }
    for positive in (0, 1) if num_classes == 2 else ():
        expected["f1"] = f1_of_class(counts, positive)
        assert compute_metrics(list(expected), logits, labels, positive=positive) == pytest.approx(expected)
    assert compute_metrics(list(expected), logits, labels) == pytest.approx(expected)


@settings(deadline=None)
@given(seed=st.integers(0, 2**32 - 1))
def test_correlations_equal_their_definitions(seed):
    rng = np.random.default_rng(seed)
    labels = rng.normal(size=20).astype(np.float32)
    logits = (0.5 * labels + rng.normal(size=20)).astype(np.float32)[:, None]
    ranks = [np.argsort(np.argsort(values)) for values in (labels, logits[:, 0])]
    expected = {"pearson": np.corrcoef(labels, logits[:, 0])[0, 1], "spearman": np.corrcoef(*ranks)[0, 1]}
    assert compute_metrics(["pearson", "spearman"], logits, labels) == pytest.approx(expected, rel=1e-5)


def test_perfect_predictions_score_one():
    labels = np.array([0, 1, 1, 0])
    names = ["accuracy", "macro_f1", "f1", "matthews"]
    assert compute_metrics(names, np.eye(2)[labels], labels) == pytest.approx(dict.fromkeys(names, 1.0))


def test_correlation_of_perfect_and_of_reversed_scores():
    labels = np.array([0.0, 1.0, 3.0], dtype=np.float32)
    names = ["pearson", "spearman"]
    assert compute_metrics(names, 2 * labels[:, None] + 1, labels) == pytest.approx(dict.fromkeys(names, 1.0))
    assert compute_metrics(names, -labels[:, None], labels) == pytest.approx(dict.fromkeys(names, -1.0))


@pytest.mark.parametrize("labels", [[0, 1, 1, 0], [0, 0, 0, 0], [1]])
def test_matthews_of_a_constant_class_is_zero(labels):
    logits = np.tile([1.0, 0.0], (len(labels), 1))
    assert compute_metrics(["matthews", "f1"], logits, np.array(labels)) == {"matthews": 0.0, "f1": 0.0}


@pytest.mark.parametrize(
    ("logits", "labels"), [([0.1, 0.1, 0.1], [1.0, 2.0, 3.0]), ([1.0, 2.0, 3.0], [0.1, 0.1, 0.1]), ([1.0], [1.0])]
)
def test_correlation_of_constant_scores_is_zero(logits, labels):
    logits, labels = np.array(logits, dtype=np.float32)[:, None], np.array(labels, dtype=np.float32)
    assert compute_metrics(["pearson", "spearman"], logits, labels) == {"pearson": 0.0, "spearman": 0.0}


def test_values_are_python_floats_in_the_requested_order():
    labels = np.array([0, 1, 1])
    metrics = compute_metrics(["macro_f1", "accuracy"], np.eye(2, dtype=np.float32)[labels], labels)
    assert list(metrics) == ["macro_f1", "accuracy"]
    assert {type(value) for value in metrics.values()} == {float}


def test_unknown_metric():
    with pytest.raises(UsageError, match=r"^unknown metric 'spearmen'; .* Did you mean 'spearman'\?$"):
        compute_metrics(["spearmen"], np.zeros((2, 1)), np.zeros(2))
