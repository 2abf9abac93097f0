"""Submission files for GLUE's server: one line with index and prediction for every row of a test file."""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from dynabert_paddle.config.names import setting
from dynabert_paddle.data.layout import BARE_QUOTES
from dynabert_paddle.data.readers import Columns, Row, read_column_names, read_rows
from dynabert_paddle.errors import DataError


@dataclass(frozen=True)
class SubmissionForm:
    """The format of a task's submission file.

    Args:
        index_column: the column of the test file with the row's index.
        score_range: minimum and maximum score of regression; None for classification.
    """

    heading = "index\tprediction"

    index_column: str = "index"
    score_range: tuple[float, float] | None = None

    def read(self, path: Path, text_column: str, text_pair_column: str | None) -> Iterator[Row]:
        """Read a test file.

        Args:
            path: the file.
            text_column: the column of the text.
            text_pair_column: the column of the second text; None for single texts.

        Yields:
            Its rows; their `label` is the index.

        Raises:
            DataError: the file cannot be read, or is not a test file of the task.
        """
        needed = [name for name in (self.index_column, text_column, text_pair_column) if name]
        found = read_column_names(path)
        if not set(needed) <= set(found):
            raise DataError(
                f"{path}: a test file of this task has the columns {', '.join(needed)}, and this file has "
                f"{', '.join(found)[:200]}; give the benchmark's test file, or leave out {setting('submission')}."
            )
        yield from read_rows(path, Columns(text_column, text_pair_column, self.index_column), BARE_QUOTES)

    def line(self, index: str, label: str | None, score: float) -> str:
        """Format one prediction.

        Args:
            index: the row's index.
            label: the predicted class; None for regression.
            score: the predicted value of regression.

        Returns:
            The line without line end.
        """
        if self.score_range is None:
            return f"{index}\t{label}"
        low, high = self.score_range
        return f"{index}\t{min(max(score, low), high):.3f}"
