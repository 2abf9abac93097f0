"""The initial population: the paper's grid, narrower cells, and sub-networks selected by importance per cost."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from itertools import chain

import numpy as np

from dynabert_paddle.genomes import Gene, Genome, GenomeSpace

# Shares of the cost of all heads and neurons of the kept layers; low, as most of a fine-tuned model can be dropped.
COST_LEVELS = (0.16, 0.32, 0.08, 0.64)


def initial_genomes(space: GenomeSpace, importance: Mapping[str, Sequence[Sequence[float]]]) -> list[Genome]:
    """List the genomes that a search begins with.

    Args:
        space: the genomes.
        importance: `heads` and `neurons`: for each layer their importance in descending order; may be empty.

    Returns:
        Different genomes: the cells of the grid, the smallest genome, cells of 1/2, 1/4, ... of the grid's smallest
        width, then those guided by importance; the last two with the lowest rank of the grid.
    """
    cells = map(space.encode, space.space.grid().values())
    guided = guided_genomes(space, importance) if importance else ()
    unique = {space.decode(genome): genome for genome in chain(cells, [space.smallest], _narrow_cells(space), guided)}
    return list(unique.values())


def guided_genomes(space: GenomeSpace, importance: Mapping[str, Sequence[Sequence[float]]]) -> Iterator[Genome]:
    """Keep the heads and neurons with the highest importance per cost, at several cost levels.

    Args:
        space: the genomes.
        importance: `heads` and `neurons`: for each layer their importance in descending order.

    Yields:
        For each level one genome per set of layers: each set that the grid keeps, and as many of the most important
        layers. Heads and steps of neurons of all layers are ranked together by importance per multiply-accumulate.
    """
    values = [_importance_per_cost(space, importance, layer) for layer in range(space.space.num_layers)]
    sets = _layer_sets(space, importance)
    for level in COST_LEVELS:
        for layers in sets:
            yield _keep_most_valuable(space, values, layers, level)


def _narrow_cells(space: GenomeSpace) -> Iterator[Genome]:
    """Cells narrower than the grid's, down to one head per layer."""
    width = min(space.space.width_mults)
    while max(space.space.heads) * width > 1:
        width /= 2
        for layers in dict.fromkeys(cell.layers for cell in space.space.grid().values()):
            genes = (
                Gene(
                    int(layer in layers),
                    max(1, round(width * gene.heads)),
                    space.step * max(1, round(width * gene.neurons / space.step)),
                )
                for layer, gene in enumerate(space.full.layers)
            )
            yield Genome(tuple(genes), _lowest_rank(space))


def _layer_sets(space: GenomeSpace, importance: Mapping[str, Sequence[Sequence[float]]]) -> list[tuple[int, ...]]:
    """The grid's sets of layers, and for each of them as many of the most important layers."""
    count = space.space.num_layers
    totals = [sum(importance["heads"][layer]) + sum(importance["neurons"][layer]) for layer in range(count)]
    ranked = sorted(range(count), key=lambda layer: -totals[layer])
    grid = dict.fromkeys(cell.layers for cell in space.space.grid().values())
    return list(dict.fromkeys([*grid, *(tuple(sorted(ranked[: len(layers)])) for layers in grid)]))


def _importance_per_cost(
    space: GenomeSpace, importance: Mapping[str, Sequence[Sequence[float]]], layer: int
) -> tuple[np.ndarray, np.ndarray]:
    """Importance per cost of a layer's heads and of its steps of neurons, each in descending order."""
    head_cost, step_cost = _unit_costs(space)
    neurons = np.asarray(importance["neurons"][layer], dtype=np.float64)
    sums = np.add.reduceat(neurons, np.arange(0, len(neurons), space.step))
    # Steps are kept from the first on, so a later step must not rank above an earlier one.
    steps = np.minimum.accumulate(sums / step_cost)
    return np.asarray(importance["heads"][layer], dtype=np.float64) / head_cost, steps


def _unit_costs(space: GenomeSpace) -> tuple[int, int]:
    """Multiply-accumulates per token of one head's and of one step's weights, divided by the hidden size."""
    return 4 * space.space.head_dim, 2 * space.step


def _keep_most_valuable(
    space: GenomeSpace, values: Sequence[tuple[np.ndarray, np.ndarray]], layers: Sequence[int], level: float
) -> Genome:
    """Keep the most valuable heads and steps of some layers, until they reach a share of the cost of these layers.

    `values` holds for every layer the importance per cost of its heads and of its steps.
    """
    head_cost, step_cost = _unit_costs(space)
    candidates: list[np.ndarray] = []
    costs: list[np.ndarray] = []
    for layer in layers:
        heads, steps = values[layer]
        candidates += [heads, steps]
        costs += [np.full(len(heads), head_cost), np.full(len(steps), step_cost)]
    ranked = np.concatenate(candidates)
    order = np.argsort(-ranked, kind="stable")
    spent = np.cumsum(np.concatenate(costs)[order])
    threshold = ranked[order][np.searchsorted(spent, level * spent[-1])]
    genome = []
    for layer, gene in enumerate(space.full.layers):
        num_heads, num_steps = (max(1, int((part >= threshold).sum())) for part in values[layer])
        genome.append(Gene(int(layer in layers), min(num_heads, gene.heads), min(num_steps * space.step, gene.neurons)))
    return Genome(tuple(genome), _lowest_rank(space))


def _lowest_rank(space: GenomeSpace) -> int | None:
    """The lowest rank of the grid, in the space's steps."""
    cells = (space.encode(cell).rank for cell in space.space.grid().values())
    return min(cells, key=lambda rank: rank or 0)
