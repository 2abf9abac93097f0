"""The best sub-network for a budget; with a budget of time, the best that meets it when measured."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

from dynabert_paddle.searching.cost import Budget

Row = dict[str, Any]

# A measured latency may exceed the budget by so much.
TOLERANCE = 0.05

_AT_ONCE, _ROUNDS = 4, 3


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
    rows = sorted(rows, key=lambda row: (-row["score"], *(row[goal] for goal in goals)))
    fitting = [dict(row) for row in rows if budget.fits(row)]
    if not fitting:
        return None, dict(min(rows, key=lambda row: max(budget.misses(row).values())))
    if "latency_ms" not in budget.limits:
        return fitting[0], None
    return _choose_measured(fitting, budget.limits["latency_ms"], measure)


def _choose_measured(
    fitting: Sequence[Row], limit: float, measure: Callable[[Sequence[str]], Mapping[str, float]]
) -> tuple[Row | None, Row | None]:
    """Measure the best few, then, if all are too slow, the best of those that are faster by as much, and so on."""
    measured: list[Row] = []
    factor = 1.0
    for _ in range(_ROUNDS):
        tried = {row["subnet"] for row in measured}
        left = [row for row in fitting if row["subnet"] not in tried and row["latency_ms"] * factor <= limit]
        turn = left[:_AT_ONCE]
        if not turn:
            break
        latencies = measure([row["subnet"] for row in turn])
        measured += [{**row, "measured_latency_ms": latencies[row["subnet"]]} for row in turn]
        for row in measured[-len(turn) :]:
            if row["measured_latency_ms"] <= limit * (1 + TOLERANCE):
                return row, None
            factor = max(factor, row["measured_latency_ms"] / row["latency_ms"])
    return None, min(measured, key=lambda row: row["measured_latency_ms"])
