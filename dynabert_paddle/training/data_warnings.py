"""Warnings about a task's data: once for each task that was loaded, however many stages it goes through."""

from __future__ import annotations

import logging
from collections.abc import Iterable
from typing import Any

from dynabert_paddle.config.settings import TrainConfig, WidthConfig
from dynabert_paddle.data.embedding_groups import GroupedFeatures
from dynabert_paddle.data.features import FeatureSet
from dynabert_paddle.data.row_checks import describe_rows
from dynabert_paddle.data.tasks import Task, TaskExamples
from dynabert_paddle.data.token_checks import count_tokens, describe_tokens
from dynabert_paddle.runtime.ranks import is_rank_zero
from dynabert_paddle.supernet.supernet import Supernet
from dynabert_paddle.training.inputs import Split, tokenize_examples

logger = logging.getLogger(__name__)

_ROWS = "rows"  # in `Task.looked_at`


def warn_about_task(
    task: Task, supernet: Supernet, *, max_seq_length: int | None = None, is_fixed: bool = False
) -> None:
    """Log what a user should know about the data of a task; in the first process alone.

    Args:
        task: the task.
        supernet: the model that reads it.
        max_seq_length: to which inputs are cut; by default the model's own setting.
        is_fixed: the user cannot choose here how texts are read.
    """
    warn_about_rows(task)
    for examples in (task.train, task.dev):
        features = (tokenize_examples(part, supernet, max_seq_length=max_seq_length) for part in [examples])
        warn_about_tokens(task, features, supernet, examples=examples, max_seq_length=max_seq_length, is_fixed=is_fixed)


def warn_about_rows(task: Task) -> None:
    """Log what a user should know about the rows of a task's files; in the first process alone."""
    if not is_rank_zero() or _ROWS in task.looked_at:
        return
    task.looked_at.add(_ROWS)
    for message in describe_rows(task):
        logger.warning("%s", message)


def warn_about_training(
    task: Task, split: Split, supernet: Supernet, config: TrainConfig, *, is_fixed: bool = False
) -> None:
    """Log what a user should know about the rows that a stage trains and selects on; in the first process alone.

    Args:
        task: the task.
        split: its tokenized examples.
        supernet: has the tokenizer and the maximum sequence length.
        config: the stage's settings.
        is_fixed: the user cannot choose here how texts are read.
    """
    warn_about_rows(task)
    augmented_file = config.augmented_file if isinstance(config, WidthConfig) else None
    train = split.train.texts if isinstance(split.train, GroupedFeatures) else split.train
    assert isinstance(train, FeatureSet)  # a task's
    training = [train]
    if split.select_name == "dev":
        warn_about_tokens(task, [split.select], supernet, examples=task.dev, is_fixed=is_fixed)
    elif not augmented_file:  # else rows of the training file, about which the previous stage has warned
        training.append(split.select)
    warn_about_tokens(task, training, supernet, examples=augmented_file or task.train, is_fixed=is_fixed)


def warn_about_tokens(
    task: Task,
    features: Iterable[FeatureSet],
    supernet: Supernet,
    *,
    examples: TaskExamples | str,
    max_seq_length: int | None = None,
    is_fixed: bool = False,
) -> None:
    """Log what a user should know about the tokens of a data file; in the first process alone.

    Args:
        task: the task.
        features: the file's tokenized examples, in parts; not read if the file was looked at before.
        supernet: has the tokenizer.
        examples: the file's rows, or the name of an augmented file.
        max_seq_length: to which they were cut; by default the model's own setting.
        is_fixed: the user cannot choose here how texts are read.
    """
    tokenizer = supernet.tokenizer
    if tokenizer is None or not is_rank_zero():
        return
    length = max_seq_length or supernet.metadata.max_seq_length
    source = examples if isinstance(examples, str) else examples.source
    reading = (str(source), length, tokenizer.vocab_size, tokenizer.special_tokens_in_text)
    if reading in task.looked_at:
        return
    task.looked_at.add(reading)
    counts = [count_tokens(part, tokenizer, takes_pairs=task.takes_pairs) for part in features]
    options: dict[str, Any] = {"max_seq_length": length, "is_fixed": is_fixed, "examples": examples}
    for message in describe_tokens(counts, tokenizer, source, **options):
        logger.warning("%s", message)
