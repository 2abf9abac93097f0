"""Engines in alternation: the fastest comes first, and those that cannot win run no longer than they must."""

import time

import numpy as np
import pytest

from dynabert_paddle.exporting.race import Lap, race

BATCH = {"input_ids": np.zeros((1, 2), np.int64)}


def test_the_fastest_comes_first_and_the_hopeless_drop_out():
    def sleep(seconds):
        return lambda batch: time.sleep(seconds)

    laps = race({"slow": sleep(0.06), "fast": sleep(0.02), "slowest": sleep(0.08)}, BATCH)
    assert list(laps) == ["fast", "slow", "slowest"]
    assert [len(lap.rounds) for lap in laps.values()] == [2, 2, 2]  # nobody is left to compare with
    assert laps["fast"].latency_ms < laps["slow"].latency_ms < laps["slowest"].latency_ms
    assert laps["slow"].ratio(laps["fast"]) > 1.25


def test_a_ratio_is_of_the_rounds_that_both_ran():
    early, late = Lap((10.0, 20.0)), Lap((5.0, 10.0, 100.0))  # the machine became busy in the third round
    assert early.ratio(late) == pytest.approx(2.0)
    assert late.ratio(early) == pytest.approx(0.5)
    assert late.latency_ms == 10.0
