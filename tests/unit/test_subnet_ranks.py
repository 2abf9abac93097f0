"""Sub-networks with a part of the word embedding: names, the grid, and costs."""

from dataclasses import replace
from fractions import Fraction
from math import floor

import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from dynabert_paddle.errors import UsageError
from dynabert_paddle.multipliers import Mults, grid_mults
from dynabert_paddle.search_space import SearchSpace
from dynabert_paddle.subnet import Subnet

VOCAB, SIZE = 30522, 384
# MiniLM-L6: words, 512 positions and 2 segments of 384 each, and LayerNorm's weight and bias.
PLAIN = SearchSpace(
    heads=(12,) * 6,
    neurons=(1536,) * 6,
    hidden_size=SIZE,
    head_dim=32,
    embedding_params=(VOCAB + 512 + 2) * SIZE + 2 * SIZE,
    other_params=7,
    vocab_size=VOCAB,
    embedding_size=SIZE,
)
ELASTIC = replace(PLAIN, max_rank=SIZE, rank_mults=(1.0, 0.25))
SMALL = replace(PLAIN, max_rank=96, embedding_params=PLAIN.embedding_params - VOCAB * (SIZE - 96) + 96 * SIZE)


def test_the_grid_has_each_rank_of_each_cell_and_the_whole_embedding_has_no_name():
    space = replace(ELASTIC, width_mults=(1.0, 0.5), depth_mults=(1.0,))
    names = ["w1.00d1.00", "w1.00d1.00r0.25", "w0.50d1.00", "w0.50d1.00r0.25"]
    assert list(space.grid()) == names
    assert [subnet.embedding_rank for subnet in space.grid().values()] == [None, 96, None, 96]
    assert [space.name(space.parse(name)) for name in names] == names
    assert str(space.parse(names[-1])) == "-".join(f"l{i}h6f768" for i in range(6)) + "-e96"
    assert list(PLAIN.grid()) == list(replace(ELASTIC, rank_mults=(1.0,)).grid()) == list(SMALL.grid())


@settings(deadline=None)
@given(rank_mult=st.integers(1, 100).map(lambda n: n / 100), size=st.integers(1, 1024))
def test_a_rank_is_its_share_of_the_components_and_halves_round_up(rank_mult, size):
    expected = floor(Fraction(str(rank_mult)) * size + Fraction(1, 2))
    assume(expected >= 1)
    space = replace(ELASTIC, embedding_size=size, max_rank=size, rank_mults=(rank_mult,))
    subnet = space.subnet(width_mult=0.5, rank_mult=rank_mult)
    assert subnet.embedding_rank == (None if expected == size else expected)
    assert space.parse(space.name(subnet)) == space.parse(str(subnet)) == subnet == Subnet.parse(str(subnet))
    for name, cell in space.grid().items():
        assert space.parse(name) == cell
        assert str(grid_mults(name)) == name


@pytest.mark.parametrize(
    ("name", "mults"),
    [("w.5d.75r.25", Mults(0.5, 0.75, 0.25)), ("w1d1r1", Mults(1, 1, 1)), ("w0.50d0.75", Mults(0.5, 0.75, 1))],
)
def test_grid_names_hold_three_multipliers(name, mults):
    assert grid_mults(name) == mults
    assert ELASTIC.parse(name) == ELASTIC.subnet(width_mult=mults[0], depth_mult=mults[1], rank_mult=mults[2])


def test_all_components_are_the_whole_embedding():
    whole = ELASTIC.parse("l0h1f1-e384")
    assert whole == Subnet((0,), (1,), (1,))
    assert SMALL.parse("l0h1f1-e96") == whole
    assert ELASTIC.name(Subnet((0,), (1,), (1,), 384)) == "l0h1f1"
    assert ELASTIC.parse("w1.00d1.00r1.00") == ELASTIC.full == PLAIN.parse("w1.00d1.00r1.00")


def test_params_and_macs_are_those_of_the_two_matrices():
    subnet = ELASTIC.parse("w0.25d0.50r0.25")
    whole = replace(subnet, embedding_rank=None)
    assert ELASTIC.num_params(whole) == PLAIN.num_params(whole)
    assert ELASTIC.num_macs(whole) == PLAIN.num_macs(whole)
    # 96 of 384 columns of a table of 30522 rows, and 96 rows of 384 that make them 384 wide.
    assert ELASTIC.num_params(whole) - ELASTIC.num_params(subnet) == 30522 * 288 - 96 * 384
    assert ELASTIC.num_macs(subnet, seq_length=64) - ELASTIC.num_macs(whole, seq_length=64) == 64 * 96 * 384
    assert ELASTIC.num_params(subnet, embeddings=False) == PLAIN.num_params(whole, embeddings=False)
    # The small model that has this part alone, and a part of that.
    assert SMALL.num_params(whole) == ELASTIC.num_params(subnet)
    assert SMALL.num_macs(whole) == ELASTIC.num_macs(subnet)
    part = replace(subnet, embedding_rank=10)
    assert SMALL.num_params(part) == ELASTIC.num_params(part)
    assert SMALL.num_macs(part) == ELASTIC.num_macs(part)


@pytest.mark.parametrize(
    "name", ["w0.50d0.75r", "w0.50r0.25", "e96", "l0h1f1-e", "l0h1f1-96", "e9-l0h1f1", "l0h1f1-e1-e1"]
)
def test_an_invalid_name_of_a_rank_is_refused(name):
    with pytest.raises(UsageError, match="is no subnet: .* an embedding rank comes last, as in 'w0.50d0.75r0.25'"):
        ELASTIC.parse(name)


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("w0.50d0.75r0", r"a rank multiplier lies in \(0, 1\], not 0.0"),
        ("w0.50d0.75r1.5", r"a rank multiplier lies in \(0, 1\], not 1.5"),
        ("w0.50d0.75r0.001", "rank_mult 0.001 leaves no component of 384: use at least 0.0013"),
        ("l0h1f1-e0", "an embedding's rank is at least 1: l0h1f1-e0"),
        ("l0h1f1-e385", "'l0h1f1-e385' wants rank 385 of the embedding, which has 384"),
    ],
)
def test_ranks_that_the_embedding_lacks_are_refused(name, message):
    with pytest.raises(UsageError, match=message):
        ELASTIC.parse(name)


@pytest.mark.parametrize("name", ["w0.50d0.75r0.25", "l0h1f1-e96"])
def test_a_rank_of_an_embedding_that_is_not_elastic_is_refused_with_the_way_to_it(name):
    with pytest.raises(UsageError, match="not elastic: leave the rank out, or make it elastic with 'dynabert rewire"):
        PLAIN.parse(name)
