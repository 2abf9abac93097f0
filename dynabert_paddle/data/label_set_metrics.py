"""Metrics of tasks with several labels or none a text, and the threshold of each label that they depend on.

Shapes: n texts, c labels.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from dynabert_paddle.text.decode import DEFAULT_THRESHOLD, sigmoid

LABEL_SET_METRICS = ("micro_f1", "macro_f1", "subset_accuracy", "lrap")


def are_label_sets(labels: np.ndarray | None) -> bool:
    """Whether labels are `[n, c]` booleans, and not one class or score a text."""
    return labels is not None and labels.dtype == bool


def score_label_sets(
    names: Sequence[str], logits: np.ndarray, labels: np.ndarray, thresholds: np.ndarray | None = None
) -> dict[str, float]:
    """Score a model's outputs.

    Args:
        names: from `LABEL_SET_METRICS`: F1 over all pairs of a text and a label; the mean of each label's F1; the share
            of texts whose labels are all right; label ranking average precision, for which no threshold counts.
        logits: `[n, c]`.
        labels: `[n, c]` booleans.
        thresholds: `[c]`, the probability from which a label is predicted; None: those that are best for these texts.

    Returns:
        Each metric as a fraction. The F1 of a label that no text has, and that is predicted for none, is 0.
    """
    probabilities = sigmoid(np.asarray(logits, dtype=np.float64))
    if thresholds is None:
        thresholds = choose_thresholds(probabilities, labels)
    predicted = probabilities >= thresholds
    hits, wrong = (predicted & labels).sum(axis=0), (predicted != labels).sum(axis=0)  # [c]
    scores = {
        "micro_f1": _f1(hits.sum(), wrong.sum()).item(),
        "macro_f1": _f1(hits, wrong).mean().item(),
        "subset_accuracy": (predicted == labels).all(axis=1).mean().item(),
    }
    if "lrap" in names:
        from sklearn.metrics import label_ranking_average_precision_score

        scores["lrap"] = float(label_ranking_average_precision_score(labels, logits))
    return {name: scores[name] for name in names}


def _f1(hits: np.ndarray, wrong: np.ndarray) -> np.ndarray:
    """F1 = 2 TP / (2 TP + FP + FN)."""
    return 2 * hits / np.maximum(2 * hits + wrong, 1)


def choose_thresholds(probabilities: np.ndarray, labels: np.ndarray) -> np.ndarray:
    """Choose for each label the threshold that maximizes its F1.

    Any threshold between two neighbouring probabilities predicts the same; 0.5 is taken if it is among those, else the
    middle. Of several best ones the nearest to 0.5 is taken.

    Args:
        probabilities: `[n, c]`.
        labels: `[n, c]` booleans.

    Returns:
        `[c]`, above 0 and below 1; 0.5 for a label that no text has.
    """
    order = np.argsort(-probabilities, axis=0, kind="stable")
    upper = np.take_along_axis(probabilities, order, axis=0)  # [n, c], descending
    lower = np.vstack([upper[1:], np.zeros_like(upper[:1])])
    hits = np.take_along_axis(labels, order, axis=0).cumsum(axis=0)  # with the first rows predicted
    counts = np.arange(1, len(labels) + 1)[:, None] + labels.sum(axis=0)
    is_default = (lower < DEFAULT_THRESHOLD) & (upper >= DEFAULT_THRESHOLD)
    thresholds = np.where(is_default, DEFAULT_THRESHOLD, (lower + upper) / 2)
    is_possible = (lower < thresholds) & (thresholds <= upper) & (thresholds < 1)
    f1 = np.where(is_possible, 2 * hits / counts, 0.0)
    is_best = is_possible & np.isclose(f1, f1.max(axis=0), rtol=1e-9, atol=0)
    distances = np.where(is_best, np.abs(thresholds - DEFAULT_THRESHOLD), np.inf)
    chosen = np.take_along_axis(thresholds, distances.argmin(axis=0)[None], axis=0)[0]
    return np.where(labels.any(axis=0) & is_possible.any(axis=0), chosen, DEFAULT_THRESHOLD)
