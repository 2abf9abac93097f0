"""Optuna's NSGA-II (Deb et al., 2002) on genomes, with its own variation operators and without duplicate sub-networks.

A child depends only on the seed, its number and the previous generation, so that a resumed search makes the same
children as an uninterrupted one.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from optuna import Study
from optuna.distributions import BaseDistribution
from optuna.samplers import NSGAIISampler
from optuna.trial import FrozenTrial, TrialState

from dynabert_paddle.genomes import Genome, GenomeSpace
from dynabert_paddle.searching.variation import make_child

_MAX_CHILDREN = 200  # children of random parents to try for a new sub-network; after them random genomes
_MAX_ATTEMPTS = 2000


def finished_trials(study: Study) -> list[FrozenTrial]:
    """List a study's completed trials in order."""
    return study.get_trials(deepcopy=False, states=(TrialState.COMPLETE,))


class GenomeSampler(NSGAIISampler):
    """Samples the trials of a new or resumed study.

    Args:
        study: the study.
        space: the genomes.
        initial: genomes to begin with; random ones complete the first generation.
        population_size: trials in a generation.
        seed: determines every random choice.
    """

    def __init__(
        self, study: Study, space: GenomeSpace, *, initial: Sequence[Genome], population_size: int, seed: int
    ) -> None:
        super().__init__(population_size=population_size, seed=seed)
        self._space = space
        self._initial = initial
        self._seed = seed
        finished = [space.from_params(trial.params) for trial in finished_trials(study)]
        self._number = len(finished)
        self._known = {space.decode(genome) for genome in finished}
        self._parents: dict[int, list[FrozenTrial]] = {0: []}

    def infer_relative_search_space(self, study: Study, trial: FrozenTrial) -> dict[str, BaseDistribution]:
        """Return all parameters, so that `sample_relative` samples them in the first generation, too.

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
        """Sample the genome of a new trial.

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

        Optuna's own method caches trial ids in the study and reads them back as trial numbers, but ids of a database
        begin at 1.

        Args:
            study: the study.
            generation: counted from 0; that one has no parents.

        Returns:
            The best of the previous trials by non-domination rank and crowding distance.
        """
        for missing in range(len(self._parents), generation + 1):  # several after an interruption
            self._parents[missing] = self.select_parent(study, missing)
        return self._parents[generation]

    def _make_genome(self, parents: Sequence[Genome]) -> Genome:
        """Make a genome of a new sub-network: a child of two parents, or random if all children tried are known."""
        if self._number < len(self._initial):
            return self._initial[self._number]
        random = np.random.default_rng((self._seed, self._number))
        for attempt in range(_MAX_ATTEMPTS):
            if len(parents) > 1 and attempt < _MAX_CHILDREN:
                first, second = random.choice(len(parents), size=2, replace=False)
                genome = make_child(parents[first], parents[second], self._space, random)
            else:
                genome = self._space.random(random)
            if self._space.decode(genome) not in self._known:
                break
        return genome
