"""Fits a latency table: the sub-networks to measure for the fit and for its validation, and the least-squares fit."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from dynabert_paddle.search_space import SearchSpace
from dynabert_paddle.subnet import Subnet

_NUM_RANDOM = 15
_NUM_VALIDATION = 20
_NEURON_STEP = 32  # a multiple of the width of vector units
# A layer's latency is piecewise linear in heads and neurons, with these knots (as shares of the largest layer).
_HEAD_KNOTS = (0, 1 / 3, 2 / 3, 1)
_NEURON_KNOTS = (0, 1 / 4, 1 / 2, 3 / 4, 1)
# Shares of layers, heads and neurons of the uniform sub-networks; 0 means one.
_UNIFORM = (
    (1, 1, 1),
    *((1, heads, 1 / 2) for heads in (0, 1 / 4, 3 / 4, 1)),
    *((1, 1 / 2, neurons) for neurons in (0, 1 / 4, 3 / 4)),
    (1 / 2, 1 / 2, 1 / 2),
    (0, 1 / 2, 1 / 2),
)


def calibration_subnets(space: SearchSpace) -> list[Subnet]:
    """Choose the sub-networks that a table is fitted to.

    Uniform ones separate the latencies of heads, neurons and layers. Most are random, like the candidates of a search,
    because layers of different sizes take longer together than alone: their weights compete for the CPU caches.

    Args:
        space: the model's sub-networks.

    Returns:
        Different sub-networks, the full model first.
    """
    rng = np.random.default_rng(0)
    uniform = [_uniform(space, *shares) for shares in _UNIFORM]
    depths = [1 + i * space.num_layers // _NUM_RANDOM for i in range(_NUM_RANDOM)]
    return list(dict.fromkeys([*uniform, *(random_subnet(space, rng, depth=depth) for depth in depths)]))


def validation_subnets(space: SearchSpace) -> list[Subnet]:
    """Draw the sub-networks that a table is validated on: 20 different ones, or fewer in a small space."""
    rng = np.random.default_rng(1)
    return list(dict.fromkeys(random_subnet(space, rng) for _ in range(_NUM_VALIDATION)))


def random_subnet(space: SearchSpace, rng: np.random.Generator, *, depth: int | None = None) -> Subnet:
    """Draw a sub-network whose layers have different sizes.

    Args:
        space: the model's sub-networks.
        rng: random number generator.
        depth: layers to keep; by default a random number.

    Returns:
        The sub-network.
    """
    if depth is None:
        depth = int(rng.integers(1, space.num_layers + 1))
    layers = sorted(rng.permutation(space.num_layers)[:depth].tolist())
    heads = (int(rng.integers(1, space.heads[layer] + 1)) for layer in layers)
    steps = (int(rng.integers(1, -(-space.neurons[layer] // _NEURON_STEP) + 1)) for layer in layers)
    neurons = (min(step * _NEURON_STEP, space.neurons[layer]) for layer, step in zip(layers, steps, strict=True))
    sizes = (tuple(layers), tuple(heads), tuple(neurons))
    if not (space.has_ranks and space.max_rank):
        return Subnet(*sizes)
    rank = int(rng.integers(1, space.max_rank + 1))
    return Subnet(*sizes, None if rank == space.max_rank else rank)


def fit_layers(subnets: Sequence[Subnet], measured_ms: Sequence[float]) -> dict[str, Any]:
    """Fit the latencies of the base, of a rank, and of a layer's attention and FFN: least squares of relative errors.

    The last layer has separate terms, because exported sequence classifiers compute only its first token. The unknowns
    are the increases from knot to knot and are not negative, so that a larger layer is never estimated to be faster.

    Args:
        subnets: sub-networks of one model.
        measured_ms: latency of each.

    Returns:
        The fields of a `LatencyTable` that end in `_ms`, except `checks_ms`.
    """
    from scipy.optimize import nnls

    head_knots = np.array(_HEAD_KNOTS) * max(max(subnet.heads) for subnet in subnets)
    neuron_knots = np.array(_NEURON_KNOTS) * max(max(subnet.neurons) for subnet in subnets)
    rows = [
        [
            *(1, subnet.heads[-1], subnet.neurons[-1], subnet.embedding_rank or 0, len(subnet.layers) - 1),
            *_segments_covered(subnet.heads[:-1], head_knots),
            *_segments_covered(subnet.neurons[:-1], neuron_knots),
        ]
        for subnet in subnets
    ]
    relative = np.array(rows) / np.array(measured_ms)[:, None]
    (base, last_head, last_neuron, rank, *increases), _ = nnls(relative, np.ones(len(subnets)))
    # A layer's constant term is part of its attention.
    attention = np.cumsum(increases[: len(head_knots)])
    ffn = np.cumsum([0, *increases[len(head_knots) :]])
    return {
        "base_ms": float(base),
        "last_head_ms": float(last_head),
        "last_neuron_ms": float(last_neuron),
        "rank_ms": float(rank),
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


def _segments_covered(counts: Sequence[int], knots: np.ndarray) -> np.ndarray:
    """For each segment between two knots, the share of it that a layer's count covers, summed over the layers."""
    low, high = knots[:-1], knots[1:]
    return np.clip((np.array(counts)[:, None] - low) / (high - low), 0, 1).sum(axis=0)
