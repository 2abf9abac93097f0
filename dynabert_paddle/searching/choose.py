"""Chooses the best sub-network within a budget; with a latency limit, the best whose measured latency meets it."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from math import inf
from statistics import median
from typing import Any

from dynabert_paddle.searching.cost import Budget

Row = dict[str, Any]
MeasureLatency = Callable[[Sequence[str]], Mapping[str, float]]
Rank = Callable[[Sequence[Row]], list[Row]]

TOLERANCE = 0.05  # share by which a measured latency may exceed the limit

_MEASURED_PER_ROUND = 4


def choose_best(
    rows: Iterable[Row], budget: Budget, rank: Rank, measure: MeasureLatency
) -> tuple[Row | None, Row | None]:
    """Choose the row within a budget that a ranking puts first.

    Args:
        rows: the candidates.
        budget: the limits.
        rank: orders rows by preference; they are within the limits, with estimated latencies.
        measure: measures latencies by the names of sub-networks; called only if the budget limits latency.

    Returns:
        The best row and None; or, if no row is within the budget, None and the row that exceeds it least.
    """
    rows = list(rows)
    other_limits = Budget({name: limit for name, limit in budget.limits.items() if name != "latency_ms"})
    fitting = rank([row for row in rows if other_limits.fits(row)])
    if not fitting:
        return None, min(rows, key=lambda row: max(budget.excess(row).values()))
    if "latency_ms" not in budget.limits:
        return dict(fitting[0]), None
    return _choose_measured(fitting, budget.limits["latency_ms"], measure)


def by_score(goals: Sequence[str]) -> Rank:
    """Rank rows by their score; of equal scores the cheapest comes first.

    Args:
        goals: names of the costs that decide between equal scores.

    Returns:
        The ranking.
    """
    return lambda rows: sorted(rows, key=lambda row: (-row["score"], *(row[goal] for goal in goals)))


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
