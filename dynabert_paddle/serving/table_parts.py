"""Divides large tables into parts that different processes predict: Parquet files, and files that `predict` reads."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from itertools import chain, islice
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeAlias

from dynabert_paddle.bundle.errors import as_dynabert_error
from dynabert_paddle.bundle.manifest import read_bundle
from dynabert_paddle.bundle.tables import task_columns
from dynabert_paddle.data.data_file import ending_of
from dynabert_paddle.data.prediction_inputs import InputForm, InputRow
from dynabert_paddle.errors import DataError
from dynabert_paddle.serving.batch_predictor import BatchPredictor
from dynabert_paddle.serving.prediction_columns import rename_taken

if TYPE_CHECKING:
    import pyarrow


@dataclass(frozen=True, eq=False)
class TablePart:
    """Rows of a table.

    Args:
        number: of the part, from 0.
        first_row: the number of its first row in the whole table, from 0.
        num_rows: its rows.
    """

    number: int
    first_row: int
    num_rows: int


@dataclass(frozen=True, eq=False)
class ParquetPart(TablePart):
    """Rows of a Parquet file, which are read where they are predicted.

    Args:
        path: the file.
        row_group: the group of rows in it.
        start: the first row in the group.
        columns: those to read.
    """

    path: str
    row_group: int
    start: int
    columns: Sequence[str]

    def predict(self, predictor: BatchPredictor) -> pyarrow.Table:
        """Predict for the rows.

        Args:
            predictor: what predicts.

        Returns:
            The columns that it keeps, and the predictions.

        Raises:
            DataError: the file is damaged, or a row has no text.
        """
        from pyarrow import ArrowException
        from pyarrow.parquet import ParquetFile

        try:
            with ParquetFile(self.path) as file:
                group = file.read_row_group(self.row_group, columns=list(self.columns))
        except (ArrowException, OSError) as error:
            raise _damaged(self.path, error) from None
        try:
            return predictor(group.slice(self.start, self.num_rows))
        except DataError as error:
            raise DataError(f"{self.path}: in rows {self.first_row} and up of the input: {error}") from None


@dataclass(frozen=True, eq=False)
class TextPart(TablePart):
    """Rows that have been read.

    Args:
        texts: for each row one text or two.
        kept: the columns that are kept.
    """

    texts: Sequence[Sequence[Any]]
    kept: pyarrow.Table = field(repr=False)

    def predict(self, predictor: BatchPredictor) -> pyarrow.Table:
        """Predict for the rows, as `ParquetPart` does."""
        import pyarrow as pa

        arrays, schema = predictor.predict(self.texts), predictor.schema
        names = rename_taken(schema.names, self.kept.schema.names)
        return pa.table([*self.kept.columns, *arrays], names=[*self.kept.schema.names, *names])


AnyPart: TypeAlias = ParquetPart | TextPart


def divide_parquet(files: Sequence[Path], predictor: BatchPredictor, num_rows: int) -> Iterator[ParquetPart]:
    """Divide Parquet files of one table.

    Args:
        files: the files.
        predictor: what will predict; it tells which columns are read.
        num_rows: rows of a part at most; a part is in one group of rows.

    Yields:
        The parts.

    Raises:
        DataError: at the beginning, if a file is damaged, lacks a column, or has others than the first one.
    """
    tables = [(path, *_describe(path, predictor)) for path in files]
    for path, _, fields in tables:
        if fields != tables[0][2]:
            raise DataError(f"{path}: its columns are others than those of {files[0]}: give files of one table")
    number = first_row = 0
    for path, groups, fields in tables:
        for group, length in enumerate(groups):
            for start in range(0, length, num_rows):
                size = min(num_rows, length - start)
                yield ParquetPart(number, first_row, size, str(path.absolute()), group, start, list(fields))
                number, first_row = number + 1, first_row + size


def _describe(path: Path, predictor: BatchPredictor) -> tuple[list[int], dict[str, Any]]:
    """The sizes of a Parquet file's groups of rows, and the types of the columns that are read."""
    from pyarrow import ArrowException
    from pyarrow.parquet import ParquetFile

    try:
        with ParquetFile(path) as file:
            groups = [file.metadata.row_group(group).num_rows for group in range(file.num_row_groups)]
            schema = file.schema_arrow
    except (ArrowException, OSError) as error:
        raise _damaged(path, error) from None
    try:
        names = dict.fromkeys([*predictor.kept_columns(schema.names), *predictor.columns.find(schema.names)])
        predictor.columns.read(schema.empty_table().select(list(names)))  # checks the types
    except DataError as error:
        raise DataError(f"{path}: {error}") from None
    return groups, {name: schema.field(name).type for name in names}


def _damaged(path: str | Path, error: Exception) -> DataError:
    return DataError(f"{path}: not a Parquet file, or a damaged one ({' '.join(str(error).split())[:200]})")


def divide_texts(
    files: Sequence[Path], predictor: BatchPredictor, num_rows: int, *, with_columns: bool
) -> Iterator[TextPart]:
    """Read files as `dynabert predict` reads them, part by part.

    Args:
        files: the files.
        predictor: what will predict.
        num_rows: rows of a part; the last one has fewer.
        with_columns: whether the other columns are kept, too: a text as it is, other values as JSON.

    Yields:
        The parts.

    Raises:
        DataError: a file cannot be read, is not in its format, or has a column that the first row of all lacks.
    """
    with as_dynabert_error():
        description = read_bundle(Path(predictor.bundle), names=())
    form = InputForm(
        description["task"].get("kind", "classification"),
        description["labels"],
        description["pair"],
        task_columns(description),
        predictor.text_column,
        predictor.text_pair_column,
        with_columns=with_columns,
    )
    rows = chain.from_iterable(((path, row) for row in form.open(str(path)).rows) for path in files)
    header: list[str] | None = None
    number = first_row = 0
    while part := list(islice(rows, num_rows)):
        if header is None:
            header = list(part[0][1].columns) if with_columns else []
        yield TextPart(number, first_row, len(part), [row.texts for _, row in part], _kept(header, part))
        number, first_row = number + 1, first_row + len(part)


def _kept(header: Sequence[str], rows: Sequence[tuple[Path, InputRow]]) -> pyarrow.Table:
    import pyarrow as pa

    for path, row in rows if header else ():
        unknown = [name for name in row.columns if name not in header]
        if unknown:
            raise DataError(
                f"{path}: a row has {unknown[0]!r}, which the first row of all lacks: put a row that has it first, or "
                "write no columns of the input"
            )
    return pa.table([pa.array([_cell(row, name) for _, row in rows], pa.string()) for name in header], names=header)


def _cell(row: InputRow, name: str) -> str | None:
    value = row.columns.get(name)
    return value if value is None or isinstance(value, str) else json.dumps(value, ensure_ascii=False)


def find_tables(path: Path) -> list[Path]:
    """List the files of a table.

    Args:
        path: a file, or a folder of files of one format, whose order is that of their names.

    Returns:
        The files.

    Raises:
        DataError: there is no such file, or the files are of several formats.
    """
    if not path.exists():
        raise DataError(f"{path}: no such file or folder. Give the path of an existing one.")
    files = [path]
    if path.is_dir():
        files = sorted(one for one in path.iterdir() if not one.name.startswith((".", "_")))  # such as _SUCCESS
    endings = sorted({ending_of(one) for one in files})
    if len(endings) != 1 or any(map(Path.is_dir, files)):
        raise DataError(f"{path}: holds {', '.join(endings) or 'no files'}: give files of one format, in one folder")
    return files
