"""Which sub-network to take where nobody has said."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TypeVar

_NEAR = 0.99  # of the full model's score

T = TypeVar("T")


def cheapest_near(rows: Iterable[tuple[T, float, float]], full_score: float) -> T | None:
    """Recommend the cheapest sub-network whose score is within 1 % of the full model's.

    Args:
        rows: any object, and the score and cost of its sub-network.
        full_score: the full model's score.

    Returns:
        The object of the cheapest, of equal costs the best; None if the full model's score is not above 0.
    """
    near = [row for row in rows if row[1] >= _NEAR * full_score > 0]
    return min(near, key=lambda row: (row[2], -row[1]))[0] if near else None
