"""Scores of candidates: a generation together, a part of the examples at a time, without those that are hopeless."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import NamedTuple

import numpy as np

from dynabert_paddle.config.settings import SearchConfig
from dynabert_paddle.data.features import FeatureSet
from dynabert_paddle.data.token_classification import WordFeatures
from dynabert_paddle.errors import UsageError
from dynabert_paddle.subnet import Subnet
from dynabert_paddle.supernet.supernet import Supernet
from dynabert_paddle.text.decode import label_words
from dynabert_paddle.training.evaluate import predict_logits

# How likely a candidate that is good enough is to be stopped, at each look.
RISK = 1e-4

_BATCHES_PER_LOOK = 2


class Score(NamedTuple):
    """What is known of a candidate.

    Args:
        value: its score; of a stopped candidate the estimate from the examples that were looked at.
        stopped: whether it was stopped before the last example.
    """

    value: float
    stopped: bool


@dataclass(frozen=True)
class Scorer:
    """Scores sub-networks on the same examples, by the same metric.

    Args:
        supernet: the model.
        features: the examples.
        metric: its name.
        batch_size: examples at a time.
        seed: chooses the order in which examples are looked at.
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
            to_beat: for each of them the score that it must exceed to be of interest; minus infinity for any. Counts
                for accuracy alone: other metrics are no means over examples, and are read from all of them.

        Returns:
            Their scores.
        """
        if not subnets:
            return []
        if self.metric == "accuracy":
            return _score_in_parts(self, subnets, to_beat)
        logits = predict_logits(self.supernet, self.features, subnets, batch_size=self.batch_size)
        return [Score(self.features.score((self.metric,), rows)[self.metric], stopped=False) for rows in logits]


def _score_in_parts(scorer: Scorer, subnets: Sequence[Subnet], to_beat: Sequence[float]) -> list[Score]:
    features, total = scorer.features, len(scorer.features)
    # In a random order, so that what was looked at is a sample of all.
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
        seen[alive] += len(part)
        alive = np.array([i for i in alive if not is_hopeless(right[i], seen[i], total, to_beat[i])], dtype=np.int64)
    return [Score(float(r / s), stopped=bool(s < total)) for r, s in zip(right, seen, strict=True)]


def is_hopeless(right: int, seen: int, total: int, to_beat: float) -> bool:
    """Tell whether a candidate can be stopped.

    The examples that were seen are a sample without replacement, so that the number of right ones among them has a
    hypergeometric distribution. A candidate that exceeds `to_beat` is stopped with a probability below `RISK`.

    Args:
        right: examples that it has right so far.
        seen: examples that it was tried on.
        total: all examples.
        to_beat: the accuracy that it must exceed.

    Returns:
        Whether a candidate that exceeds it would have so few right, or fewer, with a probability below `RISK`.
    """
    from scipy.stats import hypergeom

    if seen == total or to_beat < 0:
        return False
    needed = math.floor(to_beat * total + 1e-9) + 1
    return needed > total or bool(hypergeom.cdf(right, total, needed, seen) < RISK)


def make_scorer(supernet: Supernet, features: FeatureSet, metric: str, config: SearchConfig) -> Scorer:
    """Make what scores a supernet's sub-networks.

    Args:
        supernet: the model.
        features: the examples.
        metric: the task's.
        config: says whether that metric scores, or the agreement with the full model.

    Returns:
        The scorer.

    Raises:
        UsageError: agreement is asked for, and the task has no labels that could agree.
    """
    batch_size = config.per_device_eval_batch_size
    if config.score == "agreement":
        features, metric = label_with_predictions(supernet, features, batch_size=batch_size)
    return Scorer(supernet, features, metric, batch_size, config.seed)


def label_with_predictions(supernet: Supernet, features: FeatureSet, *, batch_size: int) -> tuple[FeatureSet, str]:
    """Put the full model's predictions in the labels' place, so that a metric measures agreement with it.

    Args:
        supernet: the model.
        features: the examples.
        batch_size: examples at a time.

    Returns:
        The examples, and the metric: the share of texts, or of words, for which a candidate predicts the same label.

    Raises:
        UsageError: values and answers have no labels that could agree.
    """
    (logits,) = predict_logits(supernet, features, [supernet.full], batch_size=batch_size)
    if isinstance(features, WordFeatures):
        word_labels = [
            label_words(row, tokens.tolist(), features.names)[0]
            for row, tokens in zip(logits, features.tokens, strict=False)
        ]
        return replace(features, word_labels=word_labels), "token_accuracy"
    labels = features.labels
    if features.kind != "classification" or labels is None or np.issubdtype(labels.dtype, np.floating):
        raise UsageError(
            "--score agreement is for labels of texts or of words, not for values or answers: leave it out"
        )
    return features.with_labels(np.asarray(logits).argmax(axis=1)), "accuracy"
