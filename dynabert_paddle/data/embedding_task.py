"""The data of an embedding task: texts to train on, and texts or judgements to score on."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from dynabert_paddle.config.names import setting
from dynabert_paddle.data.declaration import Declaration
from dynabert_paddle.data.embedding_examples import TextsToEmbed
from dynabert_paddle.data.embedding_files import (
    add_retrieval,
    read_dev_texts,
    read_training_texts,
    take_dev_texts,
    training_columns,
)
from dynabert_paddle.data.embedding_metrics import TEACHER_METRIC, Judged, split_metric
from dynabert_paddle.data.embedding_settings import EmbeddingSettings
from dynabert_paddle.data.metrics import check_metrics
from dynabert_paddle.data.readers import Columns
from dynabert_paddle.data.task_files import find_data_file, has_data_file
from dynabert_paddle.errors import UsageError
from dynabert_paddle.runtime.home import user_path


@dataclass(frozen=True)
class EmbeddingData:
    """What `load_task` makes an embedding task of.

    Args:
        columns: of the training file.
        metrics: the task's.
        train: the training texts.
        dev: the dev texts.
        files: the files and folders that the user named, by the arguments of `load_task`.
    """

    columns: Columns
    metrics: tuple[str, ...]
    train: TextsToEmbed
    dev: TextsToEmbed
    files: dict[str, str]


def load_embedding_data(
    declared: Declaration,
    settings: EmbeddingSettings,
    *,
    train_file: str | os.PathLike | None,
    dev_file: str | os.PathLike | None,
    retrieval_dir: str | os.PathLike | None,
) -> EmbeddingData:
    """Load the texts of an embedding task.

    Args:
        declared: the task, with the user's columns and metrics.
        settings: has the prompts.
        train_file: the training file, instead of the one in the task's folder.
        dev_file: the dev file; without one, and without a retrieval folder, some training texts are the dev texts.
        retrieval_dir: a folder in BEIR's form.

    Returns:
        The data.

    Raises:
        DataError: a file cannot be read.
        UsageError: a metric for which there is no data.
    """
    given = Columns(declared.text_column or "", declared.text_pair_column, declared.label_column)
    train_path = find_data_file(declared, train_file, declared.train_name, "task.train_file")
    columns = training_columns(train_path, given)
    train = read_training_texts(train_path, columns)
    files = {"train_file": train_path} if train_file is not None or declared.data_dir is not None else {}
    dev: TextsToEmbed | None = None
    if dev_file is not None or has_data_file(declared, declared.dev_name):
        dev_path = find_data_file(declared, dev_file, declared.dev_name, "task.dev_file")
        dev, files["dev_file"] = read_dev_texts(dev_path, given), dev_path
    if retrieval_dir is not None:
        folder = user_path(retrieval_dir)
        dev, files["retrieval_dir"] = add_retrieval(dev, folder, folder.absolute()), folder
    if dev is None:
        train, dev = take_dev_texts(train)
    judged = dev.judged or Judged()
    metrics = tuple(declared.metrics or default_metrics(judged, settings))
    check_metrics(metrics, kind=declared.kind, num_labels=0)
    _check_data(metrics, judged, settings)
    train, dev = (replace(texts, settings=settings) for texts in (train, dev))
    recorded = Columns(given.text or columns.text, given.pair, given.label)
    return EmbeddingData(
        recorded, metrics, train, dev, {key: str(Path(path).absolute()) for key, path in files.items()}
    )


def default_metrics(judged: Judged, settings: EmbeddingSettings) -> tuple[str, ...]:
    """Return what a development set is scored by, if the user does not say: the first metric also of cut vectors."""
    pairs = ("spearman",) if judged.pairs else ()
    whole = (*pairs, *(name for name in judged.metrics if "@" in name), TEACHER_METRIC)
    return (*whole, *(f"{whole[0]}_{size}d" for size in settings.output_dims or ()))


def _check_data(metrics: Sequence[str], judged: Judged, settings: EmbeddingSettings) -> None:
    for given in metrics:
        name, size = split_metric(given)
        if size is not None and size not in (settings.output_dims or ()):
            raise UsageError(
                f"metric {given!r} is of vectors of {size} values, to which {setting('task.output_dims')} does not cut "
                "them: name the size there, too"
            )
        if name != TEACHER_METRIC and name not in judged.metrics:
            what = "queries with their documents" if "@" in name else "pairs with a score"
            key = "task.retrieval_dir" if "@" in name else "task.dev_file"
            raise UsageError(
                f"metric {name!r} needs {what}: give them with {setting(key)}, or leave the metric out of "
                f"{setting('task.metrics')}."
            )
