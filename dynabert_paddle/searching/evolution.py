"""One generation after the other: ask for its candidates, score them together, tell the study."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from math import isfinite
from typing import Any

from optuna import Study
from optuna.trial import Trial, TrialState

from dynabert_paddle.errors import ModelError
from dynabert_paddle.searching.pareto import best_score_within
from dynabert_paddle.searching.sampler import GenomeSampler, finished_trials
from dynabert_paddle.searching.scoring import Score
from dynabert_paddle.searching.space import Genome, GenomeSpace
from dynabert_paddle.subnet import Subnet

# Scores sub-networks, each of which is of interest if it exceeds a score of its own.
Evaluate = Callable[[Sequence[Subnet], Sequence[float]], Sequence[Score]]


@dataclass(frozen=True)
class Evolution:
    """What a search varies, and how.

    Args:
        space: the genomes.
        goals: names of the costs that are traded against the score.
        costs: computes a sub-network's costs by name.
        first: genomes to begin with; random ones complete the first generation.
        population_size: candidates in a generation.
        seed: every random choice follows from it.
    """

    space: GenomeSpace
    goals: tuple[str, ...]
    costs: Callable[[Subnet], Mapping[str, Any]]
    first: Sequence[Genome]
    population_size: int
    seed: int


def evolve(
    study: Study,
    evolution: Evolution,
    evaluate: Evaluate,
    *,
    num_evaluations: int,
    report: Callable[[int], None] = lambda done: None,
) -> None:
    """Add trials to a study until it has enough of them, or has all sub-networks.

    Args:
        study: the study; what an interrupted process left unfinished in it is tried again.
        evolution: what is varied, and how.
        evaluate: scores the candidates of a generation.
        num_evaluations: trials that the study has in the end.
        report: is told how many trials there are, whenever there are more.

    Raises:
        ModelError: a score that is no number.
    """
    for trial in study.get_trials(deepcopy=False, states=(TrialState.RUNNING,)):
        study.tell(trial.number, state=TrialState.FAIL)
    size = evolution.population_size
    study.sampler = GenomeSampler(
        study, evolution.space, first=evolution.first, population_size=size, seed=evolution.seed
    )
    total = min(num_evaluations, evolution.space.count())
    while (done := len(rows := read_rows(study))) < total:
        report(done)
        missing = min(size - done % size, total - done)
        trials = [study.ask(evolution.space.distributions()) for _ in range(missing)]
        _score(study, trials, evolution, rows[: done - done % size], evaluate)
    report(done)


def read_rows(study: Study) -> list[dict[str, Any]]:
    """List what a study has found, in its order.

    Args:
        study: the study.

    Returns:
        For each finished trial its sub-network, score and costs, and whether it was stopped early.
    """
    return [dict(trial.user_attrs) for trial in finished_trials(study)]


def _score(
    study: Study,
    trials: Sequence[Trial],
    evolution: Evolution,
    before: Sequence[Mapping[str, Any]],
    evaluate: Evaluate,
) -> None:
    """Score the trials of a generation together; what they must beat are the generations before it."""
    space, goals = evolution.space, evolution.goals
    subnets = [space.decode(space.from_params(trial.params)) for trial in trials]
    costs = [evolution.costs(subnet) for subnet in subnets]
    whole = [row for row in before if not row["stopped"]]
    to_beat = [best_score_within(whole, {goal: cost[goal] for goal in goals}) for cost in costs]
    scores = evaluate(subnets, to_beat)
    for trial, subnet, cost, score in zip(trials, subnets, costs, scores, strict=True):
        row = {"subnet": space.space.name(subnet), "score": score.value, **cost, "stopped": score.stopped}
        if not isfinite(score.value):  # Optuna would drop the trial, and the search go on without end
            raise ModelError(f"sub-network {row['subnet']} has the score {score.value}: train the model again")
        for key, value in row.items():
            trial.set_user_attr(key, value)
        study.tell(trial, [score.value, *(cost[goal] for goal in goals)])
