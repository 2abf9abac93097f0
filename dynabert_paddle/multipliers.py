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

# A fraction with a denominator up to that, as of the layers and heads of usual models, has so many decimals in a name;
# two such fractions differ by more than these hide.
_MAX_NAMED, _DECIMALS = 24, 4
_MAX_DENOMINATOR = 1000  # of a fraction that a multiplier can be; far from what another decimal could be taken for

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
    return Mults(*(_parse_decimals(text or "1") for text in match.groups())) if match else None


def parse_mults(values: str | float | Iterable[float]) -> tuple[float, ...]:
    """Read multipliers as Paddle users write them on a command line or in YAML.

    Args:
        values: a number, numbers, or a string of numbers with commas or spaces between them; a number can be a
            fraction, `2/3`.

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
        mults = tuple(sorted({_read_number(word) for word in words}, reverse=True))
    except (TypeError, ValueError, ZeroDivisionError):
        raise UsageError(f"multipliers are numbers such as '1.0 0.75 0.5' or '3/4 2/3 1/2', not {values!r}") from None
    if not mults or not all(0 < mult <= 1 for mult in mults):
        raise UsageError(f"at least one multiplier is needed, and all lie in (0, 1], not {values!r}")
    return mults


def exact(mult: float) -> Fraction:
    """The number that the user wrote, so that 3 / 0.6 is 5, halves are halves, and two thirds are 2/3."""
    fraction = Fraction(mult).limit_denominator(_MAX_DENOMINATOR)
    return fraction if float(fraction) == mult else Fraction(str(mult))


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


def _read_number(word: Any) -> float:
    return float(Fraction(word)) if isinstance(word, str) and "/" in word else float(word)


def _decimals(mult: float) -> str:
    """Two decimals as in the paper, more only where two would not read back as the same number; of 2/3 four."""
    if float(f"{mult:.2f}") == mult:
        return f"{mult:.2f}"
    is_long = len(repr(mult).partition(".")[2]) > _DECIMALS
    rounded = f"{mult:.{_DECIMALS}f}"
    return rounded if is_long and _parse_decimals(rounded) == mult else repr(mult)


def _parse_decimals(text: str) -> float:
    """Read a multiplier in a name: four decimals are those of the fraction that they are rounded from, if any is."""
    mult = float(text)
    if len(text.partition(".")[2]) != _DECIMALS or not 0 < mult < 1:
        return mult
    fraction = float(Fraction(mult).limit_denominator(_MAX_NAMED))
    return fraction if f"{fraction:.{_DECIMALS}f}" == f"{mult:.{_DECIMALS}f}" else mult
