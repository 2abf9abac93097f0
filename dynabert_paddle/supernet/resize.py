"""Reduce a model in place to the layers, heads, neurons and components that a sub-network keeps."""

from __future__ import annotations

from collections import Counter
from copy import deepcopy

from paddle import nn

from dynabert_paddle.backbone.structure import owner_of
from dynabert_paddle.subnet import Subnet
from dynabert_paddle.supernet.elastic import ElasticEncoder
from dynabert_paddle.supernet.elastic_embedding import new_parameter
from dynabert_paddle.supernet.slices import count_elastic, slice_parameter


def resize_layers(encoder: ElasticEncoder, subnet: Subnet) -> None:
    """Reduce an encoder in place to the layers, heads and neurons of a sub-network.

    Args:
        encoder: the full-size encoder.
        subnet: the layers, heads and neurons to keep; the same rows and columns as when it runs inside the supernet.
            Layers that share their weights go on doing so where they keep as many heads and neurons.
    """
    kept = [(encoder.layers[index], heads, neurons) for index, heads, neurons in subnet.parts]
    num_sizes = Counter(layer for layer, _, _ in {(id(layer), heads, neurons) for layer, heads, neurons in kept})
    resized: dict[tuple[int, int, int], nn.TransformerEncoderLayer] = {}
    for layer, heads, neurons in kept:
        key = (id(layer), heads, neurons)
        if key not in resized:
            resized[key] = deepcopy(layer) if num_sizes[id(layer)] > 1 else layer
            _resize(resized[key], heads, neurons, encoder.head_dim)
    encoder.layers = nn.LayerList([resized[id(layer), heads, neurons] for layer, heads, neurons in kept])


def _resize(layer: nn.TransformerEncoderLayer, heads: int, neurons: int, head_dim: int) -> None:
    """Reduce a layer in place to its first heads and neurons."""
    if (heads, neurons) == count_elastic(layer, head_dim):
        return
    for name, parameter in list(layer.named_parameters()):
        part = slice_parameter(parameter, name, heads=heads, neurons=neurons, head_dim=head_dim)
        if part is not parameter:
            owner, attribute = owner_of(layer, name)
            setattr(owner, attribute, new_parameter(owner, part.numpy()))
    layer.self_attn.num_heads = heads
