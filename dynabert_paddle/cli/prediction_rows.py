"""Predictions as lines of TSV, CSV or JSON, alone or beside the columns of their input."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from dynabert_paddle.bundle.tables import format_row
from dynabert_paddle.config.names import setting
from dynabert_paddle.errors import DataError
from dynabert_paddle.serving.prediction_columns import rename_taken
from dynabert_paddle.text.decode import AnyPrediction
from dynabert_paddle.text.lines import data_ending

VECTOR_FORMATS = ("npy", "parquet")  # see cli/vector_file.py


@dataclass(frozen=True)
class RowForm:
    """How predictions are written.

    Args:
        format: `tsv`, `csv` or `jsonl`; `VECTOR_FORMATS` have no lines.
        quoting: whether `all` cells are quoted, or those that need it (`minimal`); JSON lines have their own.
        with_columns: whether the columns of the input stand beside them.
    """

    format: str
    quoting: str = "minimal"
    with_columns: bool = False

    @classmethod
    def of(cls, output_file: str | None, format: str | None, quoting: str, *, with_columns: bool) -> RowForm:
        """Choose the format: by default the ending of the output file tells it.

        Args:
            output_file: where the lines go; None for stdout.
            format: the user's choice.
            quoting: as for the class.
            with_columns: as for the class.
        """
        known = {".csv": "csv", ".jsonl": "jsonl", ".npy": "npy", ".parquet": "parquet"}
        by_ending = known.get(data_ending(output_file or ""), "tsv")
        return cls(format or by_ending, quoting, with_columns)

    def heading(self, names: Sequence[str], columns: Iterable[str]) -> Iterator[str]:
        """Yield the line that names the columns; JSON lines have none.

        Args:
            names: those of a prediction.
            columns: those of the first row of the input.
        """
        if self.format != "jsonl":
            own = list(columns) if self.with_columns else []
            yield self._row([*own, *rename_taken(names, own)])

    def line(self, prediction: AnyPrediction, columns: Mapping[str, Any], header: Iterable[str]) -> str:
        """Format one prediction.

        Args:
            prediction: the prediction.
            columns: the values of its input by column.
            header: the columns of the first row, which stand above all in a table; in no JSON line a prediction takes
                their names.

        Raises:
            DataError: a table has no column for a value of the input, or the prediction took its name in earlier rows.
        """
        own = columns if self.with_columns else {}
        if self.format == "jsonl":
            values = asdict(prediction)
            renamed = dict(zip(rename_taken(values, header if own else ()), values.values(), strict=True))
            both = [name for name in renamed if name in own]
            if both:
                raise DataError(
                    f"a row has {both[0]!r}, which the first row lacks, where it is the prediction's: rename it, or "
                    "put a row that has it first"
                )
            return json.dumps({**own, **renamed}, ensure_ascii=False)
        header = list(header) if self.with_columns else []
        unknown = [name for name in own if name not in header]
        if unknown:
            raise DataError(
                f"a row has {unknown[0]!r}, which the first row lacks: write {setting('output_format')} jsonl, where "
                "each row has its own columns"
            )
        return self._row([*(as_cell(own.get(name, "")) for name in header), *prediction.cells])

    def _row(self, cells: Sequence[str]) -> str:
        return format_row(cells, "," if self.format == "csv" else "\t", quote_all=self.quoting == "all")


def as_cell(value: Any) -> str:
    """Return a value as a table has it: a text as it is, others as JSON."""
    return value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)


def looks_like_file(text: str) -> bool:
    """Whether a text has the name of a data file."""
    return len(text.split()) == 1 and data_ending(text) in (".tsv", ".csv", ".jsonl", ".json", ".txt", ".conll")
