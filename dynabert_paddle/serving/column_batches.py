"""Batches of columns: Arrow, pandas or a dict of NumPy arrays; reads texts from them, and adds columns to them."""

from __future__ import annotations

import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, TypeAlias

import numpy as np

from dynabert_paddle.bundle.rows import short_repr
from dynabert_paddle.bundle.tables import task_columns
from dynabert_paddle.data.kinds import KINDS
from dynabert_paddle.data.records import TEXT_COLUMNS
from dynabert_paddle.errors import DataError, UsageError, did_you_mean

if TYPE_CHECKING:
    import pandas
    import pyarrow

ColumnBatch: TypeAlias = "Mapping[str, np.ndarray] | pyarrow.Table | pyarrow.RecordBatch | pandas.DataFrame"


def names_of(batch: ColumnBatch) -> list[str]:
    """List the columns of a batch.

    Args:
        batch: the batch.

    Returns:
        Their names.

    Raises:
        DataError: it is no batch, or its columns differ in length.
    """
    table: Any = batch
    if _is_arrow(batch):
        return list(table.schema.names)
    if _is_pandas(batch):
        return list(table.columns)
    if isinstance(batch, Mapping):
        lengths = {name: len(values) for name, values in batch.items() if isinstance(values, (np.ndarray, list))}
        for name, values in batch.items():
            if name not in lengths:
                raise DataError(f"column {name!r} is {short_repr(values)}: give a NumPy array, one value a row")
        if len(set(lengths.values())) > 1:
            raise DataError(f"columns of different lengths ({lengths}): give one value a row in each")
        return list(batch)
    raise DataError(
        f"a batch is a dict of NumPy arrays, an Arrow table or a pandas DataFrame, not {type(batch).__name__}"
    )


@dataclass(frozen=True)
class TextColumns:
    """Which columns hold the texts of a task.

    Args:
        texts: names of the column of the texts; of these, the first that a table has.
        pairs: name of the column of the second texts; None for single texts.
        has_words: whether a text can be a list of words.
    """

    texts: tuple[str, ...]
    pairs: str | None = None
    has_words: bool = False

    @classmethod
    def of(cls, description: dict[str, Any], text: str | None, pair: str | None) -> TextColumns:
        """Choose the columns for a bundle.

        Args:
            description: the content of its `bundle.json`.
            text: the user's column of the texts.
            pair: the user's column of the second texts.

        Returns:
            The columns.

        Raises:
            UsageError: a column of second texts for a task without, or none for a task of pairs.
        """
        takes_pairs, kind = description["pair"], description["task"].get("kind", "classification")
        trained = task_columns(description)
        if pair and not takes_pairs:
            raise UsageError("this bundle's task has single texts: leave out text_pair_column")
        pair = pair or trained[1]
        if takes_pairs and not pair:
            raise UsageError("this bundle's task has pairs of texts: name the second text's column, text_pair_column")
        defaults = [trained[0], *KINDS[kind].text_columns, *TEXT_COLUMNS]
        texts = [text] if text else [name for name in defaults if name]
        return cls(tuple(dict.fromkeys(texts)), pair, kind == "token_classification")

    def find(self, names: Sequence[str]) -> list[str]:
        """Find the columns in a table.

        Args:
            names: the columns of the table.

        Returns:
            One name, or two for a task of pairs.

        Raises:
            DataError: one of them is missing, or there are several of its name.
        """
        found = [next((name for name in self.texts if name in names), self.texts[0])]
        found += [] if self.pairs is None else [self.pairs]
        for name in found:
            if name not in names:
                raise missing_column(name, names)
            if names.count(name) > 1:
                raise DataError(f"{names.count(name)} columns are called {name!r}: rename them")
        return found

    def read(self, batch: ColumnBatch) -> list[tuple[Any, ...]]:
        """Read the texts of a batch.

        Args:
            batch: the batch.

        Returns:
            For each row one text or two; a text is a str, a list of words, or None if it is missing.

        Raises:
            DataError: a column is missing or holds no texts.
        """
        columns = [_read_column(batch, name, has_words=self.has_words) for name in self.find(names_of(batch))]
        return list(zip(*columns, strict=True))


def missing_column(name: str, names: Sequence[str]) -> DataError:
    """Describe a column that is not there.

    Args:
        name: the column.
        names: those that are there.

    Returns:
        The error to raise.
    """
    shown = ", ".join(map(repr, names[:20])) or "none"
    return DataError(f"no column {name!r}; the columns here are {shown}.{did_you_mean(name, map(str, names))}")


def _read_column(batch: Any, name: str, *, has_words: bool) -> list[Any]:
    if _is_arrow(batch):
        column = batch.column(name)
        if not _holds_texts(column.type, has_words=has_words):
            raise _wrong_type(name, str(column.type), has_words=has_words)
        values, kind = column.to_pylist(), str(column.type)
    else:
        values, kind = list(batch[name]), str(getattr(batch[name], "dtype", "object"))
    return [_text(value, number, name, kind, has_words=has_words) for number, value in enumerate(values, start=1)]


def with_columns(batch: Any, keep: Sequence[str], names: Sequence[str], arrays: Sequence[pyarrow.Array]) -> ColumnBatch:
    """Return a batch of the same form with some of its columns, and further ones.

    Args:
        batch: a `ColumnBatch`.
        keep: the columns of it to keep.
        names: those to add.
        arrays: their values.

    Returns:
        The new batch.
    """
    import pyarrow as pa

    if _is_arrow(batch):
        kept = batch.select(list(keep)) if list(keep) != batch.schema.names else batch
        schema = pa.schema([*kept.schema, *map(pa.field, names, [array.type for array in arrays])])
        columns = [*kept.columns, *arrays]
        return type(batch).from_arrays(columns, schema=schema.with_metadata(batch.schema.metadata))
    if _is_pandas(batch):
        import pandas as pd

        kept = batch if list(keep) == list(batch.columns) else batch[list(keep)]
        values = map(_objects, arrays)
        added = {
            name: pd.Series(list(value) if value.ndim > 1 else value, index=batch.index)
            for name, value in zip(names, values, strict=True)
        }
        return pd.concat([kept, pd.DataFrame(added, index=batch.index)], axis=1)
    return {name: batch[name] for name in keep} | dict(zip(names, map(_objects, arrays), strict=True))


def _objects(array: pyarrow.Array) -> np.ndarray:
    """An array of numbers as NumPy has them, vectors as a matrix; other values as Python objects."""
    import pyarrow as pa

    if pa.types.is_fixed_size_list(array.type) and not array.null_count:
        return array.flatten().to_numpy(zero_copy_only=False).reshape(len(array), array.type.list_size)

    if not pa.types.is_nested(array.type) and not pa.types.is_string(array.type):
        return np.asarray(array.to_numpy(zero_copy_only=False))
    values = np.empty(len(array), dtype=object)
    values[:] = array.to_pylist()
    return values


def _is_arrow(batch: object) -> bool:
    arrow = sys.modules.get("pyarrow")  # not imported: no batch of it
    return arrow is not None and isinstance(batch, (arrow.Table, arrow.RecordBatch))


def _is_pandas(batch: object) -> bool:
    pandas = sys.modules.get("pandas")
    return pandas is not None and isinstance(batch, pandas.DataFrame)


def _holds_texts(kind: pyarrow.DataType, *, has_words: bool) -> bool:
    import pyarrow as pa

    if pa.types.is_dictionary(kind):
        kind = kind.value_type
    if has_words and (pa.types.is_list(kind) or pa.types.is_large_list(kind) or pa.types.is_fixed_size_list(kind)):
        kind = kind.value_type
    tests = (pa.types.is_string, pa.types.is_large_string, pa.types.is_string_view, pa.types.is_null)
    return any(test(kind) for test in tests)


def _text(value: Any, number: int, name: str, kind: str, *, has_words: bool) -> Any:
    """One value of a column; NumPy and pandas have several for a missing one."""
    if isinstance(value, str) or value is None:
        return value
    if has_words and isinstance(value, (list, tuple, np.ndarray)):
        words = list(value)
        if not all(isinstance(word, str) for word in words):
            raise DataError(f"column {name!r}, row {number} of the batch is {short_repr(words)}: give a list of str")
        return words
    if (isinstance(value, float) and value != value) or type(value).__name__ in ("NAType", "NaTType"):
        return None
    shown = kind if kind != "object" else f"{short_repr(value)} in row {number} of the batch"
    raise _wrong_type(name, shown, has_words=has_words)


def _wrong_type(name: str, kind: str, *, has_words: bool) -> DataError:
    wanted = "texts, or lists of words" if has_words else "texts"
    return DataError(f"column {name!r} is {kind}, not {wanted}: name the right column, or convert it to str")
