"""Sub-networks: which layers, heads and neurons they keep, what they are called, and what they cost."""

import subprocess
import sys
from fractions import Fraction
from itertools import pairwise
from math import floor

import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from dynabert_paddle.errors import UsageError
from dynabert_paddle.multipliers import Mults, exact, grid_mults, parse_mults
from dynabert_paddle.search_space import SearchSpace
from dynabert_paddle.subnet import Subnet

HIDDEN, LAYERS, HEADS, NEURONS = 768, 12, 12, 3072
BERT_BASE = SearchSpace(
    heads=(HEADS,) * LAYERS,
    neurons=(NEURONS,) * LAYERS,
    hidden_size=HIDDEN,
    head_dim=64,
    # 30522 words, 512 positions and 2 segments, and LayerNorm's weight and bias.
    embedding_params=(30522 + 512 + 2) * HIDDEN + 2 * HIDDEN,
    # The pooler; the paper's sizes are without a classifier.
    other_params=HIDDEN * HIDDEN + HIDDEN,
)
# Millions of parameters and GMACs at length 128 of Hou et al. (2020), table 1, per depth multiplier 1, .75, .5.
PAPER_SIZES = {
    1.0: (("109.5", "11.17"), ("88.2", "8.38"), ("67.0", "5.59")),
    0.75: (("88.2", "8.38"), ("72.3", "6.29"), ("56.3", "4.19")),
    0.5: (("67.0", "5.59"), ("56.3", "4.19"), ("45.7", "2.79")),
    0.25: (("45.7", "2.79"), ("40.4", "2.10"), ("35.1", "1.40")),
}
CELLS = [(mw, md, *PAPER_SIZES[mw][i]) for mw in PAPER_SIZES for i, md in enumerate((1.0, 0.75, 0.5))]

# Decimals as users write them, and any float between them.
mults = st.one_of(st.integers(5, 100).map(lambda n: n / 100), st.floats(0.05, 1.0))


@st.composite
def subnets(draw, *, layers=LAYERS, heads=HEADS, neurons=NEURONS):
    kept = sorted(draw(st.sets(st.integers(0, layers - 1), min_size=1)))
    per_layer = {"min_size": len(kept), "max_size": len(kept)}
    return Subnet(
        tuple(kept),
        tuple(draw(st.lists(st.integers(1, heads), **per_layer))),
        tuple(draw(st.lists(st.integers(1, neurons), **per_layer))),
    )


def space_of(num_layers, *, heads=HEADS, neurons=NEURONS, **options):
    return SearchSpace((heads,) * num_layers, (neurons,) * num_layers, HIDDEN, 64, **options)


@pytest.mark.parametrize(
    ("num_layers", "depth_mult", "kept"),
    [
        (12, 1.0, list(range(12))),
        (12, 0.75, [0, 1, 2, 4, 5, 6, 8, 9, 10]),
        (12, 0.5, [0, 2, 4, 6, 8, 10]),
        (6, 1.0, list(range(6))),
        (6, 0.75, [0, 1, 2, 4, 5]),  # 4.5 layers round up to 5
        (6, 0.5, [0, 2, 4]),
        (3, 0.6, [0, 1]),
    ],
)
def test_kept_layers_are_the_papers(num_layers, depth_mult, kept):
    assert list(space_of(num_layers).subnet(depth_mult=depth_mult).layers) == kept


@pytest.mark.parametrize("depth_mult", [0.75, 0.5])
def test_kept_layers_follow_the_papers_other_wording(depth_mult):
    """The paper drops layer d where mod(d + 1, 1 / md) = 0, for the depths at which that is a whole number of layers.

    1 / .75 is no integer: there d + 1 is a multiple of 4, the least integer that is a multiple of it.
    """
    period = {0.75: 4, 0.5: 2}[depth_mult]
    dropped = [d for d in range(LAYERS) if (d + 1) % period == 0]
    kept = space_of(LAYERS).subnet(depth_mult=depth_mult).layers
    assert sorted([*kept, *dropped]) == list(range(LAYERS))


@settings(deadline=None)
@given(num_layers=st.integers(1, 48), depth_mult=mults)
def test_kept_layers_ascend_within_the_model_and_are_round_half_up_many(num_layers, depth_mult):
    exact = Fraction(repr(depth_mult))
    depth = floor(exact * num_layers + Fraction(1, 2))
    assume(depth >= 1)
    kept = space_of(num_layers, depth_mults=(1.0,)).subnet(depth_mult=depth_mult).layers
    assert len(kept) == depth
    assert all(a < b for a, b in pairwise(kept))
    assert kept[0] == 0
    assert kept[-1] < num_layers
    assert kept == tuple(i * exact.denominator // exact.numerator for i in range(depth))


@pytest.mark.parametrize(
    ("width_mult", "heads", "neurons"),
    # PaddleNLP's shrinking in place gives 9, 6 and 3 heads for 3/4, 2/3 and 1/2.
    [(1.0, 12, 3072), (0.75, 9, 2304), (2 / 3, 8, 2048), (0.5, 6, 1536), (1 / 3, 4, 1024), (0.25, 3, 768)],
)
def test_width_keeps_its_share_of_heads_and_neurons(width_mult, heads, neurons):
    subnet = BERT_BASE.subnet(width_mult=width_mult)
    assert (set(subnet.heads), set(subnet.neurons)) == ({heads}, {neurons})


@settings(deadline=None)
@given(heads=st.integers(1, 32), neurons=st.integers(1, 200), width_mult=mults)
def test_width_rounds_halves_up(heads, neurons, width_mult):
    exact = Fraction(repr(width_mult))
    expected = [floor(exact * count + Fraction(1, 2)) for count in (heads, neurons)]
    assume(min(expected) >= 1)
    subnet = space_of(1, heads=heads, neurons=neurons, width_mults=(1.0,), depth_mults=(1.0,)).subnet(
        width_mult=width_mult
    )
    assert [*subnet.heads, *subnet.neurons] == expected


def test_width_of_layers_that_differ():
    space = SearchSpace((4, 2, 8), (10, 20, 30), HIDDEN, 64, width_mults=(1.0,), depth_mults=(1.0,))
    assert space.subnet(width_mult=0.5, depth_mult=0.6) == Subnet((0, 1), (2, 1), (5, 10))
    assert space.full == Subnet((0, 1, 2), (4, 2, 8), (10, 20, 30)) == space.subnet()
    assert space.num_layers == 3


@pytest.mark.parametrize(("width_mult", "depth_mult", "params", "macs"), CELLS)
def test_sizes_are_the_papers(width_mult, depth_mult, params, macs):
    subnet = BERT_BASE.subnet(width_mult=width_mult, depth_mult=depth_mult)
    depth, h, f = LAYERS * depth_mult, HIDDEN * width_mult, NEURONS * width_mult
    layer = (
        3 * (HIDDEN * h + h)  # Q, K and V
        + (h * HIDDEN + HIDDEN)  # attention output
        + (HIDDEN * f + f)
        + (f * HIDDEN + HIDDEN)
        + 2 * 2 * HIDDEN  # two LayerNorms
    )
    outside = BERT_BASE.embedding_params + BERT_BASE.other_params
    assert BERT_BASE.num_params(subnet) == outside + depth * layer
    assert f"{BERT_BASE.num_params(subnet) / 1e6:.1f}" == params
    # A MAC per weight and token, and those of QK^T and of the weights times V: s^2 * h each.
    weights = 4 * HIDDEN * h + 2 * HIDDEN * f
    assert BERT_BASE.num_macs(subnet) == depth * (128 * weights + 2 * 128**2 * h)
    assert f"{BERT_BASE.num_macs(subnet) / 1e9:.2f}" == macs


def test_params_of_bert_base_are_the_known_ones():
    """109,482,240 is what `BertModel.from_pretrained("bert-base-uncased")` has in any framework."""
    assert BERT_BASE.num_params(BERT_BASE.full) == 109_482_240
    assert BERT_BASE.num_params(BERT_BASE.full, embeddings=False) == 109_482_240 - 23_837_184


@settings(deadline=None)
@given(subnet=subnets())
def test_sizes_add_up_over_layers(subnet):
    parts = [
        Subnet((layer,), (heads,), (neurons,))
        for layer, heads, neurons in zip(subnet.layers, subnet.heads, subnet.neurons, strict=True)
    ]
    fixed = BERT_BASE.embedding_params + BERT_BASE.other_params
    assert BERT_BASE.num_params(subnet) == fixed + sum(BERT_BASE.num_params(part) - fixed for part in parts)
    for seq_length in (1, 64, 512):
        macs = [BERT_BASE.num_macs(part, seq_length=seq_length) for part in parts]
        assert BERT_BASE.num_macs(subnet, seq_length=seq_length) == sum(macs)


def test_params_without_biases():
    with_bias, without = space_of(2), space_of(2, bias=False)
    subnet = Subnet((1,), (3,), (100,))
    biases = 3 * (3 * 64) + HIDDEN + 100 + HIDDEN
    assert with_bias.num_params(subnet) - without.num_params(subnet) == biases


def test_grid_is_named_deepest_and_widest_first():
    assert list(SearchSpace((4,) * 4, (8,) * 4, 16, 4, width_mults=(0.5, 1.0), depth_mults=(0.5, 1.0)).grid()) == [
        "w1.00d1.00",
        "w0.50d1.00",
        "w1.00d0.50",
        "w0.50d0.50",
    ]
    assert len(BERT_BASE.grid()) == 12
    assert BERT_BASE.grid()["w0.50d0.75"] == BERT_BASE.subnet(width_mult=0.5, depth_mult=0.75)


@settings(deadline=None)
@given(subnet=subnets())
def test_names_of_subnets_read_back(subnet):
    assert Subnet.parse(str(subnet)) == subnet
    assert BERT_BASE.parse(BERT_BASE.name(subnet)) == subnet
    assert len({subnet, Subnet.parse(str(subnet))}) == 1


@settings(deadline=None)
@given(width_mult=mults, depth_mult=mults)
def test_names_of_grid_cells_read_back(width_mult, depth_mult):
    space = space_of(24, heads=32, width_mults=(width_mult, 1.0), depth_mults=(depth_mult, 1.0))
    cells = space.grid()
    assert len(cells) == (1 + (width_mult != 1)) * (1 + (depth_mult != 1))
    for name, subnet in cells.items():
        assert space.parse(name) == subnet
        assert space.parse(space.name(subnet)) == subnet
    assert space.subnet(width_mult=width_mult, depth_mult=depth_mult) in cells.values()


def test_names_are_short_for_grid_cells_alone():
    assert BERT_BASE.name(BERT_BASE.subnet(width_mult=0.25, depth_mult=0.5)) == "w0.25d0.50"
    assert BERT_BASE.name(Subnet((0, 2), (6, 3), (768, 384))) == "l0h6f768-l2h3f384"
    assert space_of(12, width_mults=(0.125, 1.0)).name(space_of(12).subnet(width_mult=0.125)) == "w0.125d1.00"


FRACTIONS = [Fraction(above, below) for below in range(2, 25) for above in range(1, below)]


@pytest.mark.parametrize("fraction", sorted({*FRACTIONS, Fraction(17, 29), Fraction(999, 1000)}))
def test_fractions_are_kept_and_have_short_names_that_read_back(fraction):
    (mult,) = parse_mults(f"{fraction.numerator}/{fraction.denominator}")
    assert exact(mult) == fraction
    name = str(Mults(mult, mult, mult))
    assert grid_mults(name) == Mults(mult, mult, mult)
    if fraction.denominator <= 24:
        assert len(name) <= len("w0.6667d0.6667r0.6667")
    # floor(i / md), where a float of five sixths would lose a layer
    depth = floor(fraction * 48 + Fraction(1, 2))
    assert list(space_of(48).subnet(depth_mult=mult).layers) == [floor(i / fraction) for i in range(depth)]


def test_names_of_decimals_stay_what_they_were():
    """Of all with four decimals, also where a fraction has the same name."""
    for number in range(1, 10_001):
        mult = number / 10_000
        assert str(Mults(mult, 1.0)) == (f"w{mult:.2f}d1.00" if number % 100 == 0 else f"w{mult!r}d1.00")
    space = space_of(12, neurons=30_000, width_mults=(0.6667, 1.0))
    assert space.parse("w0.6667d1.00").neurons[0] == 20_001
    assert space_of(12, neurons=30_000).parse("w0.6667d1.00").neurons[0] == 20_000
    assert space_of(12, neurons=30_000).parse("w0.6666666666666666d1.00").neurons[0] == 20_000
    with pytest.raises(UsageError, match="two multipliers of the grid have the same four decimals"):
        space_of(12, width_mults=(0.6667, 2 / 3))


@pytest.mark.parametrize("name", ["w.5d.75", "w0.5d0.75", "w0.50d0.75", "w0.500d0.750"])
def test_grid_names_may_be_written_shorter(name):
    assert BERT_BASE.parse(name) == BERT_BASE.subnet(width_mult=0.5, depth_mult=0.75)


@pytest.mark.parametrize("name", ["", "w0.5", "w0.5d", "d0.5", "l0h6", "l0h6f768-", "l0h6f768 ", "l0h6f7.5", "full"])
def test_an_invalid_name_is_refused(name):
    with pytest.raises(UsageError, match=r"is no subnet: write a grid cell such as 'w0\.50d0\.75'"):
        BERT_BASE.parse(name)


@pytest.mark.parametrize(
    ("layers", "heads", "neurons", "message"),
    [
        ((), (), (), "at least one layer"),
        ((0, 1), (2,), (3, 3), "not 2 layers, 1 heads and 2 neurons"),
        ((0, 1), (2, 2), (3,), "not 2 layers, 2 heads and 1 neurons"),
        ((1, 0), (2, 2), (3, 3), r"ascending indices from 0, not \[1, 0\]"),
        ((1, 1), (2, 2), (3, 3), r"ascending indices from 0, not \[1, 1\]"),
        ((-1, 0), (2, 2), (3, 3), r"ascending indices from 0, not \[-1, 0\]"),
        ((0,), (0,), (3,), "at least one head and one neuron"),
        ((0, 2), (1, 1), (3, 0), "at least one head and one neuron"),
    ],
)
def test_impossible_subnets_are_refused(layers, heads, neurons, message):
    with pytest.raises(UsageError, match=message):
        Subnet(layers, heads, neurons)
    if layers and len(layers) == len(heads) == len(neurons) and min(layers) >= 0:
        name = "-".join(f"l{a}h{b}f{c}" for a, b, c in zip(layers, heads, neurons, strict=True))
        with pytest.raises(UsageError, match=message):
            Subnet.parse(name)


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("l0h1f1-l12h1f1", "keeps layer 12; this supernet has layers 0 to 11"),
        ("l3h13f1", "wants 13 heads and 1 neurons of layer 3, which has 12 and 3072"),
        ("l3h1f3073", "wants 1 heads and 3073 neurons of layer 3, which has 12 and 3072"),
    ],
)
def test_subnets_that_the_backbone_lacks_are_refused(name, message):
    with pytest.raises(UsageError, match=message):
        BERT_BASE.parse(name)
    with pytest.raises(UsageError, match=message):
        Subnet.parse(name).check_part_of(BERT_BASE.full)
    BERT_BASE.full.check_part_of(BERT_BASE.full)


@pytest.mark.parametrize("mult", [0.0, -0.5, 1.01, float("nan"), float("inf")])
@pytest.mark.parametrize("kind", ["width", "depth"])
def test_multipliers_lie_above_0_and_at_most_at_1(kind, mult):
    with pytest.raises(UsageError, match=rf"a {kind} multiplier lies in \(0, 1\], not {mult}"):
        BERT_BASE.subnet(**{f"{kind}_mult": mult})
    with pytest.raises(UsageError, match=rf"a {kind} multiplier lies in"):
        space_of(12, **{f"{kind}_mults": (1.0, mult)})


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"width_mult": 0.04}, "width_mult 0.04 leaves no head of 12: use at least 0.0417"),
        ({"depth_mult": 0.04}, "depth_mult 0.04 leaves no layer of 12: use at least 0.0417"),
    ],
)
def test_multipliers_that_leave_nothing_are_refused(options, message):
    with pytest.raises(UsageError, match=message):
        BERT_BASE.subnet(**options)


def test_multipliers_that_leave_no_neuron_are_refused():
    with pytest.raises(UsageError, match="width_mult 0.25 leaves no neuron of 1: use at least 0.5"):
        space_of(2, neurons=1, width_mults=(1.0,)).subnet(width_mult=0.25)


@pytest.mark.parametrize("options", [{"width_mults": ()}, {"depth_mults": ()}, {"rank_mults": ()}])
def test_an_empty_grid_is_refused(options):
    with pytest.raises(UsageError, match="at least one width, one depth and one rank multiplier"):
        space_of(12, **options)


@pytest.mark.parametrize(
    ("values", "expected"),
    [
        ("1.0 0.75 0.5", (1.0, 0.75, 0.5)),
        (".5,1", (1.0, 0.5)),
        ("0.5, 0.25 1", (1.0, 0.5, 0.25)),
        (0.5, (0.5,)),
        (1, (1.0,)),
        ([0.25, "0.5", 0.25], (0.5, 0.25)),
        ("3/4 2/3 1/2", (3 / 4, 2 / 3, 1 / 2)),
        ("1/2,1", (1.0, 0.5)),
        (["2/3", 0.5, "1.0"], (1.0, 2 / 3, 0.5)),
        ("2/4 0.5", (0.5,)),
    ],
)
def test_multipliers_as_users_write_them(values, expected):
    assert parse_mults(values) == expected


@pytest.mark.parametrize("values", ["1.0 half", ["x"], [None], None, True, {"a": 1}, "1/0", "1//2", "a/b"])
def test_multipliers_that_are_no_numbers_are_refused(values):
    with pytest.raises(UsageError, match="multipliers are numbers such as"):
        parse_mults(values)


@pytest.mark.parametrize("values", ["3/2", "0/2", "-1/2", "", "nan"])
def test_multipliers_out_of_range_are_refused(values):
    with pytest.raises(UsageError, match="at least one multiplier is needed, and all lie in"):
        parse_mults(values)


def test_importing_the_module_imports_no_paddle():
    code = "import sys, dynabert_paddle.subnet; print({'paddle', 'paddlenlp', 'paddleslim'} & set(sys.modules))"
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert result.stdout.strip() == "set()"


@given(name=st.one_of(st.text(max_size=40), st.text("lhfwd-.0123456789", max_size=40)))
def test_any_name_is_a_sub_network_or_refused(name):
    try:
        subnet = BERT_BASE.parse(name)
    except UsageError:
        return
    assert BERT_BASE.parse(str(subnet)) == subnet


@pytest.mark.parametrize("name", ["l0h1f" + "9" * 5000, "w" + "9" * 5000 + "d1", "w0." + "0" * 5000 + "1d1"])
def test_numbers_of_any_length_are_refused(name):
    with pytest.raises(UsageError):
        BERT_BASE.parse(name)
