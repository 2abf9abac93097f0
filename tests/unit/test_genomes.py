"""Genomes: conversion to and from sub-networks, their number, and variation operators."""

from dataclasses import replace
from itertools import product

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from dynabert_paddle.genomes import Gene, Genome, GenomeSpace
from dynabert_paddle.search_space import SearchSpace
from dynabert_paddle.searching.variation import make_child
from dynabert_paddle.subnet import Subnet

MINILM = GenomeSpace.of(SearchSpace(heads=(12,) * 6, neurons=(1536,) * 6, hidden_size=384, head_dim=32))
UNEVEN = GenomeSpace.of(
    SearchSpace(heads=(4, 2, 3), neurons=(70, 33, 100), hidden_size=32, head_dim=8, width_mults=(1.0, 0.5))
)
RANKED = GenomeSpace.of(
    SearchSpace(
        heads=(4, 2, 3),
        neurons=(70, 33, 100),
        hidden_size=32,
        head_dim=8,
        width_mults=(1.0, 0.5),
        vocab_size=100,
        embedding_size=50,
        max_rank=50,
        rank_mults=(1.0, 0.5),
    )
)
SPACES = (MINILM, UNEVEN, RANKED)


@st.composite
def genomes(draw, space):
    genes = [
        Gene(draw(st.integers(0, 1)), draw(st.integers(1, heads)), draw(st.integers(1, steps)) * space.step)
        for heads, steps in zip(space.space.heads, space.steps, strict=True)
    ]
    layer = draw(st.integers(0, len(genes) - 1))
    genes[layer] = genes[layer]._replace(kept=1)
    return Genome(tuple(genes), space.rank_of(draw(st.integers(1, space.rank_steps))))


def check(space, subnet):
    subnet.check_part_of(space.space.full, max_rank=space.space.max_rank)


def test_six_layers_have_more_than_a_million_sub_networks():
    # Each layer is dropped, or keeps one of 12 numbers of heads and one of 1536 / 32 = 48 numbers of steps.
    assert MINILM.count() == (1 + 12 * 48) ** 6 - 1 > 10**6


def test_the_count_is_the_number_of_different_sub_networks():
    space = GenomeSpace(SearchSpace(heads=(2, 1), neurons=(64, 50), hidden_size=8, head_dim=4, width_mults=(1.0,)), 32)
    genes = [
        [Gene(kept, head + 1, (step + 1) * 32) for kept in (0, 1) for head in range(heads) for step in range(2)]
        for heads in (2, 1)
    ]
    kept = [genome for genome in product(*genes) if any(gene.kept for gene in genome)]
    assert len({space.decode(Genome(genome)) for genome in kept}) == space.count() == (1 + 2 * 2) * (1 + 1 * 2) - 1
    ranked = replace(space.space, vocab_size=9, embedding_size=40, max_rank=40, rank_mults=(1.0, 0.4))
    space = GenomeSpace(ranked, 32, 16)  # ranks 16, 32 and all 40
    subnets = {space.decode(Genome(genome, space.rank_of(steps))) for genome in kept for steps in (1, 2, 3)}
    assert len(subnets) == space.count() == 3 * ((1 + 2 * 2) * (1 + 1 * 2) - 1)
    assert {subnet.embedding_rank for subnet in subnets} == {16, 32, None}


@pytest.mark.parametrize("space", SPACES)
@given(data=st.data())
def test_genomes_round_trip_through_sub_networks_and_parameters(space, data):
    genome = data.draw(genomes(space))
    subnet = space.decode(genome)
    check(space, subnet)
    encoded = space.encode(subnet)
    assert space.decode(encoded) == subnet
    assert encoded.rank == genome.rank
    assert [gene for gene in encoded.layers if gene.kept] == [gene for gene in genome.layers if gene.kept]
    params = space.to_params(genome)
    assert space.from_params(params) == genome
    assert all(space.distributions()[name]._contains(value) for name, value in params.items())
    assert set(params) == set(space.distributions())


@pytest.mark.parametrize("space", SPACES)
def test_full_and_smallest_genomes(space):
    assert space.decode(space.full) == space.space.full
    assert space.decode(space.smallest) == Subnet((0,), (1,), (space.step,), space.rank_step)


def test_steps_are_never_coarser_than_the_grid():
    tiny = SearchSpace(heads=(4,) * 4, neurons=(48,) * 4, hidden_size=32, head_dim=8)
    space = GenomeSpace.of(tiny)
    assert space.step == 12
    for cell in tiny.grid().values():
        assert space.decode(space.encode(cell)) == cell
    assert MINILM.step == 32


def test_neurons_between_two_steps_are_rounded_up():
    assert MINILM.decode(MINILM.encode(Subnet((1,), (3,), (33,)))) == Subnet((1,), (3,), (64,))
    assert UNEVEN.decode(UNEVEN.encode(Subnet((0,), (1,), (69,)))).neurons == (70,)


def test_random_genomes_reach_every_number_of_layers_and_every_width():
    random = np.random.default_rng(0)
    subnets = [UNEVEN.decode(UNEVEN.random(random)) for _ in range(400)]
    assert {len(subnet.layers) for subnet in subnets} == {1, 2, 3}
    assert {heads for subnet in subnets for layer, heads, _ in subnet.parts if layer == 0} == {1, 2, 3, 4}
    assert {neurons for subnet in subnets for layer, _, neurons in subnet.parts if layer == 1} == {17, 33}
    assert {subnet.embedding_rank for subnet in subnets} == {None}
    ranked = [RANKED.decode(RANKED.random(random)) for _ in range(100)]
    assert {subnet.embedding_rank for subnet in ranked} == {16, 32, 48, None}


def test_ranks_are_searched_only_where_they_were_trained():
    untrained = GenomeSpace.of(replace(RANKED.space, rank_mults=(1.0,)))
    assert (untrained.rank_step, untrained.full.rank, untrained.rank_steps) == (None, None, 1)
    assert "embedding_rank" not in untrained.distributions()
    assert RANKED.rank_step == 16
    assert GenomeSpace.of(replace(RANKED.space, rank_mults=(1.0, 0.1))).rank_step == 5
    assert RANKED.decode(RANKED.encode(RANKED.space.parse("l0h1f5-e17"))).embedding_rank == 32


@pytest.mark.parametrize("space", SPACES)
@settings(max_examples=60)
@given(data=st.data(), seed=st.integers(0, 1000))
def test_children_are_valid_and_determined_by_the_seed(space, data, seed):
    first, second = data.draw(genomes(space)), data.draw(genomes(space))
    child = make_child(first, second, space, np.random.default_rng(seed))
    check(space, space.decode(child))
    distributions = space.distributions()
    assert all(distributions[name]._contains(value) for name, value in space.to_params(child).items())
    assert make_child(first, second, space, np.random.default_rng(seed)) == child


def test_children_are_near_their_parents_and_reach_every_gene():
    parent = MINILM.encode(MINILM.space.subnet(width_mult=0.5, depth_mult=0.5))
    children = [make_child(parent, parent, MINILM, np.random.default_rng(seed)) for seed in range(300)]
    for layer in range(6):
        for name in Gene._fields:
            values = {getattr(child.layers[layer], name) for child in children}
            assert len(values) > 1, (layer, name)
    kept = [sum(gene.kept for gene in child.layers) for child in children]
    assert set(kept) == {2, 3, 4}
    parent = RANKED.encode(RANKED.space.parse("w0.50d1.00r0.50"))
    ranks = [make_child(parent, parent, RANKED, np.random.default_rng(seed)).rank for seed in range(300)]
    assert set(ranks) == {16, 32, 48, 64}  # 64 stands for all 50
    assert 0.5 < ranks.count(32) / len(ranks) < 0.9
