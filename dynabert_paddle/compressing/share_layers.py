"""The method `share_layers`: neighbouring layers become one that the encoder runs several times."""

from __future__ import annotations

from copy import deepcopy
from typing import Any

import paddle

from dynabert_paddle.config.command_settings import CompressConfig
from dynabert_paddle.config.names import setting
from dynabert_paddle.data.tasks import Task
from dynabert_paddle.errors import UsageError
from dynabert_paddle.supernet.low_rank_linear import find_ranks
from dynabert_paddle.supernet.shared_layers import find_groups, share_layers
from dynabert_paddle.supernet.supernet import Supernet


def compress_share_layers(supernet: Supernet, task: Task, config: CompressConfig) -> tuple[Supernet, dict[str, Any]]:
    """Let the layers of each group of neighbours share their weights, heads, neurons and norms.

    Args:
        supernet: the model; it is not changed.
        task: not used: training, which this method needs, comes afterwards.
        config: `groups`, and in `start` which weights a group begins with.

    Returns:
        The smaller model, and the record of the compression.

    Raises:
        UsageError: a number of groups that does not divide the layers, or a model whose layers cannot share.
    """
    groups = _check_settings(supernet, config)
    small = Supernet(deepcopy(supernet.model), supernet.tokenizer, supernet.metadata)
    layers = small.encoder.layers
    size = len(layers) // groups
    for begin in range(0, len(layers), size):
        members = [dict(layer.named_parameters()) for layer in layers[begin : begin + size]]
        for name, parameter in members[0].items():
            values = [member[name].detach() for member in members]
            if config.start == "mean":
                parameter.set_value(paddle.stack(values).mean(axis=0))
            elif config.start == "last":
                parameter.set_value(values[-1])
    share_layers(small.encoder, [index // size for index in range(len(layers))])
    return small, {"groups": groups, "start": config.start}


def _check_settings(supernet: Supernet, config: CompressConfig) -> int:
    name, full, groups = setting("compress.groups"), supernet.full, config.groups
    num_layers = len(full.layers)
    allowed = [str(count) for count in range(1, num_layers) if num_layers % count == 0]
    if not allowed:
        raise UsageError("the model has one layer, which can share its weights with no other")
    if groups is None:
        raise UsageError(f"share_layers needs {name}: into how many the {num_layers} layers are divided, for example 1")
    if str(groups) not in allowed:
        raise UsageError(f"{name} is {groups}, and the model has {num_layers} layers: pass {' or '.join(allowed)}")
    if find_groups(supernet.encoder.layers):
        raise UsageError("layers of the model share their weights already: start from the model before")
    if find_ranks(supernet.encoder.layers):
        raise UsageError("products of a low rank have no weights in common: first share_layers, then low_rank")
    if set(supernet.metadata.sparse_parts) - {"embedding"}:
        raise UsageError("layers with zeros in different places have none in common: first share_layers, then sparse")
    if len(set(zip(full.heads, full.neurons, strict=True))) > 1:
        raise UsageError("the layers of the model differ in heads or neurons, and cannot share their weights")
    return groups
