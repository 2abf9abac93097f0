"""Adaptive prediction: each call is answered by the best sub-network of a bundle that meets its deadline."""

from __future__ import annotations

import gc
import logging
import sys
from collections.abc import Iterable, Mapping, Sequence
from math import inf, isnan
from numbers import Real
from pathlib import Path
from time import perf_counter
from typing import Any

import numpy as np

from dynabert_paddle.bundle.errors import as_dynabert_error
from dynabert_paddle.errors import UsageError
from dynabert_paddle.runtime.cores import num_cores
from dynabert_paddle.runtime.environment import set_cpu_environment
from dynabert_paddle.serving.queue import BatchQueue, open_bundle
from dynabert_paddle.text.decode import AnyPrediction

logger = logging.getLogger(__name__)

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

    @property
    def vectors(self) -> np.ndarray:
        """The texts' vectors, `[n, d]` float32, for embeddings."""
        return np.array([prediction.vector for prediction in self], dtype=np.float32)


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
        threshold: as for a `Predictor`.
        top_k: as for a `Predictor`.
        output_dim: as for a `Predictor`.

    Raises:
        DynabertError: a file of the bundle is missing or altered, or a runtime is missing or cannot run it.
    """

    def __init__(
        self,
        bundle: str | Path,
        *,
        device: str = "cpu",
        num_threads: int | None = None,
        decode: str | None = None,
        threshold: float | Mapping[str, float] | None = None,
        top_k: int | None = None,
        output_dim: int | None = None,
    ) -> None:
        set_cpu_environment()
        with as_dynabert_error():
            threads = max(1, num_cores() - 1) if num_threads is None else num_threads
            options: dict[str, Any] = {"decode": decode, "threshold": threshold, "top_k": top_k}
            options["output_dim"] = output_dim
            self._bundle = open_bundle(bundle, device=device, num_threads=threads, **options)
            self._queue = BatchQueue(self._bundle)
        for warning in self._bundle.warnings:
            logger.warning("%s: %s", bundle, warning)
        shorten_pauses()

    @property
    def labels(self) -> list[str]:
        """The classes, in the order of the model's outputs; empty for regression."""
        return self._bundle.labels

    @property
    def latencies_ms(self) -> dict[str, float]:
        """Latency of each sub-network for one short text, as calibrated at load; the best sub-network comes first."""
        return self._queue.latencies_ms

    def __call__(
        self,
        texts: str | Sequence[str],
        pairs: str | Sequence[str] | None = None,
        *,
        deadline_ms: float = inf,
        role: str | None = None,
    ) -> TimedPredictions:
        """Predict with the best sub-network that meets the deadlines of this call and of the calls queued behind it.

        If none can meet them, the fastest sub-network answers, and `on_time` of the result is false if it was late.

        Args:
            texts: as for a `Predictor`.
            pairs: as for a `Predictor`.
            deadline_ms: milliseconds from the call until the predictions are due; by default there is no deadline.
            role: for embeddings, what the texts are, `document` or `query`; by default documents.

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
            encoded = self._bundle.encode(list(self._bundle.rows(texts, pairs)), role=role)
            windows = [window for row in encoded for window in row.windows]
            run = self._queue.put(windows, called=called, deadline=deadline_ms / 1000).result()
        parts = iter(run.logits)
        predictions = [row.decode([next(parts) for _ in row.windows], run.subnet) for row in encoded]
        latency_ms = 1000 * (self._queue.observe_delay(run) - called)
        return TimedPredictions(
            predictions, subnet=run.subnet, latency_ms=latency_ms, on_time=latency_ms <= deadline_ms
        )


def shorten_pauses() -> None:
    """Shorten Python's own pauses, which can exceed a deadline; both settings hold for the rest of the process."""
    # A full garbage collection visits every object of Paddle's modules, which takes some 80 ms.
    gc.collect()
    gc.freeze()
    # After a run, the runtime's thread waits for up to this interval for each busy thread of a caller.
    sys.setswitchinterval(min(sys.getswitchinterval(), _SWITCH_INTERVAL))
