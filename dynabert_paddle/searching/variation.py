"""Variation operators: crossover of whole layers, four mutations of them, and one of the embedding's rank."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from dynabert_paddle.genomes import Gene, Genome, GenomeSpace

_CROSSOVER_PROBABILITY = 0.7
_RESIZE_AMOUNTS = (1, 2, 4)

_Mutation = Callable[[list[Gene], GenomeSpace, np.random.Generator], list[Gene]]


def make_child(first: Genome, second: Genome, space: GenomeSpace, random: np.random.Generator) -> Genome:
    """Cross two genomes and mutate the child.

    Args:
        first: one parent.
        second: the other parent.
        space: the genomes.
        random: random number generator.

    Returns:
        A genome that keeps at least one layer.
    """
    child, rank = list(first.layers), first.rank
    if random.random() < _CROSSOVER_PROBABILITY:
        child = [pair[random.integers(2)] for pair in zip(first.layers, second.layers, strict=True)]
        if rank is not None:
            rank = (first.rank, second.rank)[random.integers(2)]
    mutations: tuple[_Mutation, ...] = (_resize_all, _resize_some, _toggle_layer, _move_layer)
    mutation = random.integers(len(mutations) + (rank is not None))
    if mutation < len(mutations):
        child = mutations[mutation](child, space, random)
    else:
        rank = _resize_rank(rank, space, random)
    if not any(gene.kept for gene in child):
        layer = random.integers(len(child))
        child[layer] = child[layer]._replace(kept=1)
    return Genome(tuple(child), rank)


def _resize_rank(rank: int | None, space: GenomeSpace, random: np.random.Generator) -> int | None:
    """Add or remove some steps of the embedding's components."""
    assert rank is not None and space.rank_step is not None  # of a space with ranks
    steps = rank // space.rank_step + int(random.choice(_RESIZE_AMOUNTS) * random.choice((-1, 1)))
    return space.rank_of(_clip(steps, space.rank_steps))


def _resize_all(child: list[Gene], space: GenomeSpace, random: np.random.Generator) -> list[Gene]:
    """Scale the heads, the neurons, or both, of all layers by the same factor."""
    factor = 2.0 ** random.uniform(-1, 0.5)
    scale_heads, scale_neurons = ((True, True), (True, False), (False, True))[random.integers(3)]
    scaled = []
    for gene, full in zip(child, space.full.layers, strict=True):
        heads, neurons = gene.heads, gene.neurons
        if scale_heads:
            heads = _clip(round(heads * factor), full.heads)
        if scale_neurons:
            neurons = space.step * _clip(round(neurons * factor / space.step), full.neurons // space.step)
        scaled.append(gene._replace(heads=heads, neurons=neurons))
    return scaled


def _resize_some(child: list[Gene], space: GenomeSpace, random: np.random.Generator) -> list[Gene]:
    """Add or remove some heads and steps of neurons in about two layers."""
    changed = random.random(len(child)) < 2 / len(child)
    changed[random.integers(len(child))] = True
    return [
        _resize(gene, full, space.step, random) if change else gene
        for gene, full, change in zip(child, space.full.layers, changed, strict=True)
    ]


def _resize(gene: Gene, full: Gene, step: int, random: np.random.Generator) -> Gene:
    heads, steps = (int(random.choice(_RESIZE_AMOUNTS) * random.choice((-1, 0, 1))) for _ in range(2))
    return gene._replace(
        heads=_clip(gene.heads + heads, full.heads),
        neurons=step * _clip(gene.neurons // step + steps * 2, full.neurons // step),
    )


def _toggle_layer(child: list[Gene], space: GenomeSpace, random: np.random.Generator) -> list[Gene]:
    """Drop a kept layer, or keep a dropped one."""
    layer = random.integers(len(child))
    child[layer] = child[layer]._replace(kept=1 - child[layer].kept)
    return child


def _move_layer(child: list[Gene], space: GenomeSpace, random: np.random.Generator) -> list[Gene]:
    """Swap whether two layers are kept."""
    a, b = random.integers(len(child), size=2)
    child[a], child[b] = child[a]._replace(kept=child[b].kept), child[b]._replace(kept=child[a].kept)
    return child


def _clip(count: int, maximum: int) -> int:
    return max(1, min(count, maximum))
