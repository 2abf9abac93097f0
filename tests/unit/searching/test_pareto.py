"""Which rows no other beats, and the area that they cover."""

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
def test_the_front_is_what_nothing_dominates(points, goals):
    rows = as_rows(points)

    def beaten(row):
        """As the definition says: nowhere better, and somewhere worse."""
        sides = [(row["score"], *(-row[goal] for goal in goals))]
        for other in rows:
            there = (other["score"], *(-other[goal] for goal in goals))
            if all(b >= a for a, b in zip(sides[0], there, strict=True)) and there != sides[0]:
                return True
        return False

    front = pareto_rows(rows, goals)
    sides = {(row["score"], *(row[goal] for goal in goals)) for row in front}
    assert sides == {(row["score"], *(row[goal] for goal in goals)) for row in rows if not beaten(row)}
    assert len(sides) == len(front)
    assert [row[goals[0]] for row in front] == sorted(row[goals[0]] for row in front)


def test_the_best_score_within_limits():
    rows = as_rows([(1, 1, 4), (3, 2, 1), (4, 5, 1)])
    assert best_score_within(rows, {"macs": 2}) == 3
    assert best_score_within(rows, {"macs": 5, "params": 0}) == -np.inf
    assert best_score_within(rows, {"macs": 1, "params": 4}) == 1


@given(st.lists(st.tuples(SMALL, SMALL), max_size=8))
def test_the_hypervolume_is_the_number_of_dominated_squares(points):
    """With whole numbers the area can be counted square by square."""
    squares = sum(
        any(score > low and cost <= left for score, cost in points) for low in range(1, 4) for left in range(4)
    )
    assert hypervolume(points, reference=(1, 4)) == pytest.approx(squares)
