"""The micro-batches of each optimizer step, and the shard of each that a replica gets.

An epoch is shuffled into batches of similar length. A step reads `gradient_accumulation_steps` of them: its
micro-batches. Each is divided into shards, one for every replica of every process, whose gradients add up to the whole
micro-batch's.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from paddle import Tensor

from dynabert_paddle.config.settings import TrainConfig
from dynabert_paddle.data.batches import sequential_batches
from dynabert_paddle.data.features import FeatureSet
from dynabert_paddle.data.word_features import IGNORED
from dynabert_paddle.runtime.ranks import num_processes, rank
from dynabert_paddle.supernet.supernet import to_tensors

if TYPE_CHECKING:
    from dynabert_paddle.training.text_stream import TextBatch, TextStream

_BATCHES_PER_BUCKET = 50


@dataclass(frozen=True)
class ShardWeight:
    """The share of a micro-batch that a shard is, as fractions between 0 and 1.

    A loss is a mean over one of the four. The shards' means, each times its fraction, add up to the micro-batch's mean.

    Args:
        rows: of the examples.
        tokens: of the tokens that are not padding.
        pairs: of the pairs of such tokens within one example.
        labels: of the labels that the loss counts.
    """

    rows: float = 1.0
    tokens: float = 1.0
    pairs: float = 1.0
    labels: float = 1.0


WHOLE = ShardWeight()


@dataclass(frozen=True)
class Shard:
    """The rows of a micro-batch that one replica computes.

    Args:
        inputs: int64 `[b, s]` by name, without the labels.
        labels: `[b]`, `[b, s]`, `[b, 2]` or `[b, c]`; None for examples without labels.
        weight: what share of the micro-batch this is; every loss is multiplied by one of its fractions.
        label_weights: what each label counts in the hard-label loss, in the shape of the labels; None for 1.
        row_weights: `[b]`, what each row counts in the loss of logits; None for 1.
    """

    inputs: dict[str, Tensor]
    labels: Tensor | None = None
    weight: ShardWeight = WHOLE
    label_weights: Tensor | None = None
    row_weights: Tensor | None = None


@dataclass(frozen=True)
class StepBatches:
    """What one optimizer step reads.

    Args:
        num_examples: in all processes.
        shards: for each replica of this process, its shard of each micro-batch.
    """

    num_examples: int
    shards: list[list[Shard]]


def step_batches(
    features: FeatureSet | TextStream,
    config: TrainConfig,
    pad_token_id: int,
    *,
    first_step: int,
    num_replicas: int,
    class_weights: np.ndarray | None = None,
) -> Iterator[StepBatches]:
    """Yield the micro-batches of each optimizer step, endlessly; they follow from the seed and the step alone.

    Args:
        features: the training examples.
        config: batch size, accumulation, seed.
        pad_token_id: fills `input_ids`.
        first_step: steps before it are skipped, as a resumed run has done them.
        num_replicas: of each process.
        class_weights: `[c]` or `[c, 2]`, what a label of each class counts in the hard-label loss; None for 1.

    Yields:
        One step's shards for this process.
    """
    step = 0
    row_weights = features.row_weights

    def collate(rows: Any) -> dict[str, np.ndarray]:
        own = None if row_weights is None else row_weights[rows]
        return weigh_labels(features.collate(rows, pad_token_id), class_weights, own)

    for epoch in itertools.count():
        order: Iterator[Any] = _batches_of_epoch(features, global_batch_size(config), seed=config.seed, epoch=epoch)
        while indices := list(itertools.islice(order, config.gradient_accumulation_steps)):
            if step >= first_step:
                micro_batches = list(map(collate, indices))
                shards = [
                    [
                        cut_shard(arrays, rank() * num_replicas + replica, num_processes() * num_replicas)
                        for arrays in micro_batches
                    ]
                    for replica in range(num_replicas)
                ]
                yield StepBatches(sum(map(len, indices)), shards)
            step += 1


def _batches_of_epoch(
    features: FeatureSet | TextStream, batch_size: int, *, seed: int, epoch: int
) -> Iterator[np.ndarray] | Iterator[TextBatch]:
    if isinstance(features, FeatureSet):
        return length_bucketed_batches(features.lengths, batch_size, seed=seed, epoch=epoch)
    return features.batches(batch_size, seed=seed, epoch=epoch)


def length_bucketed_batches(lengths: np.ndarray, batch_size: int, *, seed: int, epoch: int) -> Iterator[np.ndarray]:
    """Shuffle examples into batches of similar length, which need little padding.

    Args:
        lengths: `[n]`, tokens of each example.
        batch_size: examples per batch; the rest forms one smaller batch.
        seed: random seed of the order.
        epoch: counted from 0; each has a different order.

    Yields:
        Indices of each batch's examples; every example is in exactly one batch.
    """
    rng = np.random.default_rng([seed, epoch])
    order = rng.permutation(np.arange(len(lengths), dtype=np.int32 if len(lengths) < 2**31 else np.int64))
    for start in range(0, len(order), _BATCHES_PER_BUCKET * batch_size):
        bucket = order[start : start + _BATCHES_PER_BUCKET * batch_size]
        bucket[:] = bucket[np.argsort(lengths[bucket], kind="stable")]
    for batch in rng.permutation(-(-len(order) // batch_size)):
        yield order[batch * batch_size : (batch + 1) * batch_size]


def weighted_batches(features: FeatureSet, batch_size: int, pad_token_id: int) -> Iterator[dict[str, np.ndarray]]:
    """Yield all examples once, in batches of similar length, with the weights of their labels.

    Args:
        features: the examples.
        batch_size: examples in a batch.
        pad_token_id: fills `input_ids`.

    Yields:
        Batches as from `weigh_labels`, without `row_weights`.
    """
    row_weights = features.row_weights
    for rows in sequential_batches(features.lengths, batch_size):
        batch = weigh_labels(
            features.collate(rows, pad_token_id), None, None if row_weights is None else row_weights[rows]
        )
        batch.pop("row_weights", None)
        yield batch


def weigh_labels(
    micro_batch: dict[str, np.ndarray], class_weights: np.ndarray | None, row_weights: np.ndarray | None = None
) -> dict[str, np.ndarray]:
    """Add the weights of labels and rows to a micro-batch.

    Args:
        micro_batch: from `FeatureSet.collate`.
        class_weights: `[c]`, the weight of each class, or `[c, 2]`, of a text without and with each label; None for 1.
        row_weights: `[b]`, the weight of each row; None for 1.

    Returns:
        The micro-batch, with `row_weights`, and `label_weights` in the shape of its labels, 0 for ignored ones; without
        those that are 1.
    """
    if row_weights is not None:
        micro_batch = micro_batch | {"row_weights": row_weights}
    labels = micro_batch.get("labels")
    if labels is None or (class_weights is None and row_weights is None):
        return micro_batch
    weights = np.ones(labels.shape, dtype=np.float32)
    if class_weights is not None and class_weights.ndim == 2:
        weights = class_weights[np.arange(len(class_weights)), labels.astype(np.int64)]
    elif class_weights is not None:
        is_counted = labels != IGNORED
        weights = np.where(is_counted, class_weights[np.where(is_counted, labels, 0)], 0)
    if row_weights is not None:
        weights = weights * row_weights.reshape(-1, *[1] * (labels.ndim - 1))
    return micro_batch | {"label_weights": weights}


def cut_shard(micro_batch: Mapping[str, np.ndarray], index: int, num_shards: int) -> Shard:
    """Take every `num_shards`-th row of a micro-batch, beginning with row `index`.

    Args:
        micro_batch: from `FeatureSet.collate`.
        index: the shard's number, from 0.
        num_shards: how many there are.

    Returns:
        The rows, padded as in the micro-batch. With fewer rows than shards the last shards repeat the first row with
        weight 0, so that every replica makes the same calls.
    """
    if num_shards == 1:
        return _make_shard(dict(micro_batch), WHOLE)
    num_rows = len(micro_batch["input_ids"])
    rows = slice(index, None, num_shards) if index < num_rows else slice(1)
    counted = 1.0 if index < num_rows else 0.0
    lengths = micro_batch["attention_mask"].sum(axis=1)

    def fraction(amounts: np.ndarray) -> float:
        return counted * float(amounts[rows].sum()) / max(1.0, float(amounts.sum()))

    weight = ShardWeight(
        rows=fraction(np.ones(num_rows)),
        tokens=fraction(lengths),
        pairs=fraction(lengths**2),
        labels=fraction(_count_labels(micro_batch.get("labels"), num_rows)),
    )
    return _make_shard({name: values[rows] for name, values in micro_batch.items()}, weight)


def _make_shard(arrays: dict[str, np.ndarray], weight: ShardWeight) -> Shard:
    inputs = to_tensors(arrays)
    labels, *weights = (inputs.pop(name, None) for name in ("labels", "label_weights", "row_weights"))
    return Shard(inputs, labels, weight, *weights)


def _count_labels(labels: np.ndarray | None, num_rows: int) -> np.ndarray:
    """The number of labels of each row that a loss counts."""
    if labels is None:
        return np.ones(num_rows)
    if np.issubdtype(labels.dtype, np.floating):
        return np.isfinite(labels).reshape(num_rows, -1).all(axis=1).astype(float)
    return (labels != IGNORED).reshape(num_rows, -1).sum(axis=1)


def count_steps(num_examples: int, config: TrainConfig) -> int:
    """Return the optimizer steps of a run: `max_steps`, or else the steps of `num_train_epochs`."""
    return config.max_steps or max(1, math.ceil(config.num_train_epochs * steps_per_epoch(num_examples, config)))


def steps_per_epoch(num_examples: int, config: TrainConfig) -> int:
    """Return the optimizer steps that read every example once; the last one may have fewer examples."""
    return math.ceil(math.ceil(num_examples / global_batch_size(config)) / config.gradient_accumulation_steps)


def steps_between_evaluations(num_examples: int, config: TrainConfig) -> int:
    """Return the optimizer steps from one evaluation to the next: `eval_steps`, or else those of an epoch."""
    return config.eval_steps or steps_per_epoch(num_examples, config)


def global_batch_size(config: TrainConfig) -> int:
    """Return the examples of a full micro-batch, over all processes."""
    return config.per_device_train_batch_size * num_processes()
