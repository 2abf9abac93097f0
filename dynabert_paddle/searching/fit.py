"""The sub-networks that a table of latencies is made of and checked with; the best additive fit to what they take."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from dynabert_paddle.subnet import SearchSpace, Subnet

_NUM_MIXED = 15
_NUM_CHECKS = 20
_NEURON_STEP = 32  # as many as vector units like
# Shares of heads and of neurons between which a layer's latency is taken to be linear.
_HEAD_KNOTS = (0, 1 / 3, 2 / 3, 1)
_NEURON_KNOTS = (0, 1 / 4, 1 / 2, 3 / 4, 1)
# Shares of layers, heads and neurons of the uniform sub-networks; 0 stands for the least.
_UNIFORM = (
    (1, 1, 1),
    *((1, heads, 1 / 2) for heads in (0, 1 / 4, 3 / 4, 1)),
    *((1, 1 / 2, neurons) for neurons in (0, 1 / 4, 3 / 4)),
    (1 / 2, 1 / 2, 1 / 2),
    (0, 1 / 2, 1 / 2),
)


def table_subnets(space: SearchSpace) -> list[Subnet]:
    """Choose the sub-networks that a table is measured on.

    Uniform ones tell apart what heads, neurons and layers take. But layers of many sizes, whose weights stream through
    the caches, take longer than they would alone, so that most are mixed as those of a search are.

    Args:
        space: the model's sub-networks.

    Returns:
        The whole model first, then others, each once.
    """
    rng = np.random.default_rng(0)
    uniform = [_uniform(space, *shares) for shares in _UNIFORM]
    depths = [1 + i * space.num_layers // _NUM_MIXED for i in range(_NUM_MIXED)]
    return list(dict.fromkeys([*uniform, *(mixed_subnet(space, rng, depth=depth) for depth in depths)]))


def check_subnets(space: SearchSpace) -> list[Subnet]:
    """Choose the sub-networks that a table is checked with, by chance.

    Args:
        space: the model's sub-networks.

    Returns:
        20 of them, each once; fewer of a space that hardly has more.
    """
    rng = np.random.default_rng(1)
    return list(dict.fromkeys(mixed_subnet(space, rng) for _ in range(_NUM_CHECKS)))


def mixed_subnet(space: SearchSpace, rng: np.random.Generator, *, depth: int | None = None) -> Subnet:
    """Draw a sub-network whose layers differ.

    Args:
        space: the model's sub-networks.
        rng: the source of chance.
        depth: layers to keep; any number where not given.

    Returns:
        The sub-network.
    """
    if depth is None:
        depth = int(rng.integers(1, space.num_layers + 1))
    layers = sorted(rng.permutation(space.num_layers)[:depth].tolist())
    heads = (int(rng.integers(1, space.heads[layer] + 1)) for layer in layers)
    steps = (int(rng.integers(1, -(-space.neurons[layer] // _NEURON_STEP) + 1)) for layer in layers)
    neurons = (min(step * _NEURON_STEP, space.neurons[layer]) for layer, step in zip(layers, steps, strict=True))
    return Subnet(tuple(layers), tuple(heads), tuple(neurons))


def fit_layers(subnets: Sequence[Subnet], measured_ms: Sequence[float]) -> dict[str, Any]:
    """Find what the base, and attention and FFN of a layer take, by least squares of the relative errors.

    The last layer counts apart, as exports of sequence classifiers compute only its first token. Nothing takes less
    for being larger: the unknowns are the increases from knot to knot, none of them negative.

    Args:
        subnets: sub-networks of one model.
        measured_ms: what each takes.

    Returns:
        The fields of a `LatencyTable` that end in `_ms`, but for `checks_ms`.
    """
    from scipy.optimize import nnls

    head_knots = np.array(_HEAD_KNOTS) * max(max(subnet.heads) for subnet in subnets)
    neuron_knots = np.array(_NEURON_KNOTS) * max(max(subnet.neurons) for subnet in subnets)
    rows = [
        [
            *(1, subnet.heads[-1], subnet.neurons[-1], len(subnet.layers) - 1),
            *_passed(subnet.heads[:-1], head_knots),
            *_passed(subnet.neurons[:-1], neuron_knots),
        ]
        for subnet in subnets
    ]
    relative = np.array(rows) / np.array(measured_ms)[:, None]
    (base, last_head, last_neuron, *increases), _ = nnls(relative, np.ones(len(subnets)))
    # What a layer takes whatever its size is counted with its attention.
    attention = np.cumsum(increases[: len(head_knots)])
    ffn = np.cumsum([0, *increases[len(head_knots) :]])
    return {
        "base_ms": float(base),
        "last_head_ms": float(last_head),
        "last_neuron_ms": float(last_neuron),
        "attention_ms": tuple(zip(head_knots.tolist(), attention.tolist(), strict=True)),
        "ffn_ms": tuple(zip(neuron_knots.tolist(), ffn.tolist(), strict=True)),
    }


def _uniform(space: SearchSpace, layers: float, heads: float, neurons: float) -> Subnet:
    kept = range(max(1, round(layers * space.num_layers)))
    return Subnet(
        tuple(kept),
        tuple(max(1, round(heads * space.heads[layer])) for layer in kept),
        tuple(max(1, round(neurons * space.neurons[layer])) for layer in kept),
    )


def _passed(counts: Sequence[int], knots: np.ndarray) -> np.ndarray:
    """How often the layers' counts go from each knot to the next, parts included."""
    low, high = knots[:-1], knots[1:]
    return np.clip((np.array(counts)[:, None] - low) / (high - low), 0, 1).sum(axis=0)
