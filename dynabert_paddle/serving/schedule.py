"""Which sub-network answers whom, and when: batches, what they cost now, and the choice. Nothing here runs a model.

Times are in seconds. A batch has one of a few shapes, for a runtime takes some 0.1 s to set up a new one.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from math import ceil, sqrt

from dynabert_paddle.bundle.infer import power_of_two

_SHORTEST = 16  # tokens that a row is padded to
_BATCH_TOKENS = 256  # more rows at a time would make the first ones wait for little
LOOK_AHEAD = 64  # waiting calls that a choice should mind: more cost time, and change nothing
_MEMORY = 2.0  # seconds that what was observed counts
_MARGIN = 1.25  # on what was measured at load, while nothing has been observed
_QUANTILE = 0.99

Shape = tuple[int, int]  # rows, tokens a row
Cost = Callable[[Sequence[int]], float]  # seconds for rows of so many tokens


@dataclass(frozen=True)
class Waiting:
    """A call that waits.

    Args:
        lengths: tokens of each of its rows.
        due: when its answer is.
        deadline: how long after its arrival that is.
    """

    lengths: list[int]
    due: float
    deadline: float


def shapes(max_seq_length: int) -> list[Shape]:
    """List the shapes that batches are padded to; for up to 512 tokens they are at most 16.

    Args:
        max_seq_length: tokens of the longest row.

    Returns:
        Powers of two of rows, for each length: powers of two and the longest itself.
    """
    lengths = sorted({_padded(length, max_seq_length) for length in range(1, max_seq_length + 1)})
    return [(2**i, length) for length in lengths for i in range(_most_rows(length).bit_length())]


def split(lengths: Sequence[int], max_seq_length: int) -> list[tuple[list[int], Shape]]:
    """Split rows into batches, the longest first.

    Args:
        lengths: tokens of each row.
        max_seq_length: tokens of the longest row that there can be.

    Returns:
        Each batch's rows, by their numbers, and its shape.
    """
    if lengths and len(lengths) <= _most_rows(length := _padded(max(lengths), max_seq_length)):
        return [(list(range(len(lengths))), (power_of_two(len(lengths)), length))]
    order, batches, start = sorted(range(len(lengths)), key=lambda i: -lengths[i]), [], 0
    while start < len(order):
        length = _padded(lengths[order[start]], max_seq_length)
        rows = order[start : start + _most_rows(length)]
        batches.append((rows, (power_of_two(len(rows)), length)))
        start += len(rows)
    return batches


def choose(waiting: Sequence[Waiting], costs: dict[str, Cost], *, now: float, rate: float) -> tuple[str, int]:
    """Choose who is answered next, by which sub-network.

    The calls that have waited longest share a batch. Theirs is the best sub-network with which they are on time, and
    with which everybody else can be, too, if the cheapest one serves them in turn: the other calls that wait, and as
    many new ones as arrive until then. Where none is, it is the cheapest.

    Args:
        waiting: the calls that wait, the first one first.
        costs: what each sub-network takes for rows, the best first.
        now: the time.
        rate: rows that arrive in a second while a batch runs.

    Returns:
        The sub-network, and how many calls it answers.
    """
    cheapest = min(costs, key=lambda subnet: costs[subnet](waiting[0].lengths))
    groups = _group(waiting, costs[cheapest], now)
    latest, behind = min(call.due for call in groups[0]), 0.0
    for group in groups[1:]:
        behind += costs[cheapest](_lengths(group))
        latest = min(latest, min(call.due for call in group) - behind)
    lengths = _lengths(groups[0])
    patience = min(call.deadline for call in groups[0])
    for subnet, cost in costs.items():
        seconds = cost(lengths)
        new = rate * seconds
        arriving = [max(lengths)] * ceil(new + sqrt(new)) if rate else []
        if now + seconds <= latest and seconds + costs[cheapest](arriving) <= patience:
            return subnet, len(groups[0])
    return cheapest, len(groups[0])


class Pace:
    """How fast the machine is now, against what was measured at load; what it has observed it forgets after seconds."""

    def __init__(self) -> None:
        self._runs: deque[tuple[float, float, float, int]] = deque(maxlen=256)
        self._rests: deque[tuple[float, float]] = deque(maxlen=256)

    def observe_run(self, now: float, *, expected: float, seconds: float, arrived: int) -> None:
        """Note what a run has taken.

        Args:
            now: the time.
            expected: what it should have taken, as measured at load.
            seconds: what it took.
            arrived: rows that have arrived meanwhile.
        """
        self._runs.append((now, seconds / expected, seconds, arrived))

    def observe_rest(self, now: float, seconds: float) -> None:
        """Note what has passed from the end of a run to the caller's having its answer.

        Args:
            now: the time.
            seconds: what it took.
        """
        self._rests.append((now, seconds))

    def now(self, now: float) -> tuple[float, float, float]:
        """Sum up what has been observed.

        Args:
            now: the time.

        Returns:
            What to multiply times measured at load with, so that runs rarely take longer; the seconds after a run that
            the rest rarely exceeds; and how many rows arrive in a second while batches run.
        """
        runs, rests = _recent(self._runs, now), _recent(self._rests, now)
        margin = _high([ratio for _, ratio, _, _ in runs], _MARGIN)
        rest = _high([seconds for _, seconds in rests], 0.0)
        running = sum(seconds for _, _, seconds, _ in runs)
        return margin, rest, sum(arrived for *_, arrived in runs) / running if runs else 0.0


def _recent(observed: deque, now: float) -> tuple:
    """What is not to be forgotten yet; a copy, for other threads may add to it."""
    while observed and now - observed[0][0] > _MEMORY:
        observed.popleft()
    return tuple(observed)


def _group(waiting: Sequence[Waiting], cost: Cost, now: float) -> list[list[Waiting]]:
    """Calls that share a batch: as many as fit into it, unless that alone would make one of them late."""
    groups, begin = [[waiting[0]]], now
    for call in waiting[1:]:
        group, due = groups[-1], min(other.due for other in groups[-1])
        lengths = _lengths([*group, call])
        fits = len(lengths) <= _most_rows(max(lengths))
        if fits and (begin + cost(lengths) <= due or begin + cost(_lengths(group)) > due):
            group.append(call)
        else:
            begin += cost(_lengths(group))
            groups.append([call])
    return groups


def _lengths(calls: Sequence[Waiting]) -> list[int]:
    return [length for call in calls for length in call.lengths]


def _padded(length: int, longest: int) -> int:
    return min(longest, max(_SHORTEST, power_of_two(length)))


def _most_rows(length: int) -> int:
    """Rows of a length in a batch: a power of two."""
    return 1 << (max(1, _BATCH_TOKENS // length).bit_length() - 1)


def _high(values: Sequence[float], default: float) -> float:
    return sorted(values)[ceil(_QUANTILE * len(values)) - 1] if values else default
