"""The slice of each parameter that a sub-network uses: its first rows or columns.

Every sub-network, whether it runs inside the supernet or is extracted, is cut here.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise

import paddle
import paddle.nn.functional as F
from paddle import Tensor, nn

from dynabert_paddle.supernet.low_rank_linear import output_matrix

# Parameter of a layer -> (what its elastic axis counts, that axis). A Linear's weight is [inputs, outputs] in Paddle.
# Parameters that are not listed have the hidden size, which is not elastic.
ELASTIC_AXES = {
    "self_attn.q_proj.weight": ("heads", 1),
    "self_attn.q_proj.bias": ("heads", 0),
    "self_attn.k_proj.weight": ("heads", 1),
    "self_attn.k_proj.bias": ("heads", 0),
    "self_attn.v_proj.weight": ("heads", 1),
    "self_attn.v_proj.bias": ("heads", 0),
    "self_attn.out_proj.weight": ("heads", 0),
    "linear1.weight": ("neurons", 1),
    "linear1.bias": ("neurons", 0),
    "linear2.weight": ("neurons", 0),
}
# And with the two matrices of each product of a low rank.
ALL_AXES = ELASTIC_AXES | {
    "self_attn.q_proj.up": ("heads", 1),
    "self_attn.k_proj.up": ("heads", 1),
    "self_attn.v_proj.up": ("heads", 1),
    "self_attn.out_proj.down": ("heads", 0),
    "linear1.up": ("neurons", 1),
    "linear2.down": ("neurons", 0),
}
# And with the scales of quantized matrices, [1, outputs].
ALL_AXES |= {f"{name}_scale": (counted, 1) for name, (counted, axis) in ALL_AXES.items() if axis == 1}


class SliceCache:
    """Slices that are cut once and reused, as long as no parameter changes.

    A cut copies, and Paddle pads its gradient to the parameter's size. In an evaluation, or in the passes of one
    training step, each slice is therefore cut once and is a leaf tensor with a gradient of its own.

    Args:
        max_elements: cached elements over all slices; slices beyond that are cut anew each time.
    """

    def __init__(self, max_elements: int) -> None:
        self._free_elements = max_elements
        self._slices: dict[int, dict[int, Tensor]] = {}  # by the parameter's id, then by the slice's size

    def cut(self, parameter: Tensor, axis: int, size: int) -> Tensor:
        """Return the first `size` rows or columns; the same tensor for each call. Its gradient stays its own."""
        slices = self._slices.setdefault(id(parameter), {})
        if size not in slices:
            num_elements = parameter.size // parameter.shape[axis] * size
            if num_elements > self._free_elements:
                return _crop(parameter, axis, size)
            self._free_elements -= num_elements
            with paddle.no_grad():  # the first rows are a view, not a copy
                slices[size] = parameter[:size] if axis == 0 else _crop(parameter, axis, size)
            slices[size].stop_gradient = parameter.stop_gradient
        return slices[size]

    def slices_with_gradients(self, parameter: Tensor) -> list[Tensor]:
        """Return the slices of a parameter that have a gradient, the smallest first."""
        slices = sorted(self._slices.get(id(parameter), {}).items())
        return [part for _, part in slices if part.grad is not None]


def slice_parameter(
    parameter: Tensor, name: str, *, heads: int, neurons: int, head_dim: int, cache: SliceCache | None = None
) -> Tensor:
    """Return the part of a layer's parameter that a sub-network uses.

    Args:
        parameter: the full parameter.
        name: its name within the layer, for example `self_attn.q_proj.weight`.
        heads: heads to keep.
        neurons: FFN neurons to keep.
        head_dim: width of one head.
        cache: slices to reuse.

    Returns:
        The first rows or columns; the parameter itself if all of it is used.
    """
    if name not in ALL_AXES:
        return parameter
    counted, axis = ALL_AXES[name]
    return cut(parameter, axis, heads * head_dim if counted == "heads" else neurons, cache)


def cut(parameter: Tensor, axis: int, size: int, cache: SliceCache | None = None) -> Tensor:
    """Return the first rows or columns of a parameter.

    Args:
        parameter: the full parameter, or what else has this axis.
        axis: the elastic one.
        size: rows or columns to keep.
        cache: slices to reuse.

    Returns:
        The slice; the parameter itself if all of it is kept.
    """
    if parameter.shape[axis] == size:
        return parameter
    return _crop(parameter, axis, size) if cache is None else cache.cut(parameter, axis, size)


def count_elastic(layer: nn.TransformerEncoderLayer, head_dim: int) -> tuple[int, int]:
    """Return the numbers of heads and FFN neurons of a layer."""
    return output_matrix(layer.self_attn.q_proj).shape[1] // head_dim, output_matrix(layer.linear1).shape[1]


def add_gradients(nested: Sequence[Tensor]) -> None:
    """Add the gradients of a parameter's slices to the parameter's own gradient.

    Args:
        nested: the slices that have a gradient, the smallest first, then the parameter. All are cut along one axis, so
            each is the first rows or columns of the next.
    """
    for part, whole in pairwise(nested):
        assert part.grad is not None
        if whole.grad is not None and part.shape[1:] == whole.shape[1:]:
            whole.grad.detach()[: part.shape[0]].add_(part.grad)
            continue
        padding = [n for kept, size in zip(part.shape, whole.shape, strict=True) for n in (0, size - kept)]
        padded = F.pad(part.grad, padding)
        if whole.grad is None:
            whole.grad = padded
        else:
            whole.grad.detach().add_(padded)


def _crop(parameter: Tensor, axis: int, size: int) -> Tensor:
    """Copy the first rows or columns."""
    shape = list(parameter.shape)
    shape[axis] = size
    # Three times as fast as indexing, which gives a strided view that Paddle copies for the product and pads for the
    # gradient.
    return paddle.crop(parameter, shape)
