"""Reads texts from files, and writes predictions as rows that the csv module reads back.

This file is part of every bundle's `infer.py` and `infer_lite.py`, so it stays Python 3.7 syntax.
"""

from __future__ import annotations

import csv
import io
import json
import os
from collections.abc import Callable, Iterable, Iterator, Sequence
from functools import partial
from itertools import chain
from math import isfinite
from typing import Any

from dynabert_paddle.bundle.manifest import BundleError
from dynabert_paddle.files.json_text import RepeatedKeyError, parse_json, split_array
from dynabert_paddle.text.conll import CONLL_ENDINGS, count_columns, is_conll, split_sentences
from dynabert_paddle.text.lines import LineError, data_ending, read_lines
from dynabert_paddle.text.quoting import split_header, split_table
from dynabert_paddle.text.squad import SquadError, split_squad


def format_row(cells: Sequence[str], delimiter: str = "\t", *, quote_all: bool = False) -> str:
    """Join cells to a row, and quote those that hold the delimiter, quotes or line breaks.

    Args:
        cells: the cells.
        delimiter: between the cells.
        quote_all: quote the others, too.

    Returns:
        The row without a line end.
    """
    row = io.StringIO()
    quoting = csv.QUOTE_ALL if quote_all else csv.QUOTE_MINIMAL
    csv.writer(row, delimiter=delimiter, lineterminator="\r\n", quoting=quoting).writerow(cells)
    return row.getvalue()[:-2]


def task_columns(description: dict[str, Any]) -> tuple[str | None, str | None]:
    """Return the names of the columns of the texts in a bundle's task, as far as it names them.

    Args:
        description: the content of `bundle.json`.

    Returns:
        The first text's column, and the second's for a task of pairs.
    """
    task = description["task"]
    if task.get("kind") == "question_answering":
        return "question", "context"
    names = [task.get(key) for key in ("text_column", "text_pair_column")]
    text, pair = (name if isinstance(name, str) and name else None for name in names)
    return text, pair if description["pair"] else None


def read_texts(path: str, description: dict[str, Any]) -> Iterator[list[Any]]:
    """Read the texts of a file for the scripts of a bundle.

    Args:
        path: .csv with a line that names the columns, .jsonl, SQuAD's .json, or text with one row a line: a text, or
            two separated by a TAB. A .tsv is read by its columns if its first line names the text's; a file of labelled
            words in CoNLL's format by sentences. Each may be compressed, and then ends with .gz.
        description: the content of `bundle.json`.

    Yields:
        A list of one text, which can be a list of words, or of two for a task of pairs.

    Raises:
        BundleError: a column is missing, or the file is not what its ending says, or not text in UTF-8.
    """
    try:
        yield from _read_file(path, description)
    except LineError as error:
        raise BundleError(f"{path}:{error.line}: {error}") from None


def _read_file(path: str, description: dict[str, Any]) -> Iterator[list[Any]]:
    ending, kind, takes_pairs = data_ending(path), description["task"].get("kind"), description["pair"]
    open_lines = _opener(path, is_read_twice=ending == ".tsv")
    if ending == ".csv":
        yield from _read_table(path, split_table(open_lines, is_tsv=False), description)
    elif kind == "token_classification" and _is_conll(path, description):
        for sentence in split_sentences(open_lines(), labelled=False):
            yield [[fields[0] for _, fields in sentence]]
    elif ending in (".jsonl", ".json"):
        lines = iter(open_lines())
        first_line = next(lines, "")
        lines = chain([first_line], lines)
        if ending == ".json" and kind == "question_answering" and not _is_row(first_line):
            yield from _read_squad(path, lines)
        else:
            yield from _read_json(path, lines, description)
    elif ending == ".tsv" and _has_header(next(iter(open_lines()), None), description):
        yield from _read_table(path, split_table(open_lines, is_tsv=True), description)
    else:
        for line in open_lines():
            yield line.split("\t") if takes_pairs else [line]


def _opener(path: str, *, is_read_twice: bool) -> Callable[[], Iterable[str]]:
    """Return a function that reads a file's lines from the first one; a pipe's, if they are read twice, from memory."""
    if not is_read_twice or os.path.isfile(path):
        return partial(read_lines, path)
    return partial(iter, list(read_lines(path)))


def _has_header(line: str | None, description: dict[str, Any]) -> bool:
    """Whether the first line of a .tsv file names its columns; in one of pairs without names a tab separates them."""
    if line is None:
        return False
    return _find_columns(split_header(line), description) is not None or ("\t" in line and not description["pair"])


def _is_conll(path: str, description: dict[str, Any]) -> bool:
    ending = data_ending(path)
    if ending in CONLL_ENDINGS:
        return True
    if ending in (".jsonl", ".json") or not os.path.isfile(path):  # a pipe cannot be read twice
        return False
    if ending == ".tsv" and _find_columns(split_header(next(read_lines(path), "")), description):
        return False
    return is_conll(read_lines(path), count_columns(read_lines(path)), description["labels"])


def _read_table(path: str, rows: Iterator[tuple[int, list[str]]], description: dict[str, Any]) -> Iterator[list[str]]:
    _, header = next(rows, (1, []))
    columns = _find_columns(header, description)
    if columns is None:
        raise _no_column(path, header, description)
    repeated = [header[column] for column in columns if header.count(header[column]) > 1]
    if repeated:
        raise BundleError(f"{path}: {header.count(repeated[0])} columns are called {repeated[0]!r}: rename them")
    for number, row in rows:
        if row == [""] and len(header) > 1:  # an empty line
            continue
        if len(row) != len(header):  # such as a delimiter in a text that has no quotes
            raise BundleError(f"{path}:{number}: {len(row)} cells, the first row has {len(header)}")
        yield [row[column] for column in columns]


def _is_row(line: str) -> bool:
    """Whether a line of a .json file is an object of its own, as in JSON lines, and not the whole of SQuAD's."""
    try:
        row = parse_json(line)
    except (ValueError, RecursionError):
        return False
    return isinstance(row, dict) and "data" not in row


def _read_squad(path: str, lines: Iterable[str]) -> Iterator[list[Any]]:
    try:
        pairs = split_squad(parse_json("\n".join(lines)))
    except SquadError as error:
        raise BundleError(f"{path}: {error}") from None
    except (ValueError, RecursionError) as error:
        raise BundleError(f"{path}: not in SQuAD's format: not JSON ({error})") from None
    for record, context in pairs:
        yield [record.get("question") if isinstance(record, dict) else record, context]


def _read_values(path: str, lines: Iterator[str]) -> Iterator[tuple[int, Any]]:
    """Read JSON lines, or in a .json file an array; yields line numbers and values, None for what is not JSON."""
    number = 0
    filled = ((number, line) for number, line in enumerate(lines, start=1) if line.strip())
    begin, first = next(filled, (1, ""))
    try:
        if data_ending(path) == ".json" and first.lstrip().startswith("["):
            for number, value in split_array("\n".join(chain([first], lines))):
                number += begin - 1
                yield number, value
            return
        for number, line in chain([(begin, first)] if first else [], filled):
            yield number, parse_json(line)
    except RepeatedKeyError as error:
        raise BundleError(f"{path}:{max(number, 1)}: {error}: keep one of them") from None
    except (ValueError, RecursionError):
        yield max(number, 1), None


def _read_json(path: str, lines: Iterator[str], description: dict[str, Any]) -> Iterator[list[str]]:
    for number, row in _read_values(path, lines):
        if not isinstance(row, dict):
            raise BundleError(f"{path}:{number}: not a JSON object: write one a line")
        names = list(row)
        columns = _find_columns(names, description)
        if columns is None:
            raise _no_column(f"{path}:{number}", names, description)
        yield [_text_of(row[names[column]], f"{path}:{number}: {names[column]!r}") for column in columns]


def _text_of(value: Any, place: str) -> Any:
    """Return a JSON value as text, as training reads it; a list may be one of words."""
    if isinstance(value, (str, list)):
        return value
    if value is None or isinstance(value, dict) or (isinstance(value, float) and not isfinite(value)):
        raise BundleError(f"{place} is {json.dumps(value)[:60]}: give a text, or delete the row")
    return json.dumps(value)


def _find_columns(header: Sequence[str], description: dict[str, Any]) -> list[int] | None:
    """Return the positions of the texts' columns; None if one is not there."""
    text, pair = task_columns(description)
    names = [next((name for name in (text, "sentence", "text") if name in header), None)]
    if description["pair"]:
        names.append(pair)
    return [header.index(name) for name in names] if all(name in header for name in names) else None


def _no_column(path: str, header: Sequence[str], description: dict[str, Any]) -> BundleError:
    text, pair = task_columns(description)
    needed = [repr(text or "sentence"), *([repr(pair or "a second text")] if description["pair"] else [])]
    found = ", ".join(map(repr, header))[:200]
    return BundleError(f"{path}: needs the column {' and '.join(needed)}; the columns here are {found or 'none'}")
