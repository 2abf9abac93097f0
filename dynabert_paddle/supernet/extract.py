"""Cut a sub-network out of a supernet as a small model of its own."""

from __future__ import annotations

from copy import deepcopy

from dynabert_paddle.multipliers import FULL_NAME
from dynabert_paddle.subnet import Subnet
from dynabert_paddle.supernet.elastic_embedding import resize_embedding
from dynabert_paddle.supernet.resize import resize_layers
from dynabert_paddle.supernet.supernet import Supernet
from dynabert_paddle.supernet.thresholds import recorded_thresholds


def extract(supernet: Supernet, subnet: Subnet) -> Supernet:
    """Copy a sub-network's weights into a model that has nothing else.

    Args:
        supernet: the supernet; it is not changed.
        subnet: any of its sub-networks; layers may differ in heads and neurons.

    Returns:
        A model whose full subnet has the same outputs as `subnet` in the supernet.

    Raises:
        UsageError: a subnet that the supernet does not have.
    """
    supernet.check_subnet(subnet)
    small = Supernet(deepcopy(supernet.model), supernet.tokenizer)
    resize_layers(small.encoder, subnet)
    resize_embedding(small.model, subnet.embedding_rank)
    small.model.config.num_hidden_layers = len(subnet.layers)
    space = supernet.search_space()
    thresholds = recorded_thresholds(supernet.metadata, space, subnet)
    small.metadata = supernet.metadata.replace(
        heads=subnet.heads,
        neurons=subnet.neurons,
        embedding_rank=small.max_rank,
        subnet={"name": space.name(subnet)},
        space={},
        importance={},
        metrics={},
        thresholds={} if thresholds is None else {FULL_NAME: thresholds},
    )
    small.train() if supernet.training else small.eval()
    return small
