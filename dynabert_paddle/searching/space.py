"""Genomes of sub-networks: for each layer whether it is kept, its heads, and its neurons in steps."""

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
    """One layer of a genome; a dropped layer retains its heads and neurons for genomes that keep it again.

    Args:
        kept: 1 or 0.
        heads: attention heads.
        neurons: FFN neurons, a multiple of the space's step; the last step of a layer may be shorter.
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
        step: number of neurons that are kept or dropped together.
    """

    space: SearchSpace
    step: int

    @classmethod
    def of(cls, space: SearchSpace, *, step: int = NEURON_STEP) -> GenomeSpace:
        """Create the genomes of a supernet.

        Args:
            space: the supernet's sub-networks.
            step: number of neurons that are kept or dropped together; at most those of the grid's narrowest cell.

        Returns:
            The genomes.
        """
        return cls(space, min(step, *(min(cell.neurons) for cell in space.grid().values())))

    @property
    def steps(self) -> tuple[int, ...]:
        """Number of steps of neurons of each layer."""
        return tuple(-(-neurons // self.step) for neurons in self.space.neurons)

    @property
    def full(self) -> Genome:
        """The genome of the full model."""
        return tuple(
            Gene(1, heads, steps * self.step) for heads, steps in zip(self.space.heads, self.steps, strict=True)
        )

    @property
    def smallest(self) -> Genome:
        """The cheapest genome: one head and one step of neurons in the first layer."""
        return tuple(Gene(int(layer == 0), 1, self.step) for layer in range(self.space.num_layers))

    def count(self) -> int:
        """Count the different sub-networks."""
        return prod(1 + heads * steps for heads, steps in zip(self.space.heads, self.steps, strict=True)) - 1

    def encode(self, subnet: Subnet) -> Genome:
        """Convert a sub-network to its genome.

        Args:
            subnet: the sub-network; its neurons are rounded up to steps.

        Returns:
            The genome; dropped layers have all their heads and neurons.
        """
        kept = {layer: Gene(1, heads, -(-neurons // self.step) * self.step) for layer, heads, neurons in subnet.parts}
        return tuple(kept.get(layer, gene._replace(kept=0)) for layer, gene in enumerate(self.full))

    def decode(self, genome: Genome) -> Subnet:
        """Convert a genome, which must keep at least one layer, to its sub-network."""
        parts = [
            (layer, gene.heads, min(gene.neurons, self.space.neurons[layer]))
            for layer, gene in enumerate(genome)
            if gene.kept
        ]
        layers, heads, neurons = zip(*parts, strict=True)
        return Subnet(layers, heads, neurons)

    def random(self, random: np.random.Generator) -> Genome:
        """Draw a genome; numbers of layers, and widths of each layer, are uniformly distributed."""
        layers = self.space.num_layers
        kept = random.permutation(layers) < random.integers(1, layers + 1)
        return tuple(
            Gene(int(keep), int(random.integers(1, heads + 1)), int(random.integers(1, steps + 1)) * self.step)
            for keep, heads, steps in zip(kept, self.space.heads, self.steps, strict=True)
        )

    def distributions(self) -> dict[str, BaseDistribution]:
        """Optuna's distributions of all genes by name; its dashboard shows the names."""
        from optuna.distributions import IntDistribution

        distributions: dict[str, BaseDistribution] = {}
        for layer, gene in enumerate(self.full):
            distributions[f"layer{layer}_kept"] = IntDistribution(0, 1)
            distributions[f"layer{layer}_heads"] = IntDistribution(1, gene.heads)
            distributions[f"layer{layer}_neurons"] = IntDistribution(self.step, gene.neurons, step=self.step)
        return distributions

    def to_params(self, genome: Genome) -> dict[str, int]:
        """Convert a genome to Optuna's parameters, by the names of `distributions`."""
        return {
            f"layer{layer}_{name}": value for layer, gene in enumerate(genome) for name, value in gene._asdict().items()
        }

    def from_params(self, params: Mapping[str, int]) -> Genome:
        """Convert Optuna's parameters, as from `to_params`, back to a genome."""
        return tuple(
            Gene(*(params[f"layer{layer}_{name}"] for name in Gene._fields)) for layer in range(self.space.num_layers)
        )
