"""The best row within a budget, the nearest one if nothing fits, and the effect of measurements."""

import pytest

from dynabert_paddle.searching.choose import by_score, choose_best
from dynabert_paddle.searching.cost import Budget

ROWS = [
    {"subnet": "a", "score": 0.9, "macs": 90, "params": 10, "latency_ms": 9.0},
    {"subnet": "b", "score": 0.8, "macs": 50, "params": 9, "latency_ms": 5.0},
    {"subnet": "c", "score": 0.8, "macs": 40, "params": 9, "latency_ms": 4.0},
    {"subnet": "d", "score": 0.5, "macs": 10, "params": 8, "latency_ms": 1.0},
]


BY_SCORE = by_score(["macs"])


def not_measured(names):
    raise AssertionError("the budget does not limit latency")


@pytest.mark.parametrize(
    ("limits", "best"), [({}, "a"), ({"macs": 60}, "c"), ({"macs": 90, "params": 8}, "d"), ({"params": 10}, "a")]
)
def test_the_best_fits_and_of_equal_scores_is_the_cheapest(limits, best):
    assert choose_best(ROWS, Budget(limits), BY_SCORE, not_measured) == (
        next(r for r in ROWS if r["subnet"] == best),
        None,
    )


def test_if_nothing_fits_the_nearest_has_the_smallest_relative_excess():
    best, nearest = choose_best(ROWS, Budget({"macs": 9, "params": 4}), BY_SCORE, not_measured)
    assert best is None
    assert nearest["subnet"] == "d"  # 2 times the parameters; the others exceed the MACs by far more


def test_a_measured_latency_may_exceed_the_budget_by_five_percent():
    best, nearest = choose_best(ROWS, Budget({"latency_ms": 5}), BY_SCORE, lambda names: dict.fromkeys(names, 5.25))
    assert (best["subnet"], best["measured_latency_ms"], nearest) == ("c", 5.25, None)


def test_rows_that_are_too_slow_when_measured_are_skipped():
    measured = {"b": 6.0, "c": 6.0, "d": 1.2}
    best, _ = choose_best(ROWS, Budget({"latency_ms": 5}), BY_SCORE, lambda names: {n: measured[n] for n in names})
    assert (best["subnet"], best["measured_latency_ms"]) == ("d", 1.2)


def test_measurements_scale_the_estimates_of_the_next_round():
    rows = [{"subnet": str(i), "score": 1 - i / 100, "macs": 100 - i, "latency_ms": 10.0 - i / 10} for i in range(60)]
    asked = []

    def measure(names):
        asked.append(list(names))
        return {name: 2 * (10.0 - int(name) / 10) for name in names}

    best, _ = choose_best(rows, Budget({"latency_ms": 10}), BY_SCORE, measure)
    # Twice as slow as estimated: only estimates of at most 5 ms remain.
    assert asked == [["0", "1", "2", "3"], ["50", "51", "52", "53"]]
    assert (best["subnet"], best["measured_latency_ms"]) == ("50", 10.0)


def test_the_number_of_measurements_is_bounded():
    rows = [{"subnet": str(i), "score": 1.0, "macs": i, "latency_ms": 1.0} for i in range(60)]
    asked, slow = [], iter(range(1000))

    def measure(names):
        asked.extend(names)
        return {name: 1.06 + next(slow) / 1e6 for name in names}

    best, nearest = choose_best(rows, Budget({"latency_ms": 1}), BY_SCORE, measure)
    assert (best, nearest["subnet"], len(asked)) == (None, "0", 4)


def rows_and_measure(factor):
    """Rows estimated at 1 to 20 ms, a function that measures `factor` times that, and the names that it measured."""
    rows = [{"subnet": str(i), "score": i / 100, "macs": i, "latency_ms": float(i)} for i in range(1, 21)]
    asked = []

    def measure(names):
        asked.extend(names)
        return {name: factor * int(name) for name in names}

    return rows, measure, asked


def test_a_table_that_overestimates_does_not_exclude_fitting_subnets():
    rows, measure, asked = rows_and_measure(0.5)
    best, _ = choose_best(rows, Budget({"latency_ms": 8}), BY_SCORE, measure)
    assert (best["subnet"], best["measured_latency_ms"]) == ("16", 8.0)
    assert asked == ["8", "7", "6", "5", "16", "15", "14", "13"]


def test_nothing_fits_only_after_the_fastest_were_measured():
    rows, measure, asked = rows_and_measure(0.5)
    best, _ = choose_best(rows, Budget({"latency_ms": 0.9}), BY_SCORE, measure)
    assert (best["subnet"], asked) == ("1", ["1", "2", "3", "4"])
    rows, measure, asked = rows_and_measure(2.0)
    best, nearest = choose_best(rows, Budget({"latency_ms": 1.5}), BY_SCORE, measure)
    assert (best, nearest["subnet"], nearest["measured_latency_ms"]) == (None, "1", 2.0)
    assert asked == ["1", "2", "3", "4"]


def test_other_limits_hold_for_measured_rows():
    rows, measure, _ = rows_and_measure(0.1)
    best, _ = choose_best(rows, Budget({"latency_ms": 8, "macs": 5}), BY_SCORE, measure)
    assert best["subnet"] == "5"


def test_one_bad_measurement_does_not_rule_out_the_rest():
    rows = [{"subnet": str(i), "score": 1 - i / 100, "macs": 1, "latency_ms": 10.0 - i / 10} for i in range(60)]
    slow = {"0": 100.0, "1": 11.0, "2": 11.0, "3": 11.0}
    best, _ = choose_best(
        rows, Budget({"latency_ms": 10}), BY_SCORE, lambda names: {n: slow.get(n, 9.0) for n in names}
    )
    assert best["subnet"] == "4"
