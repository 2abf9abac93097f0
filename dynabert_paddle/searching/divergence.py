"""Divergence of a sub-network's outputs from the full model's: what distillation minimizes, example by example.

Shapes: n examples, c outputs, s sequence.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from dynabert_paddle.data.embedding_metrics import unit_vectors
from dynabert_paddle.data.features import FeatureSet
from dynabert_paddle.data.question_answering import WindowFeatures
from dynabert_paddle.data.word_features import WordFeatures


def divergences(
    features: FeatureSet, reference: Sequence[np.ndarray], logits: Sequence[np.ndarray], *, kind: str
) -> np.ndarray:
    """Compare logits with the full model's.

    Args:
        features: the examples.
        reference: the full model's logits, from `features.restore`.
        logits: the sub-network's.
        kind: the kind of the task.

    Returns:
        `[n]`, 0 where both are equal: for values the squared error; for vectors 1 - cos; else KL(full || sub) in nats.
        For several labels a text it is the mean over the labels, each for itself, for labels of words that over a
        sentence's tokens, for answers that of the first and the last token, in all windows.
    """
    if kind == "regression":
        return np.square(np.asarray(reference, dtype=np.float64) - np.asarray(logits)).mean(axis=1)
    if kind == "embedding":
        return 1 - (unit_vectors(np.asarray(reference)) * unit_vectors(np.asarray(logits))).sum(axis=1)
    if isinstance(reference, np.ndarray):
        full, sub = reference, np.asarray(logits)
        if kind == "multi_label":  # two classes a label, whose logits differ by the label's
            full, sub = (np.stack([np.zeros_like(one), one], axis=-1) for one in (full, sub))
        values = _kl(full, sub)
        return values.mean(axis=1) if values.ndim > 1 else values
    values = np.array([_kl(full, sub).mean() for full, sub in zip(reference, logits, strict=True)])
    if isinstance(features, (WindowFeatures, WordFeatures)):
        sums = np.bincount(features.owners, weights=values, minlength=features.num_scored)
        return sums / np.bincount(features.owners, minlength=features.num_scored)
    return values


def _kl(full: np.ndarray, sub: np.ndarray) -> np.ndarray:
    """KL(full || sub) over the last axis; never below 0, which rounding could make it."""
    log_full, log_sub = (_log_softmax(logits.astype(np.float64)) for logits in (full, sub))
    return np.maximum((np.exp(log_full) * (log_full - log_sub)).sum(axis=-1), 0.0)


def _log_softmax(logits: np.ndarray) -> np.ndarray:
    shifted = logits - logits.max(axis=-1, keepdims=True)
    return shifted - np.log(np.exp(shifted).sum(axis=-1, keepdims=True))
