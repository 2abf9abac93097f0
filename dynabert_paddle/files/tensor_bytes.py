"""The bytes of a stored tensor as a NumPy array."""

from typing import Any

import numpy as np


def view_bytes(data: bytes, dtype: str, shape: Any, *, order: str) -> np.ndarray:
    """Return a read-only array that shares a tensor's bytes; `order` is the memory layout, 'C' or 'F'."""
    flat = np.frombuffer(data, dtype=dtype) if len(data) else np.empty(0, dtype)
    return flat.reshape(shape, order="F" if order == "F" else "C")


def copy_native(array: np.ndarray) -> np.ndarray:
    """Return a writable copy of an array, in native byte order and C order."""
    return np.array(array, dtype=array.dtype.newbyteorder("="), order="C")


def array_from_bytes(data: bytes, dtype: str, shape: Any) -> np.ndarray:
    """Return a writable array in native byte order.

    Args:
        data: a tensor's bytes in C order.
        dtype: NumPy's code with the byte order, such as `<f4`.
        shape: the tensor's shape.

    Returns:
        A copy of the data.
    """
    return copy_native(view_bytes(data, dtype, shape, order="C"))


def widen(array: np.ndarray, *, bfloat16: bool) -> np.ndarray:
    """Convert half precision to float32, and return any other array unchanged.

    Args:
        array: the array.
        bfloat16: whether a uint16 array holds the bits of bfloat16 values.

    Returns:
        The array, float32 if it was of half precision.
    """
    if bfloat16:
        bits = array.astype(np.uint32)
        bits <<= 16  # bfloat16 is the upper half of a float32
        return bits.view(np.float32)
    return array.astype(np.float32) if array.dtype == np.float16 else array
