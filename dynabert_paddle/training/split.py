"""A task's examples as a stage reads them: tokenized, and some held out."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np

from dynabert_paddle.config import TaskConfig, TrainConfig
from dynabert_paddle.data.features import Features, split_holdout, tokenize
from dynabert_paddle.data.readers import Examples
from dynabert_paddle.data.tasks import Task
from dynabert_paddle.errors import UsageError
from dynabert_paddle.supernet.supernet import Supernet


@dataclass(frozen=True)
class Split:
    """A task's examples, tokenized and divided.

    Args:
        train: to train on.
        select: to choose the best checkpoint on.
        select_name: what `select` is: holdout or dev.
    """

    train: Features
    select: Features
    select_name: str


def split_task(task: Task, supernet: Supernet, config: TrainConfig) -> Split:
    """Tokenize a task's examples and hold some out.

    Args:
        task: the task.
        supernet: its tokenizer and the length that it is trained at count.
        config: what to select on, and the seed.

    Returns:
        The examples to train and to select on.

    Raises:
        UsageError: the supernet has no tokenizer.
    """
    features = tokenize_examples(task.train, supernet)
    if config.select_on == "dev":
        return Split(features, tokenize_examples(task.dev, supernet), "dev")
    kept, held_out = hold_out(features, config.holdout_size, seed=config.seed)
    return Split(features.select(kept), features.select(held_out), "holdout")


def hold_out(features: Features, size: int, *, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Divide training examples into those to train on and those that stand in for unseen ones.

    Args:
        features: the training examples.
        size: how many to hold out; at most a tenth are.
        seed: with the same size and seed, every stage holds out the same ones.

    Returns:
        Indices of the examples to train on, and of those held out.
    """
    return split_holdout(features.labels, num_examples=min(size, len(features) // 10), seed=seed)


def tokenize_examples(examples: Examples, supernet: Supernet, *, max_seq_length: int | None = None) -> Features:
    """Tokenize examples as a model reads them.

    Args:
        examples: the examples.
        supernet: the model.
        max_seq_length: longer inputs are cut to so many tokens; by default as the model was trained.

    Returns:
        The tokenized examples.

    Raises:
        UsageError: the model has no tokenizer, or fewer positions than that.
    """
    if supernet.tokenizer is None:
        raise UsageError("a supernet needs its tokenizer to read text: Supernet(model, tokenizer)")
    length = max_seq_length or supernet.metadata.task.get("max_seq_length", TaskConfig.max_seq_length)
    positions = getattr(supernet.model.config, "max_position_embeddings", length)
    if length > positions:
        raise UsageError(f"max_seq_length is {length}, more than the model's {positions} positions: pass a smaller one")
    return tokenize(examples, supernet.tokenizer, max_seq_length=length)


def digest(arrays: Iterable[np.ndarray]) -> str:
    """Tell whether a resumed run has the data and the models that it began with.

    Args:
        arrays: what to compare.

    Returns:
        A hash of them.
    """
    hashed = hashlib.blake2b(digest_size=8)
    for array in arrays:
        hashed.update(np.ascontiguousarray(array))
    return hashed.hexdigest()
