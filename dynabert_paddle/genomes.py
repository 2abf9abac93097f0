"""Genomes of sub-networks: whether each layer is kept, its heads, its neurons in steps, and the embedding's rank."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from math import prod
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from dynabert_paddle.search_space import SearchSpace
from dynabert_paddle.subnet import Subnet

if TYPE_CHECKING:
    from optuna.distributions import BaseDistribution

NEURON_STEP = 32
RANK_STEP = 16


_RANK = "embedding_rank"


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


class Genome(NamedTuple):
    """A genome.

    Args:
        layers: one gene for each layer of the full model.
        rank: components of the word embedding, a multiple of the space's step; None where no ranks were trained.
    """

    layers: tuple[Gene, ...]
    rank: int | None = None


@dataclass(frozen=True)
class GenomeSpace:
    """All genomes of a supernet.

    Args:
        space: the supernet's sub-networks.
        step: number of neurons that are kept or dropped together.
        rank_step: likewise of components; None where no ranks were trained.
    """

    space: SearchSpace
    step: int
    rank_step: int | None = None

    @classmethod
    def of(cls, space: SearchSpace, *, step: int = NEURON_STEP) -> GenomeSpace:
        """Create the genomes of a supernet.

        Args:
            space: the supernet's sub-networks.
            step: number of neurons that are kept or dropped together; at most those of the grid's narrowest cell.

        Returns:
            The genomes.
        """
        cells = list(space.grid().values())
        rank_step = min(RANK_STEP, *(cell.embedding_rank or RANK_STEP for cell in cells)) if space.has_ranks else None
        return cls(space, min(step, *(min(cell.neurons) for cell in cells)), rank_step)

    @property
    def steps(self) -> tuple[int, ...]:
        """Number of steps of neurons of each layer."""
        return tuple(-(-neurons // self.step) for neurons in self.space.neurons)

    @property
    def rank_steps(self) -> int:
        """Number of steps of the embedding's components; 1, the whole embedding, where no ranks were trained."""
        return -(-self.space.max_rank // self.rank_step) if self.rank_step and self.space.max_rank else 1

    @property
    def full(self) -> Genome:
        """The genome of the full model."""
        sizes = zip(self.space.heads, self.steps, strict=True)
        return Genome(tuple(Gene(1, heads, steps * self.step) for heads, steps in sizes), self.rank_of(self.rank_steps))

    @property
    def smallest(self) -> Genome:
        """The cheapest genome: one head and one step of neurons in the first layer, one step of the embedding."""
        layers = tuple(Gene(int(layer == 0), 1, self.step) for layer in range(self.space.num_layers))
        return Genome(layers, self.rank_of(1))

    def rank_of(self, steps: int) -> int | None:
        """Return the rank of a number of steps; None where no ranks were trained."""
        return steps * self.rank_step if self.rank_step else None

    def count(self) -> int:
        """Count the different sub-networks."""
        layers = prod(1 + heads * steps for heads, steps in zip(self.space.heads, self.steps, strict=True)) - 1
        return layers * self.rank_steps

    def encode(self, subnet: Subnet) -> Genome:
        """Convert a sub-network to its genome.

        Args:
            subnet: the sub-network; its neurons and its rank are rounded up to steps.

        Returns:
            The genome; dropped layers have all their heads and neurons.
        """
        kept = {layer: Gene(1, heads, -(-neurons // self.step) * self.step) for layer, heads, neurons in subnet.parts}
        rank = self.full.rank
        if self.rank_step and subnet.embedding_rank:
            rank = self.rank_of(-(-subnet.embedding_rank // self.rank_step))
        return Genome(
            tuple(kept.get(layer, gene._replace(kept=0)) for layer, gene in enumerate(self.full.layers)), rank
        )

    def decode(self, genome: Genome) -> Subnet:
        """Convert a genome, which must keep at least one layer, to its sub-network."""
        parts = [
            (layer, gene.heads, min(gene.neurons, self.space.neurons[layer]))
            for layer, gene in enumerate(genome.layers)
            if gene.kept
        ]
        layers, heads, neurons = zip(*parts, strict=True) if parts else ((), (), ())  # which `Subnet` refuses
        whole = genome.rank is None or genome.rank >= (self.space.max_rank or 0)
        return Subnet(layers, heads, neurons, None if whole else genome.rank)

    def random(self, random: np.random.Generator, *, all_layers: bool = False) -> Genome:
        """Draw a genome; numbers of layers, widths of each layer, and ranks are uniformly distributed.

        Args:
            random: the random numbers.
            all_layers: keep all layers.

        Returns:
            The genome.
        """
        layers = self.space.num_layers
        kept = random.permutation(layers) < (layers if all_layers else random.integers(1, layers + 1))
        genes = tuple(
            Gene(int(keep), int(random.integers(1, heads + 1)), int(random.integers(1, steps + 1)) * self.step)
            for keep, heads, steps in zip(kept, self.space.heads, self.steps, strict=True)
        )
        return Genome(genes, self.rank_of(int(random.integers(1, self.rank_steps + 1))) if self.rank_step else None)

    def distributions(self) -> dict[str, BaseDistribution]:
        """Optuna's distributions of all genes by name; its dashboard shows the names."""
        from optuna.distributions import IntDistribution

        distributions: dict[str, BaseDistribution] = {}
        full = self.full
        for layer, gene in enumerate(full.layers):
            distributions[f"layer{layer}_kept"] = IntDistribution(0, 1)
            distributions[f"layer{layer}_heads"] = IntDistribution(1, gene.heads)
            distributions[f"layer{layer}_neurons"] = IntDistribution(self.step, gene.neurons, step=self.step)
        if self.rank_step and full.rank:
            distributions[_RANK] = IntDistribution(self.rank_step, full.rank, step=self.rank_step)
        return distributions

    def to_params(self, genome: Genome) -> dict[str, int]:
        """Convert a genome to Optuna's parameters, by the names of `distributions`."""
        layers = {
            f"layer{layer}_{name}": value
            for layer, gene in enumerate(genome.layers)
            for name, value in gene._asdict().items()
        }
        return layers if genome.rank is None else {**layers, _RANK: genome.rank}

    def from_params(self, params: Mapping[str, int]) -> Genome:
        """Convert Optuna's parameters, as from `to_params`, back to a genome."""
        layers = tuple(
            Gene(*(params[f"layer{layer}_{name}"] for name in Gene._fields)) for layer in range(self.space.num_layers)
        )
        return Genome(layers, params[_RANK] if self.rank_step else None)
