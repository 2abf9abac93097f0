"""What a user should know about a task's rows before training on them: repeated texts, labels that are missing or rare.

Shapes: n rows, c columns of texts.
"""

from __future__ import annotations

import unicodedata
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from itertools import chain

import numpy as np

from dynabert_paddle.config.names import setting
from dynabert_paddle.data.label_scheme import describe_forbidden
from dynabert_paddle.data.label_set_metrics import are_label_sets
from dynabert_paddle.data.question_answering import Questions
from dynabert_paddle.data.readers import Examples
from dynabert_paddle.data.records import quote
from dynabert_paddle.data.tasks import Task, TaskExamples
from dynabert_paddle.data.token_classification import Sentences

_MANY_REPEATED = 0.05  # share of the training rows that repeat another one's text
_NEARLY_ALL = 0.95  # share of the training rows that have one label
_ROWS_PER_READ = 4096
_MAX_NAMES = 10
# As libraries and databases write a value that is not there.
_MISSING = ("nan", "NaN", "None", "null", "NULL", "<NA>", "NaT")


def describe_rows(task: Task, *, is_one_file: bool = False) -> Iterator[str]:
    """Describe what a user should know about the rows of a task that is to be trained.

    Texts are compared by their hashes, which need some bytes a row, also where texts do not fit into memory.

    Args:
        task: the task.
        is_one_file: the training file stands in for the dev file, and is described once.

    Yields:
        Messages of one line.
    """
    train = _hash_columns(task.train)
    dev = train if is_one_file else _hash_columns(task.dev)
    if is_one_file:
        pass
    elif task.train.source == task.dev.source and task.kind == "embedding":
        pass  # the dev texts are taken from the training file
    elif task.train.source == task.dev.source:
        yield f"{task.dev.source} is both the training and the dev file: the dev scores say nothing about new texts"
    else:
        shared = np.flatnonzero(np.isin(_join(dev), _join(train)))
        if len(shared):
            yield (
                f"{task.dev.source}: {_share(len(shared), len(task.dev))} have the same text as a training row, such "
                f"as {_show(task.dev, shared[0])}: the dev scores count them as new texts; remove them from one file"
            )
    for examples, hashes in ((task.train, train), *([] if is_one_file else [(task.dev, dev)])):
        yield from _describe_texts(examples, hashes, task.labels, is_training=examples is task.train)
        if isinstance(examples, Sentences) and (examples is task.train or examples.source != task.train.source):
            yield from describe_forbidden(examples, task.columns)
    if task.labels:
        yield from _describe_classes(task)
    elif isinstance(task.dev, Examples) and task.dev.labels is not None and np.ptp(task.dev.labels) == 0:
        yield f"{task.dev.source}: every row has the score {task.dev.labels[0]:g}, with which nothing correlates"


def _describe_texts(
    examples: TaskExamples, hashes: np.ndarray, labels: Sequence[str], *, is_training: bool
) -> Iterator[str]:
    """Texts of one file that are empty, all the same, repeated, or labelled in two ways."""
    source, num_rows = examples.source, len(examples)
    num_empty = int((hashes == hash("")).any(axis=0).sum())
    if num_empty:
        yield f"{source}: {_share(num_empty, num_rows)} have an empty text"
    missing = np.flatnonzero(np.isin(hashes, list(map(hash, _MISSING))).any(axis=0))
    if len(missing):
        shown = _show(examples, missing[0])
        yield (
            f"{source}: {_share(len(missing), num_rows)} have a text that may stand for a missing one, such as {shown}"
        )
    if isinstance(examples, Examples) and num_rows > 1:
        for index in np.flatnonzero((hashes == hashes[:, :1]).all(axis=1)):
            column = [examples.texts, examples.pairs or []][index]
            yield f"{source}: every row has the text {quote(column[0])}: choose another column"
    keys, values = _join(hashes), _label_keys(examples)
    order = np.lexsort((values, keys))
    starts = np.flatnonzero(np.append(True, np.diff(keys[order]) != 0))  # of the groups of equal texts
    ends = np.append(starts[1:], num_rows)
    num_repeated = num_rows - len(starts)
    if is_training and num_repeated > _MANY_REPEATED * num_rows:
        yield f"{source}: {_share(num_repeated, num_rows)} repeat the text of an earlier row"
    lowest, highest = order[starts], order[ends - 1]
    differ = np.flatnonzero(values[lowest] != values[highest])
    if len(differ):
        shown = differ[lowest[differ].argmin()]  # the same in every process, where hashes differ
        first, second = int(lowest[shown]), int(highest[shown])
        name = "answers" if isinstance(examples, Questions) else "labels" if labels else "scores"
        yield (
            f"{source}: {_count(len(differ), 'text')} with different {name} in "
            f"{_share(int((ends - starts)[differ].sum()), num_rows)}, such as {_show(examples, first)}"
            f"{_show_labels(examples, (first, second), labels)}: keep one of them"
        )


def _describe_classes(task: Task) -> Iterator[str]:
    """Classes without rows, with a single one, or with nearly all."""
    train, dev = (count_labels(examples, task.labels) for examples in (task.train, task.dev))
    unit = "word" if isinstance(task.train, Sentences) else "row"
    without = [name for name in task.labels if not train[name]]
    if without:
        yield f"{task.train.source}: no {unit} has {_names(without, task.labels)}: the model cannot learn to predict it"
    missing = [name for name in task.labels if not dev[name] and train[name]]
    if missing:
        yield f"{task.dev.source}: no {unit} has {_names(missing, task.labels)}: the dev scores do not cover it"
    single = [name for name in task.labels if train[name] == 1]
    if single:
        yield f"{task.train.source}: only one {unit} has {_names(single, task.labels)}: too few to learn from"
    yield from _describe_look_alikes(task)
    absent = [name for name in task.labels if name in _MISSING]
    if absent:
        yield (
            f"{task.train.source}: {_names(absent, task.labels)} may stand for a missing one, and is a class: delete "
            "its rows if it does"
        )
    if task.kind == "multi_label":
        yield from _describe_label_sets(task)
        return
    name, count = train.most_common(1)[0]
    if unit == "row" and count >= _NEARLY_ALL * train.total():
        yield (
            f"{task.train.source}: {_share(count, train.total())} have the label {name!r}: accuracy is as high for a "
            "model that always predicts it; choose the metric macro_f1"
        )


def _describe_label_sets(task: Task) -> Iterator[str]:
    """Rows that never have two labels, perhaps because they were not separated."""
    assert isinstance(task.train, Examples) and task.train.labels is not None  # of texts with several labels
    if task.train.labels.sum(axis=1).max() > 1:
        return
    separator = task.label_separator
    seen = "no row has two labels" if separator is None else f"no row has the separator {separator!r} between labels"
    yield (
        f"{task.train.source}: {seen}: every row has one label or none; if that is so, {setting('task.kind')} "
        f"classification fits rows with one, and if not, {setting('task.label_separator')} is wrong"
    )


def _describe_look_alikes(task: Task) -> Iterator[str]:
    """Classes whose names differ in nothing that means another class, such as a typing mistake leaves."""
    seen: dict[str, str] = {}
    for name in task.labels:
        compatible = unicodedata.normalize("NFKC", name).casefold()
        visible = "".join(character for character in compatible if unicodedata.category(character) != "Cf")
        other = seen.setdefault(" ".join(visible.split()), name)
        if other != name:
            yield (
                f"{task.train.source}: the labels {other!a} and {name!a} differ in capitals, blanks or the form of "
                "their characters alone, and are two classes: write them alike if they are one"
            )


def _hash_columns(examples: TaskExamples) -> np.ndarray:
    """Hash each text without the white space around it, `[c, n]` int64."""
    columns: list[Iterable[str]]
    if isinstance(examples, Sentences):
        columns = [map(" ".join, examples.words)]
    elif isinstance(examples, Questions):
        columns = [(row.question for row in examples.rows), (row.context for row in examples.rows)]
    else:
        columns = [_read(column) for column in (examples.texts, examples.pairs) if column is not None]
    return np.array([np.fromiter((hash(text.strip()) for text in column), np.int64) for column in columns])


def _read(column: Sequence[str]) -> Iterator[str]:
    slices = (slice(start, start + _ROWS_PER_READ) for start in range(0, len(column), _ROWS_PER_READ))
    return chain.from_iterable(column[rows] for rows in slices)


def _join(hashes: np.ndarray) -> np.ndarray:
    """Combine the hashes of a row's texts, `[n]`; the order of the texts counts."""
    joined = hashes[0].astype(np.uint64)
    for column in hashes[1:]:
        joined = joined * np.uint64(0x9E3779B97F4A7C15) + column.astype(np.uint64)  # an odd number loses no bits
    return joined


def _label_keys(examples: TaskExamples) -> np.ndarray:
    """Return numbers that are equal for equal labels, scores or answers, `[n]`."""
    if isinstance(examples, Sentences):
        return np.fromiter((hash(tuple(labels)) for labels in examples.labels), np.int64)
    if isinstance(examples, Questions):
        return np.fromiter((hash(tuple(sorted(text for text, _ in row.answers))) for row in examples.rows), np.int64)
    if examples.labels is None:  # texts to embed
        return np.zeros(len(examples), dtype=np.int64)
    if are_label_sets(examples.labels):
        return np.unique(np.packbits(examples.labels, axis=1), axis=0, return_inverse=True)[1].reshape(-1)
    return examples.labels


def count_labels(examples: TaskExamples, names: Sequence[str]) -> Counter[str]:
    """Count the rows of each label; of labelled words, the words."""
    if isinstance(examples, Sentences):
        return Counter(chain.from_iterable(examples.labels))
    assert isinstance(examples, Examples) and examples.labels is not None  # questions have no classes
    counts = (
        examples.labels.sum(axis=0)
        if are_label_sets(examples.labels)
        else np.bincount(examples.labels, minlength=len(names))
    )
    return Counter(dict(zip(names, counts.tolist(), strict=True)))


def _show(examples: TaskExamples, row: int) -> str:
    if isinstance(examples, Sentences):
        return quote(" ".join(examples.words[row]))
    return quote(examples.rows[row].question if isinstance(examples, Questions) else examples.texts[row])


def _show_labels(examples: TaskExamples, rows: tuple[int, int], names: Sequence[str]) -> str:
    """Show the labels of two rows; those of words and answers are too long."""
    if not isinstance(examples, Examples) or examples.labels is None:
        return ""
    if are_label_sets(examples.labels):
        sets = ([name for name, is_set in zip(names, examples.labels[row], strict=True) if is_set] for row in rows)
        first, second = map(quote, sets)
    else:
        first, second = (repr(names[examples.labels[row]]) if names else f"{examples.labels[row]:g}" for row in rows)
    return f" with {first} and {second}"


def _names(names: Sequence[str], labels: Sequence[str]) -> str:
    listed = ", ".join(map(quote, names[:_MAX_NAMES])) + (", ..." if len(names) > _MAX_NAMES else "")
    return f"the label {listed}" if len(names) == 1 else f"one of {len(names)} of the {len(labels)} labels ({listed})"


def _share(part: int, whole: int) -> str:
    return f"{part:,} of {_count(whole, 'row')} ({part / whole:.1%})"


def _count(number: int, noun: str) -> str:
    return f"{number:,} {noun}{'' if number == 1 else 's'}"
