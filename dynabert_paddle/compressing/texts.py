"""The texts of a task and of plain files, and how a tokenizer cuts them into pieces."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from itertools import islice
from pathlib import Path

import numpy as np

from dynabert_paddle.data.data_file import DataFile
from dynabert_paddle.data.question_answering import Questions
from dynabert_paddle.data.readers import Examples
from dynabert_paddle.data.records import read_lines
from dynabert_paddle.data.tasks import TaskExamples
from dynabert_paddle.errors import DataError
from dynabert_paddle.runtime.home import user_path
from dynabert_paddle.text.encode import join_words
from dynabert_paddle.text.lines import read_lines as read_text_lines
from dynabert_paddle.text.tokenizer import MAX_TOKENS, Tokenizer

_BATCH_SIZE = 1024


def task_rows(examples: TaskExamples) -> Iterator[tuple[str, ...]]:
    """Yield the texts of each row: one, or both of a pair.

    Args:
        examples: a task's examples.

    Yields:
        A row's texts; words are joined, and a question comes with its context.
    """
    if isinstance(examples, Examples):
        for index, text in enumerate(examples.texts):
            yield (text,) if examples.pairs is None else (text, examples.pairs[index])
    elif isinstance(examples, Questions):
        yield from ((row.question, row.context) for row in examples.rows)
    else:
        yield from ((join_words(words)[0],) for words in examples.words)


def read_text_file(path: str | Path) -> Iterator[str]:
    """Read a file of plain text.

    Args:
        path: the file, UTF-8; a pipe, too.

    Yields:
        Its lines, without empty ones.

    Raises:
        DataError: it cannot be read, is not text, or is empty.
    """
    is_empty = True
    path = user_path(path)
    for _, line in read_lines(DataFile(path, ".txt", read_text_lines(path)) if path.is_fifo() else path):
        if line.strip():
            is_empty = False
            yield line
    if is_empty:
        raise DataError(f"{path}: has no text: give plain text, one text a line")


def count_pieces(tokenizer: Tokenizer, texts: Iterable[str]) -> np.ndarray:
    """Count the pieces of texts.

    Args:
        tokenizer: cuts them.
        texts: whole texts.

    Returns:
        `[vocab_size]`, how often each piece occurs, special tokens included.
    """
    counts = np.zeros(tokenizer.vocab_size, dtype=np.int64)
    for rows in _encode(tokenizer, texts):
        for row in rows:
            np.add.at(counts, row, 1)
    return counts


def row_lengths(tokenizer: Tokenizer, rows: Sequence[tuple[str, ...]]) -> np.ndarray:
    """Count the tokens of each row, its special tokens included.

    Args:
        tokenizer: cuts the texts.
        rows: from `task_rows`.

    Returns:
        `[n]` tokens, where nothing is cut off.
    """
    lengths = [len(ids) for batch in _encode(tokenizer, (text for row in rows for text in row)) for ids in batch]
    pieces = np.array(lengths) - tokenizer.num_special_tokens(1)
    sizes = np.array([len(row) for row in rows])
    special = np.array([0, *(tokenizer.num_special_tokens(texts) for texts in (1, 2))])
    return np.add.reduceat(pieces, np.cumsum(sizes) - sizes) + special[sizes]


def _encode(tokenizer: Tokenizer, texts: Iterable[str]) -> Iterator[list[list[int]]]:
    left = iter(texts)
    while batch := list(islice(left, _BATCH_SIZE)):
        yield tokenizer.encode(batch, max_seq_length=MAX_TOKENS)[0]
