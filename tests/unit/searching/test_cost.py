"""Costs of sub-networks, and budgets: limits, misses, and limits in the wrong unit."""

import math

import pytest

import dynabert_paddle as db
from dynabert_paddle.errors import UsageError
from dynabert_paddle.searching.cost import COSTS, Budget, CostModel

# Costs of minilm-l6 at 64 tokens on a small machine: with one head and 32 neurons of one layer, and in full.
SMALLEST = {"latency_ms": 0.6, "params": 11_950_000, "macs": 5_000_000, "size_mb": 47.8}
LARGEST = {"latency_ms": 6.4, "params": 22_700_000, "macs": 700_000_000, "size_mb": 90.8}


@pytest.mark.parametrize("name", ["w1.00d1.00", "w0.25d0.50", "l0h1f32", "l1h3f16-l3h2f48"])
def test_costs_are_the_counts_of_the_space_and_the_size_of_the_file(bert, tmp_path, name):
    supernet = db.Supernet(bert)
    space = supernet.search_space()
    subnet = space.parse(name)
    costs = CostModel(space, None).costs(subnet)
    assert tuple(costs) == COSTS
    assert costs["latency_ms"] is None
    assert costs["params"] == space.num_params(subnet)
    assert costs["macs"] == space.num_macs(subnet, seq_length=128)
    folder = db.extract(supernet, subnet).save_pretrained(tmp_path / "small")
    assert costs["size_mb"] == pytest.approx((folder / "model.safetensors").stat().st_size / 1e6, rel=0.01)


def test_a_budget_allows_costs_within_all_limits():
    budget = Budget.from_flags(max_latency_ms=12, max_params=20e6)
    assert budget.limits == {"latency_ms": 12, "params": 20e6}
    assert budget.fits({"latency_ms": 12.0, "params": 20_000_000, "macs": 10**12})
    assert budget.excess({"latency_ms": 15.0, "params": 20_000_000}) == {"latency_ms": pytest.approx(0.25)}
    assert not budget.fits({"latency_ms": 11.0, "params": 20_000_001})


def test_without_limits_everything_fits():
    assert Budget.from_flags().fits({"latency_ms": None, "params": 1})


@pytest.mark.parametrize("limit", [0, -1, math.nan, math.inf, "12"])
def test_a_limit_is_a_positive_number(limit):
    with pytest.raises(UsageError, match="max_latency_ms must be a positive number"):
        Budget.from_flags(max_latency_ms=limit)


def test_a_misspelt_cost_is_corrected():
    with pytest.raises(UsageError, match="Did you mean 'latency_ms'"):
        Budget({"latency": 3})


@pytest.mark.parametrize(
    ("flag", "limit", "message"),
    [
        ("max_params", 20, "below the smallest sub-network's 11,950,000: if it is in millions, write 20e6"),
        ("max_params", 0.02, "if it is in billions, write 0.02e9"),
        ("max_params", 20_000, "if it is in thousands, write 20000000"),
        ("max_macs", 300, "write 300e6"),
        ("max_macs", 0.5, "write 0.5e9"),
        ("max_latency_ms", 0.005, "if it is in seconds, write 5"),
        ("max_latency_ms", 5000, "above the full model's 6.4: if it is in microseconds, write 5"),
        ("max_size_mb", 60e6, "above the full model's 90.8: if it is in bytes, write 60"),
        ("max_size_mb", 0.06, "if it is in GB, write 60"),
    ],
)
def test_a_limit_in_another_unit_is_refused(flag, limit, message):
    with pytest.raises(UsageError, match=message) as caught:
        Budget.from_flags(**{flag: limit}).check_units(SMALLEST, LARGEST)
    assert str(caught.value).startswith(f"{flag} {limit:g} is ")


@pytest.mark.parametrize(
    ("flag", "limit"),
    [
        ("max_params", 15e6),
        ("max_params", 10e6),  # below the smallest sub-network, but in no other unit within the space
        ("max_params", 1e9),
        ("max_macs", 100e6),
        ("max_macs", 10e9),
        ("max_latency_ms", 3),
        ("max_latency_ms", 0.4),
        ("max_latency_ms", 100),
        ("max_size_mb", 40),
        ("max_size_mb", 500),
    ],
)
def test_a_strict_or_generous_limit_is_accepted(flag, limit):
    Budget.from_flags(**{flag: limit}).check_units(SMALLEST, LARGEST)
