"""Quantized models: weights that are integers times scales, and linear layers whose inputs are rounded to int8.

A quantized weight is a float32 parameter like any other, whose values are multiples of a scale that is kept beside it:
`weight_scale` of `weight`. A matrix has one scale per output column, `[1, outputs]`, a table one per row, `[rows, 1]`,
so that the first columns, rows or layers of a quantized model are a quantized model.

The encoder's matrices and the table of words have as many bits as was asked for; positions, types of text and matrices
outside the encoder, such as the pooler, have 8. The classifier is not quantized.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator
from typing import NamedTuple

import numpy as np
from paddle import Tensor, nn

from dynabert_paddle.backbone.labels import classifier_parameters
from dynabert_paddle.backbone.structure import find_encoder, find_word_embedding, owner_of
from dynabert_paddle.errors import ModelError
from dynabert_paddle.supernet.activation_range import ActivationRange, RangedLinear
from dynabert_paddle.supernet.elastic_embedding import ElasticEmbedding, new_parameter
from dynabert_paddle.supernet.low_rank_linear import LowRankLinear

SCALE = "_scale"
_OUTSIDE_BITS = 8  # of small tables, and of matrices outside the encoder
_MATRICES = {nn.Linear: ("weight",), RangedLinear: ("weight",), LowRankLinear: ("down", "up")}


class QuantizedWeight(NamedTuple):
    """A quantized weight of a model.

    Args:
        name: in the model's state dict.
        weight: a matrix `[inputs, outputs]` or a table `[rows, e]`.
        scale: `[1, outputs]` or `[rows, 1]`.
        bits: 8, 4 or 2.
        input_scale: `[1]`, of the matrix's input; None for a table, and where activations are not rounded.
    """

    name: str
    weight: Tensor
    scale: Tensor
    bits: int
    input_scale: Tensor | None

    @property
    def axis(self) -> int:
        """The axis over which weights have a scale in common: 0 of a matrix, 1 of a table."""
        return 0 if self.scale.shape == [1, self.weight.shape[1]] else 1


def find_quantized(model: nn.Layer) -> list[QuantizedWeight]:
    """Find the quantized weights of a model, each once.

    Args:
        model: a PaddleNLP model with an elastic encoder.

    Returns:
        The weights in the order of the model's layers; empty for a model that is not quantized.
    """
    found = []
    for path, layer in model.named_sublayers():
        for name, bits in getattr(layer, "quantized_bits", {}).items():
            owner, attribute = owner_of(model, _range_path(f"{path}.{name}"))
            rounding = getattr(owner, attribute, None)
            input_scale = None if rounding is None or (name == "weight" and _is_table(layer)) else rounding.scale
            weight, scale = getattr(layer, name), getattr(layer, name + SCALE)
            found.append(QuantizedWeight(f"{path}.{name}", weight, scale, bits, input_scale))
    return found


def find_ranges(model: nn.Layer) -> list[ActivationRange]:
    """Return the ranges of a model's activations, each once."""
    return [layer for layer in model.sublayers() if isinstance(layer, ActivationRange)]


def find_bits(model: nn.Layer) -> int | None:
    """Return the bits that a model is quantized to; None if it is not quantized."""
    return min((weight.bits for weight in find_quantized(model)), default=None)


def quantize_model(
    model: nn.Layer,
    bits: int,
    scale_of: Callable[[np.ndarray, int, int], np.ndarray],
    *,
    stored: Collection[str] | None = None,
) -> None:
    """Give a model's matrices and tables scales, and the inputs of matrices ranges.

    Args:
        model: a PaddleNLP model with an elastic encoder, changed in place; its weights stay as they are.
        bits: of the encoder's matrices and of the table of words.
        scale_of: makes a scale from a weight's values, its bits, and the axis over which the scale is common.
        stored: the names in a stored model: only what has a scale there gets one; None for all.
    """
    encoder = f"{find_encoder(model)}.layers."
    try:
        words = f"{find_word_embedding(model)}.weight"
    except ModelError:
        words = ""
    for path, is_table in list(_find_places(model)):
        if stored is not None and path + SCALE not in stored:
            continue
        inside = path.startswith(encoder)
        is_main = inside or path == words or path.endswith(".up")
        if not is_table:
            _add_range(model, path, inside=inside)
        layer, name = owner_of(model, path)
        own_bits = bits if is_main else _OUTSIDE_BITS
        scale = scale_of(getattr(layer, name).numpy(), own_bits, 1 if is_table else 0)
        setattr(layer, name + SCALE, new_parameter(layer, scale.astype(np.float32)))
        layer.quantized_bits = {**getattr(layer, "quantized_bits", {}), name: own_bits}


def remove_quantization(model: nn.Layer, layers: Collection[str]) -> None:
    """Turn the quantized weights of layers outside the encoder into plain ones, in place.

    Args:
        model: the model.
        layers: their paths; those that are not quantized stay as they are.
    """
    for path in layers:
        owner, name = owner_of(model, path)
        layer = getattr(owner, name)
        for weight in getattr(layer, "quantized_bits", {}):
            delattr(layer, weight + SCALE)
        layer.quantized_bits = {}
        if isinstance(layer, RangedLinear):
            delattr(layer, "input_range")


def _find_places(model: nn.Layer) -> Iterator[tuple[str, bool]]:
    """The names of all matrices and tables but the classifier's, and whether each is a table."""
    classifier = classifier_parameters(model)
    for path, layer in model.named_sublayers():
        is_table = _is_table(layer)
        names: tuple[str, ...] = ("weight",) if is_table else _MATRICES.get(type(layer), ())
        for name in names:
            if f"{path}.{name}" not in classifier:
                yield f"{path}.{name}", is_table
        if isinstance(layer, ElasticEmbedding):
            yield f"{path}.up", False


def _is_table(layer: nn.Layer) -> bool:
    return isinstance(layer, (nn.Embedding, ElasticEmbedding))


def _range_path(path: str) -> str:
    """The path of the range that rounds the input of a matrix: queries, keys and values have one in common."""
    layer, _, name = path.rpartition(".")
    if name == "up":
        return f"{layer}.middle_range"
    owner, _, projection = layer.rpartition(".")
    return f"{owner if projection in ('q_proj', 'k_proj', 'v_proj') else layer}.input_range"


def _add_range(model: nn.Layer, path: str, *, inside: bool) -> None:
    """Add the range for a matrix's input; a layer outside the encoder is replaced by one that uses it."""
    owner, name = owner_of(model, _range_path(path))
    if getattr(owner, name, None) is not None:
        return
    if inside or isinstance(owner, ElasticEmbedding):
        setattr(owner, name, ActivationRange())
    else:
        assert isinstance(owner, nn.Linear)  # as all matrices outside the encoder
        parent, attribute = owner_of(model, path.rpartition(".")[0])
        setattr(parent, attribute, RangedLinear(owner, ActivationRange()))
