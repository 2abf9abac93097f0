"""The best sub-network for a budget; with a budget of time, the best that meets it when measured."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from math import inf
from statistics import median
from typing import Any

from dynabert_paddle.searching.cost import Budget

Row = dict[str, Any]

# A measured latency may exceed the budget by so much.
TOLERANCE = 0.05

_AT_ONCE = 4


def choose_best(
    rows: Iterable[Mapping[str, Any]],
    budget: Budget,
    goals: Sequence[str],
    measure: Callable[[Sequence[str]], Mapping[str, float]],
) -> tuple[Row | None, Row | None]:
    """Choose the row of the highest score within a budget; of equal ones the cheapest.

    Args:
        rows: the candidates.
        budget: the limits.
        goals: names of costs that decide between equal scores.
        measure: measures the latencies of sub-networks, by their names; called where time is limited.

    Returns:
        The best row, or else None and the row that misses the budget by the least.
    """
    ordered = sorted(rows, key=lambda row: (-row["score"], *(row[goal] for goal in goals)))
    others = Budget({name: limit for name, limit in budget.limits.items() if name != "latency_ms"})
    fitting = [dict(row) for row in ordered if others.fits(row)]
    if not fitting:
        nearest = min(ordered, key=lambda row: max(budget.misses(row).values()))
        return None, dict(nearest)
    if "latency_ms" not in budget.limits:
        return fitting[0], None
    return _choose_measured(fitting, budget.limits["latency_ms"], measure)


def _choose_measured(
    rows: Sequence[Row], limit: float, measure: Callable[[Sequence[str]], Mapping[str, float]]
) -> tuple[Row | None, Row | None]:
    """Measure those that should be fast enough, the best first, until no better one is left.

    What was measured tells how fast the machine is now, against when the table was made, in either direction. Where
    nothing should be fast enough, the fastest are measured: an estimate is no reason to say that nothing fits.
    """
    measured: dict[str, float] = {}
    pace = 1.0
    while True:
        fast = (i for i, row in enumerate(rows) if measured.get(row["subnet"], inf) <= limit * (1 + TOLERANCE))
        best = next(fast, None)
        turn = [row for row in rows[:best] if row["latency_ms"] * pace <= limit and row["subnet"] not in measured]
        if best is None and not turn:
            fastest = sorted(rows, key=lambda row: row["latency_ms"])[:_AT_ONCE]
            turn = [row for row in fastest if row["subnet"] not in measured]
        if not turn:
            break
        measured |= measure([row["subnet"] for row in turn[:_AT_ONCE]])
        pace = median(measured[row["subnet"]] / row["latency_ms"] for row in rows if row["subnet"] in measured)
    real = [{**row, "measured_latency_ms": measured[row["subnet"]]} for row in rows if row["subnet"] in measured]
    if best is None:
        return None, min(real, key=lambda row: row["measured_latency_ms"])
    return next(row for row in real if row["subnet"] == rows[best]["subnet"]), None
