"""How a child differs from its parents: whole layers are inherited, and a few genes move a little."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from dynabert_paddle.searching.space import Gene, Genome, GenomeSpace

_CROSSOVER = 0.7
_STEPS = (1, 2, 4)

_Change = Callable[[list[Gene], GenomeSpace, np.random.Generator], list[Gene]]


def make_child(first: Genome, second: Genome, space: GenomeSpace, random: np.random.Generator) -> Genome:
    """Cross two genomes and change the child.

    Args:
        first: one parent.
        second: the other.
        space: the genomes.
        random: the source of chance.

    Returns:
        A genome that keeps at least one layer.
    """
    child = list(first)
    if random.random() < _CROSSOVER:
        child = [pair[random.integers(2)] for pair in zip(first, second, strict=True)]
    changes: tuple[_Change, ...] = (_resize_all, _resize_some, _toggle_layer, _move_layer)
    child = changes[random.integers(len(changes))](child, space, random)
    if not any(gene.kept for gene in child):
        layer = random.integers(len(child))
        child[layer] = child[layer]._replace(kept=1)
    return tuple(child)


def _resize_all(child: list[Gene], space: GenomeSpace, random: np.random.Generator) -> list[Gene]:
    """Make every layer's heads or neurons, or both, more or fewer by the same factor."""
    factor = 2.0 ** random.uniform(-1, 0.5)
    heads, neurons = ((True, True), (True, False), (False, True))[random.integers(3)]
    return [
        gene._replace(
            heads=_clip(round(gene.heads * factor), full.heads) if heads else gene.heads,
            neurons=space.step * _clip(round(gene.neurons * factor / space.step), full.neurons // space.step)
            if neurons
            else gene.neurons,
        )
        for gene, full in zip(child, space.full, strict=True)
    ]


def _resize_some(child: list[Gene], space: GenomeSpace, random: np.random.Generator) -> list[Gene]:
    """Add or take away some heads and steps of neurons, in about two layers."""
    changed = random.random(len(child)) < 2 / len(child)
    changed[random.integers(len(child))] = True
    return [
        _resize(gene, full, space.step, random) if change else gene
        for gene, full, change in zip(child, space.full, changed, strict=True)
    ]


def _resize(gene: Gene, full: Gene, step: int, random: np.random.Generator) -> Gene:
    heads, steps = (int(random.choice(_STEPS) * random.choice((-1, 0, 1))) for _ in range(2))
    return gene._replace(
        heads=_clip(gene.heads + heads, full.heads),
        neurons=step * _clip(gene.neurons // step + steps * 2, full.neurons // step),
    )


def _toggle_layer(child: list[Gene], space: GenomeSpace, random: np.random.Generator) -> list[Gene]:
    """Drop a layer, or keep one that was dropped."""
    layer = random.integers(len(child))
    child[layer] = child[layer]._replace(kept=1 - child[layer].kept)
    return child


def _move_layer(child: list[Gene], space: GenomeSpace, random: np.random.Generator) -> list[Gene]:
    """Keep one layer in another's place."""
    a, b = random.integers(len(child), size=2)
    child[a], child[b] = child[a]._replace(kept=child[b].kept), child[b]._replace(kept=child[a].kept)
    return child


def _clip(count: int, most: int) -> int:
    return max(1, min(count, most))
