"""Scheduling for a `BatchQueue`: batch shapes, current run times, choice of the next batch and its sub-network.

Nothing here runs a model. Times are in seconds. Batches have few shapes, because a runtime takes some 0.1 s to set up a
new one.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import count, takewhile
from math import ceil, sqrt

from dynabert_paddle.bundle.infer import power_of_two

LOOK_AHEAD = 64  # queued calls that a choice considers; more would cost time and not change it

_MIN_LENGTH = 16  # tokens; shorter rows are padded to it
_BATCH_TOKENS = 256  # larger batches delay their first rows and gain little
_WINDOW_SECONDS = 2.0  # older observations are dropped
_DEFAULT_MARGIN = 1.25  # factor on the calibrated times while there are no observations
_QUANTILE = 0.99

Shape = tuple[int, int]  # rows, tokens a row
Cost = Callable[[Sequence[int]], float]  # seconds for rows of these numbers of tokens


@dataclass(frozen=True, eq=False)
class QueuedCall:
    """A call in the queue.

    Args:
        lengths: tokens of each of its rows.
        due: time at which its answer is due.
        deadline: seconds from its arrival to `due`.
        subnet: the sub-network that it asks for; None for a free choice.
    """

    lengths: list[int]
    due: float
    deadline: float
    subnet: str | None = None


def batch_shapes(max_seq_length: int) -> list[Shape]:
    """List the shapes that batches are padded to: at most 16 for up to 512 tokens.

    Args:
        max_seq_length: maximum tokens of a row.

    Returns:
        All combinations of a length (a power of two, or `max_seq_length`) and a number of rows (a power of two).
    """
    powers = takewhile(lambda length: length < max_seq_length, (_MIN_LENGTH << i for i in count()))
    lengths = [*powers, max_seq_length]
    return [(2**i, length) for length in lengths for i in range(max_rows(length).bit_length())]


def without_outliers(seconds: dict[Shape, float]) -> dict[Shape, float]:
    """Lower run times that other processes have made longer: no shape takes longer than one that contains it.

    Args:
        seconds: measured for each shape.

    Returns:
        For each shape the least run time of those with at least as many rows of at least as many tokens.
    """
    return {
        (rows, length): min(time for (more, longer), time in seconds.items() if more >= rows and longer >= length)
        for rows, length in seconds
    }


def split_batches(lengths: Sequence[int], max_seq_length: int) -> list[tuple[list[int], Shape]]:
    """Split rows into batches, the longest rows first.

    Args:
        lengths: tokens of each row.
        max_seq_length: maximum tokens of a row.

    Returns:
        For each batch the indices of its rows, and its shape.
    """
    if lengths and len(lengths) <= max_rows(length := padded_length(max(lengths), max_seq_length)):
        return [(list(range(len(lengths))), (power_of_two(len(lengths)), length))]
    order = sorted(range(len(lengths)), key=lambda i: -lengths[i])
    batches = []
    start = 0
    while start < len(order):
        length = padded_length(lengths[order[start]], max_seq_length)
        rows = order[start : start + max_rows(length)]
        batches.append((rows, (power_of_two(len(rows)), length)))
        start += len(rows)
    return batches


def choose(
    queue: Sequence[QueuedCall], costs: dict[str, Cost], *, now: float, rate: float, share: bool = True
) -> tuple[str, int]:
    """Choose the calls of the next batch, and the sub-network that answers them.

    The batch holds the calls at the head of the queue. The sub-network is the best one with which all deadlines can be
    met: those of the batch, and, if the fastest sub-network runs all later batches, those of the other queued calls and
    of as many new calls as are expected to arrive during the run. If there is none, it is the fastest one. A call that
    asks for a sub-network gets it, and shares a batch only with calls that ask for the same.

    Args:
        queue: the queued calls in order of arrival.
        costs: run time of each sub-network for some rows, the best sub-network first.
        now: the time.
        rate: rows that arrive per second while a batch runs.
        share: whether calls may share a batch.

    Returns:
        The sub-network, and how many calls it answers.
    """
    fastest = min(costs, key=lambda subnet: costs[subnet](queue[0].lengths))

    def seconds_of(calls: Sequence[QueuedCall]) -> float:
        return costs[calls[0].subnet or fastest](_lengths(calls))

    batches = _batch_calls(queue, seconds_of, now, share=share)
    if batches[0][0].subnet:
        return batches[0][0].subnet, len(batches[0])
    latest_end = min(call.due for call in batches[0])
    seconds_behind = 0.0
    for batch in batches[1:]:
        seconds_behind += seconds_of(batch)
        latest_end = min(latest_end, min(call.due for call in batch) - seconds_behind)
    lengths = _lengths(batches[0])
    shortest_deadline = min(call.deadline for call in batches[0])
    for subnet, cost in costs.items():
        seconds = cost(lengths)
        expected = rate * seconds
        # One standard deviation above the mean of a Poisson process.
        arriving = [max(lengths)] * ceil(expected + sqrt(expected)) if rate else []
        if now + seconds <= latest_end and seconds + costs[fastest](arriving) <= shortest_deadline:
            return subnet, len(batches[0])
    return fastest, len(batches[0])


class LoadStatistics:
    """Run times relative to calibration, delays after runs, and arrivals, observed over the last two seconds."""

    def __init__(self) -> None:
        self._runs: deque[tuple[float, float, float, int]] = deque(maxlen=256)
        self._delays: deque[tuple[float, float]] = deque(maxlen=256)

    def observe_run(self, now: float, *, expected: float, seconds: float, arrived: int) -> None:
        """Record a run.

        Args:
            now: the time.
            expected: its run time according to the calibration at load.
            seconds: its actual run time.
            arrived: rows that arrived during the run.
        """
        self._runs.append((now, seconds / expected, seconds, arrived))

    def observe_delay(self, now: float, seconds: float) -> None:
        """Record the time from the end of a run until a caller had its answer.

        Args:
            now: the time.
            seconds: the delay.
        """
        self._delays.append((now, seconds))

    def summarize(self, now: float) -> tuple[float, float, float]:
        """Summarize the recent observations.

        Args:
            now: the time.

        Returns:
            The factor on the calibrated times, and the delay after a run in seconds, that 99 % of the runs do not
            exceed; and the rows that arrive per second while batches run.
        """
        runs, delays = _recent(self._runs, now), _recent(self._delays, now)
        margin = _high_quantile([ratio for _, ratio, _, _ in runs], default=_DEFAULT_MARGIN)
        delay = _high_quantile([seconds for _, seconds in delays], default=0.0)
        running = sum(seconds for _, _, seconds, _ in runs)
        return margin, delay, sum(arrived for *_, arrived in runs) / running if runs else 0.0


def _recent(observations: deque, now: float) -> tuple:
    """Drop old observations; returns a copy of the others, because other threads may append meanwhile."""
    while observations and now - observations[0][0] > _WINDOW_SECONDS:
        observations.popleft()
    return tuple(observations)


def _batch_calls(
    queue: Sequence[QueuedCall], seconds_of: Callable[[Sequence[QueuedCall]], float], now: float, *, share: bool
) -> list[list[QueuedCall]]:
    """Fill batches in order of arrival; a call starts a new batch if joining would make a call of the batch late."""
    batches, begin = [[queue[0]]], now
    for call in queue[1:]:
        batch, due = batches[-1], min(other.due for other in batches[-1])
        lengths = _lengths([*batch, call])
        fits = share and call.subnet == batch[0].subnet and len(lengths) <= max_rows(max(lengths))
        late_anyway = begin + seconds_of(batch) > due
        if fits and (late_anyway or begin + seconds_of([*batch, call]) <= due):
            batch.append(call)
        else:
            begin += seconds_of(batch)
            batches.append([call])
    return batches


def _lengths(calls: Sequence[QueuedCall]) -> list[int]:
    return [length for call in calls for length in call.lengths]


def padded_length(length: int, max_seq_length: int) -> int:
    """Return the number of tokens that a row of a length is padded to."""
    return min(max_seq_length, max(_MIN_LENGTH, power_of_two(length)))


def max_rows(length: int) -> int:
    """Return the maximum rows of a padded length in a batch: a power of two."""
    return 1 << (max(1, _BATCH_TOKENS // length).bit_length() - 1)


def _high_quantile(values: Sequence[float], *, default: float) -> float:
    return sorted(values)[ceil(_QUANTILE * len(values)) - 1] if values else default
