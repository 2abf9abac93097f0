"""The inputs of a stage: a task's tokenized examples, some held out, and a model that was trained for the task."""

from __future__ import annotations

import logging
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from dynabert_paddle.backbone.structure import num_positions
from dynabert_paddle.backbone.text_embedding import BackboneForTextEmbedding
from dynabert_paddle.config.names import setting
from dynabert_paddle.config.settings import TrainConfig, WidthConfig
from dynabert_paddle.data.augment import read_augmented
from dynabert_paddle.data.features import FeatureSet
from dynabert_paddle.data.labels import describe_difference
from dynabert_paddle.data.readers import Examples
from dynabert_paddle.data.tasks import Task, TaskExamples
from dynabert_paddle.data.unlabelled import add_unlabelled
from dynabert_paddle.errors import DataError, UsageError
from dynabert_paddle.files.metadata import check_has_task
from dynabert_paddle.runtime.home import user_path
from dynabert_paddle.supernet.supernet import Supernet

if TYPE_CHECKING:
    from dynabert_paddle.training.text_stream import TextStream

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class Split:
    """A task's tokenized examples, divided.

    Args:
        train: to train on; without labels if they come from an augmented file or files without, and none are read, or
            are raw text.
        select: to select the best checkpoint on.
        select_name: the name of `select`: holdout or dev.
        select_examples: the examples of `select`.
    """

    train: FeatureSet | TextStream
    select: FeatureSet
    select_name: str
    select_examples: TaskExamples


def split_task(task: Task, supernet: Supernet, config: TrainConfig, *, is_inherited: bool = False) -> Split:
    """Tokenize a task's examples and hold some out; an augmented file can replace the training examples.

    Args:
        task: the task.
        supernet: has the tokenizer and the maximum sequence length.
        config: which examples to select on, and the seed.
        is_inherited: the config is that of an earlier stage, and the user cannot change it here.

    Returns:
        The examples to train and to select on.

    Raises:
        UsageError: the supernet has no tokenizer.
        DataError: the augmented file cannot be read, or was made of other training rows.
    """
    if config.select_on == "dev":
        kept, select = np.arange(len(task.train)), task.dev
    else:
        on_dev = None
        if not is_inherited:
            on_dev = f"set {setting('train.select_on')} to dev, and {setting('rewire.accumulation')} to huawei"
        kept, held_out = hold_out(task.train, config.holdout_size, seed=config.seed, on_dev=on_dev)
        select = task.train.select(held_out)
    train = _read_for_distillation(config, task, kept) if isinstance(config, WidthConfig) else task.train.select(kept)
    return Split(tokenize_examples(train, supernet), tokenize_examples(select, supernet), config.select_on, select)


def _read_for_distillation(config: WidthConfig, task: Task, kept: np.ndarray) -> TaskExamples:
    """Read the texts of a stage that distils: training rows or their copies, and texts without labels."""
    for name in ("augmented_file", "unlabelled_files"):
        if getattr(config, name) and not isinstance(task.train, Examples):
            raise UsageError(
                f"{setting(f'train.{name}')} is for tasks of whole texts, this task is {task.kind}: leave it out"
            )
        if getattr(config, name) and task.kind == "embedding":
            raise UsageError(
                f"{setting(f'train.{name}')}: an embedding task trains on texts without labels: add them to "
                f"{setting('task.train_file')}, and leave it out"
            )
    train: TaskExamples = task.train.select(kept)
    if config.augmented_file:
        train = _read_augmented(config.augmented_file, task, kept, with_labels=config.lambda_label > 0)
    if config.unlabelled_files:
        assert isinstance(train, Examples)
        train = train if config.lambda_label else replace(train, labels=None)
        train = add_unlabelled(train, config.unlabelled_files, task.columns)
    return train


def _read_augmented(path: str, task: Task, kept: np.ndarray, *, with_labels: bool) -> Examples:
    """Read an augmented file without the texts that were made from held-out rows; labels are those of their rows."""
    assert isinstance(task.train, Examples)
    augmented, sources = read_augmented(user_path(path), task.columns, task.train)
    rows = np.flatnonzero(np.isin(sources, kept))
    if not len(rows):
        raise DataError(f"{path}: all its texts come from held-out rows: make the file from all training rows")
    if with_labels and task.train.labels is not None:
        augmented = replace(augmented, labels=task.train.labels[sources])
    return augmented.select(rows)


def hold_out(
    examples: TaskExamples, size: int, *, seed: int, on_dev: str | None = None
) -> tuple[np.ndarray, np.ndarray]:
    """Divide training examples into those to train on and those to hold out.

    Args:
        examples: the training examples.
        size: how many to hold out, at most a tenth of all.
        seed: the same size and seed hold out the same examples in every stage.
        on_dev: how the user lets the caller read the dev set instead, if possible, for the message.

    Returns:
        Indices of the examples to train on, and of the held-out ones.

    Raises:
        DataError: there are too few.
    """
    try:
        return examples.hold_out(min(size, len(examples) // 10), seed=seed)
    except DataError as error:
        raise DataError(f"{error}{f', or read the development file: {on_dev}' if on_dev else ''}") from None


def tokenize_examples(examples: TaskExamples, supernet: Supernet, *, max_seq_length: int | None = None) -> FeatureSet:
    """Tokenize examples with a model's tokenizer.

    Args:
        examples: the examples.
        supernet: the model.
        max_seq_length: longer inputs are cut to this number of tokens; by default the model's own setting.

    Returns:
        The tokenized examples.

    Raises:
        UsageError: the model has no tokenizer, or fewer positions than `max_seq_length`.
    """
    if supernet.tokenizer is None:
        raise UsageError("a supernet needs its tokenizer to read text: Supernet(model, tokenizer)")
    length = max_seq_length or supernet.metadata.max_seq_length
    positions = num_positions(supernet.model.config)
    if length > positions:
        raise UsageError(
            f"{setting('task.max_seq_length')} is {length}, more than the model's {positions} positions: "
            "pass a smaller one"
        )
    tokenizer: Any = supernet.tokenizer  # one without offsets refuses to encode words and answers
    return examples.tokenize(tokenizer, max_seq_length=length)


def match_task(supernet: Supernet, task: Task, source: str | Path) -> Task:
    """Refuse a model that was not fine-tuned for the task, and bring the task's classes into the model's order.

    Args:
        supernet: the model.
        task: the task.
        source: the model's folder or name, for the message.

    Returns:
        The task with the classes in the order of the model's logits.

    Raises:
        UsageError: it was not fine-tuned, or for another number of outputs or other classes.
    """
    check_has_task(source, supernet.metadata)
    if task.kind == "embedding" and isinstance(supernet.model, BackboneForTextEmbedding):
        return match_labels(supernet, task, source)  # a pretrained model, too: there are no labels to fine-tune it on
    if not supernet.metadata.stage:
        raise UsageError(
            f"{source} is not a model that 'dynabert finetune' has made: begin with that, which keeps the classifier "
            f"of a model that was fine-tuned elsewhere on the same labels"
        )
    _check_kind(supernet, task, source)
    what = f"task {task.name!r} needs"
    hint = "name the task and the data that it was fine-tuned on"
    if not type(supernet.model).__name__.endswith(task.head):
        raise UsageError(f"{source} is a {type(supernet.model).__name__} and {what} a ...{task.head}: {hint}")
    if supernet.model.config.num_labels != task.num_outputs:
        raise UsageError(
            f"{source} has {supernet.model.config.num_labels} outputs and {what} {task.num_outputs}: {hint}"
        )
    return match_labels(supernet, task, source)


def match_labels(supernet: Supernet, task: Task, source: str | Path) -> Task:
    """Bring a task's classes into the order of a model's logits, and label words as the model was trained to.

    Args:
        supernet: the model; one that does not name its classes is believed to have the task's order.
        task: the task.
        source: the model, for the message.

    Returns:
        The task.

    Raises:
        UsageError: the model was fine-tuned for another kind of task, or has other classes.
    """
    _check_kind(supernet, task, source)
    if isinstance(supernet.model, BackboneForTextEmbedding):
        return task.with_embedding(supernet.model.settings)
    if supernet.metadata.stage:
        task = task.with_settings_of(supernet.metadata.task)
    names = supernet.labels
    if not task.labels or names is None:
        return task
    matched = task.with_labels(names)
    if matched is None:
        difference = describe_difference(names, task.labels)
        raise UsageError(
            f"the data's labels are not those of {source} ({difference}): name the task and the data that it was "
            f"fine-tuned on, or fine-tune again"
        )
    if matched.labels != task.labels:
        logger.info("the labels are taken in the order of %s: %s", source, ", ".join(names))
    return matched


def _check_kind(supernet: Supernet, task: Task, source: str | Path) -> None:
    kind = supernet.metadata.task.get("kind", task.kind)
    check_has_task(source, supernet.metadata)
    if kind != task.kind:
        raise UsageError(
            f"{source} was fine-tuned for {kind}, and task {task.name!r} is {task.kind}: name the task and the data "
            "that it was fine-tuned on"
        )


def check_same_pieces(supernet: Supernet, teacher: Supernet) -> None:
    """Refuse a teacher that would take the ids of a model's pieces for those of others.

    Args:
        supernet: the model that learns.
        teacher: the model to learn from.

    Raises:
        UsageError: their tokenizers number pieces differently.
    """
    ours, theirs = (getattr(model.tokenizer, "vocabulary", None) for model in (supernet, teacher))
    if ours and theirs and ours != theirs:
        raise UsageError(
            f"the teacher has another vocabulary ({len(theirs)} pieces, the model has {len(ours)}): distil from a "
            f"model with the same one, such as the model itself"
        )


def check_apart(source: str | Path, output_dir: str | Path) -> None:
    """Refuse an output folder that is, or holds, the model that a stage starts from.

    Args:
        source: the model that the stage starts from.
        output_dir: where the result goes.

    Raises:
        UsageError: the output would replace the model.
    """
    source, output_dir = user_path(source).resolve(), user_path(output_dir).resolve()
    if output_dir in (source, *source.parents):
        raise UsageError(f"{output_dir} exists and holds the model to start from: name another {setting('output_dir')}")
