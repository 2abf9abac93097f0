"""Adaptive prediction: each call is answered by the best sub-network of a bundle that meets its deadline."""

from __future__ import annotations

import gc
import logging
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
from dynabert_paddle.bundle.manifest import BundleError
from dynabert_paddle.bundle.members import members_of
from dynabert_paddle.errors import DynabertError, UsageError
from dynabert_paddle.files.unchanged import load_unchanged
from dynabert_paddle.runtime.cores import num_cores
from dynabert_paddle.runtime.environment import set_cpu_environment
from dynabert_paddle.serving.schedule import (
    LOOK_AHEAD,
    Cost,
    LoadStatistics,
    QueuedCall,
    Shape,
    batch_shapes,
    choose,
    split_batches,
)
from dynabert_paddle.text.decode import AnyPrediction

logger = logging.getLogger(__name__)

_CALIBRATION_ROUNDS = 4  # runs of each shape at load; the first one sets the shape up
_SWITCH_INTERVAL = 0.001  # seconds


class TimedPredictions(list):
    """The predictions of one call in the order of its rows, with the sub-network that made them and the latency.

    Args:
        predictions: as from a `Predictor`.
        subnet: the sub-network that made all of them.
        latency_ms: from the call to its return, including the time in the queue.
        on_time: whether the latency is within the deadline.
    """

    def __init__(self, predictions: Iterable[AnyPrediction], *, subnet: str, latency_ms: float, on_time: bool) -> None:
        super().__init__(predictions)
        self.subnet, self.latency_ms, self.on_time = subnet, latency_ms, on_time


class AdaptivePredictor:
    """Predicts with the sub-networks of a bundle from `dynabert export --subnets`, within a deadline for each call.

    Any number of threads may call it. Calls are answered in order of arrival; short ones share a batch. The run time of
    each sub-network is calibrated when the bundle is loaded, which takes seconds, and corrected while serving. Each
    sub-network has a separate copy of its weights in memory.

    Loading a bundle changes two settings of the whole process, and nothing restores them: `gc.freeze` exempts all
    objects that exist by then from garbage collection, and `sys.setswitchinterval` lowers the thread switch interval to
    at most 1 ms. Both shorten pauses. `gc.unfreeze()` and `sys.setswitchinterval(0.005)` restore Python's defaults.

    Args:
        bundle: its folder; with a bundle of a single sub-network there is no choice to make.
        device: `cpu`, `gpu` or `gpu:N`.
        num_threads: CPU threads for the sub-networks; by default one less than the cores that the process may use, to
            leave one to the callers: a run waits for its slowest thread, so a thread delayed by a caller delays it.
        decode: as for a `Predictor`.

    Raises:
        DynabertError: a file of the bundle is missing or altered, or a runtime is missing or cannot run it.
    """

    def __init__(
        self, bundle: str | Path, *, device: str = "cpu", num_threads: int | None = None, decode: str | None = None
    ) -> None:
        set_cpu_environment()
        self._queue: deque[_Call] = deque()
        self._arrived = 0  # rows since the start
        self._lock = Lock()  # protects the queue and the count
        self._statistics = LoadStatistics()
        self._process = os.getpid()  # a forked process lacks the bundle's threads
        with as_dynabert_error():
            threads = max(1, num_cores() - 1) if num_threads is None else num_threads
            load = partial(_load_all, bundle, device=device, num_threads=threads, decode=decode)
            self._bundle = load_unchanged(Path(bundle), load, BundleError)
            subnets = list(members_of(self._bundle.description))
            self._seconds: dict[str, dict[Shape, float]] = self._bundle.submit(self._calibrate, subnets).result()
        if self._bundle.warning:
            logger.warning("%s: %s", bundle, self._bundle.warning)
        _shorten_pauses()

    @property
    def labels(self) -> list[str]:
        """The classes, in the order of the model's outputs; empty for regression."""
        return self._bundle.labels

    @property
    def latencies_ms(self) -> dict[str, float]:
        """Latency of each sub-network for one short text, as calibrated at load; the best sub-network comes first."""
        return {subnet: 1000 * next(iter(seconds.values())) for subnet, seconds in self._seconds.items()}

    def __call__(
        self, texts: str | Sequence[str], pairs: str | Sequence[str] | None = None, *, deadline_ms: float = inf
    ) -> TimedPredictions:
        """Predict with the best sub-network that meets the deadlines of this call and of the calls queued behind it.

        If none can meet them, the fastest sub-network answers, and `on_time` of the result is false if it was late.

        Args:
            texts: as for a `Predictor`.
            pairs: as for a `Predictor`.
            deadline_ms: milliseconds from the call until the predictions are due; by default there is no deadline.

        Returns:
            One prediction a row in the order of the rows, all from one sub-network.

        Raises:
            UsageError: `deadline_ms` is not a positive number.
            DynabertError: rows that are not texts, second texts that the task lacks or that are missing, a call from a
                forked process, or one while Python exits.
        """
        called = perf_counter()
        number = isinstance(deadline_ms, Real) and not isinstance(deadline_ms, bool)
        if not number or isnan(deadline_ms) or deadline_ms <= 0:
            raise UsageError(f"deadline_ms must be a number of milliseconds above 0, not {deadline_ms!r}")
        texts = [texts] if isinstance(texts, str) else texts
        pairs = [pairs] if isinstance(pairs, str) else pairs
        with as_dynabert_error():
            encoded = self._bundle.encode(list(self._bundle.rows(texts, pairs)))
            windows = [window for row in encoded for window in row.windows]
            subnet, logits, ended = self._answer(windows, called, deadline_ms / 1000)
        parts = iter(logits)
        predictions = [row.decode([next(parts) for _ in row.windows]) for row in encoded]
        now = perf_counter()
        self._statistics.observe_delay(now, now - ended)
        latency_ms = 1000 * (now - called)
        return TimedPredictions(predictions, subnet=subnet, latency_ms=latency_ms, on_time=latency_ms <= deadline_ms)

    def _answer(self, windows: list[_Window], called: float, deadline: float) -> _Answer:
        """Queue a call, and wait for the logits of its rows."""
        if not windows:
            return self._bundle.subnet, [], perf_counter()
        if os.getpid() != self._process:
            raise DynabertError("an AdaptivePredictor cannot be used after a fork: create one in each process")
        call = _Call([len(ids) for ids, _ in windows], called + deadline, deadline, windows, Future())
        with self._lock:
            self._queue.append(call)
            self._arrived += len(windows)
        self._bundle.submit(self._serve)
        return call.answer.result()

    def _serve(self) -> None:
        """Answer all queued calls.

        Every call submits this once, but one batch may answer several calls, and an interrupted call may be queued
        without a submission.
        """
        while self._queue:
            self._serve_batch()

    def _serve_batch(self) -> None:
        """Answer the call at the head of the queue, and those that share its batch."""
        began = perf_counter()
        with self._lock:
            queue, arrived = list(islice(self._queue, LOOK_AHEAD)), self._arrived
        calls = queue  # an error before the choice goes to all of them
        try:
            subnet, count = self._choose(queue, began)
            calls = queue[:count]
            windows = [window for call in calls for window in call.windows]
            logits = iter(self._run(subnet, windows))
            ended = perf_counter()
            expected = self._cost(subnet, 1.0, [len(ids) for ids, _ in windows])
            self._statistics.observe_run(
                ended, expected=expected, seconds=ended - began, arrived=self._arrived - arrived
            )
        except BaseException as error:
            for call in calls:
                call.answer.set_exception(error)
            return
        finally:
            with self._lock:
                for _ in calls:
                    self._queue.popleft()
        for call in calls:
            call.answer.set_result((subnet, list(islice(logits, len(call.windows))), ended))

    def _choose(self, queue: Sequence[QueuedCall], began: float) -> tuple[str, int]:
        margin, delay, rate = self._statistics.summarize(began)
        costs: dict[str, Cost] = {subnet: partial(self._cost, subnet, margin) for subnet in self._seconds}
        # The delay after a run is the same for all sub-networks, so it counts as if the run began later.
        return choose(queue, costs, now=began + delay, rate=rate)

    def _cost(self, subnet: str, margin: float, lengths: Sequence[int]) -> float:
        batches = split_batches(lengths, self._bundle.max_seq_length)
        return margin * sum(self._seconds[subnet][shape] for _, shape in batches)

    def _run(self, subnet: str, windows: list[_Window]) -> list[np.ndarray]:
        """Return the logits of each row."""
        logits: list[np.ndarray] = [np.empty(0)] * len(windows)
        for rows, (size, length) in split_batches([len(ids) for ids, _ in windows], self._bundle.max_seq_length):
            batch = [windows[row] for row in rows]
            batch += [batch[-1]] * (size - len(batch))  # the shape's other rows; their logits are ignored
            for row, values in zip(rows, self._bundle.run(batch, length, subnet=subnet), strict=False):
                logits[row] = values
        return logits

    def _calibrate(self, subnets: Sequence[str]) -> dict[str, dict[Shape, float]]:
        """Measure the minimum run time in seconds of each sub-network for each shape.

        The sub-networks alternate, as in use, so that a busy moment of the machine does not slow down only one of them:
        a sub-network that appears slow is hardly ever tried again.
        """
        sizes = batch_shapes(self._bundle.max_seq_length)
        best = {subnet: dict.fromkeys(sizes, inf) for subnet in subnets}
        for _, subnet, (rows, length) in product(range(_CALIBRATION_ROUNDS), subnets, sizes):
            windows = [([0] * length, [0] * length)] * rows
            began = perf_counter()
            self._run(subnet, windows)
            best[subnet][rows, length] = min(best[subnet][rows, length], perf_counter() - began)
        return best


def _load_all(folder: str | Path, *, device: str, num_threads: int, decode: str | None) -> Bundle:
    """Load a bundle with all its sub-networks."""
    bundle = Bundle(folder, device=device, num_threads=num_threads, decode=decode)
    for subnet in members_of(bundle.description):
        bundle.load(subnet)
    return bundle


def _shorten_pauses() -> None:
    """Shorten Python's own pauses, which can exceed a deadline; both settings hold for the rest of the process."""
    # A full garbage collection visits every object of Paddle's modules, which takes some 80 ms.
    gc.collect()
    gc.freeze()
    # After a run, the runtime's thread waits for up to this interval for each busy thread of a caller.
    sys.setswitchinterval(min(sys.getswitchinterval(), _SWITCH_INTERVAL))


_Window = tuple[list[int], list[int]]  # ids and token type ids
_Answer = tuple[str, list[np.ndarray], float]  # sub-network, logits of each row, time at which the run ended


@dataclass(frozen=True)
class _Call(QueuedCall):
    windows: list[_Window]
    answer: Future[_Answer]
