"""Metrics of classification and regression, and the names of all metrics."""

from collections.abc import Callable, Sequence
from functools import partial

import numpy as np

from dynabert_paddle.config.names import setting
from dynabert_paddle.data.embedding_metrics import EMBEDDING_METRICS, split_metric
from dynabert_paddle.data.label_set_metrics import LABEL_SET_METRICS, are_label_sets, score_label_sets
from dynabert_paddle.errors import UsageError, did_you_mean

WORD_METRICS = ("entity_f1", "entity_precision", "entity_recall", "token_accuracy")  # see data/word_features.py
TYPE_F1 = "f1_"  # before the type of entities whose F1 it is, such as f1_PER
ANSWER_METRICS = ("f1", "exact_match")  # see data/question_answering.py


def compute_metrics(
    names: Sequence[str],
    logits: np.ndarray,
    labels: np.ndarray,
    *,
    positive: int = 1,
    thresholds: np.ndarray | None = None,
) -> dict[str, float]:
    """Score a model's outputs.

    Args:
        names: metrics to compute.
        logits: `[n, c]`; for regression `[n, 1]`, the scores.
        labels: `[n]`; class indices, or scores for regression; for several labels a text `[n, c]` booleans.
        positive: the class whose F1 `f1` is.
        thresholds: for several labels a text, as `score_label_sets` takes them.

    Returns:
        Each metric as a fraction: 1.0 is perfect. Correlations with constant values are 0.0.

    Raises:
        UsageError: an unknown metric.
    """
    _check_names(names)
    logits, labels = np.asarray(logits), np.asarray(labels)
    if are_label_sets(labels):
        return score_label_sets(names, logits, labels, thresholds)
    of_classes: dict[str, Callable] = {**_CLASSIFICATION_METRICS, "f1": partial(_f1, positive=positive)}
    return {
        name: float(
            of_classes[name](labels, logits.argmax(axis=1))
            if name in of_classes
            else _correlation(_REGRESSION_METRICS[name], labels, logits[:, 0])
        )
        for name in names
    }


def check_metrics(names: Sequence[str], *, kind: str, num_labels: int) -> None:
    """Check that metrics fit a task.

    Args:
        names: names of metrics.
        kind: the kind of task.
        num_labels: number of classes; 0 if there are none.

    Raises:
        UsageError: an unknown metric, one of another kind, or `f1` for more than two classes.
    """
    if kind == "token_classification":
        names = [name for name in names if not name.startswith(TYPE_F1)]  # see data/label_scheme.py
    if kind == "embedding":
        names = [split_metric(name)[0] for name in names]
    _check_names(names)
    known: dict[str, Sequence[str]] = {
        "classification": tuple(_CLASSIFICATION_METRICS),
        "regression": tuple(_REGRESSION_METRICS),
        "multi_label": LABEL_SET_METRICS,
        "token_classification": WORD_METRICS,
        "question_answering": ANSWER_METRICS,
        "embedding": EMBEDDING_METRICS,
    }
    allowed = known[kind]
    for name in names:
        if name not in allowed:
            raise UsageError(
                f"metric {name!r} is not for {kind}; choose from {', '.join(allowed)} with {setting('task.metrics')}."
            )
    if kind == "classification" and "f1" in names and num_labels != 2:
        raise UsageError(
            f"metric 'f1' is for two classes and the task has {num_labels}; set {setting('task.metrics')} to macro_f1."
        )


def _check_names(names: Sequence[str]) -> None:
    of_texts = (*_CLASSIFICATION_METRICS, *_REGRESSION_METRICS, *LABEL_SET_METRICS)
    known = list(dict.fromkeys([*of_texts, *WORD_METRICS, *ANSWER_METRICS, *EMBEDDING_METRICS]))
    for name in names:
        if name not in known:
            hint = did_you_mean(name, known)
            raise UsageError(f"unknown metric {name!r}; {setting('task.metrics')} takes {', '.join(known)}.{hint}")


def _accuracy(labels: np.ndarray, predictions: np.ndarray) -> float:
    return np.mean(labels == predictions)


def _f1(labels: np.ndarray, predictions: np.ndarray, positive: int = 1) -> float:
    """F1 of one class; by default of the second, as in GLUE for MRPC and QQP."""
    from sklearn.metrics import f1_score

    return f1_score(labels, predictions, pos_label=positive, zero_division=0.0)


def _macro_f1(labels: np.ndarray, predictions: np.ndarray) -> float:
    from sklearn.metrics import f1_score

    return f1_score(labels, predictions, average="macro", zero_division=0.0)


def _matthews(labels: np.ndarray, predictions: np.ndarray) -> float:
    from sklearn.metrics import matthews_corrcoef

    return _correlation(matthews_corrcoef, labels, predictions)


def _pearson(labels: np.ndarray, scores: np.ndarray) -> float:
    from scipy.stats import pearsonr

    return pearsonr(labels, scores)[0]


def _spearman(labels: np.ndarray, scores: np.ndarray) -> float:
    from scipy.stats import spearmanr

    return spearmanr(labels, scores)[0]


def _correlation(correlate: Callable, labels: np.ndarray, values: np.ndarray) -> float:
    """Correlate in double precision; return 0.0 if either side is constant and the correlation is undefined."""
    labels, values = labels.astype(np.float64), values.astype(np.float64)
    if np.ptp(labels) == 0 or np.ptp(values) == 0:
        return 0.0
    return correlate(labels, values)


_CLASSIFICATION_METRICS: dict[str, Callable] = {
    "accuracy": _accuracy,
    "macro_f1": _macro_f1,
    "f1": _f1,
    "matthews": _matthews,
}
_REGRESSION_METRICS = {"pearson": _pearson, "spearman": _spearman}
