"""The initial population: the grid, narrow cells, and genomes guided by importance per cost."""

from dataclasses import replace
from itertools import pairwise

import numpy as np
import pytest

from dynabert_paddle.genomes import GenomeSpace
from dynabert_paddle.search_space import SearchSpace
from dynabert_paddle.searching.guide import COST_LEVELS, guided_genomes, initial_genomes

SPACE = SearchSpace(heads=(12,) * 6, neurons=(1536,) * 6, hidden_size=384, head_dim=32)
GENOMES = GenomeSpace.of(SPACE)


def make_importance(space, seed=0, scale=None):
    random = np.random.default_rng(seed)
    scale = scale or [1.0] * space.num_layers
    return {
        name: [np.sort(random.exponential(s, count))[::-1].tolist() for s, count in zip(scale, counts, strict=True)]
        for name, counts in (("heads", space.heads), ("neurons", space.neurons))
    }


def test_without_importance_it_is_the_grid_the_smallest_and_narrow_cells():
    subnets = [GENOMES.decode(genome) for genome in initial_genomes(GENOMES, {})]
    assert subnets[:12] == list(SPACE.grid().values())
    assert subnets[12] == GENOMES.decode(GENOMES.smallest)
    assert {subnet.heads[0] for subnet in subnets[13:]} == {1, 2}


def test_initial_genomes_are_unique():
    initial = initial_genomes(GENOMES, make_importance(SPACE))
    assert len({GENOMES.decode(genome) for genome in initial}) == len(initial) > 25


@pytest.mark.parametrize("seed", range(3))
def test_parts_kept_at_a_cost_level_are_kept_at_every_higher_one(seed):
    """All layers share one threshold, so genomes with the same layers are nested."""
    levels = sorted(COST_LEVELS)
    by_layers = {}
    for genome in guided_genomes(GENOMES, make_importance(SPACE, seed)):
        subnet = GENOMES.decode(genome)
        by_layers.setdefault(subnet.layers, []).append(subnet)
    for layers, subnets in by_layers.items():
        assert len(subnets) == len(levels)
        subnets.sort(key=SPACE.num_macs)
        full = SPACE.num_macs(SPACE.full, seq_length=1) * len(layers) / 6
        for smaller, larger in pairwise(subnets):
            assert SPACE.num_macs(smaller) < SPACE.num_macs(larger)
            assert all(
                a <= b for a, b in zip(smaller.heads + smaller.neurons, larger.heads + larger.neurons, strict=False)
            )
        # The level excludes attention's own products, and the one head and step that every layer keeps.
        for level, subnet in zip(levels, subnets, strict=True):
            assert SPACE.num_macs(subnet, seq_length=1) / full == pytest.approx(level, abs=0.05)


def test_important_layers_are_kept_and_wider():
    importance = make_importance(SPACE, scale=[1, 1, 1, 5, 5, 5])
    subnets = [GENOMES.decode(genome) for genome in guided_genomes(GENOMES, importance)]
    assert any(subnet.layers == (3, 4, 5) for subnet in subnets)
    for subnet in subnets:
        widths = {layer: neurons for layer, _, neurons in subnet.parts}
        assert max((widths[layer] for layer in widths if layer < 3), default=0) <= min(
            (widths[layer] for layer in widths if layer >= 3), default=1536
        )


def test_a_short_last_step_of_neurons_is_kept_last():
    space = SearchSpace(heads=(2, 2), neurons=(40, 40), hidden_size=8, head_dim=4, width_mults=(1.0,))
    genomes = GenomeSpace(space, 32)
    for genome in initial_genomes(genomes, make_importance(space)):
        genomes.decode(genome).check_part_of(space.full)


def test_narrow_and_guided_genomes_have_the_lowest_rank_of_the_grid():
    space = replace(SPACE, vocab_size=9, embedding_size=384, max_rank=384, rank_mults=(1.0, 0.5, 0.25))
    genomes = GenomeSpace.of(space)
    subnets = [genomes.decode(genome) for genome in initial_genomes(genomes, make_importance(space))]
    assert subnets[:36] == list(space.grid().values())
    assert subnets[36] == genomes.decode(genomes.smallest)
    assert subnets[36].embedding_rank == 16
    assert {subnet.embedding_rank for subnet in subnets[37:]} == {96}
    plain = [GENOMES.decode(genome) for genome in initial_genomes(GENOMES, make_importance(SPACE))]
    assert [replace(subnet, embedding_rank=None) for subnet in subnets[37:]] == plain[13:]
