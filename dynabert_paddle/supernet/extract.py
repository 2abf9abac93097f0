"""Cut a sub-network out of a supernet as a small model of its own."""

from __future__ import annotations

from copy import deepcopy

import paddle

from dynabert_paddle import backbone
from dynabert_paddle.subnet import Subnet
from dynabert_paddle.supernet.supernet import Supernet, resize_layers


def extract(supernet: Supernet, subnet: Subnet) -> Supernet:
    """Copy a sub-network's weights into a model that has nothing else.

    Args:
        supernet: the supernet, which stays as it is.
        subnet: any of its sub-networks; layers may differ in heads and neurons.

    Returns:
        A model whose full subnet computes what `subnet` computes inside the supernet.

    Raises:
        UsageError: a subnet that the supernet does not have.
    """
    space = supernet.search_space()
    space.check(subnet)
    config = deepcopy(supernet.model.config)
    rng_state = paddle.get_rng_state()  # building draws initial weights, which are thrown away
    model = type(supernet.model)(config)
    paddle.set_rng_state(rng_state)
    small = Supernet(model, supernet.tokenizer)
    if small.full != space.full:  # the supernet is itself an extracted model
        resize_layers(small.encoder, space.full)
    backbone.set_arrays(small.model, backbone.to_arrays(supernet.model))
    resize_layers(small.encoder, subnet)
    small.model.config.num_hidden_layers = len(subnet.layers)
    small.metadata = supernet.metadata.replace(
        heads=subnet.heads, neurons=subnet.neurons, subnet={"name": space.name(subnet)}, space={}, importance={}
    )
    small.train() if supernet.training else small.eval()
    return small
