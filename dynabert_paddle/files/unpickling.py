"""State dicts in pickles, Paddle's and PyTorch's, read without executing anything that the pickle asks for.

An unpickler admits arrays, plain containers, strings and numbers, and refuses every other global by name.
"""

import io
import math
import mmap
import os
import pickle
import zipfile
from collections.abc import Callable
from typing import Any, ClassVar

import numpy as np

from dynabert_paddle.errors import ModelError

_NUMPY_CODES = ("b1", "f2", "f4", "f8", "i1", "i2", "i4", "i8", "u1", "u2", "u4", "u8")
# fmt: off
_TORCH_CODES = {
    "DoubleStorage": "f8", "FloatStorage": "f4", "HalfStorage": "f2", "BFloat16Storage": "u2", "LongStorage": "i8",
    "IntStorage": "i4", "ShortStorage": "i2", "CharStorage": "i1", "ByteStorage": "u1", "BoolStorage": "b1",
}
# fmt: on
_OLD_TORCH = 0x1950A86A20F9469CFC6C  # the number that a file of PyTorch before 1.6 begins with
# Arrays can share and repeat what is stored, and be widened: a few bytes must not become gigabytes.
_MAX_EXPANSION, _MAX_EXPANDED = 8, 2**26  # times the file's size, and bytes beyond it
_MAX_ELEMENTS = 2**48


def unpickle_paddle(content: mmap.mmap, path: str | os.PathLike) -> dict[str, np.ndarray]:
    """Read the state dict in a pickle that `paddle.save` wrote.

    Args:
        content: the pickle; mapped rather than read, so that a damaged length in it cannot make the unpickler reserve
            more than the file has.
        path: the file's name for messages.

    Returns:
        Each tensor's array by its structured name; bfloat16 and float16 tensors as float32.

    Raises:
        ModelError: the pickle holds no state dict, or asks for another global than arrays need.
        Exception: of almost any type, where the pickle is damaged.
    """
    if content[-1:] != pickle.STOP:
        raise EOFError("the pickle does not end")
    return _named_arrays(_ArrayUnpickler(content, path).load(), path, len(content))


def unpickle_torch(archive: zipfile.ZipFile, path: str | os.PathLike) -> dict[str, np.ndarray]:
    """Read the state dict in a zip archive that `torch.save` wrote.

    Args:
        archive: the archive.
        path: the file's name for messages.

    Returns:
        Each tensor's array by its name, views of one storage as arrays of their own; bfloat16 and float16 as float32.

    Raises:
        ModelError: the archive holds no state dict, or asks for another global than tensors need.
        Exception: of almost any type, where the archive is damaged.
    """
    roots = [name.removesuffix("/data.pkl") for name in archive.namelist() if name.endswith("/data.pkl")]
    if len(roots) != 1:
        raise ValueError(f"{len(roots)} data.pkl inside, 1 expected")
    size = sum(info.file_size for info in archive.infolist() if info.compress_type == zipfile.ZIP_STORED)
    if archive.fp is None or size > os.fstat(archive.fp.fileno()).st_size:
        raise zipfile.BadZipFile("its files overlap")
    return _named_arrays(_TorchUnpickler(archive, roots[0], path).load(), path, size)


def unpickle_old_torch(content: mmap.mmap, path: str | os.PathLike) -> dict[str, np.ndarray]:
    """Read the state dict in a file of the format that `torch.save` wrote before PyTorch 1.6.

    Args:
        content: pickles of a magic number, a version, the system, the state dict and its storages' keys, then for each
            storage its length and its values.
        path: the file's name for messages.

    Returns:
        Each tensor's array by its name, as `unpickle_torch` gives them.

    Raises:
        ModelError: the file holds no state dict, or asks for another global than tensors need.
        Exception: of almost any type, where the file is damaged.
    """
    if [_ArrayUnpickler(content, path).load() for _ in range(2)] != [_OLD_TORCH, 1001]:
        raise ValueError("neither a zip archive nor PyTorch's older format")
    is_little = _ArrayUnpickler(content, path).load()["little_endian"]
    start = content.tell()
    # The storages come last, and a tensor is a copy of a part of one: a first reading tells what they are.
    blank, storages = _OldTorchUnpickler(content, path), {}
    blank.load()
    for key in _ArrayUnpickler(content, path).load():
        code, count = blank.found[_plain(key)]
        if int.from_bytes(content.read(8), "little" if is_little else "big") != count:
            raise ValueError(f"storage {key} has another length")
        data = content.read(count * int(code[1:]))
        values = array_from_bytes(data, f"{'<' if is_little else '>'}{code}", (count,))
        storages[key] = _Array(widen(values, bfloat16=code == "u2"))
    content.seek(start)
    return _named_arrays(_OldTorchUnpickler(content, path, storages).load(), path, len(content))


def array_from_bytes(data: bytes, dtype: str, shape: Any, *, order: str = "C") -> np.ndarray:
    """Make an array of its own, in native byte order, from a tensor's bytes.

    Args:
        data: the bytes.
        dtype: NumPy's code, with the bytes' order.
        shape: the tensor's shape.
        order: the layout of the bytes, 'C' or 'F'.

    Returns:
        A writable array in C order.
    """
    return _own(_view(data, dtype, shape, order=order))


def _view(data: bytes, dtype: str, shape: Any, *, order: str) -> np.ndarray:
    flat = np.frombuffer(data, dtype=dtype) if len(data) else np.empty(0, dtype)
    return flat.reshape(shape, order="F" if order == "F" else "C")


def _own(array: np.ndarray) -> np.ndarray:
    return np.array(array, dtype=array.dtype.newbyteorder("="), order="C")


def widen(array: np.ndarray, *, bfloat16: bool) -> np.ndarray:
    """Return half precision as float32, and any other array as it is.

    Args:
        array: the array.
        bfloat16: whether its uint16 are bfloat16 bits.

    Returns:
        The array, float32 where it was of half precision.
    """
    if bfloat16:
        bits = array.astype(np.uint32)
        bits <<= 16  # bfloat16 is the upper half of a float32
        return bits.view(np.float32)
    return array.astype(np.float32) if array.dtype == np.float16 else array


def _named_arrays(content: Any, path: str | os.PathLike, stored: int) -> dict[str, np.ndarray]:
    """Pick the arrays out of an unpickled state dict; Paddle's `StructuredToParameterName@@` is not one."""
    content = content if isinstance(content, dict) else {}
    arrays, left = {}, _MAX_EXPANSION * stored + _MAX_EXPANDED
    for name, value in content.items():
        # In a dict that is not purely tensors Paddle writes each tensor as (parameter name, array).
        value = value[1] if isinstance(value, tuple) and len(value) == 2 else value
        if isinstance(value, _Array):
            left -= value.values.nbytes
            if left < 0:
                raise ModelError(f"{path}: its tensors are far larger than the file: distrust it")
            own = _own(value.values)
            arrays[str(name)] = widen(own, bfloat16=own.dtype == np.uint16)
    # Below pickle protocol 4 Paddle cuts tensors of more than 1 GiB into slices and notes their names.
    for name, cut in content.get("UnpackBigParamInfor@@", {}).items():
        slices = [arrays.pop(_plain(part)) for part in cut["slices"]]
        arrays[name] = np.concatenate(slices).reshape(cut["OriginShape"])
    if not arrays:
        raise ModelError(
            f"{path} holds no tensors by name: save model.state_dict() itself, not a dict or list around it"
        )
    return arrays


class _Array:
    """Stands in for numpy.ndarray and torch's storages in a pickle: ndarray's own `__setstate__` trusts its input."""

    def __init__(self, values: np.ndarray | None = None) -> None:
        self.values: Any = values  # None until the pickle sets the state

    def __setstate__(self, state: tuple) -> None:
        _version, shape, dtype, is_fortran, data = state
        if not isinstance(dtype, _Dtype):
            raise pickle.UnpicklingError("an array without a dtype")
        # Not copied yet: many arrays can be made of the same few bytes.
        self.values = _view(data, str(dtype), shape, order="F" if is_fortran else "C")


class _Dtype:
    """Stands in for numpy.dtype in a pickle: a type code of numbers or booleans, and a byte order."""

    def __init__(self, code: str, *_flags: Any) -> None:
        if _plain(code) not in _NUMPY_CODES:
            raise pickle.UnpicklingError(f"dtype {code!r} is not one of {', '.join(_NUMPY_CODES)}")
        self.code, self.order = code, "="

    def __setstate__(self, state: tuple) -> None:
        if _plain(state[1]) not in ("<", ">", "=", "|"):
            raise pickle.UnpicklingError(f"{state[1]!r} is not a byte order")
        self.order = state[1]

    def __str__(self) -> str:
        return f"{self.order}{self.code}"


class _Mapping(dict):
    """Stands in for a dict in a pickle; torch attaches a `_metadata` attribute to it, which is dropped."""

    def __init__(self, items: Any = ()) -> None:
        super().__init__()
        for key, value in items:
            self[key] = value

    def __setitem__(self, key: Any, value: Any) -> None:
        super().__setitem__(_plain(key), value)

    def __setstate__(self, state: Any) -> None:
        pass


def _plain(value: Any) -> Any:
    """A tuple of tuples of ... can be small and yet take for ever to hash, to compare or to print."""
    if not isinstance(value, (str, int, bytes)):
        raise pickle.UnpicklingError(f"a {type(value).__name__} where a name or a number is expected")
    return value


class _Admitted:
    """A global that a pickle may call, and may not change."""

    __slots__ = ("_function",)

    def __init__(self, function: Callable[..., Any]) -> None:
        self._function = function

    def __call__(self, *args: Any) -> Any:
        return self._function(*args)

    def __setstate__(self, state: Any) -> None:
        raise pickle.UnpicklingError("the pickle gives a state to a function")


def _torch_view(storage: _Array, offset: int, size: tuple, stride: tuple, *_autograd: Any) -> _Array:
    values = storage.values
    if len(size) > 32 or any(type(n) is not int or n > _MAX_ELEMENTS for n in (*size, *stride)):
        raise pickle.UnpicklingError(f"a tensor of {len(size)} dimensions, or a longer one than there are")
    extents = [(s - 1) * t for s, t in zip(size, stride, strict=True)]
    count = math.prod(size)
    last = offset + sum(extents) if count else offset - 1
    if min(offset, *size, *stride, 0) < 0 or last >= values.size:
        raise pickle.UnpicklingError(f"a tensor of size {size} reaches outside of its {values.size} stored elements")
    strides = [t * values.itemsize for t in stride]
    return _Array(np.lib.stride_tricks.as_strided(values[offset:], size, strides, writeable=False))


def _scalar(dtype: _Dtype, data: bytes) -> float | int | bool:
    array = _Array()
    array.__setstate__((1, (), dtype, False, data))
    return array.values.item()


_MULTIARRAYS = ("numpy.core.multiarray", "numpy._core.multiarray")
_ADMITTED: dict[tuple[str, str], Callable[..., Any]] = {
    ("collections", "OrderedDict"): _Mapping,
    ("builtins", "tuple"): tuple,
    ("__builtin__", "tuple"): tuple,
    # How pickle protocol 2 writes bytes, and empty ones.
    ("_codecs", "encode"): lambda text, _latin1: text.encode("latin1"),
    ("__builtin__", "bytes"): lambda: b"",
    ("numpy", "ndarray"): _Array,
    ("numpy", "dtype"): _Dtype,
    **{(module, "_reconstruct"): lambda *_empty: _Array() for module in _MULTIARRAYS},
    **{(module, "scalar"): _scalar for module in _MULTIARRAYS},
    ("torch._utils", "_rebuild_tensor_v2"): _torch_view,
    ("torch._utils", "_rebuild_parameter"): lambda data, *_autograd: data,
}

# Protocol 5's buffers, the copyreg extension cache, and opcodes that make instances without asking `find_class`.
# And sets, of which a state dict has none.
_REFUSED = {
    *(pickle.BYTEARRAY8, pickle.NEXT_BUFFER, pickle.EXT1, pickle.EXT2, pickle.EXT4, pickle.INST, pickle.OBJ),
    *(pickle.EMPTY_SET, pickle.FROZENSET),
}


def _load_dict(unpickler: pickle._Unpickler) -> None:
    """A dict as protocol 0 writes it."""
    items = unpickler.pop_mark()  # type: ignore[attr-defined] # typeshed lacks both methods
    unpickler.append(  # type: ignore[attr-defined]
        _Mapping(zip(items[::2], items[1::2], strict=True))
    )


# Python's own implementation rather than C's: there a damaged memo index reserves memory by the gigabyte.
class _ArrayUnpickler(pickle._Unpickler):
    """Unpickles arrays, plain containers, strings and numbers, and names the first other global it meets."""

    dispatch: ClassVar = {
        **{c: load for c, load in pickle._Unpickler.dispatch.items() if bytes([c]) not in _REFUSED},
        pickle.EMPTY_DICT[0]: lambda self: self.append(_Mapping()),
        pickle.DICT[0]: _load_dict,
    }

    def __init__(self, file: Any, path: str | os.PathLike) -> None:
        super().__init__(file)
        self._path = path

    def find_class(self, module: str, name: str) -> _Admitted | str:
        if module == "torch" and name in _TORCH_CODES:
            return _TORCH_CODES[name]
        if (module, name) not in _ADMITTED:
            raise ModelError(
                f"{self._path} asks for {module}.{name}, but only arrays are read from a pickle: distrust the file, or "
                "save its state dict as model.safetensors where it was made"
            )
        return _Admitted(_ADMITTED[module, name])


class _TorchUnpickler(_ArrayUnpickler):
    """Unpickles the data.pkl of a torch archive, whose storages are files of their own beside it."""

    def __init__(self, archive: zipfile.ZipFile, root: str, path: str | os.PathLike) -> None:
        self._archive, self._root = archive, root
        self._storages: dict[tuple[str, str], _Array] = {}
        super().__init__(io.BytesIO(self._member("data.pkl")), path)
        is_big = f"{root}/byteorder" in archive.namelist() and self._member("byteorder") == b"big"
        self._order = ">" if is_big else "<"

    def _member(self, name: str) -> bytes:
        info = self._archive.getinfo(f"{self._root}/{name}")
        if info.compress_type != zipfile.ZIP_STORED:  # torch never compresses, and what is stored cannot blow up
            raise zipfile.BadZipFile(f"{name} is compressed")
        return self._archive.read(info)

    def persistent_load(self, pid: Any) -> _Array:
        _kind, code, key, _device, count = pid
        code, key = _plain(code), _plain(key)
        if (key, code) not in self._storages:
            values = array_from_bytes(self._member(f"data/{key}"), f"{self._order}{code}", (count,))
            self._storages[key, code] = _Array(widen(values, bfloat16=code == "u2"))
        return self._storages[key, code]


class _OldTorchUnpickler(_ArrayUnpickler):
    """Unpickles the state dict of the older format, with storages of zeros as long as none are given."""

    def __init__(self, file: mmap.mmap, path: str | os.PathLike, storages: dict[str, _Array] | None = None) -> None:
        super().__init__(file, path)
        self.found: dict[str, tuple[str, int]] = {}
        self._storages, self._limit = storages, len(file)

    def persistent_load(self, pid: Any) -> _Array:
        _kind, code, key, _device, count, view = pid
        code, key, count = _plain(code), _plain(key), _plain(count)
        if view is not None or not 0 <= count * int(code[1:]) <= self._limit:
            raise pickle.UnpicklingError(f"storage {key} is a view, or longer than the file")
        self.found[key] = code, count
        return _Array(np.zeros(count, code)) if self._storages is None else self._storages[key]
