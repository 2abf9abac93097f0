"""The Pareto front, and its hypervolume."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np


def pareto_rows(rows: Sequence[Mapping[str, Any]], goals: Sequence[str]) -> list[Mapping[str, Any]]:
    """Return the Pareto front (non-dominated rows).

    Args:
        rows: each has a `score` to maximize, and costs.
        goals: names of the costs to minimize.

    Returns:
        The front in ascending cost; of equal rows only the first.
    """
    ordered = sorted(rows, key=lambda row: (*(row[goal] for goal in goals), -row["score"]))
    front: list[Mapping[str, Any]] = []
    for row in ordered:  # rows that dominate a row come before it
        if best_score_within(front, {goal: row[goal] for goal in goals}) < row["score"]:
            front.append(row)
    return front


def best_score_within(rows: Sequence[Mapping[str, Any]], costs: Mapping[str, float]) -> float:
    """Find the best score among the rows within limits.

    Args:
        rows: each has a `score` and costs.
        costs: maximum cost by name.

    Returns:
        The score; minus infinity if no row is within the limits.
    """
    scores = (row["score"] for row in rows if all(row[name] <= limit for name, limit in costs.items()))
    return max(scores, default=-np.inf)


def hypervolume(points: Sequence[tuple[float, float]], *, reference: tuple[float, float]) -> float:
    """Compute the two-dimensional hypervolume: the area that points dominate.

    Args:
        points: pairs of a score to maximize and a cost to minimize.
        reference: the lowest score and the highest cost that bound the area.

    Returns:
        The area; points worse than the reference add nothing.
    """
    min_score, limit = reference
    area, best = 0.0, min_score
    for score, cost in sorted(points, key=lambda point: point[1]):
        if cost < limit and score > best:
            area += (score - best) * (limit - cost)
            best = score
    return area
