"""A model folder's weights as NumPy arrays: reads safetensors, Paddle's pickle and PyTorch's zip; writes safetensors.

Nothing here imports paddle or torch, and nothing inside a file is executed: pickles are read by an unpickler that
admits arrays, plain containers, strings and numbers, and refuses every other global by name.
"""

import io
import json
import math
import mmap
import os
import pickle
import zipfile
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import safetensors
import safetensors.numpy

from dynabert_paddle.errors import ModelError

# fmt: off
_SAFETENSORS_CODES = {
    "F64": "f8", "F32": "f4", "F16": "f2", "BF16": "u2", "I64": "i8", "I32": "i4", "I16": "i2", "I8": "i1",
    "U64": "u8", "U32": "u4", "U16": "u2", "U8": "u1", "BOOL": "b1",
}
_TORCH_CODES = {
    "DoubleStorage": "f8", "FloatStorage": "f4", "HalfStorage": "f2", "BFloat16Storage": "u2", "LongStorage": "i8",
    "IntStorage": "i4", "ShortStorage": "i2", "CharStorage": "i1", "ByteStorage": "u1", "BoolStorage": "b1",
}
# fmt: on
_NUMPY_CODES = frozenset(_SAFETENSORS_CODES.values())
_MAX_EXPANDED = 2**24  # elements of a view that repeats a smaller storage: a few bytes must not become gigabytes


def read_weights(folder: str | os.PathLike) -> dict[str, np.ndarray]:
    """Read the weights of a model folder, from the first of the known files that it holds.

    Args:
        folder: a folder with `model.safetensors`, `model.safetensors.index.json` and its shards,
            `model_state.pdparams` or `pytorch_model.bin`, looked for in this order.

    Returns:
        Each tensor's array by its name in the file; bfloat16 and float16 tensors as float32.

    Raises:
        ModelError: there is no such folder or file, or the file is damaged or asks for more than arrays.
    """
    folder = Path(folder)
    names = ", ".join(_READERS)
    if not folder.is_dir():
        raise ModelError(f"{folder} is not a folder: name a model folder with one of {names}")
    for name, read in _READERS.items():
        if (folder / name).is_file():
            return read(folder / name)
    raise ModelError(f"{folder} holds no weights: looked for {names}; save the model there first")


def read_safetensors(path: str | os.PathLike) -> dict[str, np.ndarray]:
    """Read one safetensors file.

    Args:
        path: the file.

    Returns:
        Each tensor's array by its name; bfloat16 and float16 tensors as float32.

    Raises:
        ModelError: the file is missing, damaged, or holds a dtype that NumPy cannot express.
    """
    arrays = {}
    with _one_line_errors(path):
        # Sorted, because the library returns the tensors in another order in every process.
        for name, tensor in sorted(safetensors.deserialize(Path(path).read_bytes()), key=lambda item: item[0]):
            dtype = tensor["dtype"]
            if dtype not in _SAFETENSORS_CODES:
                raise ModelError(f"{path}: {name} has dtype {dtype}; save it as F32, F16 or BF16")
            array = _from_bytes(tensor["data"], f"<{_SAFETENSORS_CODES[dtype]}", tensor["shape"])
            arrays[name] = _widen(array, bfloat16=dtype == "BF16")
    return arrays


def _read_shards(index: Path) -> dict[str, np.ndarray]:
    """Read the tensors that a `model.safetensors.index.json` maps to the safetensors files beside it."""
    with _one_line_errors(index):
        weight_map = dict(json.loads(index.read_text(encoding="utf-8"))["weight_map"])
    arrays = {}
    for shard in sorted(set(map(str, weight_map.values()))):
        if Path(shard).name != shard:
            raise ModelError(f"{index} names the shard {shard!r}: a shard must be a file beside its index")
        if not (index.parent / shard).is_file():
            raise ModelError(f"{index} names {shard}, which is not in the folder: download or copy it again")
        tensors = read_safetensors(index.parent / shard)
        wanted = [name for name, file in weight_map.items() if file == shard]
        missing = [name for name in wanted if name not in tensors]
        if missing:
            raise ModelError(f"{index.parent / shard} lacks {missing[0]}, which {index.name} promises: copy both again")
        arrays.update((name, tensors[name]) for name in wanted)
    return arrays


def read_pdparams(path: str | os.PathLike) -> dict[str, np.ndarray]:
    """Read a state dict that `paddle.save` wrote, without running anything that the pickle asks for.

    Args:
        path: the file, of any pickle protocol that Paddle writes (2 to 4).

    Returns:
        Each tensor's array by its structured name; bfloat16 and float16 tensors as float32.

    Raises:
        ModelError: the file is missing or damaged, holds no state dict, or asks for another global than arrays need.
    """
    # Mapped rather than read: a damaged length then cannot make the unpickler reserve more than the file has.
    with (
        _one_line_errors(path),
        open(path, "rb") as file,
        mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as content,
    ):
        if content[-1:] != pickle.STOP:
            raise EOFError("the pickle does not end")
        return _named_arrays(_ArrayUnpickler(content, path).load(), path)


def read_torch(path: str | os.PathLike) -> dict[str, np.ndarray]:
    """Read a state dict that `torch.save` wrote in its zip format, without torch and without running anything.

    Args:
        path: the file, as PyTorch 1.6 and later write it.

    Returns:
        Each tensor's array by its name, views of one storage as arrays of their own; bfloat16 and float16 as float32.

    Raises:
        ModelError: the file is missing, damaged, in the older format, or asks for another global than tensors need.
    """
    with _one_line_errors(path), open(path, "rb") as file:
        if file.read(4) != b"PK\x03\x04":
            raise ModelError(
                f"{path} is not in PyTorch's zip format (older than PyTorch 1.6, or damaged): "
                "load it in PyTorch and save it again as model.safetensors"
            )
        with zipfile.ZipFile(file) as archive:
            roots = [name.removesuffix("/data.pkl") for name in archive.namelist() if name.endswith("/data.pkl")]
            if len(roots) != 1:
                raise ValueError(f"{len(roots)} data.pkl inside, 1 expected")
            return _named_arrays(_TorchUnpickler(archive, roots[0], path).load(), path)


def write_safetensors(
    path: str | os.PathLike, arrays: Mapping[str, np.ndarray], *, metadata: Mapping[str, str] | None = None
) -> None:
    """Write arrays as a safetensors file that is whole or absent, whatever interrupts the writing.

    Args:
        path: the file; an existing one is replaced.
        arrays: each tensor's array by its name.
        metadata: strings for the file's header.
    """
    path = Path(path)
    data = safetensors.numpy.save(dict(arrays), metadata=None if metadata is None else dict(metadata))
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        with open(temporary, "wb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        os.replace(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)


@contextmanager
def _one_line_errors(path: str | os.PathLike) -> Iterator[None]:
    """Turn whatever a missing or damaged file causes into one line that names it and the remedy."""
    try:
        yield
    except ModelError:
        raise
    except OSError as error:
        raise ModelError(f"{path} cannot be read: {error.strerror or error}") from error
    except Exception as error:  # a damaged pickle, zip or JSON file fails as almost any type
        reason = " ".join(f"{type(error).__name__}: {error}".split())
        raise ModelError(f"{path} is truncated or corrupt ({reason[:200]}): download or copy it again") from error


def _from_bytes(data: bytes, dtype: str, shape: Any, *, order: str = "C") -> np.ndarray:
    """Make an array of its own, in native byte order, from a tensor's bytes."""
    flat = np.frombuffer(data, dtype=dtype) if len(data) else np.empty(0, dtype)
    array = flat.reshape(shape, order=order)
    return np.array(array, dtype=array.dtype.newbyteorder("="), order="C")


def _widen(array: np.ndarray, *, bfloat16: bool) -> np.ndarray:
    """Return half precision as float32; `bfloat16` says that an array's uint16 are bfloat16 bits."""
    if bfloat16:
        bits = array.astype(np.uint32)
        bits <<= 16  # bfloat16 is the upper half of a float32
        return bits.view(np.float32)
    return array.astype(np.float32) if array.dtype == np.float16 else array


def _named_arrays(content: Any, path: str | os.PathLike) -> dict[str, np.ndarray]:
    """Pick the arrays out of an unpickled state dict; Paddle's `StructuredToParameterName@@` is not one."""
    content = content if isinstance(content, dict) else {}
    arrays = {}
    for name, value in content.items():
        # In a dict that is not purely tensors Paddle writes each tensor as (parameter name, array).
        value = value[1] if isinstance(value, tuple) and len(value) == 2 else value
        if isinstance(value, _Array):
            arrays[str(name)] = _widen(value.values, bfloat16=value.values.dtype == np.uint16)
    # Below pickle protocol 4 Paddle cuts tensors of more than 1 GiB into slices and notes their names.
    for name, cut in content.get("UnpackBigParamInfor@@", {}).items():
        slices = [arrays.pop(part) for part in cut["slices"]]
        arrays[name] = np.concatenate(slices).reshape(cut["OriginShape"])
    if not arrays:
        raise ModelError(
            f"{path} holds no tensors by name: save model.state_dict() itself, not a dict or list around it"
        )
    return arrays


class _Array:
    """Stands in for numpy.ndarray and torch's storages in a pickle: ndarray's own `__setstate__` trusts its input."""

    def __init__(self, values: np.ndarray | None = None) -> None:
        self.values = values

    def __setstate__(self, state: tuple) -> None:
        _version, shape, dtype, is_fortran, data = state
        data = data.encode("latin1") if isinstance(data, str) else data  # written by Python 2
        self.values = _from_bytes(data, str(dtype), shape, order="F" if is_fortran else "C")


class _Dtype:
    """Stands in for numpy.dtype in a pickle: a type code of numbers or booleans, and a byte order."""

    def __init__(self, code: str, *_flags: Any) -> None:
        if code not in _NUMPY_CODES:
            raise pickle.UnpicklingError(f"dtype {code!r} is not one of {', '.join(sorted(_NUMPY_CODES))}")
        self.code, self.order = code, "="

    def __setstate__(self, state: tuple) -> None:
        if state[1] not in ("<", ">", "=", "|"):
            raise pickle.UnpicklingError(f"{state[1]!r} is not a byte order")
        self.order = state[1]

    def __str__(self) -> str:
        return f"{self.order}{self.code}"


class _Mapping(dict):
    """Stands in for OrderedDict in a pickle; torch attaches a `_metadata` attribute to it, which is dropped."""

    def __setstate__(self, state: Any) -> None:
        pass


class _Admitted:
    """A global that a pickle may call, and may not change."""

    __slots__ = ("_function",)

    def __init__(self, function: Callable) -> None:
        self._function = function

    def __call__(self, *args: Any) -> Any:
        return self._function(*args)

    def __setstate__(self, state: Any) -> None:
        raise pickle.UnpicklingError("the pickle gives a state to a function")


def _torch_view(storage: _Array, offset: int, size: tuple, stride: tuple, *_autograd: Any) -> _Array:
    values = storage.values
    extents = [(s - 1) * t for s, t in zip(size, stride, strict=True)]
    count = math.prod(size)
    last = offset + sum(extents) if count else offset - 1
    if min(offset, *size, *stride, 0) < 0 or last >= values.size or count > max(values.size, _MAX_EXPANDED):
        raise pickle.UnpicklingError(f"a tensor of size {size} reaches outside of its {values.size} stored elements")
    view = np.lib.stride_tricks.as_strided(values[offset:], size, [t * values.itemsize for t in stride])
    return _Array(np.array(view, order="C"))


_MULTIARRAYS = ("numpy.core.multiarray", "numpy._core.multiarray")
_ADMITTED = {
    ("collections", "OrderedDict"): _Mapping,
    ("builtins", "tuple"): tuple,
    ("__builtin__", "tuple"): tuple,
    # How pickle protocol 2 writes bytes, and empty ones.
    ("_codecs", "encode"): lambda text, _latin1: text.encode("latin1"),
    ("__builtin__", "bytes"): lambda: b"",
    ("numpy", "ndarray"): _Array,
    ("numpy", "dtype"): _Dtype,
    **{(module, "_reconstruct"): lambda *_empty: _Array() for module in _MULTIARRAYS},
    **{(module, "scalar"): lambda dtype, data: _from_bytes(data, str(dtype), ()).item() for module in _MULTIARRAYS},
    ("torch._utils", "_rebuild_tensor"): _torch_view,
    ("torch._utils", "_rebuild_tensor_v2"): _torch_view,
    ("torch._utils", "_rebuild_parameter"): lambda data, *_autograd: data,
    ("torch._utils", "_rebuild_parameter_with_state"): lambda data, *_autograd_and_state: data,
}


# Protocol 5's buffers, the copyreg extension cache, and opcodes that make instances without asking `find_class`.
_REFUSED = (pickle.BYTEARRAY8, pickle.NEXT_BUFFER, pickle.EXT1, pickle.EXT2, pickle.EXT4, pickle.INST, pickle.OBJ)


# Python's own implementation rather than C's: there a damaged memo index reserves memory by the gigabyte.
class _ArrayUnpickler(pickle._Unpickler):
    """Unpickles arrays, plain containers, strings and numbers, and names the first other global it meets."""

    dispatch: ClassVar = {c: load for c, load in pickle._Unpickler.dispatch.items() if bytes([c]) not in _REFUSED}

    def __init__(self, file: Any, path: str | os.PathLike) -> None:
        super().__init__(file, encoding="latin1")
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
        self._archive, self._root, self._storages = archive, root, {}
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
        if (key, code) not in self._storages:
            values = _from_bytes(self._member(f"data/{key}"), f"{self._order}{code}", (count,))
            self._storages[key, code] = _Array(_widen(values, bfloat16=code == "u2"))
        return self._storages[key, code]


_READERS = {
    "model.safetensors": read_safetensors,
    "model.safetensors.index.json": _read_shards,
    "model_state.pdparams": read_pdparams,
    "pytorch_model.bin": read_torch,
}
