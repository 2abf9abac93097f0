"""Which results no other beats."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np


def pareto_rows(rows: Sequence[Mapping[str, Any]], goals: Sequence[str]) -> list[Mapping[str, Any]]:
    """Find the rows of which none has at least the score at no higher cost.

    Args:
        rows: each with its `score`, higher is better, and its costs.
        goals: names of the costs that count.

    Returns:
        The rows in ascending cost; of equal ones the first.
    """
    ordered = sorted(rows, key=lambda row: (*(row[goal] for goal in goals), -row["score"]))
    front: list[Mapping[str, Any]] = []
    for row in ordered:  # whatever could beat a row comes before it
        if best_score_within(front, {goal: row[goal] for goal in goals}) < row["score"]:
            front.append(row)
    return front


def best_score_within(rows: Sequence[Mapping[str, Any]], costs: Mapping[str, float]) -> float:
    """Find the best score among the rows that cost no more.

    Args:
        rows: each with its `score` and its costs.
        costs: limits by name.

    Returns:
        The score; minus infinity where all rows cost more.
    """
    cheaper = (row["score"] for row in rows if all(row[name] <= limit for name, limit in costs.items()))
    return max(cheaper, default=-np.inf)


def hypervolume(points: Sequence[tuple[float, float]], *, reference: tuple[float, float]) -> float:
    """Measure the area that points of score and cost dominate.

    Args:
        points: pairs of a score, higher is better, and a cost, lower is better.
        reference: the score and the cost that bound the area from the other side.

    Returns:
        The area; what is worse than the reference adds nothing.
    """
    lowest, limit = reference
    area, best = 0.0, lowest
    for score, cost in sorted(points, key=lambda point: point[1]):
        if cost < limit and score > best:
            area += (score - best) * (limit - cost)
            best = score
    return area
