"""Chooses the best sub-network within a budget; with a latency limit, the best whose measured latency meets it."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from math import inf
from statistics import median
from typing import Any

from dynabert_paddle.searching.cost import Budget

Row = dict[str, Any]
MeasureLatency = Callable[[Sequence[str]], Mapping[str, float]]

TOLERANCE = 0.05  # share by which a measured latency may exceed the limit

_MEASURED_PER_ROUND = 4


def choose_best(
    rows: Iterable[Mapping[str, Any]], budget: Budget, goals: Sequence[str], measure: MeasureLatency
) -> tuple[Row | None, Row | None]:
    """Choose the row with the highest score within a budget; of equal scores the cheapest.

    Args:
        rows: the candidates.
        budget: the limits.
        goals: names of the costs that decide between equal scores.
        measure: measures latencies by the names of sub-networks; called only if the budget limits latency.

    Returns:
        The best row and None; or, if no row is within the budget, None and the row that exceeds it least.
    """
    ordered = sorted(rows, key=lambda row: (-row["score"], *(row[goal] for goal in goals)))
    other_limits = Budget({name: limit for name, limit in budget.limits.items() if name != "latency_ms"})
    fitting = [dict(row) for row in ordered if other_limits.fits(row)]
    if not fitting:
        nearest = min(ordered, key=lambda row: max(budget.excess(row).values()))
        return None, dict(nearest)
    if "latency_ms" not in budget.limits:
        return fitting[0], None
    return _choose_measured(fitting, budget.limits["latency_ms"], measure)


def _choose_measured(rows: Sequence[Row], limit: float, measure: MeasureLatency) -> tuple[Row | None, Row | None]:
    """Measure rows whose estimate meets the limit, best first, until no better one than the best measured is left.

    The measurements also scale the estimates, because the machine may be faster or slower now than when the table was
    made. If no estimate meets the limit, the fastest rows are measured: an estimate alone does not rule a row out.
    """
    measured: dict[str, float] = {}
    slowdown = 1.0
    while True:
        within = (i for i, row in enumerate(rows) if measured.get(row["subnet"], inf) <= limit * (1 + TOLERANCE))
        best = next(within, None)
        better = [row for row in rows[:best] if row["subnet"] not in measured]
        batch = [row for row in better if row["latency_ms"] * slowdown <= limit][:_MEASURED_PER_ROUND]
        if best is None and not batch:
            fastest = sorted(rows, key=lambda row: row["latency_ms"])[:_MEASURED_PER_ROUND]
            batch = [row for row in fastest if row["subnet"] not in measured]
        if not batch:
            break
        measured |= measure([row["subnet"] for row in batch])
        slowdown = median(measured[row["subnet"]] / row["latency_ms"] for row in rows if row["subnet"] in measured)
    if best is None:
        tried = [row for row in rows if row["subnet"] in measured]
        fastest_row = min(tried, key=lambda row: measured[row["subnet"]])
        return None, {**fastest_row, "measured_latency_ms": measured[fastest_row["subnet"]]}
    return {**rows[best], "measured_latency_ms": measured[rows[best]["subnet"]]}, None
