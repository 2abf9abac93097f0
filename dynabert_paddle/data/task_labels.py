"""The labels of a task: those of the training file or the user's, and the positive one."""

import logging
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from dynabert_paddle.config.names import setting
from dynabert_paddle.data.declaration import Declaration
from dynabert_paddle.data.kinds import KINDS
from dynabert_paddle.data.label_set_metrics import are_label_sets
from dynabert_paddle.data.label_sets import check_separator, find_set_labels
from dynabert_paddle.data.labels import LabelIndex, is_missing, is_number, label_text
from dynabert_paddle.data.readers import Columns, Examples, find_labels
from dynabert_paddle.data.token_classification import LABEL_COLUMN, find_word_labels
from dynabert_paddle.errors import DataError, UsageError, did_you_mean

logger = logging.getLogger(__name__)


def task_labels(
    declared: Declaration, train_path: Path, columns: Columns, *, separator: str | None = None
) -> tuple[str, ...]:
    """Find the classes of a task.

    Args:
        declared: the task; its labels are the user's, or None.
        train_path: the training file.
        columns: the columns to read.
        separator: what separates several labels in a cell.

    Returns:
        The classes in the order of the logits: the user's, else those of the training file; empty if there are none.

    Raises:
        UsageError: the user's labels are fewer than two (of several labels a text, fewer than one), or repeat.
        DataError: the training file cannot be read.
    """
    if KINDS[declared.kind].num_outputs:
        return ()
    if declared.labels is None:
        if declared.kind == "token_classification":
            return find_word_labels(train_path, text_column=columns.text, label_column=columns.label or LABEL_COLUMN)
        if declared.kind == "multi_label":
            return find_set_labels(train_path, columns, separator=separator, layout=declared.layout)
        found = find_labels(train_path, columns, declared.layout)
        _warn_of_scores(found, train_path)
        return found
    labels = () if any(map(is_missing, declared.labels)) else tuple(map(label_text, declared.labels))
    least, words = (1, "one label") if declared.kind == "multi_label" else (2, "two labels")
    if len(set(labels)) < max(least, len(labels)) or "" in labels:
        raise UsageError(
            f"{setting('task.labels')} must list at least {words}, each once, not {list(declared.labels)}."
        )
    check_separator(separator, labels)
    return labels


def _warn_of_scores(labels: Sequence[str], source: Path) -> None:
    """Log that labels look like scores: numbers, some of them with decimals, such as `0.5` or `0,5`."""
    numbers = [label.replace(",", ".", 1) for label in labels]
    if not all(map(is_number, numbers)):
        return
    with_decimals = [label for label, number in zip(labels, numbers, strict=True) if not float(number).is_integer()]
    if with_decimals:
        point = ", and write them with a decimal point" if any("," in label for label in labels) else ""
        logger.warning(
            "%s: its %d labels are numbers, such as %s, and are trained as classes; if they are scores, set %s to "
            "regression%s",
            *(source, len(labels), with_decimals[0], setting("task.kind"), point),
        )


def positive_class(declared: Declaration, labels: tuple[str, ...], metrics: Sequence[str]) -> int | None:
    """Find the class whose F1 the metric `f1` is, and log it.

    Args:
        declared: the task.
        labels: its classes.
        metrics: its metrics.

    Returns:
        The class's index; None without that metric.

    Raises:
        UsageError: the user's positive label is none of the labels, or the task has no classes.
    """
    given, has_f1 = declared.positive_label, declared.kind == "classification" and "f1" in metrics
    if given is None:
        if has_f1 and declared.name == "custom":  # GLUE's tasks have theirs
            logger.info("f1 is that of the label %r; %s names another", labels[1], setting("task.positive_label"))
        return 1 if has_f1 else None
    if declared.kind != "classification":
        raise UsageError(
            f"{setting('task.positive_label')} is for classification, this task is {declared.kind}: leave it out."
        )
    index = LabelIndex(labels).find(label_text(given))
    if index is None:
        raise UsageError(
            f"{setting('task.positive_label')} is {given!r}, which is not one of the task's labels, "
            f"{', '.join(map(repr, labels[:20]))}.{did_you_mean(str(given), labels)}"
        )
    if has_f1:
        logger.info("f1 is that of the label %r", labels[index])
        return index
    logger.info(
        "%s %r changes nothing: the metrics are %s, without f1",
        setting("task.positive_label"),
        given,
        ", ".join(metrics),
    )
    return None


def check_labels_differ(train: Examples, labels: Sequence[str]) -> None:
    """Check that the training rows have more than one label or score.

    Args:
        train: the training examples.
        labels: the classes; empty for a regression.

    Raises:
        DataError: all rows have the same.
    """
    assert train.labels is not None
    first = train.labels[0]
    if np.all(train.labels == first):
        if are_label_sets(train.labels):
            names = [name for name, is_set in zip(labels, first, strict=True) if is_set]
            seen = f"labels {', '.join(map(repr, names)) or '(none)'}; a classifier needs rows that differ in one"
        elif labels:
            seen = f"label {labels[first]!r}; a classifier needs rows of at least two classes"
        else:
            seen = f"score {first:g}; a regression needs at least two different ones"
        raise DataError(
            f"{train.source}: every row has the {seen}. Choose another column with {setting('task.label_column')}, or "
            "add rows."
        )
