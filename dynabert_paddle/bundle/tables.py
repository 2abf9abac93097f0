"""Reads texts from files, and writes predictions as rows that the csv module reads back.

This file is part of every bundle's `infer.py` and `infer_lite.py`, so it stays Python 3.7 syntax.
"""

from __future__ import annotations

import csv
import io
import json
import os
from collections.abc import Iterable, Iterator, Sequence
from itertools import chain, tee
from math import isfinite
from pathlib import Path
from typing import Any

from dynabert_paddle.bundle.manifest import BundleError
from dynabert_paddle.files.json_text import RepeatedKeyError, parse_json, split_array
from dynabert_paddle.text.conll import CONLL_ENDINGS, ConllError, count_columns, is_conll, split_conll
from dynabert_paddle.text.quoting import (
    QuotingError,
    find_delimiter,
    has_quoted_cells,
    split_at_returns,
    split_header,
    split_rows,
)
from dynabert_paddle.text.squad import SquadError, split_squad


def format_row(cells: Sequence[str], delimiter: str = "\t") -> str:
    """Join cells to a row, and quote those that hold the delimiter, quotes or line breaks.

    Args:
        cells: the cells.
        delimiter: between the cells.

    Returns:
        The row without a line end.
    """
    row = io.StringIO()
    csv.writer(row, delimiter=delimiter, lineterminator="\r\n").writerow(cells)
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
            words in CoNLL's format by sentences.
        description: the content of `bundle.json`.

    Yields:
        A list of one text, which can be a list of words, or of two for a task of pairs.

    Raises:
        BundleError: a column is missing, or the file is not what its ending says.
    """
    ending = Path(path).suffix.lower()
    with open(path, encoding="utf-8-sig", newline="\n") as file:  # a text may hold a carriage return
        lines: Iterator[str] = (line.rstrip("\r\n") for line in file)
        if ending == ".csv":
            lines = split_at_returns(lines)
            first = next(lines, "")
            rows = split_rows((line + "\n" for line in chain([first], lines)), find_delimiter(first))
            yield from _read_table(path, rows, description)
            return
        if description["task"].get("kind") == "token_classification" and _is_conll(path, description):
            yield from _read_conll(path, lines)
            return
        if ending == ".json" and description["task"].get("kind") == "question_answering":
            first = next(lines, "")
            if not _is_row(first):
                yield from _read_squad(path, chain([first], lines))
                return
            lines = chain([first], lines)
        if ending in (".jsonl", ".json"):
            yield from _read_json(path, lines, description)
            return
        takes_pairs = description["pair"]
        if ending == ".tsv":
            lines = split_at_returns(lines)
            header = next(lines, None)
            if header is None:
                return
            # Without the columns' names, a tab separates the texts of a pair.
            if _find_columns(split_header(header), description) or ("\t" in header and not takes_pairs):
                yield from _read_table(path, _split_tsv(path, header, lines), description)
                return
            lines = chain([header], lines)
        for line in lines:
            yield line.split("\t") if takes_pairs else [line]


def _is_conll(path: str, description: dict[str, Any]) -> bool:
    ending = Path(path).suffix.lower()
    if ending in CONLL_ENDINGS:
        return True
    if ending in (".jsonl", ".json") or not os.path.isfile(path):  # a pipe cannot be read twice
        return False
    if ending == ".tsv" and _find_columns(split_header(next(_table_lines(path), "")), description):
        return False
    try:
        return is_conll(_read_lines(path), count_columns(_read_lines(path)), description["labels"])
    except ConllError as error:
        raise BundleError(f"{path}:{error.line}: {error}") from None


def _read_lines(path: str) -> Iterator[str]:
    with open(path, encoding="utf-8-sig", newline="\n") as file:
        yield from file


def _table_lines(path: str) -> Iterator[str]:
    return split_at_returns(line.rstrip("\r\n") for line in _read_lines(path))


def _split_tsv(path: str, header: str, lines: Iterator[str]) -> Iterator[list[str]]:
    yield split_header(header)
    if os.path.isfile(path):
        content: Iterable[str] = _table_lines(path)
    else:  # a pipe cannot be read twice
        lines, rest = tee(lines)
        content = chain([header], rest)
    try:
        is_quoted = has_quoted_cells(content)
    except QuotingError as error:
        raise BundleError(f"{path}:{error.line}: {error}") from None
    yield from split_rows((line + "\n" for line in lines), "\t") if is_quoted else (line.split("\t") for line in lines)


def _read_conll(path: str, lines: Iterator[str]) -> Iterator[list[Any]]:
    first, lines = tee(lines)
    try:
        for sentence in split_conll(lines, count_columns(first)):
            yield [[fields[0] for _, fields in sentence]]
    except ConllError as error:
        raise BundleError(f"{path}:{error.line}: {error}") from None


def _read_table(path: str, rows: Iterator[list[str]], description: dict[str, Any]) -> Iterator[list[str]]:
    try:
        header = next(filter(None, rows), [])
        columns = _find_columns(header, description)
        if columns is None:
            raise _no_column(path, header, description)
        repeated = [header[column] for column in columns if header.count(header[column]) > 1]
        if repeated:
            raise BundleError(f"{path}: {header.count(repeated[0])} columns are called {repeated[0]!r}: rename them")
        for number, row in enumerate(rows, start=2):
            if not row or (row == [""] and len(header) > 1):  # an empty line
                continue
            if len(row) != len(header):  # such as a delimiter in a text that has no quotes
                raise BundleError(f"{path}: row {number} has {len(row)} cells, the first row has {len(header)}")
            yield [row[column] for column in columns]
    except csv.Error as error:
        raise BundleError(f"{path}: not valid CSV: {error}") from None


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
        if Path(path).suffix.lower() == ".json" and first.lstrip().startswith("["):
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
