"""The hard-label loss of every stage that trains on labels: cross-entropy, weighted or not, or a squared error."""

from __future__ import annotations

from collections.abc import Callable

import paddle
import paddle.nn.functional as F
from paddle import Tensor

from dynabert_paddle.config.settings import LabelLossConfig
from dynabert_paddle.data.word_features import IGNORED
from dynabert_paddle.rewiring.importance import RandomProjection
from dynabert_paddle.training.batches import Shard

PLAIN = LabelLossConfig()  # cross-entropy, all labels alike
_MIN_DOUBT = 1e-6  # of 1 - p: the slope of a power below 1 has no bound at 0


def shard_label_loss(logits: Tensor, shard: Shard, config: LabelLossConfig = PLAIN) -> Tensor:
    """The hard-label loss of a shard, weighted by its share of the micro-batch's labels.

    Args:
        logits: as for `label_loss`.
        shard: has the labels, and a weight for each if the stage has class weights.
        config: the stage's settings.

    Returns:
        The loss; those of all shards add up to that of the micro-batch.
    """
    assert shard.labels is not None  # only augmented texts have none, and only distillation reads them
    return label_loss(logits, shard.labels, weights=shard.label_weights, config=config) * shard.weight.labels


def loss_for_gradients(kind: str, seed: int) -> Callable[[Tensor, Tensor | None], Tensor]:
    """Return the loss whose gradients tell how much parts of a model matter.

    Args:
        kind: the kind of task.
        seed: of the random projections where there are no labels.

    Returns:
        The hard-label loss of logits and labels; for embeddings its stand-in.
    """
    return RandomProjection(seed) if kind == "embedding" else label_loss  # type: ignore[return-value]


def label_loss(
    logits: Tensor, labels: Tensor, *, weights: Tensor | None = None, config: LabelLossConfig = PLAIN
) -> Tensor:
    """The hard-label loss: cross-entropy for classes, binary for several labels, mean squared error for values.

    Of a label y with the probability p_y and the weight w, with k classes, the loss is
    w * (1 - p_y)^gamma * ((1 - e) * -log p_y + e / k * sum_c -log p_c): the focal loss of Lin et al. (2017, equation 5)
    and the label smoothing e of Szegedy et al. (2016, section 7). Each of several labels is a y of its own, with k = 2.

    Args:
        logits: `[b, c]`; `[b, s, c]` for the labels of tokens; `[b, 2, s]` for an answer's first and last token.
        labels: `[b]`, `[b, s]` or `[b, 2]`, int64 classes, `IGNORED` ones not counted; or float32: values, `[b]`, or
            which of several labels a text has, `[b, c]`, 0 or 1; NaN for a text without, which does not count.
        weights: of each label, in the shape of the labels; by default 1.
        config: gamma and e; not for values and answers.

    Returns:
        The mean over all labels that count: the sum of the losses, divided by their number and not by their weights,
        so that the means of parts of a batch, by their numbers of labels, add up to that of the whole.
    """
    if paddle.is_floating_point(labels):
        is_known = paddle.isfinite(labels)
        if not bool(is_known.all()):
            return _mean_of_known(logits, labels, is_known, weights)
        if labels.ndim == 2 and (config.focal_gamma or config.label_smoothing):
            # Each label is a question with two classes, whose logits differ by the label's.
            two = paddle.stack([paddle.zeros_like(logits), logits], axis=-1)
            return label_loss(two, labels.astype("int64"), weights=weights, config=config)
        if labels.ndim == 2:
            return F.binary_cross_entropy_with_logits(logits, labels, weight=weights)
        if weights is not None:
            return (weights * (logits.squeeze(-1) - labels) ** 2).mean()
        return F.mse_loss(logits.squeeze(-1), labels)
    # Paddle's own mean counts the ignored ones, too.
    is_counted = paddle.not_equal(labels, paddle.full_like(labels, IGNORED))
    counted = is_counted.astype(logits.dtype).sum().clip(min=1)
    if weights is None and not config.focal_gamma and not config.label_smoothing:
        return F.cross_entropy(logits, labels, ignore_index=IGNORED, reduction="sum") / counted
    log_probabilities = F.log_softmax(logits.astype("float32"), axis=-1)
    classes = paddle.where(is_counted, labels, paddle.zeros_like(labels))
    own = paddle.take_along_axis(log_probabilities, classes.unsqueeze(-1), axis=-1).squeeze(-1)  # log p_y
    losses = -own
    if config.label_smoothing:
        losses = (1 - config.label_smoothing) * losses - config.label_smoothing * log_probabilities.mean(axis=-1)
    if config.focal_gamma:
        losses = (-paddle.expm1(own)).clip(min=_MIN_DOUBT) ** config.focal_gamma * losses
    if weights is not None:
        losses = losses * weights
    return (losses * is_counted.astype(losses.dtype)).sum() / counted


def _mean_of_known(logits: Tensor, labels: Tensor, is_known: Tensor, weights: Tensor | None) -> Tensor:
    """The mean loss of the texts that have values, or several labels."""
    filled = paddle.where(is_known, labels, paddle.zeros_like(labels))
    if labels.ndim == 2:
        losses = F.binary_cross_entropy_with_logits(logits, filled, reduction="none")
    else:
        losses = F.mse_loss(logits.squeeze(-1), filled, reduction="none")
    counted = is_known.astype(losses.dtype)
    if weights is not None:
        losses = losses * weights
    return (losses * counted).sum() / counted.sum().clip(min=1)
