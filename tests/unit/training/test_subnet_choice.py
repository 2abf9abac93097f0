"""Which sub-networks a step trains: all, a sandwich of the grid, or one of per-layer sub-networks."""

from dataclasses import replace

import numpy as np
import pytest

from dynabert_paddle.config.settings import FinalConfig, WidthConfig
from dynabert_paddle.genomes import GenomeSpace
from dynabert_paddle.search_space import SearchSpace
from dynabert_paddle.training.subnet_choice import choose_subnets, draw_per_layer

SANDWICH = FinalConfig(subnets_per_step="sandwich", num_random_subnets=2, seed=5)
PER_LAYER = replace(SANDWICH, random_subnets="per_layer")
SPACE = SearchSpace(heads=(4,) * 4, neurons=(48,) * 4, hidden_size=32, head_dim=8)
MINILM = SearchSpace(heads=(12,) * 6, neurons=(1536,) * 6, hidden_size=384, head_dim=32)


@pytest.fixture(scope="module")
def grid():
    return SPACE.grid()


@pytest.mark.parametrize("num_random", [0, 1, 2, 5])
def test_a_sandwich_has_the_largest_the_smallest_and_distinct_others(grid, num_random):
    config = FinalConfig(subnets_per_step="sandwich", num_random_subnets=num_random)
    every = list(grid.values())
    for step in range(50):
        chosen = choose_subnets(grid, config, step)
        assert chosen[0] == grid["w1.00d1.00"]
        assert chosen[-1] == grid["w0.25d0.50"]
        assert len(chosen) == len(set(chosen)) == 2 + num_random
        positions = [every.index(subnet) for subnet in chosen]
        assert positions == sorted(positions)


def test_the_random_ones_follow_from_seed_and_step(grid):
    first = [choose_subnets(grid, SANDWICH, step) for step in range(40)]
    np.random.rand(3)
    assert [choose_subnets(grid, SANDWICH, step) for step in range(40)] == first
    other = FinalConfig(subnets_per_step="sandwich", num_random_subnets=2, seed=6)
    assert [choose_subnets(grid, other, step) for step in range(40)] != first
    # 40 steps draw 80 times from 10: that one of them never comes has a chance of 10 * 0.8**40, 0.1 %.
    assert {subnet for chosen in first for subnet in chosen} == set(grid.values())


@pytest.mark.parametrize("config", [FinalConfig(), WidthConfig(subnets_per_step="all")])
def test_by_default_a_step_trains_every_sub_network(grid, config):
    assert choose_subnets(grid, config, 3) == list(grid.values())


def test_a_sandwich_of_a_small_grid_is_all_of_it(grid):
    few = dict(list(grid.items())[:4])
    assert choose_subnets(few, SANDWICH, 0) == list(few.values())
    assert choose_subnets({"w1.00d1.00": grid["w1.00d1.00"]}, SANDWICH, 0) == [grid["w1.00d1.00"]]


def test_per_layer_is_off_by_default_and_without_a_space(grid):
    for step in range(20):
        chosen = choose_subnets(grid, SANDWICH, step)
        assert choose_subnets(grid, SANDWICH, step, space=SPACE) == chosen
        assert choose_subnets(grid, PER_LAYER, step) == chosen
        assert choose_subnets(grid, replace(PER_LAYER, subnets_per_step="all"), step, space=SPACE) == [*grid.values()]


def test_per_layer_ones_are_those_that_a_search_looks_at():
    cells = MINILM.grid()
    genomes = GenomeSpace.of(MINILM)
    seen = set()
    for step in range(30):
        first, *drawn, last = choose_subnets(cells, PER_LAYER, step, space=MINILM)
        assert (first, last) == (cells["w1.00d1.00"], cells["w0.25d0.50"])
        assert len(drawn) == 2
        seen |= {*drawn}
        assert all(genomes.decode(genomes.encode(subnet)) == subnet for subnet in drawn)
    assert len(seen) == 60
    assert not seen & {*cells.values()}
    assert any(len({*subnet.heads}) > 1 for subnet in seen), "the layers have widths of their own"
    assert len({subnet.layers for subnet in seen}) > 12, "any layers may be dropped"


def test_per_layer_ones_follow_from_seed_and_step():
    cells = MINILM.grid()
    first = [choose_subnets(cells, PER_LAYER, step, space=MINILM) for step in range(5)]
    np.random.rand(3)
    assert [choose_subnets(cells, PER_LAYER, step, space=MINILM) for step in range(5)] == first
    other = replace(PER_LAYER, seed=6)
    assert [choose_subnets(cells, other, step, space=MINILM) for step in range(5)] != first


@pytest.mark.parametrize("number", [1, 3])
def test_macs_of_per_layer_ones_are_spread_evenly(number):
    cells = MINILM.grid()
    low, high = (MINILM.num_macs(cells[name]) for name in ("w0.25d0.50", "w1.00d1.00"))
    shares = []
    for step in range(120):
        drawn = draw_per_layer(cells, MINILM, number, np.random.default_rng(step))
        macs = [(MINILM.num_macs(subnet) - low) / (high - low) for subnet in drawn]
        shares += macs
    counts, _ = np.histogram(shares, bins=4, range=(-0.02, 1.02))
    expected = len(shares) / 4
    # Independent draws, which these are not, would vary by the square root; the nearest candidate is not at its place.
    assert np.all(abs(counts - expected) < 3 * expected**0.5), counts


def test_a_stage_of_widths_drops_no_layer():
    widths = {name: subnet for name, subnet in MINILM.grid().items() if len(subnet.layers) == 6}
    for step in range(20):
        chosen = choose_subnets(widths, PER_LAYER, step, space=MINILM)
        assert {subnet.layers for subnet in chosen} == {tuple(range(6))}


def test_per_layer_ones_have_ranks_where_the_grid_has():
    space = (
        MINILM.with_ranks((1.0, 0.5))
        if MINILM.embedding_size
        else replace(MINILM, vocab_size=100, embedding_size=384, rank_mults=(1.0, 0.5), max_rank=384)
    )
    drawn = draw_per_layer(space.grid(), space, 40, np.random.default_rng(0))
    assert len({subnet.embedding_rank for subnet in drawn}) > 5
