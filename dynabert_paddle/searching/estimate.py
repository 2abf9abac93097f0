"""A measurement with its error; pure NumPy.

What two sub-networks have in common on the same examples cancels in the differences of their values, so that the error
of a difference is far smaller than that of each.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

LEVEL = 0.05  # probability that a difference is taken for more than chance although there is none


class Estimate(NamedTuple):
    """A measurement.

    Args:
        value: the measure on all examples.
        parts: `[n]`, the values of single examples, or a jackknife's pseudo-values of groups of them. Their spread
            gives the standard error, and of two sub-networks on the same examples that of the difference.
    """

    value: float
    parts: np.ndarray

    @property
    def error(self) -> float:
        """The standard error."""
        return standard_error(self.parts)

    def negated(self) -> Estimate:
        """The same measurement where less is better."""
        return Estimate(0.0 - self.value, 0.0 - self.parts)  # never -0.0, which a report would show

    def minus(self, other: Estimate) -> Estimate:
        """The difference to another measurement on the same examples."""
        return Estimate(self.value - other.value, self.parts - other.parts)


def join(estimates: Sequence[Estimate]) -> Estimate:
    """Join measurements of one sub-network on different examples, all with the same weight."""
    if len(estimates) == 1:
        return estimates[0]
    parts = np.concatenate([estimate.parts for estimate in estimates])
    return Estimate(float(parts.mean()), parts)


def standard_error(values: np.ndarray) -> float:
    """Return the standard error of the mean of independent values; infinite for fewer than two."""
    return float(values.std(ddof=1)) / math.sqrt(len(values)) if len(values) > 1 else math.inf


def error_margin(difference: Estimate, num_compared: int = 1, *, two_sided: bool = False) -> float:
    """Compute how far from 0 a difference must be to be more than chance.

    Args:
        difference: of two candidates.
        num_compared: how many candidates were compared to find the best (Bonferroni).
        two_sided: whether it was open which of the two is better.

    Returns:
        The quantile of Student's t distribution for `LEVEL`, times the standard error.
    """
    from scipy.stats import t

    if len(difference.parts) < 2:
        return math.inf
    quantile = t.isf(LEVEL / (num_compared * (1 + two_sided)), len(difference.parts) - 1)
    return float(quantile) * difference.error


def num_needed(difference: Estimate, num_examples: int, size: float) -> int | None:
    """Estimate how many examples would show a difference of a certain size.

    Args:
        difference: of two candidates, measured.
        num_examples: the number of examples that it was measured on.
        size: the size of the difference that is to be seen.

    Returns:
        The number; None if the examples do not tell how much the differences vary.
    """
    margin = error_margin(difference, two_sided=True)
    return math.ceil(num_examples * (margin / abs(size)) ** 2) if 0 < margin < math.inf and size else None
