"""Reads the files of an embedding task: texts, scored pairs, and queries with the documents that answer them."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np

from dynabert_paddle.config.names import setting
from dynabert_paddle.data.data_file import ending_of
from dynabert_paddle.data.embedding_examples import TextsToEmbed
from dynabert_paddle.data.embedding_metrics import Judged, ScoredPairs
from dynabert_paddle.data.labels import is_number
from dynabert_paddle.data.readers import Columns, check_not_empty, read_column_names, read_rows
from dynabert_paddle.data.records import TEXT_COLUMNS, quote, read_lines
from dynabert_paddle.data.retrieval import read_retrieval
from dynabert_paddle.data.stored_texts import Column, new_column
from dynabert_paddle.errors import DataError

logger = logging.getLogger(__name__)

TEXT_FILE = ".txt"  # one text a line
_PAIR_COLUMNS = ("sentence1", "sentence2", "score")  # of STS-B
_TEXTS = (*TEXT_COLUMNS, "sentence1", "query", "question")
GROUP_COLUMNS = ("query", "positive", "negative")  # the last one is optional
_MAX_DEV = 1000  # texts that are taken from the training file where there is no dev file
_MAX_SCORE = 1e6


def training_columns(path: Path, given: Columns) -> Columns:
    """Choose the columns of a training file.

    Args:
        path: the file.
        given: the user's columns; an empty text is a default.

    Returns:
        The text column, and the second one whose texts count, too. A file of lines has one column, `text`.
    """
    if ending_of(path) == TEXT_FILE:
        return Columns("text")
    names = read_column_names(path)
    is_grouped = given.text in ("", GROUP_COLUMNS[0]) and given.pair in (None, GROUP_COLUMNS[1])
    if is_grouped and set(GROUP_COLUMNS[:2]) <= set(names):
        return Columns(*GROUP_COLUMNS) if GROUP_COLUMNS[2] in names else Columns(*GROUP_COLUMNS[:2])
    text = given.text or next((name for name in _TEXTS if name in names), _TEXTS[0])
    return Columns(text, given.pair)


def read_training_texts(path: Path, columns: Columns) -> TextsToEmbed:
    """Read the texts to train on.

    Args:
        path: a file of lines (.txt), or of a column or two.
        columns: from `training_columns`.

    Returns:
        The texts; empty ones are left out, and counted in the log.

    Raises:
        DataError: the file cannot be read, or has fewer than two different texts.
    """
    if columns.pair == GROUP_COLUMNS[1] and columns.text == GROUP_COLUMNS[0]:
        return _read_groups(path, columns)
    texts, empty, num_lines = new_column(path), list[int](), 0
    for line, text in _read(path, columns):
        num_lines += 1
        if text.strip():
            texts.append(text)
        else:
            empty.append(line)
    check_not_empty(path, num_lines)
    if empty:
        logger.warning("%s: %d empty texts are left out; the first is in line %d", path, len(empty), empty[0])
    first = texts[0].strip() if len(texts) else ""
    if all(text.strip() == first for text in texts):
        seen = f"only the text {quote(first)}" if first else "only empty texts"
        raise DataError(f"{path}: has {seen}; distilling needs at least two different ones: add texts.")
    return TextsToEmbed(texts, None, None, path.absolute())


def take_dev_texts(train: TextsToEmbed) -> tuple[TextsToEmbed, TextsToEmbed]:
    """Take dev texts from the training file, where there is no other file: a tenth, at most a thousand.

    Args:
        train: the training texts.

    Returns:
        The texts to train on, and the others; always the same ones of a file.
    """
    kept, taken = train.hold_out(min(_MAX_DEV, max(1, len(train) // 10)), seed=0)
    return train.select(kept), train.select(taken)


def read_dev_texts(path: Path, given: Columns) -> TextsToEmbed:
    """Read the dev texts: plain ones, or pairs with a score of their similarity.

    Args:
        path: the file; one with the columns `sentence1`, `sentence2` and `score`, as STS-B has them, has pairs.
        given: the user's columns; with a label column, whose name is that of the score, the file has pairs.

    Returns:
        The texts.

    Raises:
        DataError: the file cannot be read, or a score is no number.
    """
    if ending_of(path) == TEXT_FILE:
        return read_training_texts(path, Columns("text"))
    names = read_column_names(path)
    columns = given
    if not given.text or given.text not in names:
        is_pairs = set(_PAIR_COLUMNS) <= set(names)
        columns = Columns(*_PAIR_COLUMNS) if is_pairs else replace(given, text=training_columns(path, given).text)
    if columns.label is None:
        return read_training_texts(path, columns)
    return _read_pairs(path, columns)


def add_retrieval(dev: TextsToEmbed | None, folder: Path, source: Path) -> TextsToEmbed:
    """Add the queries and documents of a folder in BEIR's form to the dev texts.

    Args:
        dev: the dev texts, if there are others.
        folder: has `corpus.jsonl`, `queries.jsonl` and `qrels/*.tsv`.
        source: the file of the dev texts, for messages, if there are no others.

    Returns:
        All of them.

    Raises:
        DataError: a file of the folder cannot be read.
    """
    texts = [] if dev is None else list(dev.texts)
    found, retrieval = read_retrieval(folder, first=len(texts))
    is_query = np.zeros(len(texts) + len(found), dtype=bool)
    is_query[retrieval.queries] = True
    judged = Judged(retrieval=retrieval) if dev is None or not dev.judged else replace(dev.judged, retrieval=retrieval)
    return TextsToEmbed(
        [*texts, *found], None, None, source if dev is None else dev.source, is_query=is_query, judged=judged
    )


def _read(path: Path, columns: Columns) -> Iterator[tuple[int, str]]:
    """Yield all texts of a file, those of a second column after the first one's of each row."""
    if ending_of(path) == TEXT_FILE:
        yield from read_lines(path)
        return
    for row in read_rows(path, columns):
        for text in row.texts:
            yield row.line, text


def _read_groups(path: Path, columns: Columns) -> TextsToEmbed:
    """Read queries with their positive texts, and maybe a negative one each, which stand in the label's column."""
    size = 2 if columns.label is None else 3
    texts: Column = new_column(path)
    for row in read_rows(path, columns):
        for name, text in zip(GROUP_COLUMNS, (row.text, row.pair, row.label)[:size], strict=False):
            if not str(text).strip():
                raise DataError(f"{path}:{row.line}: {name!r} is empty; fill it in or delete the row.")
            texts.append(str(text))
    if len(set(texts[::size])) < 2:
        raise DataError(f"{path}: has only the query {quote(texts[0])}; contrasting needs at least two: add rows.")
    is_query = np.arange(len(texts)) % size == 0
    return TextsToEmbed(texts, None, None, path.absolute(), is_query=is_query, group_size=size)


def _read_pairs(path: Path, columns: Columns) -> TextsToEmbed:
    if columns.pair is None:
        raise DataError(
            f"{path}: a score is of two texts; name the column of the second with {setting('task.text_pair_column')}."
        )
    texts: list[str] = []
    scores: list[float] = []
    for row in read_rows(path, columns):
        if not is_number(str(row.label)) or abs(float(str(row.label))) > _MAX_SCORE:
            raise DataError(
                f"{path}:{row.line}: the score is {quote(row.label)}, which is no number that a similarity can be; "
                f"correct it, or choose another column with {setting('task.label_column')}."
            )
        empty = next((text for text in row.texts if not text.strip()), None)
        if empty is not None:
            raise DataError(f"{path}:{row.line}: a text of the pair is empty; fill it in or delete the row.")
        texts += row.texts
        scores.append(float(str(row.label)))
    if len(set(scores)) < 2:
        raise DataError(f"{path}: every pair has the score {scores[0]:g}, with which nothing correlates; add others.")
    places = np.arange(0, len(texts), 2)
    pairs = ScoredPairs(places, places + 1, np.asarray(scores, dtype=np.float32))
    # Both texts of a pair are compared with each other, so they are read alike: as documents.
    is_query = np.zeros(len(texts), dtype=bool)
    return TextsToEmbed(texts, None, None, path.absolute(), is_query=is_query, judged=Judged(pairs))
