"""The Pareto front, and its hypervolume."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from dynabert_paddle.searching.pareto import best_score_within, hypervolume, pareto_rows

SMALL = st.integers(0, 4)
ROWS = st.lists(st.tuples(SMALL, SMALL, SMALL), max_size=12)


def as_rows(points):
    return [{"score": score, "macs": macs, "params": params} for score, macs, params in points]


@given(ROWS, st.sampled_from([("macs",), ("macs", "params")]))
def test_the_front_is_the_non_dominated_rows(points, goals):
    rows = as_rows(points)

    def values(row):
        return (row["score"], *(-row[goal] for goal in goals))

    def is_dominated(row):
        """By definition: another row is nowhere worse and somewhere better."""
        return any(
            all(b >= a for a, b in zip(values(row), values(other), strict=True)) and values(other) != values(row)
            for other in rows
        )

    front = pareto_rows(rows, goals)
    assert {values(row) for row in front} == {values(row) for row in rows if not is_dominated(row)}
    assert len({values(row) for row in front}) == len(front)
    assert [row[goals[0]] for row in front] == sorted(row[goals[0]] for row in front)


def test_the_best_score_within_limits():
    rows = as_rows([(1, 1, 4), (3, 2, 1), (4, 5, 1)])
    assert best_score_within(rows, {"macs": 2}) == 3
    assert best_score_within(rows, {"macs": 5, "params": 0}) == -np.inf
    assert best_score_within(rows, {"macs": 1, "params": 4}) == 1


@given(st.lists(st.tuples(SMALL, SMALL), max_size=8))
def test_the_hypervolume_is_the_number_of_dominated_unit_squares(points):
    """With whole numbers the area can be counted square by square."""
    squares = sum(
        any(score > low and cost <= left for score, cost in points) for low in range(1, 4) for left in range(4)
    )
    assert hypervolume(points, reference=(1, 4)) == pytest.approx(squares)
