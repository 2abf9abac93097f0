"""A bundle of several sub-networks that answers every call in time, with the best of them that can."""

from __future__ import annotations

import gc
import os
import sys
from collections import deque
from collections.abc import Iterable, Sequence
from concurrent.futures import Future
from dataclasses import dataclass
from functools import partial
from itertools import islice, product
from math import inf, isnan
from numbers import Real
from pathlib import Path
from threading import Lock
from time import perf_counter

import numpy as np

from dynabert_paddle.bundle.errors import as_dynabert_error
from dynabert_paddle.bundle.infer import Bundle
from dynabert_paddle.bundle.members import members_of
from dynabert_paddle.errors import DynabertError, UsageError
from dynabert_paddle.runtime.cores import num_cores
from dynabert_paddle.runtime.environment import set_cpu_environment
from dynabert_paddle.serving.schedule import LOOK_AHEAD, Cost, Pace, Shape, Waiting, choose, shapes, split
from dynabert_paddle.text.decode import AnyPrediction

_ROUNDS = 4  # measurements of each shape at load, the first of which sets it up


class TimedPredictions(list):
    """The predictions of one call, in the order of its rows, and which sub-network made them in what time.

    Args:
        predictions: as a `Predictor` gives them.
        subnet: the sub-network that made all of them.
        latency_ms: from the call to its return, with the time in which it waited for others.
        on_time: whether that is within the deadline.
    """

    def __init__(self, predictions: Iterable[AnyPrediction], *, subnet: str, latency_ms: float, on_time: bool) -> None:
        super().__init__(predictions)
        self.subnet, self.latency_ms, self.on_time = subnet, latency_ms, on_time


class AdaptivePredictor:
    """Predicts with the sub-networks of a bundle that `dynabert export --subnets` has made.

    Any number of threads may call it. They are served in the order of their calls, short ones several at a time. What
    each sub-network takes is measured when the bundle is loaded, which takes seconds, and corrected all the time. In
    memory every sub-network has its weights to itself. Loading a bundle tells Python's garbage collector to leave alone
    what there is by then (`gc.freeze`), and threads to take turns after 1 ms: both make pauses shorter.

    Args:
        bundle: its folder; one of a single sub-network will do, and leaves no choice.
        device: `cpu`, `gpu` or `gpu:N`.
        num_threads: CPU threads for the sub-networks; where not given all cores that the process may use but one, which
            is left to the callers: a run waits for the slowest of its threads, and one that a caller delays delays all.

    Raises:
        DynabertError: a file of the bundle is missing or altered, or a runtime is missing or cannot run it.
    """

    def __init__(self, bundle: str | Path, *, device: str = "cpu", num_threads: int | None = None) -> None:
        set_cpu_environment()
        self._waiting: deque[_Call] = deque()
        self._arrived = 0  # rows, since the beginning
        self._lock = Lock()  # of the two above
        self._pace = Pace()
        self._process = os.getpid()  # threads are not forked
        with as_dynabert_error():
            threads = max(1, num_cores() - 1) if num_threads is None else num_threads
            self._bundle = Bundle(bundle, device=device, num_threads=threads)
            subnets = list(members_of(self._bundle.description))
            for subnet in subnets:
                self._bundle.load(subnet)
            self._seconds: dict[str, dict[Shape, float]] = self._bundle.submit(self._measure, subnets).result()
        _avoid_pauses()

    @property
    def labels(self) -> list[str]:
        """The classes, in the order of the model's outputs; empty for regression."""
        return self._bundle.labels

    @property
    def latencies_ms(self) -> dict[str, float]:
        """What one short text takes each sub-network, as measured at load; the best sub-network comes first."""
        return {subnet: 1000 * next(iter(seconds.values())) for subnet, seconds in self._seconds.items()}

    def __call__(
        self, texts: str | Sequence[str], pairs: str | Sequence[str] | None = None, *, deadline_ms: float = inf
    ) -> TimedPredictions:
        """Predict with the best sub-network that is in time for this call and for those that wait behind it.

        Where none can be, the call is answered all the same, by the cheapest, and says that it is late.

        Args:
            texts: as for a `Predictor`.
            pairs: as for a `Predictor`.
            deadline_ms: how long after the call the predictions are due; without it the best sub-network takes the time
                that it needs.

        Returns:
            One prediction a row, in the order of the rows; all of one sub-network.

        Raises:
            UsageError: a deadline that is no number above 0.
            DynabertError: rows that are not texts, or pairs where the task has single texts or the reverse; a call from
                a forked process, or when Python is about to exit.
        """
        called = perf_counter()
        number = isinstance(deadline_ms, Real) and not isinstance(deadline_ms, bool)
        if not number or isnan(deadline_ms) or deadline_ms <= 0:
            raise UsageError(f"deadline_ms is a number of milliseconds above 0, not {deadline_ms!r}")
        texts = [texts] if isinstance(texts, str) else texts
        pairs = [pairs] if isinstance(pairs, str) else pairs
        with as_dynabert_error():
            encoded = self._bundle.encode(list(self._bundle.rows(texts, pairs)))
            windows = [window for row in encoded for window in row.windows]
            subnet, logits, ended = self._answer(windows, called, deadline_ms / 1000)
        parts = iter(logits)
        predictions = [row.decode([next(parts) for _ in row.windows]) for row in encoded]
        now = perf_counter()
        self._pace.observe_rest(now, now - ended)
        latency_ms = 1000 * (now - called)
        return TimedPredictions(predictions, subnet=subnet, latency_ms=latency_ms, on_time=latency_ms <= deadline_ms)

    def _answer(self, windows: list[_Window], called: float, deadline: float) -> _Answer:
        """Wait for the logits of some rows."""
        if not windows:
            return self._bundle.subnet, [], perf_counter()
        if os.getpid() != self._process:
            raise DynabertError("an AdaptivePredictor does not survive a fork: make one in each process")
        call = _Call([len(ids) for ids, _ in windows], called + deadline, deadline, windows, Future())
        with self._lock:
            self._waiting.append(call)
            self._arrived += len(windows)
        self._bundle.submit(self._serve)
        return call.answer.result()

    def _serve(self) -> None:
        """Answer all who wait: one who was interrupted may not have asked for it, and others come here in vain."""
        while self._waiting:
            self._serve_first()

    def _serve_first(self) -> None:
        """Answer whoever has waited longest, and who fits into the same batch."""
        began = perf_counter()
        with self._lock:
            waiting, arrived = list(islice(self._waiting, LOOK_AHEAD)), self._arrived
        calls = waiting  # all of them get to know what fails before one is chosen
        try:
            subnet, count = self._choose(waiting, began)
            calls = waiting[:count]
            windows = [window for call in calls for window in call.windows]
            logits = iter(self._run(subnet, windows))
            ended = perf_counter()
            expected = self._cost(subnet, 1.0, [len(ids) for ids, _ in windows])
            self._pace.observe_run(ended, expected=expected, seconds=ended - began, arrived=self._arrived - arrived)
        except BaseException as error:
            for call in calls:
                call.answer.set_exception(error)
            return
        finally:
            with self._lock:
                for _ in calls:
                    self._waiting.popleft()
        for call in calls:
            call.answer.set_result((subnet, list(islice(logits, len(call.windows))), ended))

    def _choose(self, waiting: Sequence[Waiting], began: float) -> tuple[str, int]:
        margin, rest, rate = self._pace.now(began)
        costs: dict[str, Cost] = {subnet: partial(self._cost, subnet, margin) for subnet in self._seconds}
        # What comes after the run is the same for all: as if it were later now.
        return choose(waiting, costs, now=began + rest, rate=rate)

    def _cost(self, subnet: str, margin: float, lengths: Sequence[int]) -> float:
        return margin * sum(self._seconds[subnet][shape] for _, shape in split(lengths, self._bundle.max_seq_length))

    def _run(self, subnet: str, windows: list[_Window]) -> list[np.ndarray]:
        """Logits of each row."""
        found: list[np.ndarray] = [np.empty(0)] * len(windows)
        for rows, (size, length) in split([len(ids) for ids, _ in windows], self._bundle.max_seq_length):
            filled = [windows[rows[min(i, len(rows) - 1)]] for i in range(size)]
            for i, logits in zip(rows, self._bundle.run(filled, length, subnet=subnet), strict=False):
                found[i] = logits
        return found

    def _measure(self, subnets: Sequence[str]) -> dict[str, dict[Shape, float]]:
        """What each sub-network takes for each shape at best.

        They take turns, as they will in use: a busy moment of the machine must not pass for a slow sub-network, which
        would hardly be tried again.
        """
        sizes = shapes(self._bundle.max_seq_length)
        best = {subnet: dict.fromkeys(sizes, inf) for subnet in subnets}
        for _, subnet, (rows, length) in product(range(_ROUNDS), subnets, sizes):
            windows = [([0] * length, [0] * length)] * rows
            began = perf_counter()
            self._run(subnet, windows)
            best[subnet][rows, length] = min(best[subnet][rows, length], perf_counter() - began)
        return best


def _avoid_pauses() -> None:
    """Shorten what Python itself adds to an answer, which would be more than many a deadline."""
    # A full collection reads every object of Paddle's modules, which takes some 80 ms.
    gc.collect()
    gc.freeze()
    # After a run, the thread of the runtime waits so long for each busy thread of a caller.
    sys.setswitchinterval(min(sys.getswitchinterval(), 0.001))


_Window = tuple[list[int], list[int]]  # ids and token type ids
_Answer = tuple[str, list[np.ndarray], float]  # the sub-network, each row's logits, when its run ended


@dataclass(frozen=True)
class _Call(Waiting):
    windows: list[_Window]
    answer: Future[_Answer]
