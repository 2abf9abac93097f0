"""The result of a search, and its files."""

from __future__ import annotations

import csv
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from hashlib import sha256
from io import StringIO
from pathlib import Path
from typing import Any

from dynabert_paddle.files.atomic import handle_write_errors, write_json, write_text
from dynabert_paddle.files.hashing import hash_file
from dynabert_paddle.files.weights import OWN_WEIGHTS_FILE, STOCK_WEIGHTS_FILE
from dynabert_paddle.model_shape import MACS_LENGTH

FORMAT_VERSION = 2  # in version 1 MACs are of `setting["seq_length"]` tokens
# Default: inside the supernet's folder.
SEARCH_FOLDER = "search"
RESULT_FILE = "search.json"
TABLE_FILE = "pareto.csv"

# Name (`subnet`), score and costs of one sub-network; `standard_error` of the score, None for a single example; where
# the divergence chooses, `divergence` on the texts that choose, and `divergence_error`. Earlier versions had no errors.
Row = Mapping[str, Any]


@dataclass(frozen=True)
class SearchResult:
    """The result of a search, as `search.json` stores it.

    Args:
        model: the supernet's folder.
        weights: from `hash_weights`; a changed supernet makes the result stale.
        task: name of the task.
        metric: name of the metric.
        score: what has chosen: `divergence`, `metric` or `agreement`, see `SearchConfig`. The rows' scores are the
            agreement for `agreement`, else the metric.
        split: `holdout` or `dev`.
        num_examples: number of examples that the scores are of, which have chosen nobody.
        setting: the latency setting (batch size, sequence length, ...) of the latencies.
        goals: names of the costs minimized beside the score.
        budget: upper limits by the names of costs.
        num_evaluated: number of sub-networks evaluated.
        full: row of the full model.
        grid: rows of the trained cells of the paper's grid.
        pareto: the Pareto front, in ascending cost.
        best: best row within the budget; None if no row is.
        nearest: the row that misses the budget by least; None if there is a best row.
        finetuned: folder of the best sub-network after fine-tuning, the steps, and the scores before and after.
        macs_length: tokens of the sequence that the MACs are of.
        num_chosen_on: number of other examples on which the last candidates were compared.
        doubt: where the scores do not tell the best from its rival, which is the best cell, or if the best is a cell
            the best of the others: the rival and its score (`rival`, `rival_score`); how many examples would show a
            difference (`num_examples`, `for_difference`); whether the examples that choose tell them apart
            (`is_choice_clear`), and if not how many would (`num_to_choose_on`). Numbers that the examples do not tell
            are None.
    """

    model: str
    weights: str
    task: str
    metric: str
    score: str
    split: str
    num_examples: int
    setting: Mapping[str, Any]
    goals: tuple[str, ...]
    budget: Mapping[str, float]
    num_evaluated: int
    full: Row
    grid: Sequence[Row]
    pareto: Sequence[Row]
    best: Row | None
    nearest: Row | None
    finetuned: Mapping[str, Any] | None = None
    macs_length: int = MACS_LENGTH
    num_chosen_on: int | None = None
    doubt: Mapping[str, Any] | None = None

    def to_dict(self) -> dict[str, Any]:
        """Return the result with its format version, for JSON."""
        return {"format_version": FORMAT_VERSION, **asdict(self)}

    def save(self, folder: Path) -> None:
        """Write `search.json`, and `pareto.csv` beside it.

        Args:
            folder: an existing folder.

        Raises:
            DynabertError: they cannot be written.
        """
        text = StringIO()
        table = csv.DictWriter(text, fieldnames=list(self.pareto[0]), lineterminator="\n")
        table.writeheader()
        table.writerows(self.pareto)
        with handle_write_errors(folder):
            write_text(folder / TABLE_FILE, text.getvalue())
            write_json(folder / RESULT_FILE, self.to_dict())


def hash_weights(model: Path) -> str:
    """Return a short hash of the weights in a model folder, to tie a search result to them; empty without such."""
    files = [model / name for name in (STOCK_WEIGHTS_FILE, OWN_WEIGHTS_FILE) if (model / name).is_file()]
    hashes = [hash_file(path) for path in files]
    return (hashes[0] if len(hashes) == 1 else sha256("".join(hashes).encode()).hexdigest())[:16] if hashes else ""
