"""A task's examples as a stage reads them: tokenized, and some held out."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from dynabert_paddle.backbone.structure import num_positions
from dynabert_paddle.config.settings import TaskConfig, TrainConfig, WidthConfig
from dynabert_paddle.data.augment import read_augmented
from dynabert_paddle.data.features import FeatureSet
from dynabert_paddle.data.readers import Examples
from dynabert_paddle.data.tasks import Task, TaskExamples
from dynabert_paddle.errors import DataError, UsageError
from dynabert_paddle.supernet.supernet import Supernet


@dataclass(frozen=True)
class Split:
    """A task's examples, tokenized and divided.

    Args:
        train: to train on; without labels where an augmented file stands in for the task's rows.
        select: to choose the best checkpoint on.
        select_name: what `select` is: holdout or dev.
    """

    train: FeatureSet
    select: FeatureSet
    select_name: str


def split_task(task: Task, supernet: Supernet, config: TrainConfig) -> Split:
    """Tokenize a task's examples and hold some out; those to train on can be an augmented file's.

    Args:
        task: the task.
        supernet: its tokenizer and the length that it is trained at count.
        config: what to select on, and the seed.

    Returns:
        The examples to train and to select on.

    Raises:
        UsageError: the supernet has no tokenizer.
        DataError: the augmented file cannot be read, or was made of other training rows.
    """
    if config.select_on == "dev":
        kept, select = np.arange(len(task.train)), task.dev
    else:
        kept, held_out = hold_out(task.train, config.holdout_size, seed=config.seed)
        select = task.train.select(held_out)
    augmented_file = config.augmented_file if isinstance(config, WidthConfig) else None
    train = _read_augmented(augmented_file, task, kept) if augmented_file else task.train.select(kept)
    return Split(tokenize_examples(train, supernet), tokenize_examples(select, supernet), config.select_on)


def _read_augmented(path: str, task: Task, kept: np.ndarray) -> Examples:
    """An augmented file's texts, without those that were made of rows that are held out."""
    if not isinstance(task.train, Examples):
        raise UsageError(f"augmented_file is for tasks of whole texts, this task is {task.kind}: leave it out")
    augmented, sources = read_augmented(Path(path).expanduser(), task.columns, task.train)
    rows = np.flatnonzero(np.isin(sources, kept))
    if not len(rows):
        raise DataError(f"{path}: all its texts are of held-out rows: make the file of all training rows")
    return augmented.select(rows)


def hold_out(examples: TaskExamples, size: int, *, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Divide training examples into those to train on and those that stand in for unseen ones.

    Args:
        examples: the training examples.
        size: how many to hold out; at most a tenth are.
        seed: with the same size and seed, every stage holds out the same ones.

    Returns:
        Indices of the examples to train on, and of those held out.
    """
    return examples.hold_out(min(size, len(examples) // 10), seed=seed)


def tokenize_examples(examples: TaskExamples, supernet: Supernet, *, max_seq_length: int | None = None) -> FeatureSet:
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
    positions = num_positions(supernet.model.config)
    if length > positions:
        raise UsageError(f"max_seq_length is {length}, more than the model's {positions} positions: pass a smaller one")
    return examples.tokenize(supernet.tokenizer, max_seq_length=length)


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
