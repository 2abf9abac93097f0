"""Linear layers of an encoder as products of two smaller matrices.

A part of an encoder uses the first columns of `up` or the first rows of `down`, as it does of the whole matrix.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import paddle.nn.functional as F
from paddle import Tensor, nn

from dynabert_paddle.backbone.structure import owner_of

PROJECTIONS = (
    *(f"self_attn.{name}" for name in ("q_proj", "k_proj", "v_proj", "out_proj")),
    *("linear1", "linear2"),
)
PARTS = {"attention": PROJECTIONS[:4], "ffn": PROJECTIONS[4:]}


class LowRankLinear(nn.Layer):
    """y = x D U + b with `down` D `[inputs, r]` and `up` U `[r, outputs]`.

    Args:
        down: D.
        up: U.
        bias: b, `[outputs]`; None for a layer without one.
    """

    def __init__(self, down: np.ndarray, up: np.ndarray, bias: np.ndarray | None) -> None:
        super().__init__()
        self.down, self.up = map(self._parameter, (down, up))
        self.bias = None if bias is None else self._parameter(bias)

    def _parameter(self, value: np.ndarray) -> Tensor:
        initializer = nn.initializer.Assign(value.astype(np.float32))  # the usual one would draw random numbers
        return self.create_parameter(list(value.shape), default_initializer=initializer)

    @property
    def rank(self) -> int:
        """Columns of `down`."""
        return self.down.shape[1]

    def forward(self, x: Tensor) -> Tensor:
        """Compute y, `[b, s, outputs]`, from `[b, s, inputs]`."""
        return F.linear(F.linear(x, self.down), self.up, self.bias)


def input_matrix(layer: nn.Layer) -> Any:
    """The matrix of a linear layer whose rows are its inputs, `[inputs, outputs or r]`."""
    return layer.down if isinstance(layer, LowRankLinear) else layer.weight


def output_matrix(layer: nn.Layer) -> Any:
    """The matrix of a linear layer whose columns are its outputs, `[inputs or r, outputs]`."""
    return layer.up if isinstance(layer, LowRankLinear) else layer.weight


def find_ranks(layers: Sequence[nn.Layer]) -> tuple[dict[str, int], ...]:
    """Return the rank of each linear layer that is a product, by its name in its encoder layer.

    Args:
        layers: the layers of an encoder.

    Returns:
        A mapping for each layer; an empty tuple if no linear layer is a product.
    """
    found = []
    for layer in layers:
        linears = {name: getattr(*owner_of(layer, name)) for name in PROJECTIONS}
        found.append({name: linear.rank for name, linear in linears.items() if isinstance(linear, LowRankLinear)})
    return tuple(found) if any(found) else ()


def shape_products(layers: Sequence[nn.Layer], ranks: Sequence[Mapping[str, int]]) -> None:
    """Replace linear layers by products, to be filled with stored weights.

    Args:
        layers: the layers of an encoder.
        ranks: from `find_ranks`.
    """
    for layer, names in zip(layers, ranks, strict=True):
        for name, rank in names.items():
            owner, attribute = owner_of(layer, name)
            linear = getattr(owner, attribute)
            inputs, outputs = linear.weight.shape
            zeros = [np.zeros(shape, np.float32) for shape in ([inputs, rank], [rank, outputs], [outputs])]
            setattr(owner, attribute, LowRankLinear(zeros[0], zeros[1], None if linear.bias is None else zeros[2]))
