"""What a search has found, and the files that hold it."""

from __future__ import annotations

import csv
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from io import StringIO
from pathlib import Path
from typing import Any

from dynabert_paddle.files.atomic import write_json, write_text, writing
from dynabert_paddle.files.hashing import hash_file

FORMAT_VERSION = 1
# In a supernet's folder, unless the user names another.
SEARCH_FOLDER = "search"
RESULT_FILE = "search.json"
TABLE_FILE = "pareto.csv"

# A sub-network's name, score and costs.
Row = Mapping[str, Any]


@dataclass(frozen=True)
class SearchResult:
    """What a search has found; `search.json` holds the same.

    Args:
        model: the supernet's folder.
        weights: hash of the supernet's weights.
        task: name of the task.
        metric: what the scores are of.
        score: metric or agreement, see `SearchConfig`.
        split: holdout or dev.
        num_examples: how many the scores are from.
        setting: for which the latencies and the MACs hold.
        goals: names of the costs that were traded against the score.
        budget: limits by the names of costs.
        num_evaluated: how many sub-networks were tried.
        full: the whole model; a row has `subnet`, `score`, and the costs.
        grid: the cells of the paper's grid that were trained.
        pareto: the sub-networks that no other beats, in ascending cost.
        best: the best within the budget; None where nothing is.
        nearest: the one that misses the budget by the least; None where there is a best one.
        finetuned: folder of the best one after its own training, the steps, and its score before and after.
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

    def to_dict(self) -> dict[str, Any]:
        """The result in types that JSON knows."""
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
        with writing(folder):
            write_text(folder / TABLE_FILE, text.getvalue())
            write_json(folder / RESULT_FILE, self.to_dict())


def hash_weights(model: Path) -> str:
    """Hash a model's weights, so that a result tells whose it is.

    Args:
        model: a folder that this package has written.

    Returns:
        What `SearchResult.weights` holds.
    """
    return hash_file(model / "model.safetensors")[:16]
