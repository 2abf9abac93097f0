"""Reads TSV, CSV, JSON and Parquet as records, line by line."""

from collections.abc import Iterable, Iterator
from itertools import chain, islice

from dynabert_paddle.data.data_file import AnyFile, DataFile, ending_of
from dynabert_paddle.data.label_studio import plain_records
from dynabert_paddle.data.parquet import parquet_records
from dynabert_paddle.errors import DataError, did_you_mean
from dynabert_paddle.files.json_text import RepeatedKeyError, parse_json, split_array
from dynabert_paddle.text.lines import LineError
from dynabert_paddle.text.quoting import split_table, split_tsv_once


def open_records(path: AnyFile, *, bare_quotes: bool = False) -> Iterator:
    """Read a data file record by record, without loading it into memory.

    Args:
        path: a .tsv, .csv, .jsonl or .json file, which may be compressed (.tsv.gz), or a .parquet file.
        bare_quotes: the quotes in a .tsv file are part of the texts; otherwise the file's content tells.

    Returns:
        An iterator over (line number, fields) of a table, including the header, or (line number, object) of JSON lines,
        where an annotation of Label Studio is a plain object; of Parquet, with the number of the row.

    Raises:
        DataError: an unknown ending; during iteration, a file or line that cannot be read.
    """
    ending = ending_of(path)
    if ending not in _RECORDS:
        raise DataError(
            f"{path}: unknown file ending {ending!r}; the endings are {', '.join(_RECORDS)}."
            f"{did_you_mean(ending, _RECORDS)} Rename or convert the file."
        )
    if ending == ".tsv" and bare_quotes:
        return ((line, text.split("\t")) for line, text in read_lines(path))
    return _RECORDS[ending](path)


def first_record(path: AnyFile, records: Iterator) -> tuple[int, list[str] | dict]:
    """Return the first record, which names the columns.

    Args:
        path: the file's name for the message.
        records: from `open_records`.

    Returns:
        The line number, and the header's fields or the first object.

    Raises:
        DataError: the file is empty.
    """
    first = next(records, None)
    if first is None:
        raise DataError(f"{path}:1: the file is empty; add rows, in TSV and CSV below a line that names the columns.")
    return first


def quote(value: object) -> str:
    """Return a value's repr for a message, in at most 60 characters."""
    quoted = repr(value)
    return quoted if len(quoted) <= 60 else quoted[:57] + "..."


def _table_records(path: AnyFile) -> Iterator[tuple[int, list[str]]]:
    is_tsv = ending_of(path) == ".tsv"
    try:
        if is_tsv and isinstance(path, DataFile) and path.is_stream:
            yield from split_tsv_once(text for _, text in read_lines(path))
        else:
            yield from split_table(lambda: (text for _, text in read_lines(path)), is_tsv=is_tsv)
    except LineError as error:
        raise DataError(f"{path}:{error.line}: {error}.") from None


def read_objects(path: AnyFile) -> Iterator[tuple[int, dict]]:
    """Read the objects of JSON lines, or of an array, as they are.

    Args:
        path: a .jsonl or .json file.

    Yields:
        The line of an object, and the object.

    Raises:
        DataError: a line is not a JSON object.
    """
    lines = ((line, text) for line, text in read_lines(path) if text.strip())
    first = list(islice(lines, 1))
    if ending_of(path) == ".json" and first and first[0][1].lstrip().startswith("["):
        yield from _array_records(path, chain(first, lines))
        return
    for line, text in chain(first, lines):
        try:
            record = parse_json(text)
        except RepeatedKeyError as error:
            raise DataError(f"{path}:{line}: {error}; keep one of them.") from None
        except (ValueError, RecursionError) as error:
            raise DataError(f"{path}:{line}: not valid JSON ({error}); write one JSON object per line.") from None
        if not isinstance(record, dict):
            raise DataError(f"{path}:{line}: {quote(record)} is not a JSON object; write one JSON object per line.")
        yield line, record


def _json_records(path: AnyFile) -> Iterator[tuple[int, dict]]:
    return plain_records(read_objects(path), path)


def _array_records(path: AnyFile, lines: Iterable[tuple[int, str]]) -> Iterator[tuple[int, dict]]:
    line, parts = 1, []
    for number, text in lines:  # those that are not empty
        parts.append("\n" * (number - line) + text)
        line = number
    try:
        for line, record in split_array("".join(parts)):
            if not isinstance(record, dict):
                raise DataError(f"{path}:{line}: {quote(record)} is not a JSON object; write one JSON object per line.")
            yield line, record
    except RepeatedKeyError as error:
        raise DataError(f"{path}:{line}: after the object that begins here, {error}; keep one of them.") from None
    except (ValueError, RecursionError) as error:
        raise DataError(f"{path}:{line}: not valid JSON ({error}); write one JSON object per line.") from None


def read_lines(path: AnyFile) -> Iterator[tuple[int, str]]:
    """Read a file of text line by line, without line ends and byte order mark.

    Args:
        path: the file, in UTF-8.

    Yields:
        Line number, from 1, and line.

    Raises:
        DataError: the file cannot be read, or it is not text in UTF-8.
    """
    file = path if isinstance(path, DataFile) else DataFile(path, ending_of(path))
    path = file.path
    if not file.is_stream and path.exists() and not path.is_file() and not path.is_dir():
        raise DataError(
            f"{path}: is not a file; pipes and devices are not supported here, because data is read twice: write it to "
            f"a file first."
        )
    try:
        yield from enumerate(file.lines(), start=1)
    except LineError as error:
        raise DataError(f"{path}:{error.line}: {error}") from None
    except FileNotFoundError:
        hint = did_you_mean(path.name, (sibling.name for sibling in path.parent.glob("*")))
        raise DataError(f"{path}: no such file.{hint} Give the path of an existing file.") from None
    except OSError as error:
        raise DataError(f"{path}: cannot be read ({error.strerror}); give a readable file.") from None


_RECORDS = {
    ".tsv": _table_records,
    ".csv": _table_records,
    ".jsonl": _json_records,
    ".json": _json_records,
    ".parquet": parquet_records,
}
JSON_ENDINGS = (".jsonl", ".json", ".parquet")  # whose records are objects
DATA_FILE_ENDINGS = tuple(_RECORDS)
TEXT_COLUMNS = ("sentence", "text")  # usual names of the column of the text
