"""The content of a run's folder as the report reads it; pydantic validates it."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Literal, TypeVar

from annotated_types import Len

from dynabert_paddle.config.settings import Config
from dynabert_paddle.errors import ModelError
from dynabert_paddle.files.metadata import Metadata

T = TypeVar("T")

_Layers = Annotated[tuple[Annotated[tuple[float, ...], Len(1)], ...], Len(1)]


@dataclass(frozen=True)
class GridRow:
    """One sub-network of the grid.

    Args:
        subnet: its name.
        metrics: its scores by metric, the one that selects first.
        params: parameters of the extracted model; None if only its scores were recorded.
        macs: multiply-accumulates of one sequence of 128 tokens; likewise.
    """

    subnet: str
    metrics: dict[str, float]
    params: int | None = None
    macs: int | None = None


@dataclass(frozen=True)
class Grid:
    """The grid as it was scored.

    Args:
        split: the data.
        rows: its sub-networks.
    """

    split: str
    rows: tuple[GridRow, ...]

    @property
    def metrics(self) -> list[str]:
        """Names of the metrics, the one that selects first."""
        return list(self.rows[0].metrics)


@dataclass(frozen=True)
class SearchRow:
    """One sub-network that a search has scored.

    Args:
        subnet: its name.
        score: the metric, or the agreement with the teacher.
        params: parameters of the extracted model.
        macs: multiply-accumulates of one sequence of the search's `macs_length`.
        latency_ms: estimated from the machine's table.
        measured_latency_ms: measured as a whole model, where that was done.
        standard_error: of the score; earlier searches stored none.
    """

    subnet: str
    score: float
    params: int
    macs: int
    latency_ms: float | None = None
    measured_latency_ms: float | None = None
    standard_error: float | None = None


@dataclass(frozen=True)
class Setting:
    """How a search's latencies were measured."""

    device: str
    batch_size: int
    seq_length: int
    num_threads: int
    precision: str


@dataclass(frozen=True)
class Search:
    """What `dynabert search` has found, as `search.json` keeps it.

    Args:
        weights: hash of the supernet's weights.
        metric: the task's metric.
        score: what has chosen; the scores are the agreement with the teacher for that, else the metric.
        split: the data that was scored.
        num_examples: how many examples that were.
        setting: how latencies were measured.
        budget: limits by cost.
        num_evaluated: sub-networks scored.
        full: the whole model.
        grid: the paper's cells, scored in the same way.
        pareto: the trade-off found, in ascending cost.
        best: the best within the budget.
        macs_length: tokens of the sequence that the MACs are of; earlier searches took the latency's.
    """

    weights: str
    metric: str
    score: Literal["divergence", "metric", "agreement"]
    split: str
    num_examples: int
    setting: Setting
    budget: dict[str, float]
    num_evaluated: int
    full: SearchRow
    grid: tuple[SearchRow, ...]
    pareto: tuple[SearchRow, ...]
    best: SearchRow | None = None
    macs_length: int | None = None


@dataclass(frozen=True)
class Baseline:
    """A fixed-size model trained with one seed: the content of `baseline.json`.

    Args:
        method: how it was trained.
        subnet: its size, as a sub-network's name.
        split: the data that was scored.
        metrics: its scores.
        params: its parameters.
        macs: multiply-accumulates of one sequence of 128 tokens.
    """

    method: str
    subnet: str
    split: str
    metrics: dict[str, float]
    params: int
    macs: int


@dataclass(frozen=True)
class Compressed:
    """A model that `dynabert compress` has made.

    Args:
        folder: its folder.
        methods: the compression methods applied to it, the first one first.
        metrics: the scores of the whole model on dev.
        params: its parameters.
        macs: multiply-accumulates of one sequence of 128 tokens.
        weights: hash of the weights that were scored.
    """

    folder: Path
    methods: tuple[str, ...]
    metrics: dict[str, float]
    params: int
    macs: int
    weights: str


@dataclass(frozen=True)
class Stage:
    """One stage's folder.

    Args:
        name: of the folder.
        folder: the folder.
        metadata: its `dynabert.json`; empty while it trains.
        log: the lines of its `train.jsonl`.
    """

    name: str
    folder: Path
    metadata: Metadata
    log: tuple[dict[str, Any], ...]


@dataclass(frozen=True)
class Importance:
    """The importance in `dynabert.json`.

    Args:
        heads: of each head, by layer.
        neurons: of each neuron, by layer.
    """

    heads: _Layers
    neurons: _Layers


@dataclass(frozen=True)
class Run:
    """The content of a run's folder.

    Args:
        folder: the folder.
        config: the settings, if there is a `run.yaml`.
        config_text: the text of `run.yaml`.
        stages: in their order.
        grid: of the run, or else the scores that the last stage has recorded.
        search: of the last stage that has one.
        outdated_search: the file of that search, if it belongs to other weights than the stage has now.
        baselines: one for each method, size and seed.
        compressed: models of the same task from other folders.
    """

    folder: Path
    config: Config | None
    config_text: str
    stages: tuple[Stage, ...]
    grid: Grid | None
    search: Search | None
    outdated_search: Path | None
    baselines: tuple[Baseline, ...]
    compressed: tuple[Compressed, ...] = ()

    @property
    def model(self) -> Stage | None:
        """The last stage that has finished."""
        return last_finished(self.stages)


def last_finished(stages: tuple[Stage, ...]) -> Stage | None:
    """Return the last stage that has finished, if any."""
    return next((stage for stage in reversed(stages) if stage.metadata.stage), None)


def validate(path: Path, kind: type[T], values: Any) -> T:
    """Check values that were read from a file.

    Args:
        path: the file, for the error.
        kind: one of the classes here.
        values: its fields.

    Returns:
        The object.

    Raises:
        ModelError: a field is missing or of another type.
    """
    from pydantic import TypeAdapter, ValidationError

    try:
        return TypeAdapter(kind).validate_python(values)
    except ValidationError as error:
        key = ".".join(map(str, error.errors()[0]["loc"]))
        raise ModelError(f"{path}: damaged at '{key}': make it again, or remove it to report the rest") from None
