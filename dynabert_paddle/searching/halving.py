"""Successive halving: each round measures the sub-networks that are left on more examples, and keeps the better half.

Karnin, Koren and Somekh, 2013; Jamieson and Talwalkar, 2016. The examples of a round have chosen none of those that
they compare, so that the luck of earlier rounds does not count.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from math import ceil
from typing import Any

import numpy as np

from dynabert_paddle.searching.cost import Budget
from dynabert_paddle.searching.estimate import Estimate, join
from dynabert_paddle.searching.pareto import pareto_rows

# Names of sub-networks, and the number of the round -> how good they are on the round's examples.
MeasureRound = Callable[[Sequence[str], int], Sequence[Estimate]]

_SHARE = 4  # one of so many candidates enters the first round
_MIN_CONTENDERS = 8


def halve(
    rows: Sequence[Mapping[str, Any]],
    cells: Collection[str],
    goals: Sequence[str],
    budget: Budget,
    measure: MeasureRound,
    *,
    num_rounds: int,
) -> dict[str, Estimate]:
    """Measure the most promising sub-networks, and all cells of the grid, on more examples.

    Args:
        rows: name (`subnet`), score and costs of all candidates.
        cells: names of the cells, which stay until the end.
        goals: names of the costs to minimize.
        budget: the limits.
        measure: measures sub-networks; more is better.
        num_rounds: the number of rounds.

    Returns:
        By name what all rounds together have measured, of the cells and of those that are left.
    """
    contenders = promising(rows, cells, goals, budget, count=num_contenders(rows, cells))
    estimates: dict[str, list[Estimate]] = {name: [] for name in (*cells, *contenders)}
    for number in range(num_rounds):
        names = [*cells, *contenders]
        for name, estimate in zip(names, measure(names, number), strict=True):
            estimates[name].append(estimate)
        if number + 1 < num_rounds:
            left = [{**row, "score": join(estimates[row["subnet"]]).value} for row in rows if row["subnet"] in names]
            count = max(_MIN_CONTENDERS, ceil(len(contenders) / 2))
            contenders = promising(left, cells, goals, budget, count=count)
    return {name: join(estimates[name]) for name in (*cells, *contenders)}


def num_contenders(rows: Sequence[Mapping[str, Any]], cells: Collection[str]) -> int:
    """Return how many sub-networks outside the grid enter the first round."""
    others = sum(row["subnet"] not in cells for row in rows)
    return min(others, max(_MIN_CONTENDERS, ceil(others / _SHARE)))


def promising(
    rows: Sequence[Mapping[str, Any]], cells: Collection[str], goals: Sequence[str], budget: Budget, *, count: int
) -> list[str]:
    """Choose the sub-networks to measure on more examples.

    Args:
        rows: name, score and costs of the candidates, cells included.
        cells: names of the cells, which are not returned.
        goals: names of the costs to minimize.
        budget: the limits.
        count: how many to choose.

    Returns:
        Names: the best within the budget, or the one that exceeds it least, for at most half of the places; the others
        from the Pareto front, from the front of the rest, and so on.
    """
    others = [row for row in rows if row["subnet"] not in cells]
    chosen: dict[str, None] = {}
    if budget.limits and others:
        fitting = sorted((row for row in others if budget.fits(row)), key=lambda row: -row["score"])
        nearest = min(rows, key=lambda row: max(budget.excess(row).values(), default=0.0))
        chosen = dict.fromkeys(row["subnet"] for row in fitting[: ceil(count / 2)] or [nearest])
        chosen = {name: None for name in chosen if name not in cells}
    left = list(rows)
    while len(chosen) < min(count, len(others)):
        front = [row["subnet"] for row in pareto_rows(left, goals)]
        left = [row for row in left if row["subnet"] not in front]
        new = [name for name in front if name not in cells and name not in chosen]
        room = count - len(chosen)
        if len(new) > room:  # from all over the front, which is in the order of costs
            new = [new[index] for index in np.linspace(0, len(new) - 1, room).round().astype(int)]
        chosen |= dict.fromkeys(new)
    return list(chosen)
