"""Sort heads and neurons in place, the most important first; the full model's outputs stay the same."""

from __future__ import annotations

import numpy as np
import paddle

from dynabert_paddle.rewiring.importance import Importance
from dynabert_paddle.supernet.shared_layers import unique
from dynabert_paddle.supernet.slices import ALL_AXES
from dynabert_paddle.supernet.supernet import Supernet


def sort_by_importance(supernet: Supernet, importance: Importance) -> Importance:
    """Reorder every layer's heads and FFN neurons by descending importance (network rewiring, section 2.1).

    Args:
        supernet: the model, changed in place.
        importance: of its heads and neurons as they are.

    Returns:
        The importance in the new order, which is descending in every layer.
    """
    head_orders = [_descending(values) for values in importance.heads]
    neuron_orders = [_descending(values) for values in importance.neurons]
    layers = list(supernet.encoder.layers)
    for layer in unique(layers):  # layers that share their weights have the same importance, and are sorted once
        heads, neurons = head_orders[layers.index(layer)], neuron_orders[layers.index(layer)]
        columns = np.arange(len(heads) * supernet.encoder.head_dim).reshape(len(heads), -1)[heads].reshape(-1)
        parameters = dict(layer.named_parameters())
        for name, (what, axis) in ALL_AXES.items():
            if name in parameters:
                order = paddle.to_tensor(columns if what == "heads" else neurons)
                parameters[name].set_value(paddle.index_select(parameters[name].detach(), order, axis=axis))
    return Importance(
        [values[order] for values, order in zip(importance.heads, head_orders, strict=True)],
        [values[order] for values, order in zip(importance.neurons, neuron_orders, strict=True)],
    )


def _descending(values: np.ndarray) -> np.ndarray:
    return np.argsort(-values, kind="stable")
