"""Scores of each class: precision, recall and F1, which classes are taken for which, and calibration.

Shapes: n rows or words, k labels.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from dynabert_paddle.data.features import FeatureSet
from dynabert_paddle.data.label_set_metrics import are_label_sets
from dynabert_paddle.data.word_features import WordFeatures
from dynabert_paddle.text.decode import DEFAULT_THRESHOLD, sigmoid, softmax

NUM_BINS = 15  # of the calibration error, as in Guo et al. (2017)


@dataclass(frozen=True)
class ClassScore:
    """The scores of one class, or of the entities of one type.

    Args:
        name: the label, or the type.
        precision: right predictions of it among all predictions of it; 0.0 if there are none.
        recall: right predictions of it among all of its rows or entities; 0.0 if there are none.
        f1: the harmonic mean of both; 0.0 if both are.
        support: the number of its rows or entities.
    """

    name: str
    precision: float
    recall: float
    f1: float
    support: int


@dataclass(frozen=True)
class Calibration:
    """Whether a model's probabilities are its shares of right predictions.

    The predictions are put into `NUM_BINS` bins of equal width by their highest probability: (0, 1/15], (1/15, 2/15],
    and so on.

    Args:
        counts: predictions in each bin.
        confidence: the mean highest probability in each bin; 0.0 in an empty one.
        accuracy: the share of right predictions in each bin; 0.0 in an empty one.
        ece: the expected calibration error, sum_b counts_b / n * |accuracy_b - confidence_b| (Guo et al., 2017,
            equation 3).
    """

    counts: tuple[int, ...]
    confidence: tuple[float, ...]
    accuracy: tuple[float, ...]
    ece: float


@dataclass(frozen=True, eq=False)
class ClassScores:
    """The scores of all classes.

    Args:
        unit: of what: `label` or `entity`.
        classes: of each label in the order of the logits, or of each type of entity, sorted.
        labels: the labels in the order of `confusion`; for words those of words, such as `B-PER`.
        confusion: `[k, k]`, how many rows or words with the label of the row got that of the column.
        calibration: of the rows or words; without words that were not read, which have no probability.
        totals: `[k]`, the rows or words that each row of `confusion` is of.
        num_right: rows or words whose labels are all right.
        num_scored: rows or words.
        is_several: a text can have several labels. Then the last of `labels` stands for none of them. `confusion` has
            on its diagonal the texts with a label that is predicted; elsewhere those that miss the label of the row and
            were given that of the column wrongly, and with none the texts that miss or were given no label wrongly.
            The calibration is that of each label's probability.
    """

    unit: str
    classes: tuple[ClassScore, ...]
    labels: tuple[str, ...]
    confusion: np.ndarray
    calibration: Calibration
    totals: np.ndarray
    num_right: int
    num_scored: int
    is_several: bool = False

    def confusions(self) -> list[tuple[str, str, int]]:
        """List the wrong predictions, the commonest first: the label, the predicted one, and how often."""
        pairs = np.argwhere(self.confusion * ~np.eye(len(self.labels), dtype=bool))
        found = [(self.labels[i], self.labels[j], int(self.confusion[i, j])) for i, j in pairs]
        return sorted(found, key=lambda confusion: -confusion[2])

    def to_dict(self) -> dict[str, Any]:
        """Describe the scores in JSON types."""
        return {
            "unit": self.unit,
            "classes": [asdict(score) for score in self.classes],
            "confusion": {"labels": list(self.labels), "counts": self.confusion.tolist()},
            "calibration": {"bins": NUM_BINS, **asdict(self.calibration)},
        }


def score_classes(
    features: FeatureSet, logits: Sequence[np.ndarray], names: Sequence[str], thresholds: np.ndarray | None = None
) -> ClassScores:
    """Score each class of a classification, or each type of entity.

    Args:
        features: tokenized examples with labels.
        logits: from `FeatureSet.restore`.
        names: the labels in the order of the logits.
        thresholds: for several labels a text, `[c]`, the probability from which each is predicted; by default 0.5.

    Returns:
        The scores.
    """
    if isinstance(features, WordFeatures):
        return _score_entities(features, logits)
    from sklearn.metrics import confusion_matrix, precision_recall_fscore_support

    assert features.labels is not None  # the examples of a dev set have labels
    if are_label_sets(features.labels):
        probabilities = sigmoid(np.asarray(logits, dtype=np.float64))
        least = DEFAULT_THRESHOLD if thresholds is None else thresholds
        return _score_label_sets(features.labels, probabilities, probabilities >= least, names)
    probabilities = softmax(np.asarray(logits, dtype=np.float64))
    predicted, classes = probabilities.argmax(axis=1), np.arange(len(names))
    columns = precision_recall_fscore_support(features.labels, predicted, labels=classes, zero_division=0.0)
    return _with_totals(
        "label",
        tuple(
            ClassScore(name, float(precision), float(recall), float(f1), int(support))
            for name, precision, recall, f1, support in zip(names, *columns, strict=True)
        ),
        tuple(names),
        confusion_matrix(features.labels, predicted, labels=classes),
        calibrate(probabilities.max(axis=1), predicted == features.labels),
    )


def _with_totals(
    unit: str, classes: tuple[ClassScore, ...], labels: tuple[str, ...], confusion: np.ndarray, calibration: Calibration
) -> ClassScores:
    """The scores where each row or word has one label."""
    totals, num_right = confusion.sum(axis=1), int(np.trace(confusion))
    return ClassScores(unit, classes, labels, confusion, calibration, totals, num_right, int(confusion.sum()))


def _score_label_sets(
    expected: np.ndarray, probabilities: np.ndarray, predicted: np.ndarray, names: Sequence[str]
) -> ClassScores:
    """The scores where a text can have several labels, `[n, c]` each."""
    hits = (expected & predicted).sum(axis=0)
    # A text without a missed label, or without one that was given wrongly, stands under none of the labels.
    missed, surplus = (
        np.column_stack([wrong, ~wrong.any(axis=1)]).astype(np.int64)
        for wrong in (expected & ~predicted, predicted & ~expected)
    )
    confusion = missed.T @ surplus
    confusion[np.arange(len(names)), np.arange(len(names))] += hits
    none = "(none)"
    while none in names:
        none = f"({none})"
    support = expected.sum(axis=0)
    return ClassScores(
        "label",
        tuple(
            ClassScore(
                name,
                precision=_ratio(int(hit), int(found)),
                recall=_ratio(int(hit), int(own)),
                f1=_ratio(2 * int(hit), int(found + own)),
                support=int(own),
            )
            for name, hit, found, own in zip(names, hits, predicted.sum(axis=0), support, strict=True)
        ),
        (*names, none),
        confusion,
        calibrate(probabilities.ravel(), expected.ravel()),
        totals=np.array([*support, missed[:, -1].sum()]),
        num_right=int(confusion[-1, -1]),
        num_scored=len(expected),
        is_several=True,
    )


def _score_entities(features: WordFeatures, logits: Sequence[np.ndarray]) -> ClassScores:
    predicted = features.predict(logits)
    found, expected = (
        {(row, *span) for row, labels in enumerate(rows) for span in features.scheme.spans(labels)}
        for rows in (predicted, features.word_labels)
    )
    pairs: list[tuple[str, str]] = []  # of each word its label and the predicted one
    for own, labels in zip(features.word_labels, predicted, strict=True):
        pairs += zip(own, labels, strict=True)
    # A word that was not read is predicted to be outside, which may be none of the labels.
    names = tuple(dict.fromkeys([*features.names, *(name for pair in pairs for name in pair)]))
    index = {name: number for number, name in enumerate(names)}
    confusion = np.zeros((len(names), len(names)), dtype=np.int64)
    for label, other in pairs:
        confusion[index[label], index[other]] += 1
    confidences: list[np.ndarray] = []
    is_right: list[np.ndarray] = []
    for (words, values), own in zip(features.read_words(logits), features.word_labels, strict=True):
        probabilities = softmax(values.astype(np.float64))
        confidences.append(probabilities.max(axis=1))
        is_right.append(probabilities.argmax(axis=1) == np.array([index[own[word]] for word in words], dtype=int))
    return _with_totals(
        "entity",
        tuple(_score_type(name, found, expected) for name in sorted({kind for _, kind, _, _ in found | expected})),
        names,
        confusion,
        calibrate(np.concatenate(confidences), np.concatenate(is_right)),
    )


def _score_type(
    name: str, found: set[tuple[int, str, int, int]], expected: set[tuple[int, str, int, int]]
) -> ClassScore:
    predicted, actual = ({span for span in spans if span[1] == name} for spans in (found, expected))
    num_right = len(predicted & actual)
    return ClassScore(
        name,
        precision=_ratio(num_right, len(predicted)),
        recall=_ratio(num_right, len(actual)),
        f1=_ratio(2 * num_right, len(predicted) + len(actual)),
        support=len(actual),
    )


def calibrate(confidences: np.ndarray, is_right: np.ndarray) -> Calibration:
    """Compare probabilities with the shares of right predictions.

    Args:
        confidences: `[n]`, the highest probability of each prediction, or of several labels a text each one's.
        is_right: `[n]`, whether the most probable label is right, or the text has the label.

    Returns:
        The calibration.
    """
    bins = np.searchsorted(np.arange(1, NUM_BINS) / NUM_BINS, confidences)  # a bin's upper edge belongs to it
    counts = np.bincount(bins, minlength=NUM_BINS)
    sums = [np.bincount(bins, weights=values, minlength=NUM_BINS) for values in (confidences, is_right)]
    confidence, accuracy = (total / np.maximum(counts, 1) for total in sums)
    ece = np.abs(sums[1] - sums[0]).sum() / max(1, len(bins))
    return Calibration(tuple(counts.tolist()), tuple(confidence.tolist()), tuple(accuracy.tolist()), ece=float(ece))


def _ratio(part: int, whole: int) -> float:
    return part / whole if whole else 0.0
