"""Reduce a model in place to the layers, heads, neurons and components that a sub-network keeps."""

from __future__ import annotations

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
    """
    for index, heads, neurons in subnet.parts:
        layer = encoder.layers[index]
        if (heads, neurons) == count_elastic(layer, encoder.head_dim):
            continue
        for name, parameter in list(layer.named_parameters()):
            part = slice_parameter(parameter, name, heads=heads, neurons=neurons, head_dim=encoder.head_dim)
            if part is not parameter:
                owner, attribute = owner_of(layer, name)
                setattr(owner, attribute, new_parameter(owner, part.numpy()))
        layer.self_attn.num_heads = heads
    encoder.layers = nn.LayerList([encoder.layers[index] for index in subnet.layers])
