"""Which sub-networks are chosen from measurements with errors; pure NumPy.

A cell of the grid is replaced only by a sub-network that is better by more than the error.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from dynabert_paddle.searching.estimate import Estimate, error_margin


@dataclass(frozen=True, eq=False)
class Candidate:
    """A sub-network with what decides whether it is chosen.

    Args:
        name: its name.
        costs: by name.
        is_cell: whether it is a cell of the grid.
        quality: more is better; all candidates are measured on the same examples.
        checks: likewise on other examples; one that is worse there by more than a standard error beats nothing.
    """

    name: str
    costs: Mapping[str, float]
    is_cell: bool
    quality: Estimate
    checks: Sequence[Estimate] = ()


@dataclass(frozen=True)
class Selection:
    """The rule.

    Args:
        goals: names of the costs to minimize.
        num_compared: how many sub-networks outside the grid were compared to find the candidates.
    """

    goals: tuple[str, ...]
    num_compared: int

    def beats(self, candidate: Candidate, rival: Candidate) -> bool:
        """Whether a candidate is better than a rival by more than the error, and no check contradicts that."""
        difference = candidate.quality.minus(rival.quality)
        if not difference.value > error_margin(difference, self.num_compared):
            return False
        checks = [mine.minus(theirs) for mine, theirs in zip(candidate.checks, rival.checks, strict=True)]
        return not any(check.value < -check.error for check in checks)

    def rank(self, candidates: Sequence[Candidate]) -> list[Candidate]:
        """Order candidates by preference.

        Args:
            candidates: those within the budget, or any others to choose from.

        Returns:
            First the one to choose, then the one to choose without the first, and so on: the best of those that beat
            the best cell, or that cell. Of equal ones the cheapest comes first.
        """
        left = sorted(candidates, key=lambda one: (-one.quality.value, not one.is_cell, *self._costs(one)))
        ranked = []
        while left:
            cell = next((one for one in left if one.is_cell), None)
            chosen = next(one for one in left if cell is None or one is cell or self.beats(one, cell))
            left.remove(chosen)
            ranked.append(chosen)
        return ranked

    def front(self, candidates: Sequence[Candidate]) -> list[Candidate]:
        """Find the Pareto front.

        A cell is left out if another one is as good at no more cost, or a sub-network outside the grid beats it. One
        outside the grid must beat all cells, and be better than the others, at no more cost.

        Args:
            candidates: all that were found.

        Returns:
            The front in ascending cost.
        """
        front: list[Candidate] = []
        for one in sorted(candidates, key=lambda one: (*self._costs(one), not one.is_cell, -one.quality.value)):
            rivals = [other for other in front if self._is_no_dearer(other, one)]
            cells = [other for other in candidates if other.is_cell and self._is_no_dearer(other, one)]
            if one.is_cell:
                is_beaten = any(self._replaces(other, one) for other in rivals)
            else:
                is_beaten = any(other.quality.value >= one.quality.value for other in rivals if not other.is_cell)
                is_beaten = is_beaten or not all(self.beats(one, cell) for cell in cells)
            if not is_beaten:
                front.append(one)
        return front

    def _replaces(self, other: Candidate, cell: Candidate) -> bool:
        return other.quality.value >= cell.quality.value if other.is_cell else self.beats(other, cell)

    def _costs(self, one: Candidate) -> tuple[float, ...]:
        return tuple(one.costs[goal] for goal in self.goals)

    def _is_no_dearer(self, one: Candidate, other: Candidate) -> bool:
        return all(a <= b for a, b in zip(self._costs(one), self._costs(other), strict=True))
