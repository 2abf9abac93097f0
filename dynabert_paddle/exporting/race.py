"""Which of several engines is the fastest: they are timed in alternation, and those that can no longer win drop out."""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from dynabert_paddle.bundle.engines import Engine
from dynabert_paddle.bundle.timing import time_alternately

_ROUNDS, _LEAST_ROUNDS = 7, 2
_SECONDS = 40.0  # after which no further round begins: of a large model on a large batch each takes long
_SECONDS_PER_TURN = 0.2
_HOPELESS = 1.25  # times the fastest one's latency, in every round so far


@dataclass(frozen=True)
class Lap:
    """How an engine did.

    Args:
        rounds: the median latency of each round in which it ran, in ms; fewer than others have if it dropped out.
    """

    rounds: tuple[float, ...]

    @property
    def latency_ms(self) -> float:
        """Median over the rounds."""
        return float(np.median(self.rounds))

    def ratio(self, other: Lap) -> float:
        """Median over the rounds in which both ran of this latency divided by the other's."""
        common = min(len(self.rounds), len(other.rounds))
        return float(np.median(np.divide(self.rounds[:common], other.rounds[:common])))


def race(engines: Mapping[str, Engine], batch: dict[str, np.ndarray]) -> dict[str, Lap]:
    """Time engines in alternation.

    An engine drops out once it has run twice, and was each time more than a quarter slower than the fastest one.

    Args:
        engines: the engines by name.
        batch: the inputs.

    Returns:
        How each did, the fastest first.
    """
    rounds: dict[str, list[float]] = {name: [] for name in engines}
    left, began = list(engines), time.perf_counter()
    for number in range(1, _ROUNDS + 1):
        turns = time_alternately({name: engines[name] for name in left}, batch, 1, seconds=_SECONDS_PER_TURN)
        for name, (calls,) in turns.items():
            rounds[name].append(float(np.median(calls)))
        best = rounds[_fastest({name: rounds[name] for name in left})]
        if number < _LEAST_ROUNDS:
            continue
        left = [name for name in left if np.min(np.divide(rounds[name], best)) <= _HOPELESS]
        if len(left) == 1 or time.perf_counter() - began > _SECONDS:
            break
    laps = {name: Lap(tuple(times)) for name, times in rounds.items()}
    first = laps[_fastest({name: rounds[name] for name in left})]
    return dict(sorted(laps.items(), key=lambda item: item[1].ratio(first)))


def _fastest(rounds: Mapping[str, list[float]]) -> str:
    return min(rounds, key=lambda name: float(np.median(rounds[name])))
