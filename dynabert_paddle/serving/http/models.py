"""The bundles that a worker serves: each with its queue, and the answer to one request."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from enum import Enum
from functools import partial
from math import ceil, inf
from pathlib import Path
from time import perf_counter
from typing import Any, TypeVar

from dynabert_paddle.bundle.infer import Bundle
from dynabert_paddle.bundle.manifest import RowError
from dynabert_paddle.bundle.rows import Encoded
from dynabert_paddle.errors import did_you_mean
from dynabert_paddle.files.hashing import hash_json
from dynabert_paddle.serving.adaptive import TimedPredictions
from dynabert_paddle.serving.http.problems import Problem
from dynabert_paddle.serving.http.requests import Row
from dynabert_paddle.serving.http.settings import Limits
from dynabert_paddle.serving.queue import BatchQueue, Run, Window, open_bundle

T = TypeVar("T")
Receive = Callable[[], Awaitable[Any]]

# Below this a request is encoded in the event loop: in another thread it would wait longer than it takes.
_INLINE_CHARACTERS = 4000
# Longer ones; the tokenizer releases the GIL. What is answered is not to wait for what is still to be encoded.
_encoders, _decoders = ThreadPoolExecutor(2, "dynabert-encode"), ThreadPoolExecutor(1, "dynabert-decode")


class Disconnected(Exception):
    """The client has gone away, so nobody waits for the answer."""


class ServedModel:
    """A bundle and the queue of its requests.

    Args:
        name: its name in requests.
        bundle: with all its sub-networks loaded.
        limits: of requests.
    """

    def __init__(self, name: str, bundle: Bundle, limits: Limits) -> None:
        self.name, self._bundle, self._limits = name, bundle, limits
        self.queue = BatchQueue(bundle)
        self.kind, self.labels, self.takes_pairs = bundle.kind, bundle.labels, bundle.takes_pairs
        size = bundle.description.get("vector_size")
        self.vector_shape: list[int] = [] if size is None else [size]
        self.subnets = list(self.queue.latencies_ms)
        self._num_encoding = 0  # requests
        self.version = hash_json(bundle.description)[:12]

    @property
    def warnings(self) -> list[str]:
        """A line each of what the bundle's user should know about this processor."""
        return self._bundle.warnings

    async def predict(
        self,
        rows: Sequence[Row],
        receive: Receive,
        *,
        arrived: float,
        deadline_ms: float | None = None,
        subnet: str | None = None,
        role: str | None = None,
    ) -> TimedPredictions:
        """Answer a request.

        Args:
            rows: its texts.
            receive: the request's ASGI channel, after its body; tells when the client goes away.
            arrived: time at which the request came.
            deadline_ms: milliseconds from then until the answer is due; by default the server's.
            subnet: the sub-network that answers; by default the best that is in time.
            role: what texts to embed are; by default documents.

        Returns:
            The predictions.

        Raises:
            Problem: no such sub-network, or the queue is full, or so full that the answer would be late.
            Disconnected: the client has gone away.
        """
        if subnet is not None and subnet not in self.subnets:
            raise Problem(
                404,
                "unknown_subnet",
                f"bundle '{self.name}' has no sub-network '{subnet[:100]}', only {', '.join(self.subnets)}."
                f"{did_you_mean(subnet, self.subnets)}",
            )
        if self._num_encoding + self.queue.num_waiting >= self._limits.queue_size:  # before any work for it
            raise self._refusal("queue_full", self.queue.seconds_until([], now=arrived))
        due_ms = deadline_ms or self._limits.deadline_ms or inf
        is_long = _num_characters(rows) > _INLINE_CHARACTERS
        self._num_encoding += 1
        try:
            encoded = await _call(partial(self._bundle.encode, role=role), rows, threads=_encoders if is_long else None)
        except RowError as error:
            raise Problem(422, "invalid_value", str(error)) from None
        finally:
            self._num_encoding -= 1
        windows = [window for row in encoded for window in row.windows]
        self._check_time(windows, arrived=arrived, deadline=due_ms / 1000, subnet=subnet)
        future = self.queue.put(windows, called=arrived, deadline=due_ms / 1000, subnet=subnet)
        run = await _unless_gone(asyncio.wrap_future(future), receive)
        predictions = await _call(_decode, encoded, run, threads=_decoders if is_long else None)
        latency_ms = 1000 * (self.queue.observe_delay(run) - arrived)
        return TimedPredictions(predictions, subnet=run.subnet, latency_ms=latency_ms, on_time=latency_ms <= due_ms)

    def _check_time(self, windows: Sequence[Window], *, arrived: float, deadline: float, subnet: str | None) -> None:
        """Refuse a request that those before it would make late, rather than to answer all of them late."""
        now = perf_counter()
        before = self.queue.seconds_until([], now=now)
        after = self.queue.seconds_until(windows, now=now, subnet=subnet)
        # A deadline that is too short even for a free machine is the client's choice: such a request is answered late.
        if before and self.queue.least_seconds(windows, subnet) <= deadline < now - arrived + after:
            raise self._refusal("deadline", before)

    def _refusal(self, code: str, seconds: float) -> Problem:
        message = {
            "queue_full": f"{self._limits.queue_size} requests wait for bundle '{self.name}': try again later",
            "deadline": f"the requests that wait for bundle '{self.name}' leave no time for this one: try again later",
        }[code]
        return Problem(503, code, message, {"Retry-After": str(max(1, ceil(seconds)))})


class State(Enum):
    """Whether a worker answers."""

    LOADING, READY, DRAINING = "loading", "ready", "draining"


class Models:
    """The bundles by name, and whether they can be asked."""

    def __init__(self) -> None:
        self.state = State.LOADING
        self._models: dict[str, ServedModel] = {}

    def load(
        self, bundles: Sequence[tuple[str, str]], limits: Limits, *, device: str, num_threads: int
    ) -> list[ServedModel]:
        """Load the bundles, and warm each of their sub-networks up.

        Args:
            bundles: name and folder of each.
            limits: of requests.
            device: `cpu`, `gpu` or `gpu:N`.
            num_threads: CPU threads for each.

        Returns:
            The loaded ones.

        Raises:
            BundleError: one of them cannot be run.
        """
        for name, folder in bundles:
            bundle = open_bundle(Path(folder), device=device, num_threads=num_threads)
            self._models[name] = ServedModel(name, bundle, limits)
        self.state = State.READY
        return list(self._models.values())

    def __iter__(self) -> Any:
        """Iterate over the loaded bundles."""
        return iter(tuple(self._models.values()))

    def find(self, name: str | None) -> ServedModel:
        """Find a bundle.

        Args:
            name: its name; None for the only one.

        Returns:
            The bundle.

        Raises:
            Problem: the bundles are still loading, there is no such one, or there are several.
        """
        if self.state is State.LOADING:
            raise Problem(503, "loading", "the bundles are still loading: try again later", {"Retry-After": "1"})
        names = list(self._models)
        if name is None:
            if len(names) > 1:
                raise Problem(422, "missing_input", f"several bundles are served: give 'model', {_one_of(names)}")
            name = names[0]
        if name not in self._models:
            hint = did_you_mean(name, names)
            raise Problem(404, "unknown_model", f"no bundle '{name[:100]}' is served, only {', '.join(names)}.{hint}")
        return self._models[name]


async def _call(function: Callable[..., T], *arguments: Any, threads: ThreadPoolExecutor | None) -> T:
    """Call a function here, or in other threads."""
    if threads is None:
        return function(*arguments)
    return await asyncio.get_running_loop().run_in_executor(threads, function, *arguments)


def _decode(encoded: Sequence[Encoded], run: Run) -> list[Any]:
    parts = iter(run.logits)
    return [row.decode([next(parts) for _ in row.windows], run.subnet) for row in encoded]


async def _unless_gone(answer: asyncio.Future[T], receive: Receive) -> T:
    """Wait for an answer; cancel it if the client goes away first."""
    gone = asyncio.ensure_future(_disconnected(receive))
    try:
        await asyncio.wait((answer, gone), return_when=asyncio.FIRST_COMPLETED)
        if answer.done():
            return answer.result()
        raise Disconnected
    finally:
        answer.cancel()
        gone.cancel()


async def _disconnected(receive: Receive) -> None:
    while (await receive())["type"] != "http.disconnect":
        pass


def _num_characters(rows: Sequence[Row]) -> int:
    return sum(len(text) if isinstance(text, str) else sum(map(len, text)) for row in rows for text in row)


def _one_of(names: Sequence[str]) -> str:
    return names[0] if len(names) == 1 else f"one of {', '.join(names)}"
