"""Reads Parquet files as records; integers that stand for the names of classes become these names."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import suppress
from typing import Any

from dynabert_paddle.data.data_file import AnyFile
from dynabert_paddle.errors import DataError

_ROWS_PER_READ = 1024


def parquet_records(path: AnyFile) -> Iterator[tuple[int, dict[str, Any]]]:
    """Read a Parquet file row by row.

    Args:
        path: the file.

    Yields:
        The row's number, from 1, and its values by column.

    Raises:
        DataError: it cannot be read, or pyarrow is not installed.
    """
    try:
        from pyarrow import ArrowException
        from pyarrow.parquet import ParquetFile
    except ImportError:
        raise DataError(f"{path}: Parquet needs pyarrow: run 'pip install pyarrow', or convert it to .jsonl.") from None
    number = 0
    try:
        with ParquetFile(str(path)) as file:
            names = class_names(file.schema_arrow.metadata)
            for batch in file.iter_batches(batch_size=_ROWS_PER_READ):
                for row in batch.to_pylist():
                    number += 1
                    yield number, {key: _named(value, names.get(key)) for key, value in row.items()}
    except FileNotFoundError:
        raise DataError(f"{path}: no such file. Give the path of an existing file.") from None
    except (ArrowException, OSError, ValueError) as error:
        reason = " ".join(str(error).split())[:200]
        raise DataError(f"{path}:{number + 1}: not a Parquet file, or a damaged one ({reason}).") from None


def class_names(metadata: dict[bytes, bytes] | None) -> dict[str, list[str]]:
    """Find the names of classes in the metadata that Hugging Face's datasets write: their type ClassLabel.

    Args:
        metadata: of the file's schema.

    Returns:
        The names by column.
    """
    with suppress(ValueError, KeyError, TypeError, AttributeError):
        return names_of_features(json.loads((metadata or {})[b"huggingface"])["info"]["features"])
    return {}


def names_of_features(features: Any) -> dict[str, list[str]]:
    """Find the names of classes in the description of a data set's features.

    Args:
        features: by column; a ClassLabel has `names`, a list of them has it as its `feature`.

    Returns:
        The names by column.
    """
    found: dict[str, list[str]] = {}
    for column, feature in features.items() if isinstance(features, dict) else ():
        inner = feature
        while isinstance(inner, dict) and isinstance(inner.get("feature"), dict):
            inner = inner["feature"]
        inner = inner[0] if isinstance(inner, list) and len(inner) == 1 else inner
        names = inner.get("names") if isinstance(inner, dict) else None
        if isinstance(names, dict):  # as YAML has them: numbers and names
            names = [names[key] for key in sorted(names, key=int)]
        if isinstance(names, list) and all(isinstance(name, str) for name in names):
            found[column] = names
    return found


def _named(value: Any, names: list[str] | None) -> Any:
    """Replace a class's number, or those in a list, by its name; -1 stands for a missing one."""
    if names is None:
        return value
    if isinstance(value, list):
        return [_named(each, names) for each in value]
    if value is None or value == -1:
        return None
    return names[value] if isinstance(value, int) and 0 <= value < len(names) else value
