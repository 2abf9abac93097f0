"""The first generation: the paper's grid, and sub-networks that keep what importance says is worth its cost."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from itertools import chain

import numpy as np

from dynabert_paddle.searching.space import Gene, Genome, GenomeSpace

# Shares of the cost of all heads and neurons of the kept layers. Most of what a fine-tuned model has can go.
LEVELS = (0.16, 0.32, 0.08, 0.64)


def first_genomes(space: GenomeSpace, importance: Mapping[str, Sequence[Sequence[float]]]) -> list[Genome]:
    """List what a search looks at first.

    Args:
        space: the genomes.
        importance: `heads` and `neurons`: for each layer their importance in descending order; may be empty.

    Returns:
        Different genomes: the cells of the grid, the smallest of all, cells of half the least width and of half of
        that and so on, then those guided by importance.
    """
    cells = map(space.encode, space.space.grid().values())
    guided = guided_genomes(space, importance) if importance else ()
    unique = {space.decode(genome): genome for genome in chain(cells, [space.smallest], _thin(space), guided)}
    return list(unique.values())


def guided_genomes(space: GenomeSpace, importance: Mapping[str, Sequence[Sequence[float]]]) -> Iterator[Genome]:
    """Keep what is worth its cost, at several levels of cost, for several sets of layers.

    Args:
        space: the genomes.
        importance: `heads` and `neurons`: for each layer their importance in descending order.

    Yields:
        For every level the sets of layers that the grid keeps and as many layers by their total importance. All their
        heads and steps of neurons are compared at once, by importance per multiply-accumulate.
    """
    worth = [_worth(space, importance, layer) for layer in range(space.space.num_layers)]
    sets = _layer_sets(space, importance)
    for level in LEVELS:
        for layers in sets:
            yield _cut(space, worth, layers, level)


def _thin(space: GenomeSpace) -> Iterator[Genome]:
    """Narrower cells than the grid has, down to one head a layer."""
    width = min(space.space.width_mults)
    while max(space.space.heads) * width > 1:
        width /= 2
        for layers in dict.fromkeys(cell.layers for cell in space.space.grid().values()):
            yield tuple(
                Gene(
                    int(layer in layers),
                    max(1, round(width * gene.heads)),
                    space.step * max(1, round(width * gene.neurons / space.step)),
                )
                for layer, gene in enumerate(space.full)
            )


def _layer_sets(space: GenomeSpace, importance: Mapping[str, Sequence[Sequence[float]]]) -> list[tuple[int, ...]]:
    """The grid's sets of layers, and as many layers by their total importance."""
    count = space.space.num_layers
    totals = [sum(importance["heads"][layer]) + sum(importance["neurons"][layer]) for layer in range(count)]
    ranked = sorted(range(count), key=lambda layer: -totals[layer])
    grid = dict.fromkeys(cell.layers for cell in space.space.grid().values())
    return list(dict.fromkeys([*grid, *(tuple(sorted(ranked[: len(layers)])) for layers in grid)]))


def _worth(
    space: GenomeSpace, importance: Mapping[str, Sequence[Sequence[float]]], layer: int
) -> tuple[np.ndarray, np.ndarray]:
    """Importance per unit of cost of a layer's heads and of its steps of neurons, each in descending order."""
    head_cost, step_cost = _unit_costs(space)
    neurons = np.asarray(importance["neurons"][layer], dtype=np.float64)
    sums = np.add.reduceat(neurons, np.arange(0, len(neurons), space.step))
    # The last step may be shorter, and must not come before a longer one.
    steps = np.minimum.accumulate(sums / step_cost)
    return np.asarray(importance["heads"][layer], dtype=np.float64) / head_cost, steps


def _unit_costs(space: GenomeSpace) -> tuple[int, int]:
    """Multiply-accumulates a token of one head's and one step's weights, over the hidden size."""
    return 4 * space.space.head_dim, 2 * space.step


def _cut(
    space: GenomeSpace, worth: Sequence[tuple[np.ndarray, np.ndarray]], layers: Sequence[int], level: float
) -> Genome:
    """Keep the most worthy heads and steps of some layers, until they cost a share of all of these layers."""
    head_cost, step_cost = _unit_costs(space)
    values = np.concatenate([part for layer in layers for part in worth[layer]])
    costs = np.concatenate(
        [
            np.full(len(part), cost)
            for layer in layers
            for part, cost in zip(worth[layer], (head_cost, step_cost), strict=False)
        ]
    )
    order = np.argsort(-values, kind="stable")
    spent = np.cumsum(costs[order])
    threshold = values[order][np.searchsorted(spent, level * spent[-1])]
    genome = []
    for layer, gene in enumerate(space.full):
        heads, steps = (max(1, int((part >= threshold).sum())) for part in worth[layer])
        genome.append(Gene(int(layer in layers), min(heads, gene.heads), min(steps * space.step, gene.neurons)))
    return tuple(genome)
