"""Vectors in a file that is written as they come: one NumPy array, or a column of a Parquet file."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from io import BytesIO
from itertools import islice
from typing import Any

import numpy as np

from dynabert_paddle.cli.output import open_output
from dynabert_paddle.cli.prediction_rows import as_cell
from dynabert_paddle.errors import DataError
from dynabert_paddle.serving.prediction_columns import rename_taken
from dynabert_paddle.text.decode import AnyPrediction, Embedding

_ROWS_PER_GROUP = 4096

Rows = Iterable[tuple[Mapping[str, Any], AnyPrediction]]  # the columns of each row's input, and its vector


def write_vectors(path: str, format: str, rows: Rows) -> None:
    """Write vectors in constant memory.

    Args:
        path: the file, which appears when it is complete.
        format: `npy`, a float32 array `[n, d]`; or `parquet`, whose column `vector` has lists of d float32 values,
            beside the columns of the input as texts.
        rows: in their order.

    Raises:
        DataError: there are none, or their inputs have different columns.
        DynabertError: the file cannot be written.
    """
    rows = iter(rows)
    first = next(rows, None)
    if first is None:
        raise DataError("no text to embed: give one or more")
    (_write_npy if format == "npy" else _write_parquet)(path, first, rows)


def _write_npy(path: str, first: tuple[Mapping[str, Any], AnyPrediction], rows: Iterator) -> None:
    size, count = len(_vector(first[1])), 1
    with open_output(path) as text:
        file = text.buffer
        file.write(_header(0, size) + _vector(first[1]).tobytes())
        for _, prediction in rows:
            file.write(_vector(prediction).tobytes())
            count += 1
        file.seek(0)
        file.write(_header(count, size))


def _write_parquet(path: str, first: tuple[Mapping[str, Any], AnyPrediction], rows: Iterator) -> None:
    import pyarrow as pa
    from pyarrow.parquet import ParquetWriter

    names, size = list(first[0]), len(_vector(first[1]))
    (vector,) = rename_taken(["vector"], names)
    schema = pa.schema([*((name, pa.string()) for name in names), (vector, pa.list_(pa.float32(), size))])
    with open_output(path) as text, ParquetWriter(text.buffer, schema) as writer:
        group = [first]
        while group:
            columns = [pa.array([_cell_of(own, name, names) for own, _ in group], pa.string()) for name in names]
            values = np.concatenate([_vector(prediction) for _, prediction in group])
            columns.append(pa.FixedSizeListArray.from_arrays(pa.array(values), size))
            writer.write_batch(pa.record_batch(columns, schema=schema))
            group = list(islice(rows, _ROWS_PER_GROUP))


def _cell_of(columns: Mapping[str, Any], name: str, names: list[str]) -> str:
    unknown = [other for other in columns if other not in names]
    if unknown:
        raise DataError(f"a row has {unknown[0]!r}, which the first row lacks: give all rows the same columns")
    return as_cell(columns.get(name, ""))


def _vector(prediction: AnyPrediction) -> np.ndarray:
    assert isinstance(prediction, Embedding)
    return np.asarray(prediction.vector, dtype="<f4")


def _header(rows: int, size: int) -> bytes:
    """The beginning of the file, which NumPy pads so that its length does not depend on the number of rows."""
    header = BytesIO()
    np.lib.format.write_array_header_1_0(header, {"descr": "<f4", "fortran_order": False, "shape": (rows, size)})
    return header.getvalue()
