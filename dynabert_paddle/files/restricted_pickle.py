"""An unpickler that allows arrays, plain containers, strings and numbers, and refuses every other global by name.

Harmless stand-ins replace the classes and functions of NumPy and torch, so nothing in a pickle is executed. A pickle of
a few bytes must not use gigabytes of memory or take for ever, either: the checks below are against both.
"""

import math
import os
import pickle
from collections.abc import Callable
from typing import Any, ClassVar

import numpy as np

from dynabert_paddle.errors import ModelError
from dynabert_paddle.files.tensor_bytes import view_bytes

_NUMPY_CODES = ("b1", "f2", "f4", "f8", "i1", "i2", "i4", "i8", "u1", "u2", "u4", "u8")
# fmt: off
_TORCH_CODES = {
    "DoubleStorage": "f8", "FloatStorage": "f4", "HalfStorage": "f2", "BFloat16Storage": "u2", "LongStorage": "i8",
    "IntStorage": "i4", "ShortStorage": "i2", "CharStorage": "i1", "ByteStorage": "u1", "BoolStorage": "b1",
}
# fmt: on
_MAX_DIMENSIONS, _MAX_ELEMENTS = 32, 2**48


def check_scalar(value: Any) -> Any:
    """Return a string, number or bytes; refuse others, as nested tuples can take for ever to hash, compare or print."""
    if not isinstance(value, (str, int, bytes)):
        raise pickle.UnpicklingError(f"a {type(value).__name__} where a name or a number is expected")
    return value


class PickledArray:
    """Stand-in for numpy.ndarray, whose own `__setstate__` trusts its input, and for torch's tensors and storages.

    Args:
        values: the array; None until the pickle sets the state.
    """

    def __init__(self, values: np.ndarray | None = None) -> None:
        self.values: Any = values

    def __setstate__(self, state: tuple) -> None:
        _version, shape, dtype, is_fortran, data = state
        if not isinstance(dtype, _Dtype):
            raise pickle.UnpicklingError("an array without a dtype")
        # A view rather than a copy: a pickle can make many arrays of the same few bytes.
        self.values = view_bytes(data, str(dtype), shape, order="F" if is_fortran else "C")


class _Dtype:
    """Stand-in for numpy.dtype: a type code of numbers or booleans, and a byte order."""

    def __init__(self, code: str, *_flags: Any) -> None:
        if check_scalar(code) not in _NUMPY_CODES:
            raise pickle.UnpicklingError(f"dtype {code!r} is not one of {', '.join(_NUMPY_CODES)}")
        self.code, self.order = code, "="

    def __setstate__(self, state: tuple) -> None:
        if check_scalar(state[1]) not in ("<", ">", "=", "|"):
            raise pickle.UnpicklingError(f"{state[1]!r} is not a byte order")
        self.order = state[1]

    def __str__(self) -> str:
        return f"{self.order}{self.code}"


class _Dict(dict):
    """Stand-in for dict and OrderedDict; torch attaches a `_metadata` attribute to its own, which is dropped."""

    def __init__(self, items: Any = ()) -> None:
        super().__init__()
        for key, value in items:
            self[key] = value

    def __setitem__(self, key: Any, value: Any) -> None:
        super().__setitem__(check_scalar(key), value)

    def __setstate__(self, state: Any) -> None:
        pass


class _AllowedGlobal:
    """A function that a pickle may call but not modify."""

    __slots__ = ("_function",)

    def __init__(self, function: Callable[..., Any]) -> None:
        self._function = function

    def __call__(self, *args: Any) -> Any:
        return self._function(*args)

    def __setstate__(self, state: Any) -> None:
        raise pickle.UnpicklingError("the pickle sets the state of a function")


def _torch_view(storage: PickledArray, offset: int, size: tuple, stride: tuple, *_autograd: Any) -> PickledArray:
    values = storage.values
    if len(size) > _MAX_DIMENSIONS or any(type(n) is not int or n > _MAX_ELEMENTS for n in (*size, *stride)):
        raise pickle.UnpicklingError(f"a tensor of {len(size)} dimensions, or with an invalid size or stride")
    extents = [(s - 1) * t for s, t in zip(size, stride, strict=True)]
    count = math.prod(size)
    last = offset + sum(extents) if count else offset - 1
    if min(offset, *size, *stride, 0) < 0 or last >= values.size:
        raise pickle.UnpicklingError(f"a tensor of size {size} exceeds its storage of {values.size} elements")
    strides = [t * values.itemsize for t in stride]
    return PickledArray(np.lib.stride_tricks.as_strided(values[offset:], size, strides, writeable=False))


def _numpy_scalar(dtype: _Dtype, data: bytes) -> float | int | bool:
    array = PickledArray()
    array.__setstate__((1, (), dtype, False, data))
    return array.values.item()


_MULTIARRAYS = ("numpy.core.multiarray", "numpy._core.multiarray")
_ALLOWED_GLOBALS: dict[tuple[str, str], Callable[..., Any]] = {
    ("collections", "OrderedDict"): _Dict,
    ("builtins", "tuple"): tuple,
    ("__builtin__", "tuple"): tuple,
    # Pickle protocol 2 writes bytes and empty bytes as these calls.
    ("_codecs", "encode"): lambda text, _latin1: text.encode("latin1"),
    ("__builtin__", "bytes"): lambda: b"",
    ("numpy", "ndarray"): PickledArray,
    ("numpy", "dtype"): _Dtype,
    **{(module, "_reconstruct"): lambda *_empty: PickledArray() for module in _MULTIARRAYS},
    **{(module, "scalar"): _numpy_scalar for module in _MULTIARRAYS},
    ("torch._utils", "_rebuild_tensor_v2"): _torch_view,
    ("torch._utils", "_rebuild_parameter"): lambda data, *_autograd: data,
}

# Protocol 5's buffers, the copyreg extension cache, opcodes that create instances without calling `find_class`, and
# sets, which no state dict contains.
_REFUSED_OPCODES = {
    *(pickle.BYTEARRAY8, pickle.NEXT_BUFFER, pickle.EXT1, pickle.EXT2, pickle.EXT4, pickle.INST, pickle.OBJ),
    *(pickle.EMPTY_SET, pickle.FROZENSET),
}


def _load_dict(unpickler: pickle._Unpickler) -> None:
    """Load a dict as protocol 0 writes it."""
    items = unpickler.pop_mark()  # type: ignore[attr-defined] # typeshed lacks both methods
    unpickler.append(  # type: ignore[attr-defined]
        _Dict(zip(items[::2], items[1::2], strict=True))
    )


# Python's implementation rather than C's, where a damaged memo index allocates gigabytes.
class ArrayUnpickler(pickle._Unpickler):
    """Unpickles arrays, plain containers, strings and numbers, and raises an error that names any other global.

    Args:
        file: the pickle.
        path: the file's name for messages.
    """

    dispatch: ClassVar = {
        **{c: load for c, load in pickle._Unpickler.dispatch.items() if bytes([c]) not in _REFUSED_OPCODES},
        pickle.EMPTY_DICT[0]: lambda self: self.append(_Dict()),
        pickle.DICT[0]: _load_dict,
    }

    def __init__(self, file: Any, path: str | os.PathLike) -> None:
        super().__init__(file)
        self._path = path

    def find_class(self, module: str, name: str) -> _AllowedGlobal | str:
        """Return the stand-in of a global; of a torch storage class the dtype's code.

        Args:
            module: the global's module.
            name: its name.

        Returns:
            The stand-in.

        Raises:
            ModelError: the global is not allowed.
        """
        if module == "torch" and name in _TORCH_CODES:
            return _TORCH_CODES[name]
        if (module, name) not in _ALLOWED_GLOBALS:
            raise ModelError(
                f"{self._path} asks for {module}.{name}, but only arrays are read from a pickle: do not trust the "
                "file, or save its state dict as model.safetensors where it was made"
            )
        return _AllowedGlobal(_ALLOWED_GLOBALS[module, name])
