"""Integers of 4 and 2 bits, packed into bytes: how a file stores the weights that are multiples of their scales.

The float32 weight `NAME` is stored as `NAME.packed4` or `NAME.packed2` (bytes), `NAME.shape`, and beside them
`NAME_scale`, which multiplies the integers.
"""

from __future__ import annotations

import math
from collections.abc import Mapping

import numpy as np

from dynabert_paddle.errors import ModelError

PACKED_BITS = (4, 2)
_SHAPE = ".shape"


def pack(integers: np.ndarray, bits: int) -> np.ndarray:
    """Pack integers into bytes, the first one into the lowest bits.

    Args:
        integers: any shape, from -(2^(bits-1) - 1) to 2^(bits-1) - 1.
        bits: of each integer: 4 or 2.

    Returns:
        uint8, one dimension; the last byte is filled up with zero bits.
    """
    per_byte, offset = 8 // bits, 2 ** (bits - 1)
    unsigned = (integers.reshape(-1).astype(np.int16) + offset).astype(np.uint8)
    padded = np.concatenate([unsigned, np.zeros(-len(unsigned) % per_byte, np.uint8)]).reshape(-1, per_byte)
    packed = np.zeros(len(padded), np.uint8)
    for place in range(per_byte):
        packed |= padded[:, place] << np.uint8(place * bits)
    return packed


def unpack(packed: np.ndarray, bits: int, shape: tuple[int, ...]) -> np.ndarray:
    """Return the integers that `pack` was given.

    Args:
        packed: uint8, one dimension.
        bits: of each integer: 4 or 2.
        shape: of the integers.

    Returns:
        int8.

    Raises:
        ModelError: the bytes are not those of as many integers.
    """
    per_byte, offset, size = 8 // bits, 2 ** (bits - 1), math.prod(shape)
    if packed.dtype != np.uint8 or packed.shape != (-(-size // per_byte),) or min(shape, default=0) < 0:
        raise ModelError(f"{size} integers of {bits} bits are stored in {packed.size} values of {packed.dtype}")
    places = np.arange(per_byte, dtype=np.uint8) * np.uint8(bits)
    unsigned = ((packed[:, None] >> places) & np.uint8(2**bits - 1)).reshape(-1)[:size]
    return (unsigned.astype(np.int8) - np.int8(offset)).reshape(shape)


def pack_weights(arrays: Mapping[str, np.ndarray], bits: Mapping[str, int]) -> dict[str, np.ndarray]:
    """Replace weights by packed integers.

    Args:
        arrays: a model's weights with their scales.
        bits: by name, of the weights that are to be packed; each is an integer times its scale.

    Returns:
        What a file stores.
    """
    stored = {}
    for name, array in arrays.items():
        if name in bits:
            integers = np.rint(array / arrays[f"{name}_scale"]).astype(np.int8)
            stored[f"{name}.packed{bits[name]}"] = pack(integers, bits[name])
            stored[name + _SHAPE] = np.array(array.shape, np.int64)
        else:
            stored[name] = array
    return stored


def unpack_weights(stored: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
    """Return the weights that `pack_weights` was given.

    Args:
        stored: the content of a file.

    Returns:
        All weights as float32, by their names.

    Raises:
        ModelError: packed weights without their shape or scale, or of another size.
    """
    arrays = dict(stored)
    for name in stored:
        weight, _, bits = name.rpartition(".packed")
        if bits not in map(str, PACKED_BITS):
            continue
        scale, shape = stored.get(f"{weight}_scale"), arrays.pop(weight + _SHAPE, None)
        if scale is None or shape is None:
            raise ModelError(f"'{name}' has no {'shape' if scale is not None else 'scale'}")
        integers = unpack(arrays.pop(name), int(bits), tuple(map(int, shape)))
        arrays[weight] = integers.astype(np.float32) * scale
    return arrays
