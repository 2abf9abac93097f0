"""Successive halving: who gets more examples, and that luck of an earlier round does not count."""

import numpy as np
import pytest

from dynabert_paddle.searching.cost import Budget
from dynabert_paddle.searching.estimate import Estimate
from dynabert_paddle.searching.halving import halve, num_contenders, promising
from dynabert_paddle.searching.pareto import pareto_rows

GOALS = ("macs",)
CELLS = ("cell0", "cell1")


def rows_of(scores, macs):
    names = [*CELLS, *(f"s{i}" for i in range(len(scores) - len(CELLS)))]
    return [
        {"subnet": name, "score": score, "macs": cost} for name, score, cost in zip(names, scores, macs, strict=True)
    ]


def random_rows(count=100, seed=0):
    random = np.random.default_rng(seed)
    return rows_of(random.random(count), random.permutation(count) + 1)


def test_half_of_the_places_are_for_the_budget_the_rest_for_the_front():
    rows = random_rows()
    chosen = promising(rows, CELLS, GOALS, Budget({"macs": 40}), count=20)
    assert len(set(chosen)) == 20
    assert not set(chosen) & set(CELLS)
    fitting = sorted((row for row in rows if row["macs"] <= 40), key=lambda row: -row["score"])
    assert chosen[:10] == [row["subnet"] for row in fitting if row["subnet"] not in CELLS][:10]
    front = [row["subnet"] for row in pareto_rows(rows, GOALS) if row["subnet"] not in CELLS]
    assert set(front) <= set(chosen)


def test_a_front_with_more_than_the_places_is_thinned_out_evenly():
    rows = rows_of([-2, -1, *range(30)], [100, 101, *range(1, 31)])
    chosen = promising(rows, CELLS, GOALS, Budget(), count=4)
    assert chosen == ["s0", "s10", "s19", "s29"]


def test_where_nothing_fits_the_nearest_stays():
    rows = random_rows()
    (nearest,) = (row["subnet"] for row in rows if row["macs"] == 1)
    for count in (1, 4, 20):
        assert nearest in promising(rows, CELLS, GOALS, Budget({"macs": 0.5}), count=count) or nearest in CELLS


@pytest.mark.parametrize("count", [3, 12, 100])
def test_halving_measures_fewer_in_each_round_and_all_cells_in_all(count):
    rows, rounds = random_rows(count), []

    def measure(names, number):
        assert number == len(rounds)
        rounds.append(list(names))
        return [Estimate(0.0, np.zeros(5)) for _ in names]

    estimates = halve(rows, CELLS, GOALS, Budget(), measure, num_rounds=3)
    assert all(set(CELLS) <= set(names) for names in rounds)
    sizes = [len(names) - len(CELLS) for names in rounds]
    assert sizes == {3: [1, 1, 1], 12: [8, 8, 8], 100: [25, 13, 8]}[count]
    assert sizes[0] == num_contenders(rows, CELLS)
    assert set(estimates) == set(rounds[-1])
    assert all(len(estimate.parts) == 15 for estimate in estimates.values())


def test_the_luckiest_of_the_first_scores_is_not_the_luckiest_of_the_rounds():
    """Of equally good sub-networks the best first score is far from 0, and what the rounds say of it is not."""
    first, later = [], []
    for seed in range(30):
        random = np.random.default_rng(seed)
        rows = rows_of(random.normal(size=100), np.ones(100))
        best = max(rows[2:], key=lambda row: row["score"])

        def measure(names, number, random=random):
            return [Estimate(float(values.mean()), values) for values in random.normal(size=(len(names), 50))]

        estimates = halve(rows, CELLS, GOALS, Budget({"macs": 1}), measure, num_rounds=1)
        first.append(best["score"])
        later.append(estimates[best["subnet"]].value)
    assert np.mean(first) > 2
    assert abs(np.mean(later)) < 4 / np.sqrt(30 * 50)
