"""The genomes that a search varies: for each layer whether it is kept, its heads, and its neurons in steps."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from math import prod
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from dynabert_paddle.subnet import SearchSpace, Subnet

if TYPE_CHECKING:
    from optuna.distributions import BaseDistribution

NEURON_STEP = 32


class Gene(NamedTuple):
    """One layer of a genome; of a layer that is not kept, heads and neurons have no effect until it is kept again.

    Args:
        kept: 1 or 0.
        heads: attention heads.
        neurons: FFN neurons, a multiple of the space's step; the last step of a layer may be a shorter one.
    """

    kept: int
    heads: int
    neurons: int


Genome = tuple[Gene, ...]


@dataclass(frozen=True)
class GenomeSpace:
    """All genomes of a supernet.

    Args:
        space: the supernet's sub-networks.
        step: neurons are kept or dropped so many at a time.
    """

    space: SearchSpace
    step: int

    @classmethod
    def of(cls, space: SearchSpace, *, step: int = NEURON_STEP) -> GenomeSpace:
        """Make the space of a supernet; steps are never coarser than the narrowest cell of its grid.

        Args:
            space: the supernet's sub-networks.
            step: neurons that are kept or dropped at a time.

        Returns:
            The genomes.
        """
        return cls(space, min(step, *(min(cell.neurons) for cell in space.grid().values())))

    @property
    def steps(self) -> tuple[int, ...]:
        """How many steps of neurons each layer has."""
        return tuple(-(-neurons // self.step) for neurons in self.space.neurons)

    @property
    def full(self) -> Genome:
        """The genome that is the whole model."""
        return tuple(
            Gene(1, heads, steps * self.step) for heads, steps in zip(self.space.heads, self.steps, strict=True)
        )

    @property
    def smallest(self) -> Genome:
        """The genome that costs least: one head and one step of neurons in the first layer."""
        return tuple(Gene(int(layer == 0), 1, self.step) for layer in range(self.space.num_layers))

    def count(self) -> int:
        """Count the different sub-networks."""
        return prod(1 + heads * steps for heads, steps in zip(self.space.heads, self.steps, strict=True)) - 1

    def encode(self, subnet: Subnet) -> Genome:
        """Find the genome of a sub-network.

        Args:
            subnet: any; neurons between two steps are rounded up.

        Returns:
            The genome; layers that are not kept have all their heads and neurons, should they be kept again.
        """
        kept = {layer: Gene(1, heads, -(-neurons // self.step) * self.step) for layer, heads, neurons in subnet.parts}
        return tuple(kept.get(layer, gene._replace(kept=0)) for layer, gene in enumerate(self.full))

    def decode(self, genome: Genome) -> Subnet:
        """Find the sub-network of a genome.

        Args:
            genome: keeps at least one layer.

        Returns:
            The sub-network.
        """
        parts = [
            (layer, gene.heads, min(gene.neurons, self.space.neurons[layer]))
            for layer, gene in enumerate(genome)
            if gene.kept
        ]
        return Subnet(*zip(*parts, strict=True))

    def random(self, random: np.random.Generator) -> Genome:
        """Draw a genome; every number of layers is as likely as another, and so is every width of a layer.

        Args:
            random: the source of chance.

        Returns:
            The genome.
        """
        layers = self.space.num_layers
        kept = random.permutation(layers) < random.integers(1, layers + 1)
        return tuple(
            Gene(int(keep), int(random.integers(1, heads + 1)), int(random.integers(1, steps + 1)) * self.step)
            for keep, heads, steps in zip(kept, self.space.heads, self.steps, strict=True)
        )

    def distributions(self) -> dict[str, BaseDistribution]:
        """Describe the genes to Optuna, by the names that its dashboard shows."""
        from optuna.distributions import IntDistribution

        found: dict[str, BaseDistribution] = {}
        for layer, gene in enumerate(self.full):
            found[f"layer{layer}_kept"] = IntDistribution(0, 1)
            found[f"layer{layer}_heads"] = IntDistribution(1, gene.heads)
            found[f"layer{layer}_neurons"] = IntDistribution(self.step, gene.neurons, step=self.step)
        return found

    def to_params(self, genome: Genome) -> dict[str, int]:
        """Write a genome as Optuna's parameters.

        Args:
            genome: the genome.

        Returns:
            Values by the names of `distributions`.
        """
        return {
            f"layer{layer}_{name}": value for layer, gene in enumerate(genome) for name, value in gene._asdict().items()
        }

    def from_params(self, params: Mapping[str, int]) -> Genome:
        """Read a genome back from Optuna's parameters.

        Args:
            params: as from `to_params`.

        Returns:
            The genome.
        """
        return tuple(
            Gene(*(params[f"layer{layer}_{name}"] for name in Gene._fields)) for layer in range(self.space.num_layers)
        )
