"""Tasks: what is predicted from which files, and how it is scored. A built-in task is one declaration."""

import os
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from dynabert_paddle.data.files import DATA_FILE_ENDINGS
from dynabert_paddle.data.metrics import check_metrics
from dynabert_paddle.data.readers import (
    Columns,
    Examples,
    find_labels,
    read_column_names,
    read_examples,
)
from dynabert_paddle.errors import DataError, UsageError, did_you_mean

_BUILT_IN_DIR = Path(__file__).parent
_DEFAULT_METRICS = {"classification": ("accuracy", "macro_f1"), "regression": ("pearson", "spearman")}
_DEFAULT_TEXT_COLUMNS = ("sentence", "text")


@dataclass(frozen=True)
class Task:
    """A task with its data.

    Args:
        name: a built-in task, or 'custom'.
        kind: 'classification' or 'regression'.
        labels: the classes in the order of the logits; empty for regression.
        metrics: what is measured; the first metric selects checkpoints and sub-networks, higher is better.
        columns: the columns that were read.
        train: the training examples, with labels.
        dev: the development examples, with labels.
    """

    name: str
    kind: str
    labels: tuple[str, ...]
    metrics: tuple[str, ...]
    columns: Columns
    train: Examples
    dev: Examples

    def to_dict(self) -> dict:
        """Describe the task for a model folder, so that an evaluation can be repeated.

        Returns:
            The arguments of `load_task` that load the same task, in types that JSON knows. Files that come with the
            package are left out, so that the description holds on another machine.
        """
        files = {"train_file": self.train.source, "dev_file": self.dev.source}
        return {
            "name": self.name,
            "kind": self.kind,
            "labels": list(self.labels),
            "metrics": list(self.metrics),
            "text_column": self.columns.text,
            "text_pair_column": self.columns.pair,
            "label_column": self.columns.label,
        } | {flag: str(path) for flag, path in files.items() if not path.is_relative_to(_BUILT_IN_DIR)}


@dataclass(frozen=True)
class _Declaration:
    """What is fixed about a task before its files are opened.

    Args:
        name: the task's name.
        kind: 'classification' or 'regression'.
        labels: the classes in the order of the logits; None: those of the training file.
        metrics: the first one selects; None: the kind's default.
        text_column: None: `sentence`, else `text`.
        text_pair_column: None: single texts.
        label_column: the column of the class or the score.
        data_dir: where the files are; None: the user says.
        train_name: name of the training file without its ending.
        dev_name: name of the development file without its ending.
    """

    name: str
    kind: str = "classification"
    labels: Sequence[str] | None = None
    metrics: Sequence[str] | None = None
    text_column: str | None = None
    text_pair_column: str | None = None
    label_column: str = "label"
    data_dir: str | os.PathLike | None = None
    train_name: str = "train"
    dev_name: str = "dev"


_CUSTOM = _Declaration("custom")
_SNIPS = _Declaration(
    "snips",
    labels=(
        "AddToPlaylist",
        "BookRestaurant",
        "GetWeather",
        "PlayMusic",
        "RateBook",
        "SearchCreativeWork",
        "SearchScreeningEvent",
    ),
    metrics=("accuracy", "macro_f1"),
    text_column="sentence",
    data_dir=_BUILT_IN_DIR / "snips",
)
_DECLARATIONS = {declaration.name: declaration for declaration in (_SNIPS, _CUSTOM)}


def load_task(
    name: str,
    *,
    data_dir: str | os.PathLike | None = None,
    train_file: str | os.PathLike | None = None,
    dev_file: str | os.PathLike | None = None,
    text_column: str | None = None,
    text_pair_column: str | None = None,
    label_column: str | None = None,
    labels: Sequence[str] | None = None,
    kind: str | None = None,
    metrics: Sequence[str] | None = None,
) -> Task:
    """Load a built-in task, or one made of the user's own files.

    An argument that is given replaces what the task declares.

    Args:
        name: 'snips', or 'custom' for your own files.
        data_dir: folder with train.* and dev.*, each .tsv, .csv, .jsonl or .json (one JSON object a line).
        train_file: the training file, in place of the one in `data_dir`.
        dev_file: the development file, in place of the one in `data_dir`.
        text_column: column of the text; by default `sentence`, else `text`.
        text_pair_column: column of the second text of a pair; by default none.
        label_column: column of the class or the score; by default `label`.
        labels: the classes in the order of the logits; by default those of the training file, sorted.
        kind: 'classification' (the default) or 'regression'.
        metrics: names of metrics, of which the first selects; by default accuracy and macro_f1, or pearson and
            spearman for regression.

    Returns:
        The task with its examples read.

    Raises:
        UsageError: an unknown name, or arguments that do not fit together.
        DataError: a file that is missing or cannot be read as described.
    """
    if name not in _DECLARATIONS:
        built_in = ", ".join(repr(task) for task in _DECLARATIONS if task != "custom")
        raise UsageError(
            f"unknown task {name!r}; built in: {built_in}; 'custom' reads your own files."
            f"{did_you_mean(name, _DECLARATIONS)} Choose one with --task_name."
        )
    given = {
        "data_dir": data_dir,
        "text_column": text_column,
        "text_pair_column": text_pair_column,
        "label_column": label_column,
        "labels": labels,
        "kind": kind,
        "metrics": metrics,
    }
    declared = replace(_DECLARATIONS[name], **{key: value for key, value in given.items() if value is not None})
    _check_kind(declared)
    train_path = _data_file(declared, train_file, declared.train_name, "--train_file")
    dev_path = _data_file(declared, dev_file, declared.dev_name, "--dev_file")
    columns = Columns(
        declared.text_column or default_text_column(train_path), declared.text_pair_column, declared.label_column
    )
    labels = _labels(declared, train_path, columns)
    metrics = tuple(declared.metrics or _DEFAULT_METRICS[declared.kind])
    check_metrics(metrics, kind=declared.kind, num_labels=len(labels))
    train = read_examples(train_path, columns, kind=declared.kind, labels=labels)
    if declared.kind == "classification" and np.all(train.labels == train.labels[0]):
        raise DataError(
            f"{train_path}: every row has the label {labels[train.labels[0]]!r}; a classifier needs rows of at least "
            "two classes. Choose another column with --label_column, or add rows."
        )
    dev = read_examples(dev_path, columns, kind=declared.kind, labels=labels)
    return Task(declared.name, declared.kind, labels, metrics, columns, train, dev)


def _check_kind(declared: _Declaration) -> None:
    if declared.kind not in _DEFAULT_METRICS:
        hint = did_you_mean(declared.kind, _DEFAULT_METRICS)
        raise UsageError(f"unknown kind of task {declared.kind!r}; --kind is 'classification' or 'regression'.{hint}")
    if declared.kind == "regression" and declared.labels:
        raise UsageError("a regression task has scores, no labels; leave out --labels, or pass --kind classification.")


def _labels(declared: _Declaration, train_path: Path, columns: Columns) -> tuple[str, ...]:
    if declared.kind == "regression":
        return ()
    if declared.labels is None:
        return find_labels(train_path, columns)
    labels = tuple(str(label) for label in declared.labels)
    if len(set(labels)) < max(2, len(labels)):
        raise UsageError(f"--labels must list at least two labels, each of them once, not {list(labels)}.")
    return labels


def _data_file(declared: _Declaration, given: str | os.PathLike | None, name: str, flag: str) -> Path:
    if given is not None:
        return Path(given).expanduser()
    if declared.data_dir is None:
        raise UsageError(f"task {declared.name!r} needs files: pass --data_dir, or both --train_file and --dev_file.")
    folder = Path(declared.data_dir).expanduser()
    if not folder.is_dir():
        raise DataError(f"{folder}: no such folder. Give one with --data_dir, or a file with {flag}.")
    names = sorted(path.name for path in folder.glob("*"))
    found = [file for file in names if Path(file).stem == name and Path(file).suffix.lower() in DATA_FILE_ENDINGS]
    if len(found) == 1:
        return folder / found[0]
    if found:
        raise DataError(f"{folder}: {' and '.join(found)} could all be read. Choose one with {flag}.")
    allowed = ", ".join(name + ending for ending in DATA_FILE_ENDINGS)
    holds = ", ".join(names[:10]) + (", ..." if len(names) > 10 else "") or "no file"
    raise DataError(f"{folder}: none of {allowed}; the folder holds {holds}. Give the file with {flag}.")


def default_text_column(path: Path) -> str:
    """Find the column of the text where the user names none.

    Args:
        path: a data file.

    Returns:
        `sentence` or `text`, whichever the file has; `sentence` where it has neither.
    """
    names = read_column_names(path)
    return next((column for column in _DEFAULT_TEXT_COLUMNS if column in names), _DEFAULT_TEXT_COLUMNS[0])
