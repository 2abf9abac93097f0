"""Errors of measurements, and how many examples a difference needs."""

import math

import numpy as np
import pytest

from dynabert_paddle.searching.doubt import find_doubt
from dynabert_paddle.searching.estimate import Estimate, error_margin, join, num_needed, standard_error


def estimate(values):
    return Estimate(float(np.mean(values)), np.asarray(values, dtype=np.float64))


def test_the_error_is_that_of_a_mean():
    values = np.random.default_rng(0).normal(size=100)
    assert standard_error(values) == pytest.approx(np.std(values, ddof=1) / 10)
    assert estimate(values).error == standard_error(values)
    assert standard_error(values[:1]) == math.inf


def test_a_margin_is_students_t():
    """Of 4 values with a standard deviation of 2 the error is 1; the 95 % quantile of t with 3 degrees is 2.3534."""
    difference = estimate(np.array([-1, -1, 1, 1]) * math.sqrt(3))
    assert error_margin(difference) == pytest.approx(2.3534, abs=1e-4)
    assert error_margin(difference, two_sided=True) == pytest.approx(3.1824, abs=1e-4)  # of 97.5 %
    assert error_margin(difference, 2) == error_margin(difference, two_sided=True)
    assert error_margin(estimate([1.0])) == math.inf


def test_with_the_number_that_is_needed_the_difference_is_seen():
    random = np.random.default_rng(0)
    difference = estimate(random.normal(0.02, 0.3, 300))
    needed = num_needed(difference, 300, 0.02)
    assert 500 < needed < 1500  # (1.97 * 0.3 / 0.02)^2 = 873
    more = estimate(random.normal(0.02, 0.3, needed))
    assert error_margin(more, two_sided=True) == pytest.approx(0.02, rel=0.1)
    assert num_needed(estimate(np.zeros(9)), 9, 0.01) is None
    assert num_needed(estimate([1.0]), 1, 0.01) is None
    assert num_needed(difference, 300, 0.0) is None


def test_joined_measurements_are_those_of_all_examples():
    values = np.random.default_rng(0).normal(size=30)
    joined = join([estimate(values[:10]), estimate(values[10:])])
    assert joined.value == pytest.approx(values.mean())
    assert np.array_equal(joined.parts, values)
    single = Estimate(0.5, np.array([0.4, 0.7]))  # the mean of pseudo-values need not be the metric
    assert join([single]) is single


def test_doubt_is_told_with_numbers_and_certainty_is_not():
    random = np.random.default_rng(0)
    noise = random.normal(0, 0.3, 250)
    noise -= noise.mean()
    clear, close = estimate(0.1 + noise), estimate(0.002 + noise)
    assert find_doubt(clear, clear, num_scored=250, num_chosen_on=250) is None
    doubt = find_doubt(close, estimate(np.tile(0.01 + noise, 8)), num_scored=250, num_chosen_on=2000)
    assert doubt["for_difference"] == 0.01  # a smaller one is not worth the examples
    assert doubt["num_examples"] == pytest.approx((1.97 * 0.3 / 0.01) ** 2, rel=0.15)
    assert not doubt["is_choice_clear"]
    assert doubt["num_to_choose_on"] == pytest.approx((1.96 * 0.3 / 0.01) ** 2, rel=0.15)
    assert find_doubt(close, clear, num_scored=250, num_chosen_on=250)["is_choice_clear"]
    same = estimate(np.zeros(7))
    numbers = find_doubt(same, same, num_scored=7, num_chosen_on=7)
    assert (numbers["num_examples"], numbers["num_to_choose_on"]) == (None, None)


def test_nothing_is_minus_zero():
    negated = Estimate(0.0, np.zeros(2)).negated()
    assert str(negated.value) == str(negated.negated().value) == str(join([negated, negated]).negated().value) == "0.0"
