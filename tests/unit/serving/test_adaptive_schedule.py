"""The choice of an `AdaptivePredictor` with times that are given: who is answered next, and by which sub-network."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from dynabert_paddle.serving.schedule import LOOK_AHEAD, Pace, Waiting, choose, shapes, split


@given(longest=st.integers(1, 512), data=st.data())
def test_batches_have_few_shapes_and_hold_every_row_once(longest, data):
    lengths = data.draw(st.lists(st.integers(1, longest), max_size=70))
    assert len(shapes(longest)) <= 16
    batches = split(lengths, longest)
    assert sorted(row for rows, _ in batches for row in rows) == list(range(len(lengths)))
    for rows, shape in batches:
        assert shape in shapes(longest)
        assert len(rows) <= shape[0] < 2 * len(rows)
        assert max(lengths[row] for row in rows) <= shape[1]


def test_padding_goes_to_the_next_power_of_two():
    assert split([3, 17, 40, 40, 40], 64) == [([2, 3, 4, 1], (4, 64)), ([0], (1, 16))]


def waiting(due, *, rows=1, length=10, deadline=1.0):
    return Waiting([length] * rows, due, deadline)


def per_row(seconds):
    """A sub-network that takes a second of set-up, as it were, for every `seconds` of a row."""
    return lambda lengths: seconds * len(lengths)


COSTS = {"best": per_row(0.100), "middle": per_row(0.030), "cheap": per_row(0.010)}


def test_alone_the_best_that_is_in_time_answers():
    for due, subnet in ((0.100, "best"), (0.099, "middle"), (0.030, "middle"), (0.029, "cheap"), (0.001, "cheap")):
        assert choose([waiting(due)], COSTS, now=0.0, rate=0.0) == (subnet, 1)


def test_calls_share_a_batch_of_whoever_is_in_time():
    assert choose([waiting(0.200)] * 2, COSTS, now=0.0, rate=0.0) == ("best", 2)
    assert choose([waiting(0.199)] * 2, COSTS, now=0.0, rate=0.0) == ("middle", 2)


def test_a_call_is_not_made_late_by_those_that_share_its_batch():
    assert choose([waiting(0.015), waiting(0.500)], COSTS, now=0.0, rate=0.0) == ("cheap", 1)
    late = [waiting(0.005), waiting(0.500)]  # it is late anyway
    assert choose(late, COSTS, now=0.0, rate=0.0) == ("cheap", 2)


def test_those_that_wait_for_the_next_batch_can_still_be_in_time():
    # 16 rows fill a batch: after 1.6 s of the best one the cheapest needs 0.1 s more.
    first = waiting(3.0, rows=16, deadline=3.0)
    assert choose([first, waiting(1.71, rows=10)], COSTS, now=0.0, rate=0.0) == ("best", 1)
    assert choose([first, waiting(1.69, rows=10)], COSTS, now=0.0, rate=0.0) == ("middle", 1)


def test_those_that_arrive_meanwhile_can_be_in_time():
    call = waiting(0.121, deadline=0.121)
    assert choose([call], COSTS, now=0.0, rate=0.0) == ("best", 1)
    # 0.1 s at 10 rows a second are 1 row and a deviation of 1: the cheapest needs 0.02 s for 2.
    assert choose([call], COSTS, now=0.0, rate=10.0) == ("best", 1)
    assert choose([call], COSTS, now=0.0, rate=20.0) == ("middle", 1)


def test_the_pace_keeps_to_what_was_measured_until_it_sees_something():
    pace = Pace()
    assert pace.now(0.0) == (1.25, 0.0, 0.0)
    pace.observe_run(0.0, expected=0.010, seconds=0.020, arrived=3)
    pace.observe_rest(0.0, 0.001)
    assert pace.now(1.0) == (2.0, 0.001, pytest.approx(150))


def test_one_slow_run_of_many_counts_for_nothing_and_a_slow_machine_is_forgotten():
    pace = Pace()
    for i in range(100):
        pace.observe_run(i / 1000, expected=0.010, seconds=0.011 if i else 0.500, arrived=0)
    assert pace.now(0.1)[0] == pytest.approx(1.1)
    for _ in range(20):
        pace.observe_run(1.0, expected=0.010, seconds=0.100, arrived=0)
    assert pace.now(1.0)[0] == pytest.approx(10)
    assert pace.now(3.1) == (1.25, 0.0, 0.0)


# Seconds of one row of 16 tokens, and of each more in a batch, as four sub-networks of a model of 6 x 384 take them.
TIMES = {"full": (0.0050, 0.0009), "wide": (0.0038, 0.0006), "half": (0.0020, 0.00025), "small": (0.0018, 0.00015)}
ALONE = sum(TIMES["full"])


def simulate(loads, *, deadline, seconds=4.0, seed=0):
    """Requests of one text that arrive at random in phases; returns each one's phase, latency and sub-network."""
    rng = np.random.default_rng(seed)
    moments, begin = [], 0.0
    for phase, load in enumerate(loads):
        gaps = rng.exponential(ALONE / load, int(seconds * load / ALONE))
        moments += [(begin + moment, phase) for moment in gaps.cumsum()]
        begin = moments[-1][0]
    pace, now, first, answered = Pace(), 0.0, 0, []

    def cost(subnet, factor):
        setup, row = TIMES[subnet]
        return lambda lengths: factor * sum(setup + row * size for _, (size, _) in split(lengths, 64))

    while first < len(moments):
        now = max(now, moments[first][0])
        arrived = sum(moment <= now for moment, _ in moments[first : first + LOOK_AHEAD])
        queue = [Waiting([12], moment + deadline, deadline) for moment, _ in moments[first : first + arrived]]
        margin, rest, rate = pace.now(now)
        subnet, count = choose(queue, {name: cost(name, margin) for name in TIMES}, now=now + rest, rate=rate)
        expected = cost(subnet, 1.0)([12] * count)
        took = expected * rng.uniform(1.0, 1.3) + (rng.random() < 0.01) * 0.005
        new = sum(now < moment <= now + took for moment, _ in moments[first : first + LOOK_AHEAD])
        now += took
        pace.observe_run(now, expected=expected, seconds=took, arrived=new)
        answered += [(phase, now - moment, subnet) for moment, phase in moments[first : first + count]]
        first += count
    return answered


def test_three_times_the_capacity_is_answered_in_time_and_the_best_comes_back():
    deadline = 3 * ALONE
    answered = simulate((0.5, 3.0, 0.5), deadline=deadline)
    phases = [[(latency, subnet) for own, latency, subnet in answered if own == phase] for phase in range(3)]
    full = [np.mean([subnet == "full" for _, subnet in phase]) for phase in phases]
    assert min(np.mean([latency <= deadline for latency, _ in phase]) for phase in phases) >= 0.99
    assert full[0] > 0.95 and full[1] < 0.6 and full[2] > 0.9
