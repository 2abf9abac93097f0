"""The evolutionary loop: for each generation, ask the study for candidates, score them, and tell it the scores."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from math import isfinite
from typing import Any

from optuna import Study
from optuna.trial import Trial, TrialState

from dynabert_paddle.errors import ModelError
from dynabert_paddle.genomes import Genome, GenomeSpace
from dynabert_paddle.searching.pareto import best_score_within
from dynabert_paddle.searching.sampler import GenomeSampler, finished_trials
from dynabert_paddle.searching.scoring import Score
from dynabert_paddle.subnet import Subnet

# Scores sub-networks; the numbers are the scores that each of them must exceed to be of interest.
Evaluate = Callable[[Sequence[Subnet], Sequence[float]], Sequence[Score]]


@dataclass(frozen=True)
class Evolution:
    """Settings of the evolution.

    Args:
        space: the genomes.
        goals: names of the costs to minimize.
        costs: computes a sub-network's costs by name.
        initial: genomes to begin with; random ones complete the first generation.
        population_size: candidates in a generation.
        seed: determines every random choice.
    """

    space: GenomeSpace
    goals: tuple[str, ...]
    costs: Callable[[Subnet], Mapping[str, Any]]
    initial: Sequence[Genome]
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
    """Add trials to a study until it has enough of them, or contains all sub-networks.

    Args:
        study: the study; trials that an interrupted process left unfinished are repeated.
        evolution: the settings.
        evaluate: scores the candidates of a generation.
        num_evaluations: total number of trials.
        report: called with the number of finished trials after each generation.

    Raises:
        ModelError: a score that is not finite.
    """
    for trial in study.get_trials(deepcopy=False, states=(TrialState.RUNNING,)):
        study.tell(trial.number, state=TrialState.FAIL)
    size = evolution.population_size
    study.sampler = GenomeSampler(
        study, evolution.space, initial=evolution.initial, population_size=size, seed=evolution.seed
    )
    total = min(num_evaluations, evolution.space.count())
    while (done := len(rows := read_rows(study))) < total:
        report(done)
        missing = min(size - done % size, total - done)
        trials = [study.ask(evolution.space.distributions()) for _ in range(missing)]
        _score(study, trials, evolution, rows[: done - done % size], evaluate)
    report(done)


def read_rows(study: Study) -> list[dict[str, Any]]:
    """Sub-network, score, costs and `stopped` (early or not) of each finished trial, in the study's order."""
    return [dict(trial.user_attrs) for trial in finished_trials(study)]


def _score(
    study: Study,
    trials: Sequence[Trial],
    evolution: Evolution,
    previous: Sequence[Mapping[str, Any]],
    evaluate: Evaluate,
) -> None:
    """Score a generation; each trial is to beat all rows of previous generations that cost no more."""
    space, goals = evolution.space, evolution.goals
    subnets = [space.decode(space.from_params(trial.params)) for trial in trials]
    costs = [evolution.costs(subnet) for subnet in subnets]
    complete = [row for row in previous if not row["stopped"]]
    to_beat = [best_score_within(complete, {goal: cost[goal] for goal in goals}) for cost in costs]
    scores = evaluate(subnets, to_beat)
    for trial, subnet, cost, score in zip(trials, subnets, costs, scores, strict=True):
        row = {"subnet": space.space.name(subnet), "score": score.value, **cost, "stopped": score.stopped}
        if not isfinite(score.value):  # Optuna would drop the trial, and the loop would never end
            raise ModelError(f"sub-network {row['subnet']} has the score {score.value}: train the model again")
        for key, value in row.items():
            trial.set_user_attr(key, value)
        study.tell(trial, [score.value, *(cost[goal] for goal in goals)])
