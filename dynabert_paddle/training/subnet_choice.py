"""Which sub-networks one optimizer step trains: all of the grid, or a sandwich (Yu and Huang, 2019)."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

import numpy as np

from dynabert_paddle.config.settings import FinalConfig, GeneralConfig, WidthConfig
from dynabert_paddle.genomes import Gene, GenomeSpace
from dynabert_paddle.runtime.seeds import step_seed
from dynabert_paddle.search_space import SearchSpace
from dynabert_paddle.subnet import Subnet

_DRAWS = 32  # for each random sub-network; the one whose MACs are the nearest to what is wanted is taken


def choose_subnets(
    subnets: Mapping[str, Subnet],
    config: WidthConfig | FinalConfig | GeneralConfig,
    step: int,
    *,
    space: SearchSpace | None = None,
) -> list[Subnet]:
    """Choose the sub-networks of one step: cells of width and depth, each with one of its embedding ranks.

    Args:
        subnets: all sub-networks of the stage, the largest first and the smallest last.
        config: all cells, or a sandwich of the largest, the smallest and random others.
        step: the optimizer step; with the seed it determines the random choice.
        space: of the model, which random sub-networks beyond the grid are drawn from, unless the grid is one cell.

    Returns:
        The sub-networks, in the order of `subnets`: the largest cell with the highest rank, the smallest with the
        lowest, each other one with a random rank. A single cell comes with both. Random ones beyond the grid come in
        descending order of their MACs.
    """
    ranks: dict[Subnet, list[Subnet]] = {}  # of each cell, the highest first
    for subnet in subnets.values():
        ranks.setdefault(replace(subnet, embedding_rank=None), []).append(subnet)
    first, *others, last = cells = list(ranks.values()) * (2 if len(ranks) == 1 else 1)
    random = np.random.default_rng(step_seed(config.seed, step))
    is_sandwich = config.subnets_per_step == "sandwich"
    if is_sandwich and config.random_subnets == "per_layer" and space is not None and len(ranks) > 1:
        drawn = draw_per_layer(subnets, space, config.num_random_subnets, random)
        return list(dict.fromkeys([first[0], *drawn, last[-1]]))
    if is_sandwich and len(cells) > 2 + config.num_random_subnets:
        chosen = random.choice(np.arange(len(others)), size=config.num_random_subnets, replace=False)
        others = [others[index] for index in sorted(chosen)]
    drawn = [cell[random.integers(len(cell))] for cell in others]
    return list(dict.fromkeys([first[0], *drawn, last[-1]]))


def draw_per_layer(
    subnets: Mapping[str, Subnet], space: SearchSpace, number: int, random: np.random.Generator
) -> list[Subnet]:
    """Draw sub-networks whose layers have heads and neurons of their own, spread evenly over MACs.

    The range between the MACs of the stage's smallest and largest sub-networks is divided into as many equal parts as
    sub-networks are wanted. Each part gets one: the nearest of several random ones to a random place in it.

    Args:
        subnets: all sub-networks of the stage; where none drops a layer, the drawn ones drop none either.
        space: of the model.
        number: how many to draw.
        random: the random numbers.

    Returns:
        The sub-networks, in descending order of their places.
    """
    genomes = GenomeSpace.of(space)
    all_layers = all(len(subnet.layers) == space.num_layers for subnet in subnets.values())
    macs = [space.num_macs(subnet) for subnet in subnets.values()]
    places = (np.arange(number) + random.random(number)) / max(1, number)  # in [0, 1), one in each part
    drawn = []
    for place in reversed(min(macs) + places * (max(macs) - min(macs))):
        candidates = [_draw(genomes, random, all_layers=all_layers) for _ in range(_DRAWS)]
        drawn.append(min(candidates, key=lambda subnet: abs(space.num_macs(subnet) - place)))
    return drawn


def _draw(genomes: GenomeSpace, random: np.random.Generator, *, all_layers: bool) -> Subnet:
    """Draw a sub-network somewhere between a random one and the whole model, which random ones alone never near."""
    share = random.random()
    genome = genomes.random(random, all_layers=all_layers)
    layers = []
    for gene, whole in zip(genome.layers, genomes.full.layers, strict=True):
        heads = gene.heads + round(share * (whole.heads - gene.heads))
        steps = round(share * (whole.neurons - gene.neurons) / genomes.step)
        layers.append(Gene(int(gene.kept or random.random() < share), heads, gene.neurons + steps * genomes.step))
    return genomes.decode(genome._replace(layers=tuple(layers)))
