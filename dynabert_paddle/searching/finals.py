"""The end of a search: the candidates that are left, the front and the best of them, and their scores."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from dynabert_paddle.searching.choose import MeasureLatency, choose_best
from dynabert_paddle.searching.cost import Budget
from dynabert_paddle.searching.doubt import find_doubt
from dynabert_paddle.searching.estimate import Estimate
from dynabert_paddle.searching.halving import halve, num_contenders
from dynabert_paddle.searching.judge import CHECK, FRESH, Judge
from dynabert_paddle.searching.measuring import DIVERGENCE
from dynabert_paddle.searching.selection import Candidate, Selection
from dynabert_paddle.training.progress import show_progress

Row = dict[str, Any]
# Names of sub-networks, and the examples (see `Judge.sample`) -> the measures of each by name.
Measure = Callable[[Sequence[str], int | str], list[Mapping[str, Estimate]]]


@dataclass(frozen=True)
class Finals:
    """Chooses among the sub-networks that an evolution has scored.

    Args:
        cells: names of the cells of the grid.
        goals: names of the costs to minimize.
        budget: the limits.
        judge: the measurements.
        measure: carries them out.
        measure_latency: measures latencies, where the budget limits them.
    """

    cells: tuple[str, ...]
    goals: tuple[str, ...]
    budget: Budget
    judge: Judge
    measure: Measure
    measure_latency: MeasureLatency

    def run(self, rows: Sequence[Row], *, num_evaluated: int) -> Outcome:
        """Measure the most promising sub-networks anew, and choose.

        Args:
            rows: name, score and costs of the cells and of all others that were scored on all first examples.
            num_evaluated: how many sub-networks have a score, on all or on some of these examples.

        Returns:
            The front and the best.
        """
        candidates = self._find_candidates(rows)
        # Without fresh examples in the rounds, every evaluated sub-network had its chance to be lucky on theirs.
        compared = num_contenders(rows, self.cells) if self.judge.check else num_evaluated
        selection = Selection(self.goals, max(1, compared))
        by_name = {one.name: one for one in candidates}

        def rank(some: Sequence[Row]) -> list[Row]:
            named = {row["subnet"]: row for row in some}
            return [named[one.name] for one in selection.rank([by_name[name] for name in named])]

        found = [dict(one.costs) for one in candidates]
        best, nearest = choose_best(found, self.budget, rank, self.measure_latency)
        front = [one.name for one in selection.front(candidates)]
        fitting = rank([row for row in found if self.budget.fits(row)]) if best else []
        rival = self._find_rival(best["subnet"], [row["subnet"] for row in fitting]) if best else None
        chosen = [row["subnet"] for row in (best, nearest) if row]
        names = list(dict.fromkeys([*self.cells, *front, *chosen, *filter(None, [rival])]))
        fresh = [measured[self.judge.metric] for measured in self.measure(names, FRESH)]
        scores = dict(zip(names, fresh, strict=True))

        def complete(row: Row) -> Row:
            return self._describe(by_name[row["subnet"]], scores[row["subnet"]], row)

        doubt = None
        if best and rival:
            first, second = best["subnet"], rival
            doubt = find_doubt(
                scores[first].minus(scores[second]),
                by_name[first].quality.minus(by_name[second].quality),
                num_scored=self.judge.fresh.features.num_scored,
                num_chosen_on=self.judge.num_chosen_on,
            )
            doubt = doubt and {"rival": second, "rival_score": scores[second].value, **doubt}

        return Outcome(
            grid=[complete(dict(by_name[name].costs)) for name in self.cells],
            front=[complete(dict(by_name[name].costs)) for name in front],
            best=complete(best) if best else None,
            nearest=complete(nearest) if nearest else None,
            doubt=doubt,
        )

    def _find_rival(self, best: str, ranked: Sequence[str]) -> str | None:
        """The next one: the best cell where the best is none, else the best that is no cell; without such any other."""
        others = [name for name in ranked if name != best]
        return next((name for name in others if (name in self.cells) != (best in self.cells)), next(iter(others), None))

    def _find_candidates(self, rows: Sequence[Row]) -> list[Candidate]:
        """Halve, and measure those that are left on the examples of the check."""
        judge, num_rounds = self.judge, len(self.judge.rounds)
        with show_progress("compare", num_rounds + (judge.check is not None)) as report:

            def measure_round(names: Sequence[str], number: int) -> list[Estimate]:
                estimates = [measured[judge.measure] for measured in self.measure(names, number)]
                report(number + 1)
                return [estimate.negated() for estimate in estimates] if judge.measure == DIVERGENCE else estimates

            estimates = halve(rows, self.cells, self.goals, self.budget, measure_round, num_rounds=num_rounds)
            checks: dict[str, list[Estimate]] = {}
            if judge.check:
                for name, measured in zip(estimates, self.measure(list(estimates), CHECK), strict=True):
                    checks[name] = [measured[judge.metric], measured[DIVERGENCE].negated()]
                report(num_rounds + 1)
        costs = {row["subnet"]: {key: value for key, value in row.items() if key != "score"} for row in rows}
        return [
            Candidate(name, costs[name], name in self.cells, estimate, checks.get(name, ()))
            for name, estimate in estimates.items()
        ]

    def _describe(self, one: Candidate, score: Estimate, row: Row) -> Row:
        """A row of the result: scores before costs."""
        measured: Row = {"subnet": one.name, "score": score.value, "standard_error": _finite(score.error)}
        if self.judge.measure == DIVERGENCE:
            quality = one.quality.negated()
            measured |= {"divergence": quality.value, "divergence_error": _finite(quality.error)}
        return {**measured, **row}


@dataclass(frozen=True)
class Outcome:
    """What a search has chosen; rows as in `SearchResult`.

    Args:
        grid: the cells.
        front: the Pareto front, in ascending cost.
        best: the best within the budget.
        nearest: the one that misses the budget by least; None if there is a best one.
        doubt: the next best, where the scores do not tell it from the best, and how many examples would.
    """

    grid: list[Row]
    front: list[Row]
    best: Row | None
    nearest: Row | None
    doubt: Row | None


def _finite(value: float) -> float | None:
    return value if math.isfinite(value) else None
