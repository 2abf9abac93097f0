"""Scores candidates by a metric: a generation at a time, part by part of the examples; hopeless ones are stopped."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import NamedTuple

import numpy as np

from dynabert_paddle.config.names import setting
from dynabert_paddle.data.features import FeatureSet
from dynabert_paddle.data.label_set_metrics import are_label_sets
from dynabert_paddle.data.word_features import WordFeatures
from dynabert_paddle.errors import UsageError
from dynabert_paddle.subnet import Subnet
from dynabert_paddle.supernet.supernet import Supernet
from dynabert_paddle.supernet.thresholds import as_array, recorded_thresholds
from dynabert_paddle.text.decode import DEFAULT_THRESHOLD, sigmoid
from dynabert_paddle.training.predict import predict_logits

RISK = 1e-4  # maximum probability, at each look, that a good enough candidate is stopped

_BATCHES_PER_LOOK = 2


class Score(NamedTuple):
    """A candidate's score.

    Args:
        value: the score; if the candidate was stopped, an estimate from the examples it was scored on.
        stopped: whether it was stopped before the last example.
    """

    value: float
    stopped: bool


@dataclass(frozen=True)
class Scorer:
    """Scores sub-networks on the same examples with the same metric.

    Args:
        supernet: the model.
        features: the examples.
        metric: name of the metric.
        batch_size: examples at a time.
        seed: determines the order of the examples.
    """

    supernet: Supernet
    features: FeatureSet
    metric: str
    batch_size: int
    seed: int

    def __call__(self, subnets: Sequence[Subnet], to_beat: Sequence[float]) -> list[Score]:
        """Score sub-networks; they share each batch's embedding.

        Args:
            subnets: the candidates.
            to_beat: for each of them the score that it must exceed to be of interest, or minus infinity. Only used for
                accuracy: other metrics are not means over examples, so that they need all examples.

        Returns:
            Their scores.
        """
        if not subnets:
            return []
        if self.metric == "accuracy":
            return _score_with_stopping(self, subnets, to_beat)
        logits = predict_logits(self.supernet, self.features, subnets, batch_size=self.batch_size)
        return [Score(self.features.score((self.metric,), rows)[self.metric], stopped=False) for rows in logits]


def _score_with_stopping(scorer: Scorer, subnets: Sequence[Subnet], to_beat: Sequence[float]) -> list[Score]:
    features, total = scorer.features, scorer.features.num_scored
    # In random order, so that the examples seen so far are a random sample.
    order = np.random.default_rng(scorer.seed).permutation(total)
    right, alive = np.zeros(len(subnets), dtype=np.int64), np.arange(len(subnets))
    seen = np.zeros(len(subnets), dtype=np.int64)
    step = _BATCHES_PER_LOOK * scorer.batch_size
    for start in range(0, total, step):
        if not len(alive):
            break
        part = features.select(order[start : start + step])
        logits = predict_logits(scorer.supernet, part, [subnets[i] for i in alive], batch_size=scorer.batch_size)
        right[alive] += [int((np.asarray(rows).argmax(axis=1) == part.labels).sum()) for rows in logits]
        seen[alive] += part.num_scored
        alive = np.array([i for i in alive if not is_hopeless(right[i], seen[i], total, to_beat[i])], dtype=np.int64)
    return [Score(float(r / s), stopped=bool(s < total)) for r, s in zip(right, seen, strict=True)]


def is_hopeless(right: int, seen: int, total: int, to_beat: float) -> bool:
    """Decide whether a candidate can be stopped.

    The examples seen so far are a sample without replacement, so the number of correct ones among them has a
    hypergeometric distribution. A candidate that exceeds `to_beat` is stopped with a probability below `RISK`.

    Args:
        right: correct predictions so far.
        seen: examples seen so far.
        total: all examples.
        to_beat: the accuracy that it must exceed.

    Returns:
        Whether a candidate that exceeds it would have at most `right` correct with a probability below `RISK`.
    """
    from scipy.stats import hypergeom

    if seen == total or to_beat < 0:
        return False
    needed = math.floor(to_beat * total + 1e-9) + 1
    return needed > total or bool(hypergeom.cdf(right, total, needed, seen) < RISK)


def label_with_predictions(supernet: Supernet, features: FeatureSet, *, batch_size: int) -> tuple[FeatureSet, str]:
    """Replace the labels by the full model's predictions, so that a metric measures agreement with it.

    Args:
        supernet: the model.
        features: the examples.
        batch_size: examples at a time.

    Returns:
        The examples, and the name of the metric: the share of texts, or of words, with the same predicted label, or of
        texts with the same predicted labels.

    Raises:
        UsageError: the task predicts values or answers, which agreement does not support.
    """
    (logits,) = predict_logits(supernet, features, [supernet.full], batch_size=batch_size)
    if isinstance(features, WordFeatures):
        return replace(features, word_labels=features.predict(logits)), "token_accuracy"
    labels = features.labels
    if features.kind != "classification" or labels is None or np.issubdtype(labels.dtype, np.floating):
        raise UsageError(
            f"{setting('search.score')} agreement needs labels of texts or of words, not values, vectors or "
            "answers: omit it"
        )
    if are_label_sets(labels):
        thresholds = recorded_thresholds(supernet.metadata, supernet.search_space(), supernet.full)
        least: float | np.ndarray = DEFAULT_THRESHOLD
        if thresholds is not None:
            least = as_array(thresholds, supernet.labels or tuple(thresholds))
        return features.with_labels(sigmoid(np.asarray(logits, dtype=np.float64)) >= least), "subset_accuracy"
    return features.with_labels(np.asarray(logits).argmax(axis=1)), "accuracy"
