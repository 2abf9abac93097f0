"""Prediction for batches of columns, in the processes of Ray, Spark and the like."""

from __future__ import annotations

import os
import pickle
import threading
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from dynabert_paddle.bundle.errors import as_dynabert_error
from dynabert_paddle.bundle.manifest import read_bundle
from dynabert_paddle.errors import DataError, ModelError, UsageError
from dynabert_paddle.files.hashing import hash_json
from dynabert_paddle.runtime.home import user_path
from dynabert_paddle.serving.column_batches import ColumnBatch, TextColumns, missing_column, names_of, with_columns
from dynabert_paddle.serving.prediction_columns import prediction_arrays, prediction_schema, rename_taken
from dynabert_paddle.serving.predictor import Predictor

if TYPE_CHECKING:
    import pyarrow

# The predictors of this process. A process that was forked from it must load its own: runtimes do not survive a fork.
_predictors: dict[tuple[int, bytes], Predictor] = {}
_lock = threading.Lock()


@dataclass(frozen=True)
class BatchPredictor:
    """Predicts for batches of columns; can be pickled, and loads its bundle once in each process that calls it.

    Made for `ray.data.Dataset.map_batches`, and, as `stream`, for Spark's `mapInPandas` and `mapInArrow`.

    Args:
        bundle: its folder, which must be there in every process.
        subnet: which sub-network of a bundle of several; by default the best.
        device: `cpu`, `gpu` or `gpu:N`.
        num_threads: CPU threads a process. None: all cores that it may use.
        decode: as for `Predictor`.
        threshold: likewise.
        top_k: likewise.
        role: likewise.
        output_dim: likewise.
        text_column: column of the texts; by default the task's, else `sentence` or `text`; for labels of words
            `tokens` with lists of words, too; for questions `question`.
        text_pair_column: column of the second texts; by default the task's; for questions `context`.
        keep_columns: the columns of the input that the result has before the predictions; by default all.
        nulls: what a missing text is: an `error`, or a row whose prediction is missing, too (`keep`).
        batch_size: rows at a time.

    Raises:
        DynabertError: the folder is no bundle, or a value is not allowed.
    """

    bundle: str | Path
    subnet: str | None = field(default=None, kw_only=True)
    device: str = field(default="cpu", kw_only=True)
    num_threads: int | None = field(default=1, kw_only=True)
    decode: str | None = field(default=None, kw_only=True)
    threshold: float | Mapping[str, float] | None = field(default=None, kw_only=True)
    top_k: int | None = field(default=None, kw_only=True)
    role: str | None = field(default=None, kw_only=True)
    output_dim: int | None = field(default=None, kw_only=True)
    text_column: str | None = field(default=None, kw_only=True)
    text_pair_column: str | None = field(default=None, kw_only=True)
    keep_columns: Sequence[str] | None = field(default=None, kw_only=True)
    nulls: Literal["error", "keep"] = field(default="error", kw_only=True)
    batch_size: int = field(default=32, kw_only=True)
    _columns: TextColumns = field(init=False, repr=False)
    _checksum: str = field(init=False, repr=False)

    def __post_init__(self) -> None:
        if self.nulls not in ("error", "keep"):
            raise UsageError(f"nulls is 'error' or 'keep', not {self.nulls!r}")
        if self.batch_size < 1:
            raise UsageError(f"batch_size is at least 1, not {self.batch_size}")
        folder = user_path(self.bundle).absolute()  # a worker has another working directory
        with as_dynabert_error():
            description = read_bundle(folder, names=())
        object.__setattr__(self, "bundle", str(folder))
        object.__setattr__(self, "_checksum", hash_json(description))
        columns = TextColumns.of(description, self.text_column, self.text_pair_column)
        object.__setattr__(self, "_columns", columns)

    @property
    def columns(self) -> TextColumns:
        """Which columns hold the texts."""
        return self._columns

    @property
    def schema(self) -> pyarrow.Schema:
        """The columns that a result has after those of its input, as Arrow names their types."""
        predictor = self.load()
        has_marks = predictor.column_names == ["text"]
        return prediction_schema(predictor.kind, has_marks=has_marks, vector_size=predictor.vector_size)

    def __call__(self, batch: ColumnBatch) -> Any:
        """Predict for a batch.

        Args:
            batch: a dict of NumPy arrays, an Arrow table or record batch, or a pandas DataFrame. Texts are str; a list
                of words is a list or an array of str.

        Returns:
            The same with the columns of `schema`. One whose name the batch has, too, gets the prefix `predicted_`.

        Raises:
            DataError: a column is missing or holds no texts, or a text is missing.
            DynabertError: the bundle cannot be run, or is another one than when this predictor was made.
        """
        names = names_of(batch)
        keep = self.kept_columns(names)
        rows = self.columns.read(batch)
        is_missing = [any(text is None for text in row) for row in rows]
        if self.nulls == "error" and any(is_missing):
            columns = " or ".join(map(repr, self.columns.find(names)))
            raise DataError(
                f"{sum(is_missing)} rows of a batch have no text in {columns}, the first is row "
                f"{is_missing.index(True) + 1} of {len(rows)}: fill it in, leave them out, or keep them without a "
                "prediction (nulls='keep')"
            )
        return with_columns(batch, keep, rename_taken(self.schema.names, names), self.predict(rows))

    def predict(self, rows: Sequence[Sequence[Any]]) -> list[pyarrow.Array]:
        """Predict for texts.

        Args:
            rows: for each row one text or two. A row with a missing one, None, has no prediction.

        Returns:
            The columns of `schema`.

        Raises:
            DynabertError: the bundle cannot be run, or is another one than when this predictor was made.
        """
        is_missing = [any(text is None for text in row) for row in rows]
        present = (row for row, missing in zip(rows, is_missing, strict=True) if not missing)
        found = self.load().stream(present, batch_size=self.batch_size)
        predictions = [None if missing else next(found) for missing in is_missing]
        return prediction_arrays(predictions, self.schema)

    def stream(self, batches: Iterable[ColumnBatch]) -> Iterator[Any]:
        """Predict for batches one after the other, as Spark's `mapInPandas` and `mapInArrow` ask for it.

        Args:
            batches: the batches.

        Yields:
            For each of them its result.
        """
        for batch in batches:
            yield self(batch)

    def kept_columns(self, names: Sequence[str]) -> list[str]:
        """Choose the columns of a table that a result has.

        Args:
            names: the columns of the table.

        Returns:
            Their names.

        Raises:
            DataError: one that is to be kept is missing.
        """
        keep = list(names if self.keep_columns is None else self.keep_columns)
        for name in keep:
            if name not in names:
                raise missing_column(name, names)
        return keep

    def load(self) -> Predictor:
        """Load the bundle, unless this process has.

        Returns:
            The predictor of this process.

        Raises:
            DynabertError: the bundle cannot be run, or is another one than when this was made.
        """
        names = ("subnet", "device", "num_threads", "decode", "threshold", "top_k", "role", "output_dim")
        options: dict[str, Any] = {name: getattr(self, name) for name in names}
        key = os.getpid(), pickle.dumps((self.bundle, self._checksum, options))
        with _lock:
            if key not in _predictors:
                predictor = Predictor(self.bundle, **options)
                if predictor.checksum != self._checksum:
                    raise ModelError(
                        f"{self.bundle}: not the bundle that the predictor was made for: it was replaced meanwhile, or "
                        "differs between machines: use one bundle from the first row to the last"
                    )
                _predictors[key] = predictor
            return _predictors[key]
