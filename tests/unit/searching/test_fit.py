"""The additive fit to measured sub-networks, against latencies that are additive by construction."""

from dataclasses import replace

import numpy as np
import pytest

from dynabert_paddle.search_space import SearchSpace
from dynabert_paddle.searching.fit import calibration_subnets, fit_layers, random_subnet, validation_subnets

SPACE = SearchSpace(heads=(12,) * 6, neurons=(1536,) * 6, hidden_size=384, head_dim=32)
RANKED = replace(SPACE, vocab_size=30522, embedding_size=384, max_rank=384, rank_mults=(1.0, 0.25))


def additive_ms(subnet):
    """0.3 base, 0.1 a layer, and piecewise linear parts: heads above 8 and neurons above 768 take twice as much.

    The last layer is linear and has no constant 0.1.
    """
    heads = sum(0.02 * (h + max(0, h - 8)) for h in subnet.heads[:-1]) + 0.01 * subnet.heads[-1]
    neurons = sum(0.0005 * (n + max(0, n - 768)) for n in subnet.neurons[:-1]) + 0.0001 * subnet.neurons[-1]
    return 0.3 + 0.1 * (len(subnet.layers) - 1) + heads + neurons + 0.001 * (subnet.embedding_rank or 0)


def estimate(fitted, subnet):
    attention, ffn = (list(zip(*fitted[name], strict=True)) for name in ("attention_ms", "ffn_ms"))
    last = subnet.heads[-1] * fitted["last_head_ms"] + subnet.neurons[-1] * fitted["last_neuron_ms"]
    others = np.interp(subnet.heads[:-1], *attention).sum() + np.interp(subnet.neurons[:-1], *ffn).sum()
    return fitted["base_ms"] + last + others + (subnet.embedding_rank or 0) * fitted["rank_ms"]


@pytest.mark.parametrize("space", [SPACE, RANKED])
def test_an_additive_latency_is_fitted_exactly(space):
    subnets = calibration_subnets(space)
    fitted = fit_layers(subnets, [additive_ms(subnet) for subnet in subnets])
    assert fitted["base_ms"] == pytest.approx(0.3)
    assert fitted["rank_ms"] == pytest.approx(0.001 if space is RANKED else 0)
    assert len(validation_subnets(space)) == 20
    assert any(subnet.embedding_rank for subnet in subnets) == (space is RANKED)
    for subnet in (*subnets, *validation_subnets(space)):
        assert estimate(fitted, subnet) == pytest.approx(additive_ms(subnet))


def test_with_noise_larger_layers_are_never_estimated_faster():
    subnets = calibration_subnets(SPACE)
    noise = np.random.default_rng(0).uniform(0.7, 1.3, len(subnets))
    fitted = fit_layers(subnets, [additive_ms(subnet) * share for subnet, share in zip(subnets, noise, strict=True)])
    assert fitted["base_ms"] >= 0
    for name in ("attention_ms", "ffn_ms"):
        assert (np.diff([ms for _, ms in fitted[name]]) >= 0).all()
    errors = [abs(estimate(fitted, subnet) / additive_ms(subnet) - 1) for subnet in validation_subnets(SPACE)]
    assert np.mean(errors) < 0.3


@pytest.mark.parametrize("layers", [1, 2, 6, 12])
def test_calibration_includes_the_full_model_and_every_depth(layers):
    space = SearchSpace(heads=(4,) * layers, neurons=(48,) * layers, hidden_size=32, head_dim=8)
    subnets = calibration_subnets(space)
    assert subnets[0] == space.full
    assert len(set(subnets)) == len(subnets) <= 25
    assert {len(subnet.layers) for subnet in subnets} == set(range(1, layers + 1))
    for subnet in subnets:
        subnet.check_part_of(space.full)


def test_random_subnets_respect_layers_of_different_sizes():
    space = SearchSpace(heads=(2, 12), neurons=(48, 1536), hidden_size=384, head_dim=32)
    rng = np.random.default_rng(0)
    subnets = [random_subnet(space, rng) for _ in range(100)]
    for subnet in subnets:
        subnet.check_part_of(space.full)
    assert {neurons for s in subnets for layer, _, neurons in s.parts if layer == 0} == {32, 48}
    assert len(set(subnets)) > 50
