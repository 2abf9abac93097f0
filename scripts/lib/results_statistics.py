"""Bootstrap intervals of the differences between methods, paired over rows and seeds; n rows, k models, R resamples.

Both methods of a difference are scored on the same resampled rows, and on the same resampled seeds, whose models start
from the same fine-tuned one. Resamples of rows are counts, so that every metric is a few sums.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

NUM_RESAMPLES = 2000
LEVEL = 0.95


@dataclass(frozen=True)
class Pair:
    """What two methods compute for the rows of one task.

    Args:
        metric: the task's first metric: accuracy, matthews or pearson.
        labels: `[n]`, 0 and 1, or scores.
        left: for each seed `[k, n]`, the outputs of k models whose mean score counts.
        right: the same of the other method, for the same seeds.
    """

    metric: str
    labels: np.ndarray
    left: Sequence[np.ndarray]
    right: Sequence[np.ndarray]


@dataclass(frozen=True)
class Difference:
    """The difference between two methods, and the interval that its resamples lie in."""

    value: float
    low: float
    high: float


def compare(pairs: Sequence[Pair], *, num_resamples: int = NUM_RESAMPLES, seed: int = 0) -> Difference:
    """Return the mean difference over tasks, left less right, with its 95 % interval.

    Args:
        pairs: one for each task; rows and seeds are drawn for each task by itself.
        num_resamples: R.
        seed: of the draws.

    Returns:
        The difference of the means over seeds, and its interval.
    """
    random = np.random.default_rng(seed)
    value, resampled = 0.0, np.zeros(num_resamples)
    for pair in pairs:
        n = len(pair.labels)
        once = np.ones((1, n))
        value += float(_by_seed(pair, once).mean()) / len(pairs)
        counts = random.multinomial(n, np.full(n, 1 / n), size=num_resamples).astype(np.float64)
        by_seed = _by_seed(pair, counts)  # [R, seeds]
        drawn = random.integers(by_seed.shape[1], size=by_seed.shape)
        resampled += np.take_along_axis(by_seed, drawn, axis=1).mean(axis=1) / len(pairs)
    tail = 50 * (1 - LEVEL)
    low, high = np.percentile(resampled, [tail, 100 - tail])
    return Difference(value, float(low), float(high))


def _by_seed(pair: Pair, counts: np.ndarray) -> np.ndarray:
    """The difference of each seed on each resample `[R, seeds]`."""

    def scores(outputs: np.ndarray) -> np.ndarray:
        return score_resamples(pair.metric, outputs, pair.labels, counts).mean(axis=0)

    return np.stack([scores(left) - scores(right) for left, right in zip(pair.left, pair.right, strict=True)], axis=1)


def score_resamples(metric: str, outputs: np.ndarray, labels: np.ndarray, counts: np.ndarray) -> np.ndarray:
    """Score models on resampled rows.

    Args:
        metric: accuracy, matthews or pearson.
        outputs: `[k, n]`: above 0 for the second class, or scores.
        labels: `[n]`: 0 and 1, or scores.
        counts: `[R, n]`: how often each row is in a resample.

    Returns:
        `[k, R]`; a correlation with constant values is 0, as `compute_metrics` has it.

    Raises:
        ValueError: another metric.
    """
    total = counts.sum(axis=1)
    if metric == "accuracy":
        return ((outputs > 0) == (labels > 0)) @ counts.T / total
    if metric not in ("matthews", "pearson"):
        raise ValueError(f"the bootstrap scores accuracy, matthews and pearson, not {metric}")
    # Matthews' coefficient is Pearson's of predicted and true classes.
    found = (outputs > 0).astype(np.float64) if metric == "matthews" else outputs
    truth = (labels > 0).astype(np.float64) if metric == "matthews" else labels.astype(np.float64)
    found, truth = found - found.mean(axis=1, keepdims=True), truth - truth.mean()  # sums stay exact
    mean_found, mean_truth = found @ counts.T / total, counts @ truth / total
    covariance = (found * truth) @ counts.T / total - mean_found * mean_truth
    spread_found = found**2 @ counts.T / total - mean_found**2
    spread_truth = counts @ truth**2 / total - mean_truth**2
    product = spread_found * spread_truth
    constant = product < 1e-12
    return np.where(constant, 0.0, covariance / np.sqrt(np.where(constant, 1.0, product)))
