"""NSGA-II (Deb et al., 2002) as Optuna has it, over genomes: their own operators, and no sub-network twice.

What a child becomes follows from the seed, its number and the generation before it, so that an interrupted search goes
on with the children that it would have had.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from optuna import Study
from optuna.distributions import BaseDistribution
from optuna.samplers import NSGAIISampler
from optuna.trial import FrozenTrial, TrialState

from dynabert_paddle.searching.space import Genome, GenomeSpace
from dynabert_paddle.searching.variation import make_child

_NEAR, _ANYWHERE = 200, 2000


def finished_trials(study: Study) -> list[FrozenTrial]:
    """List a study's trials that have a result, in their order."""
    return study.get_trials(deepcopy=False, states=(TrialState.COMPLETE,))


class GenomeSampler(NSGAIISampler):
    """Makes the trials of a study, which may have some.

    Args:
        study: the study.
        space: the genomes.
        first: genomes to begin with; random ones complete the first generation where they are fewer.
        population_size: trials in a generation.
        seed: every random choice follows from it.
    """

    def __init__(
        self, study: Study, space: GenomeSpace, *, first: Sequence[Genome], population_size: int, seed: int
    ) -> None:
        super().__init__(population_size=population_size, seed=seed)
        self._space = space
        self._first = first
        self._seed = seed
        finished = [space.from_params(trial.params) for trial in finished_trials(study)]
        self._number = len(finished)
        self._known = {space.decode(genome) for genome in finished}
        self._parents: dict[int, list[FrozenTrial]] = {0: []}

    def infer_relative_search_space(self, study: Study, trial: FrozenTrial) -> dict[str, BaseDistribution]:
        """Say which parameters `sample_relative` chooses: all, in the first generation, too.

        Args:
            study: the study.
            trial: the new trial.

        Returns:
            The genes.
        """
        return self._space.distributions()

    def sample_relative(
        self, study: Study, trial: FrozenTrial, search_space: dict[str, BaseDistribution]
    ) -> dict[str, Any]:
        """Make the genome of a new trial.

        Args:
            study: the study.
            trial: the new trial.
            search_space: the genes.

        Returns:
            Values of all genes.
        """
        parents = self.get_parent_population(study, self.get_trial_generation(study, trial))
        genome = self._make_genome([self._space.from_params(parent.params) for parent in parents])
        self._known.add(self._space.decode(genome))
        self._number += 1
        return self._space.to_params(genome)

    def get_parent_population(self, study: Study, generation: int) -> list[FrozenTrial]:
        """Select a generation's parents.

        Optuna keeps them in the study by ids that it reads back as numbers, which a database counts from 1.

        Args:
            study: the study.
            generation: counted from 0, which has none.

        Returns:
            The best of the trials before, by rank and crowding distance.
        """
        for missing in range(len(self._parents), generation + 1):  # each from the one before, after an interruption
            self._parents[missing] = self.select_parent(study, missing)
        return self._parents[generation]

    def _make_genome(self, parents: Sequence[Genome]) -> Genome:
        """One that is new; near its parents, unless all that are tried there are known."""
        if self._number < len(self._first):
            return self._first[self._number]
        random = np.random.default_rng((self._seed, self._number))
        for attempt in range(_ANYWHERE):
            if len(parents) > 1 and attempt < _NEAR:
                first, second = random.choice(len(parents), size=2, replace=False)
                genome = make_child(parents[first], parents[second], self._space, random)
            else:
                genome = self._space.random(random)
            if self._space.decode(genome) not in self._known:
                break
        return genome
