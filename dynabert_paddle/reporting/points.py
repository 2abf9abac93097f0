"""Models as points of a chart: score, data split and costs."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field, replace
from itertools import groupby
from statistics import mean, stdev

from dynabert_paddle.model_shape import MACS_LENGTH
from dynabert_paddle.multipliers import FULL_NAME
from dynabert_paddle.reporting.content import Baseline, Compressed, Grid, Run, Search, SearchRow
from dynabert_paddle.reporting.labels import Text, say, split_name, verbatim


@dataclass(frozen=True)
class Cost:
    """A cost axis; MACs of different sequence lengths are different axes.

    Args:
        key: `latency_ms`, `params` or `macs`.
        label: its name with the unit.
        unit: a key of `SCALES`.
    """

    key: str
    label: Text
    unit: str


@dataclass(frozen=True)
class Point:
    """One model on a chart.

    Args:
        kind: full, grid, searched, compressed, or a baseline's method.
        name: its name on the page.
        subnet: the sub-network, or the one of the same size.
        score: its score.
        metric: the name of the score.
        measure: the name of the score and of the data split.
        costs: by axis.
        spread: standard deviation over seeds.
        seeds: number of seeds.
        error: standard error of the score; 0 where it is not known.
    """

    kind: str
    name: str
    subnet: str
    score: float
    metric: Text
    measure: Text
    costs: dict[Cost, float] = field(hash=False)
    spread: float = 0.0
    seeds: int = 1
    error: float = 0.0


def collect_points(run: Run) -> list[Point]:
    """Return the points of all scored models of a run, those of a search first."""
    metric = run.grid.metrics[0] if run.grid else run.search.metric if run.search else ""
    for model in run.compressed[:1]:
        metric = metric or next(iter(model.metrics), "")
    return _merge(
        [
            *(_search_points(run.search) if run.search else ()),
            *(_grid_points(run.grid) if run.grid else ()),
            *_baseline_points(run.baselines, metric),
            *_compressed_points(run.compressed, metric),
        ]
    )


_PARAMS = Cost("params", say("parameters (M)"), "M")
_LATENCY = Cost("latency_ms", say("latency (ms)"), "ms")


def _merge(points: Iterable[Point]) -> list[Point]:
    """Merge the points of a model that stands in two files, each with other costs."""
    merged: dict[tuple[Text, str, float], Point] = {}
    for point in points:
        key = point.measure, point.name, point.score
        merged[key] = replace(point, costs=merged[key].costs | point.costs) if key in merged else point
    return list(merged.values())


def macs_cost(length: int = MACS_LENGTH) -> Cost:
    """Return the cost axis of the MACs of a sequence of this many tokens."""
    return Cost("macs", say("MACs of {length} tokens (G)", length=length), "G")


def _grid_points(grid: Grid) -> Iterable[Point]:
    metric = verbatim(grid.metrics[0])
    for row in grid.rows:
        if row.params is not None and row.macs is not None:
            costs: dict[Cost, float] = {_PARAMS: row.params, macs_cost(): row.macs}
            score = row.metrics[grid.metrics[0]]
            yield Point(_kind(row.subnet), row.subnet, row.subnet, score, metric, _measure(metric, grid.split), costs)


def _search_points(search: Search) -> Iterable[Point]:
    metric = say("agreement with the teacher") if search.score == "agreement" else verbatim(search.metric)
    measure = _measure(metric, search.split)
    if search.full.standard_error is not None:  # a part of the split, so that other scores on it do not compare
        measure = say(
            "{metric} on {count} examples of {split}",
            metric=metric,
            count=search.num_examples,
            split=split_name(search.split),
        )
    rows = [(_kind(row.subnet), row.subnet, row) for row in (search.full, *search.grid)]
    rows += [("searched", f"S{number}", row) for number, row in enumerate(search.pareto, start=1)]
    for kind, name, row in rows:
        costs = search_costs(search, row)
        yield Point(kind, name, row.subnet, row.score, metric, measure, costs, error=row.standard_error or 0.0)


def search_costs(search: Search, row: SearchRow) -> dict[Cost, float]:
    """Return the costs of a searched sub-network by axis."""
    macs = macs_cost(search.macs_length or search.setting.seq_length)
    costs: dict[Cost, float] = {_PARAMS: row.params, macs: row.macs}
    return costs if row.latency_ms is None else {_LATENCY: row.latency_ms, **costs}


def _baseline_points(baselines: Iterable[Baseline], metric: str) -> Iterable[Point]:
    def key(baseline: Baseline) -> tuple[str, str, str]:
        return baseline.method, baseline.subnet, baseline.split

    scored = sorted((baseline for baseline in baselines if metric in baseline.metrics), key=key)
    for (method, subnet, split), group in groupby(scored, key):
        runs = list(group)
        scores = [baseline.metrics[metric] for baseline in runs]
        what = verbatim(metric)
        yield Point(
            method,
            f"{method} {subnet}",
            subnet,
            mean(scores),
            what,
            _measure(what, split),
            {_PARAMS: runs[0].params, macs_cost(): runs[0].macs},
            stdev(scores) if len(scores) > 1 else 0.0,
            len(runs),
        )


def _compressed_points(models: Iterable[Compressed], metric: str) -> Iterable[Point]:
    what = verbatim(metric)
    for model in models:
        if metric in model.metrics:
            name = f"{model.folder} ({', '.join(model.methods)})"
            costs: dict[Cost, float] = {_PARAMS: model.params, macs_cost(): model.macs}
            yield Point("compressed", name, FULL_NAME, model.metrics[metric], what, _measure(what, "dev"), costs)


def _measure(metric: Text, split: str) -> Text:
    return say("{metric} on {split}", metric=metric, split=split_name(split))


def _kind(subnet: str) -> str:
    return "full" if subnet == FULL_NAME else "grid"
