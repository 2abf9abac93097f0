"""Encoder layers that share their weights (ALBERT: Lan et al., 2020): one layer that the encoder runs several times."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import TypeVar

from paddle import Tensor, nn

from dynabert_paddle.supernet.elastic import ElasticEncoder

T = TypeVar("T", nn.Layer, Tensor)


def find_groups(layers: Iterable[nn.Layer]) -> tuple[int, ...]:
    """Return which layers of an encoder are the same one.

    Args:
        layers: the layers of an encoder.

    Returns:
        For each layer the number of its group, from 0 in the order of their first layers; empty if none is shared.
    """
    numbers: dict[int, int] = {}
    groups = tuple(numbers.setdefault(id(layer), len(numbers)) for layer in layers)
    return groups if len(numbers) < len(groups) else ()


def unique(shared: Iterable[T]) -> list[T]:
    """Return layers or parameters, each once, in the order in which they first occur."""
    return list({id(item): item for item in shared}.values())


def share_layers(encoder: ElasticEncoder, groups: Sequence[int]) -> None:
    """Replace the layers of each group by the first one of them.

    Args:
        encoder: the encoder, changed in place.
        groups: from `find_groups`.

    Raises:
        ValueError: they are not the groups of such an encoder.
    """
    layers = list(encoder.layers)
    first = dict(reversed(list(zip(groups, layers, strict=True))))
    shared = [first[group] for group in groups]
    if any(_shape(layer) != _shape(own) for layer, own in zip(shared, layers, strict=True)):
        raise ValueError("layers of a group differ in shape")
    encoder.layers = nn.LayerList(shared)


def _shape(layer: nn.Layer) -> dict[str, list[int]]:
    return {name: parameter.shape for name, parameter in layer.named_parameters()}
