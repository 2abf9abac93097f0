"""Dynamic batching: calls wait in one queue, short ones share a batch, and the schedule chooses the sub-network."""

from __future__ import annotations

import os
from collections import deque
from collections.abc import Sequence
from concurrent.futures import Future
from dataclasses import dataclass, field
from functools import partial
from itertools import islice, product
from math import inf
from pathlib import Path
from threading import Lock
from time import perf_counter
from typing import Any, NamedTuple

import numpy as np

from dynabert_paddle.bundle.infer import Bundle
from dynabert_paddle.bundle.manifest import BundleError, depends_on_batch
from dynabert_paddle.bundle.members import members_of
from dynabert_paddle.files.unchanged import load_unchanged
from dynabert_paddle.serving.schedule import (
    LOOK_AHEAD,
    Cost,
    LoadStatistics,
    QueuedCall,
    Shape,
    batch_shapes,
    choose,
    max_rows,
    padded_length,
    split_batches,
    without_outliers,
)

# Runs of each shape at load. The first one sets the shape up; the others end when this many seconds were measured, so
# that short runs, which a busy moment falsifies most, are repeated, and long ones cost little.
_CALIBRATION_ROUNDS, _CALIBRATION_SECONDS = 4, 0.01
_SMALL_TOKENS = 64  # batches of at most so many are measured twice, however slow a busy machine makes them

Window = tuple[list[int], list[int]]  # ids and token type ids


class Run(NamedTuple):
    """What a call gets from the batch that it was part of.

    Args:
        subnet: the sub-network that ran.
        logits: those of each of the call's rows.
        ended: time at which the run ended.
    """

    subnet: str
    logits: list[np.ndarray]
    ended: float


def open_bundle(folder: str | Path, *, device: str = "cpu", num_threads: int | None = None, **options: Any) -> Bundle:
    """Load a bundle with all its sub-networks.

    Args:
        folder: the bundle.
        device: `cpu`, `gpu` or `gpu:N`.
        num_threads: CPU threads; by default all cores that the process may use.
        options: `decode`, `threshold` and `top_k`, as for a `Bundle`.

    Returns:
        The bundle.

    Raises:
        BundleError: a file is missing or altered, or the runtime is missing or cannot run a graph.
    """

    def load() -> Bundle:
        bundle = Bundle(folder, device=device, num_threads=num_threads, **options)
        for subnet in members_of(bundle.description):
            bundle.load(subnet)
        return bundle

    return load_unchanged(Path(folder), load, BundleError)


class BatchQueue:
    """Runs calls from any number of threads in batches, each with the best sub-network that meets the deadlines.

    Calls are run in order of arrival. The run time of each sub-network is calibrated here, which takes seconds and is
    also its warm-up, and corrected while the queue is in use. Calls share a batch unless a text's answer depends on the
    other texts of its batch, see `depends_on_batch`.

    Args:
        bundle: with all its sub-networks loaded.
    """

    def __init__(self, bundle: Bundle) -> None:
        self._bundle = bundle
        self._share = not depends_on_batch(bundle.description)
        self._queue: deque[_Call] = deque()
        self._arrived = 0  # rows since the start
        self._waiting_seconds = 0.0  # of the queued calls together
        self._lock = Lock()  # protects the queue and its sums
        self._statistics = LoadStatistics()
        self._process = os.getpid()  # a forked process lacks the bundle's threads
        self._margin, self._delay, self._busy_until = 1.0, 0.0, 0.0
        subnets = list(members_of(bundle.description))
        self._seconds: dict[str, dict[Shape, float]] = bundle.submit(self._calibrate, subnets).result()
        self._fastest = min(self._seconds, key=lambda subnet: sum(self._seconds[subnet].values()))
        self._row_seconds = {subnet: self._share_of_row(seconds) for subnet, seconds in self._seconds.items()}

    @property
    def latencies_ms(self) -> dict[str, float]:
        """Latency of each sub-network for one short text, as calibrated; the best sub-network comes first."""
        return {subnet: 1000 * next(iter(seconds.values())) for subnet, seconds in self._seconds.items()}

    @property
    def num_waiting(self) -> int:
        """How many calls wait for their batch to begin."""
        return len(self._queue)

    def put(
        self, windows: Sequence[Window], *, called: float, deadline: float = inf, subnet: str | None = None
    ) -> Future[Run]:
        """Queue a call.

        Args:
            windows: its rows, as from `Bundle.encode`.
            called: time at which the call came.
            deadline: seconds from then until its answer is due.
            subnet: the sub-network to run; by default the best that meets the deadline.

        Returns:
            The future result. Cancelling it takes the call out of the queue, unless its batch has begun.

        Raises:
            BundleError: the process was forked, or Python is about to exit.
        """
        if os.getpid() != self._process:
            raise BundleError("an AdaptivePredictor cannot be used after a fork: create one in each process")
        answer: Future[Run] = Future()
        if not windows:
            answer.set_result(Run(subnet or self._bundle.subnet, [], perf_counter()))
            return answer
        lengths = [len(ids) for ids, _ in windows]
        seconds = self.least_seconds(windows, subnet)
        call = _Call(
            lengths, called + deadline, deadline, subnet, windows=list(windows), seconds=seconds, answer=answer
        )
        answer.add_done_callback(partial(self._withdraw, call))
        with self._lock:
            self._queue.append(call)
            self._arrived += len(windows)
            self._waiting_seconds += seconds
        self._bundle.submit(self._serve)
        return answer

    def observe_delay(self, run: Run) -> float:
        """Record that a call's predictions are made.

        Args:
            run: what the call got.

        Returns:
            The time.
        """
        now = perf_counter()
        self._statistics.observe_delay(now, now - run.ended)
        return now

    def seconds_until(self, windows: Sequence[Window], *, now: float, subnet: str | None = None) -> float:
        """Estimate after how many seconds a call that comes now would be answered, at the earliest.

        The fastest sub-network answers all calls before it, in full batches.

        Args:
            windows: the call's rows.
            now: the time.
            subnet: the sub-network that it asks for.

        Returns:
            Seconds.
        """
        seconds = self._waiting_seconds + self.least_seconds(windows, subnet)
        delay = self._delay if windows else 0.0  # until its caller has the answer
        return max(0.0, self._busy_until - now) + self._margin * seconds + delay

    def least_seconds(self, windows: Sequence[Window], subnet: str | None = None) -> float:
        """Return how long a call's rows take as parts of full batches on a machine that does nothing else.

        Args:
            windows: the call's rows.
            subnet: the sub-network that it asks for; by default the fastest one.

        Returns:
            Seconds.
        """
        padded = [padded_length(len(ids), self._bundle.max_seq_length) for ids, _ in windows]
        return sum(self._row_seconds[subnet or self._fastest][length] for length in padded)

    def _share_of_row(self, seconds: dict[Shape, float]) -> dict[int, float]:
        """For each padded length, the share of one row in the run time of a full batch."""
        rows = {length: max_rows(length) if self._share else 1 for _, length in seconds}
        return {length: seconds[count, length] / count for length, count in rows.items()}

    def _withdraw(self, call: _Call, answer: Future[Run]) -> None:
        if answer.cancelled():
            with self._lock:
                if any(other is call for other in self._queue):
                    self._queue = deque(other for other in self._queue if other is not call)
                    self._subtract(call)

    def _subtract(self, call: _Call) -> None:
        """Subtract a call that has left the queue; sums of floats drift, so an empty queue sets them right."""
        self._waiting_seconds = self._waiting_seconds - call.seconds if self._queue else 0.0

    def _serve(self) -> None:
        """Answer all queued calls.

        Every call submits this once, but one batch may answer several calls, and an interrupted call may be queued
        without a submission.
        """
        while self._serve_batch():
            pass

    def _serve_batch(self) -> bool:
        """Answer the call at the head of the queue, and those that share its batch; returns whether there were any."""
        began = perf_counter()
        with self._lock:
            waiting, arrived = list(islice(self._queue, LOOK_AHEAD)), self._arrived
        if not waiting:
            return False
        calls = waiting  # an error before the choice goes to all of them
        try:
            subnet, count = self._choose(waiting, began)
            calls = self._take(waiting[:count])
            windows = [window for call in calls for window in call.windows]
            expected = self._cost(subnet, 1.0, [len(ids) for ids, _ in windows])
            self._busy_until = began + self._margin * expected
            logits = iter(self._run(subnet, windows))
            ended = perf_counter()
            if expected:  # not all of them were cancelled
                self._statistics.observe_run(
                    ended, expected=expected, seconds=ended - began, arrived=self._arrived - arrived
                )
        except BaseException as error:
            for call in self._take(calls):
                call.answer.set_exception(error)
            return True
        for call in calls:
            call.answer.set_result(Run(subnet, list(islice(logits, len(call.windows))), ended))
        return True

    def _take(self, calls: Sequence[_Call]) -> list[_Call]:
        """Take calls out of the queue; returns those that were not cancelled."""
        with self._lock:
            taken = set(map(id, calls))
            while self._queue and id(self._queue[0]) in taken:  # they are the first ones
                self._subtract(self._queue.popleft())
        return [call for call in calls if call.answer.running() or call.answer.set_running_or_notify_cancel()]

    def _choose(self, waiting: Sequence[QueuedCall], began: float) -> tuple[str, int]:
        self._margin, self._delay, rate = self._statistics.summarize(began)
        costs: dict[str, Cost] = {subnet: partial(self._cost, subnet, self._margin) for subnet in self._seconds}
        # The delay after a run is the same for all sub-networks, so it counts as if the run began later.
        return choose(waiting, costs, now=began + self._delay, rate=rate, share=self._share)

    def _cost(self, subnet: str, margin: float, lengths: Sequence[int]) -> float:
        batches = split_batches(lengths, self._bundle.max_seq_length)
        return margin * sum(self._seconds[subnet][shape] for _, shape in batches)

    def _run(self, subnet: str, windows: list[Window]) -> list[np.ndarray]:
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
        measured = {subnet: dict.fromkeys(sizes, 0.0) for subnet in subnets}
        for number, subnet, (rows, length) in product(range(_CALIBRATION_ROUNDS), subnets, sizes):
            least = 2 if rows * length <= _SMALL_TOKENS else 1
            if number > least and measured[subnet][rows, length] >= _CALIBRATION_SECONDS:
                continue
            windows = [([0] * length, [0] * length)] * rows
            began = perf_counter()
            self._run(subnet, windows)
            seconds = perf_counter() - began
            if number:
                measured[subnet][rows, length] += seconds
                best[subnet][rows, length] = min(best[subnet][rows, length], seconds)
        return {subnet: without_outliers(seconds) for subnet, seconds in best.items()}


@dataclass(frozen=True, eq=False)
class _Call(QueuedCall):
    windows: list[Window] = field(kw_only=True)
    seconds: float = field(kw_only=True)  # of its rows as parts of full batches
    answer: Future[Run] = field(kw_only=True)
