"""Compares the latency of engines: they alternate in one process, so that a busy machine slows all of them down."""

from __future__ import annotations

import time
from collections.abc import Mapping

import numpy as np

from dynabert_paddle.bundle.engines import INPUTS, Engine

# A runtime's threads busy-wait for up to 0.2 s after a call, which slows down the next engine.
_SETTLE_SECONDS = 0.25


def make_batch(batch_size: int, seq_length: int, vocab_size: int) -> dict[str, np.ndarray]:
    """Make random inputs without padding; their values do not influence the latency.

    Args:
        batch_size: number of rows.
        seq_length: tokens per row.
        vocab_size: ids are below it.

    Returns:
        Inputs by name, int64 `[b, s]`.
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
    """Time engines in rounds: in each round, every engine runs once for a while.

    Args:
        engines: the engines by name.
        batch: the inputs.
        rounds: number of rounds; in each, an engine has a warm-up call and at least three timed calls.
        seconds: minimum duration of an engine's calls in a round.
        settle_seconds: pause before each engine; not needed for engines of one runtime, which share its threads.

    Returns:
        For each engine and each round the latencies of the calls in ms.
    """
    latencies: dict[str, list[list[float]]] = {name: [] for name in engines}
    for run in engines.values():
        run(batch)
    for _ in range(rounds):
        for name, run in engines.items():
            time.sleep(settle_seconds)
            run(batch)
            calls: list[float] = []
            began = time.perf_counter()
            while len(calls) < 3 or time.perf_counter() - began < seconds:
                start = time.perf_counter()
                run(batch)
                calls.append((time.perf_counter() - start) * 1000)
            latencies[name].append(calls)
    return latencies
