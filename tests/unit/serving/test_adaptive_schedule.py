"""The schedule of an `AdaptivePredictor` on made-up run times: the next batch, and the sub-network that answers it."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from dynabert_paddle.serving.schedule import (
    LOOK_AHEAD,
    LoadStatistics,
    QueuedCall,
    batch_shapes,
    choose,
    split_batches,
    without_outliers,
)


@given(max_length=st.integers(1, 512), data=st.data())
def test_batches_have_few_shapes_and_hold_every_row_once(max_length, data):
    lengths = data.draw(st.lists(st.integers(1, max_length), max_size=70))
    assert len(batch_shapes(max_length)) <= 16
    batches = split_batches(lengths, max_length)
    assert sorted(row for rows, _ in batches for row in rows) == list(range(len(lengths)))
    for rows, shape in batches:
        assert shape in batch_shapes(max_length)
        assert len(rows) <= shape[0] < 2 * len(rows)
        assert max(lengths[row] for row in rows) <= shape[1]


@given(st.randoms(use_true_random=False))
def test_a_busy_moment_is_taken_out_of_the_run_times_of_all_shapes_but_the_largest(random):
    shapes = batch_shapes(128)
    quiet = {(rows, length): 1.0 + rows * length for rows, length in shapes}
    assert without_outliers(quiet) == quiet
    rows, length = random.choice(shapes)
    found = without_outliers({**quiet, (rows, length): 1e9})
    larger = [quiet[r, n] for r, n in shapes if r >= rows and n >= length and (r, n) != (rows, length)]
    assert found == {**quiet, (rows, length): min(larger, default=1e9)}


def test_rows_are_padded_to_the_next_power_of_two():
    assert split_batches([3, 17, 40, 40, 40], 64) == [([2, 3, 4, 1], (4, 64)), ([0], (1, 16))]


def queued(due, *, rows=1, length=10, deadline=1.0):
    return QueuedCall([length] * rows, due, deadline)


def per_row(seconds):
    """The cost of a sub-network whose run time is proportional to the number of rows."""
    return lambda lengths: seconds * len(lengths)


COSTS = {"best": per_row(0.100), "middle": per_row(0.030), "cheap": per_row(0.010)}


def test_a_single_call_uses_the_best_subnet_that_meets_its_deadline():
    for due, subnet in ((0.100, "best"), (0.099, "middle"), (0.030, "middle"), (0.029, "cheap"), (0.001, "cheap")):
        assert choose([queued(due)], COSTS, now=0.0, rate=0.0) == (subnet, 1)


def test_calls_share_a_batch_on_the_best_subnet_that_meets_all_deadlines():
    assert choose([queued(0.200)] * 2, COSTS, now=0.0, rate=0.0) == ("best", 2)
    assert choose([queued(0.199)] * 2, COSTS, now=0.0, rate=0.0) == ("middle", 2)


def test_a_call_is_not_made_late_by_sharing_a_batch():
    assert choose([queued(0.015), queued(0.500)], COSTS, now=0.0, rate=0.0) == ("cheap", 1)
    late = [queued(0.005), queued(0.500)]  # the first is late in any case
    assert choose(late, COSTS, now=0.0, rate=0.0) == ("cheap", 2)


def test_calls_of_the_next_batch_can_still_meet_their_deadlines():
    # 16 rows fill a batch: after 1.6 s of the best sub-network the cheapest needs another 0.1 s.
    first = queued(3.0, rows=16, deadline=3.0)
    assert choose([first, queued(1.71, rows=10)], COSTS, now=0.0, rate=0.0) == ("best", 1)
    assert choose([first, queued(1.69, rows=10)], COSTS, now=0.0, rate=0.0) == ("middle", 1)


def test_calls_that_arrive_during_the_run_can_meet_their_deadlines():
    call = queued(0.121, deadline=0.121)
    assert choose([call], COSTS, now=0.0, rate=0.0) == ("best", 1)
    # In 0.1 s at 10 rows per second 1 row is expected, with a standard deviation of 1: 2 rows, 0.02 s of the cheapest.
    assert choose([call], COSTS, now=0.0, rate=10.0) == ("best", 1)
    assert choose([call], COSTS, now=0.0, rate=20.0) == ("middle", 1)


def test_a_call_gets_the_sub_network_that_it_asks_for_and_shares_a_batch_with_its_like():
    asked = [QueuedCall([10], 9.0, 9.0, subnet) for subnet in ("cheap", "cheap", None, "middle")]
    assert choose(asked, COSTS, now=0.0, rate=0.0) == ("cheap", 2)
    assert choose(asked[2:], COSTS, now=0.0, rate=0.0) == ("best", 1)
    assert choose(asked[3:], COSTS, now=0.0, rate=0.0) == ("middle", 1)
    # Behind the free call waits one that takes 0.1 s of the best, which is due after 0.2 s.
    waiting = [queued(9.0), QueuedCall([10], 0.2, 0.2, "best")]
    assert choose(waiting, COSTS, now=0.0, rate=0.0) == ("best", 1)
    assert choose(waiting, COSTS, now=0.01, rate=0.0) == ("middle", 1)


def test_calls_share_no_batch_where_answers_depend_on_it():
    assert choose([queued(9.0)] * 3, COSTS, now=0.0, rate=0.0, share=False) == ("best", 1)


def test_without_observations_the_statistics_are_the_defaults():
    statistics = LoadStatistics()
    assert statistics.summarize(0.0) == (1.25, 0.0, 0.0)
    statistics.observe_run(0.0, expected=0.010, seconds=0.020, arrived=3)
    statistics.observe_delay(0.0, 0.001)
    assert statistics.summarize(1.0) == (2.0, 0.001, pytest.approx(150))


def test_one_slow_run_of_many_is_ignored_and_old_observations_are_dropped():
    statistics = LoadStatistics()
    for i in range(100):
        statistics.observe_run(i / 1000, expected=0.010, seconds=0.011 if i else 0.500, arrived=0)
    assert statistics.summarize(0.1)[0] == pytest.approx(1.1)
    for _ in range(20):
        statistics.observe_run(1.0, expected=0.010, seconds=0.100, arrived=0)
    assert statistics.summarize(1.0)[0] == pytest.approx(10)
    assert statistics.summarize(3.1) == (1.25, 0.0, 0.0)


# Seconds for a batch of 16-token rows: a constant and a part per row; of four sub-networks of a 6 x 384 model.
TIMES = {"full": (0.0050, 0.0009), "wide": (0.0038, 0.0006), "half": (0.0020, 0.00025), "small": (0.0018, 0.00015)}
ALONE = sum(TIMES["full"])


def simulate(loads, *, deadline, seconds=4.0, seed=0):
    """Simulate requests of one text at random times, one load per phase; returns (phase, latency, sub-network) rows."""
    rng = np.random.default_rng(seed)
    arrivals, begin = [], 0.0
    for phase, load in enumerate(loads):
        gaps = rng.exponential(ALONE / load, int(seconds * load / ALONE))
        arrivals += [(begin + moment, phase) for moment in gaps.cumsum()]
        begin = arrivals[-1][0]
    statistics, now, first, answered = LoadStatistics(), 0.0, 0, []

    def cost(subnet, factor):
        setup, row = TIMES[subnet]
        return lambda lengths: factor * sum(setup + row * size for _, (size, _) in split_batches(lengths, 64))

    while first < len(arrivals):
        now = max(now, arrivals[first][0])
        arrived = sum(moment <= now for moment, _ in arrivals[first : first + LOOK_AHEAD])
        queue = [QueuedCall([12], moment + deadline, deadline) for moment, _ in arrivals[first : first + arrived]]
        margin, delay, rate = statistics.summarize(now)
        subnet, count = choose(queue, {name: cost(name, margin) for name in TIMES}, now=now + delay, rate=rate)
        expected = cost(subnet, 1.0)([12] * count)
        took = expected * rng.uniform(1.0, 1.3) + (rng.random() < 0.01) * 0.005
        new = sum(now < moment <= now + took for moment, _ in arrivals[first : first + LOOK_AHEAD])
        now += took
        statistics.observe_run(now, expected=expected, seconds=took, arrived=new)
        answered += [(phase, now - moment, subnet) for moment, phase in arrivals[first : first + count]]
        first += count
    return answered


def test_three_times_the_capacity_is_answered_in_time_and_the_best_returns_afterwards():
    deadline = 3 * ALONE
    answered = simulate((0.5, 3.0, 0.5), deadline=deadline)
    phases = [[(latency, subnet) for own, latency, subnet in answered if own == phase] for phase in range(3)]
    full = [np.mean([subnet == "full" for _, subnet in phase]) for phase in phases]
    assert min(np.mean([latency <= deadline for latency, _ in phase]) for phase in phases) >= 0.99
    assert full[0] > 0.95 and full[1] < 0.6 and full[2] > 0.9


def test_shapes_are_listed_without_counting_up_to_the_maximum():
    lengths = sorted({length for _, length in batch_shapes(2**60 + 1)})
    assert lengths == [2**i for i in range(4, 61)] + [2**60 + 1]
    assert batch_shapes(9) == [(1, 9), (2, 9), (4, 9), (8, 9), (16, 9)]
