"""Latency of engines side by side: they alternate in one process, so that a busy machine slows all of them down."""

from __future__ import annotations

import time
from collections.abc import Mapping

import numpy as np

from dynabert_paddle.bundle.engines import INPUTS, Engine

# A runtime's threads go on spinning for work for up to 0.2 s after a call and slow down whoever comes next.
_SETTLE_SECONDS = 0.25


def make_batch(batch_size: int, seq_length: int, vocab_size: int) -> dict[str, np.ndarray]:
    """Make inputs without padding; what they say has no influence on the latency.

    Args:
        batch_size: rows.
        seq_length: tokens a row.
        vocab_size: ids are below it.

    Returns:
        int64 `[b, s]` by name.
    """
    input_ids = np.random.default_rng(0).integers(0, vocab_size, (batch_size, seq_length))
    return dict(zip(INPUTS, (input_ids, np.zeros_like(input_ids), np.ones_like(input_ids)), strict=True))


def time_alternately(
    engines: Mapping[str, Engine],
    batch: dict[str, np.ndarray],
    rounds: int,
    *,
    seconds: float = 0.3,
    settle_seconds: float = _SETTLE_SECONDS,
) -> dict[str, list[list[float]]]:
    """Time engines one after the other, again and again.

    Args:
        engines: what runs a batch, by name.
        batch: what they run.
        rounds: turns of each; a turn is a warm-up and at least three calls.
        seconds: how long a turn is at least.
        settle_seconds: pause before a turn; engines of one runtime share its threads and need none.

    Returns:
        For each engine its turns, and of each turn the calls' times in ms.
    """
    turns: dict[str, list[list[float]]] = {name: [] for name in engines}
    for run in engines.values():
        run(batch)
    for _ in range(rounds):
        for name, run in engines.items():
            time.sleep(settle_seconds)
            run(batch)
            turn: list[float] = []
            began = time.perf_counter()
            while len(turn) < 3 or time.perf_counter() - began < seconds:
                start = time.perf_counter()
                run(batch)
                turn.append((time.perf_counter() - start) * 1000)
            turns[name].append(turn)
    return turns
