"""Multipliers: the shares of a model that make the cells of a grid, how they are written, and what they keep.

Pure Python: nothing here needs Paddle.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from fractions import Fraction
from math import floor
from typing import Any, NamedTuple

from dynabert_paddle.errors import UsageError

WIDTH_MULTS = (1.0, 0.75, 0.5, 0.25)
DEPTH_MULTS = (1.0, 0.75, 0.5)
RANK_MULTS = (1.0, 0.75, 0.5, 0.25)

FULL_NAME = "w1.00d1.00"  # of the cell that is the whole model

_GRID_NAME = re.compile(r"w(\d*\.?\d+)d(\d*\.?\d+)(?:r(\d*\.?\d+))?")


class Mults(NamedTuple):
    """The multipliers of a grid cell.

    Args:
        width: share of heads and neurons.
        depth: share of layers.
        rank: share of the word embedding's components.
    """

    width: float
    depth: float
    rank: float = 1.0

    def __str__(self) -> str:
        """The cell's name, `w0.50d0.75`, and for a part of the embedding `w0.50d0.75r0.25`."""
        rank = "" if self.rank == 1 else f"r{_decimals(self.rank)}"
        return f"w{_decimals(self.width)}d{_decimals(self.depth)}{rank}"


def grid_mults(name: str) -> Mults | None:
    """Read the multipliers out of a grid cell's name.

    Args:
        name: for example `w0.50d0.75` or `w0.50d0.75r0.25`.

    Returns:
        The multipliers; None where the name is no grid cell's.
    """
    match = _GRID_NAME.fullmatch(name)
    return Mults(float(match[1]), float(match[2]), float(match[3] or 1)) if match else None


def parse_mults(values: str | float | Iterable[float]) -> tuple[float, ...]:
    """Read multipliers as Paddle users write them on a command line or in YAML.

    Args:
        values: a number, numbers, or a string of numbers with commas or spaces between them.

    Returns:
        The multipliers, each once, in descending order.

    Raises:
        UsageError: no number, or one that is not in (0, 1].
    """
    try:
        words: Iterable[Any]
        if isinstance(values, Iterable) and not isinstance(values, str):
            words = values
        else:
            words = str(values).replace(",", " ").split()
        mults = tuple(sorted({float(word) for word in words}, reverse=True))
    except (TypeError, ValueError):
        raise UsageError(f"multipliers are numbers such as '1.0 0.75 0.5', not {values!r}") from None
    if not mults or not all(0 < mult <= 1 for mult in mults):
        raise UsageError(f"at least one multiplier is needed, and all lie in (0, 1], not {values!r}")
    return mults


def exact(mult: float) -> Fraction:
    """The decimal that the user wrote, so that 3 / 0.6 is 5 and halves are halves."""
    return Fraction(str(mult))


def share(mult: float, count: int, what: str, why: str) -> int:
    """Compute `round(mult * count)`, halves rounded up, at least one.

    Args:
        mult: the multiplier.
        count: how many there are.
        what: what is counted, for the error.
        why: the multiplier's name and value, for the error.

    Returns:
        How many to keep.

    Raises:
        UsageError: the multiplier leaves none.
    """
    kept = floor(exact(mult) * count + Fraction(1, 2))
    if kept < 1:
        raise UsageError(f"{why} leaves no {what} of {count}: use at least {1 / (2 * count):.3g}")
    return kept


def _decimals(mult: float) -> str:
    """Two decimals as in the paper, more only where two would not read back as the same number."""
    return f"{mult:.2f}" if float(f"{mult:.2f}") == mult else repr(mult)
