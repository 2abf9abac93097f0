"""A model folder's weights as NumPy arrays: reads safetensors, Paddle and PyTorch files; writes safetensors.

Imports neither paddle nor torch, and never executes code in a file.
"""

from __future__ import annotations

import json
import mmap
import os
import zipfile
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from functools import partial
from itertools import chain
from pathlib import Path

import numpy as np
import safetensors
import safetensors.numpy

from dynabert_paddle.errors import ModelError
from dynabert_paddle.files.packing import unpack_weights
from dynabert_paddle.files.tensor_bytes import array_from_bytes, widen
from dynabert_paddle.files.unpickling import (
    unpickle_legacy_torch,
    unpickle_paddle,
    unpickle_torch,
)
from dynabert_paddle.runtime.memory import raise_memory_error

# fmt: off
_SAFETENSORS_CODES = {
    "F64": "f8", "F32": "f4", "F16": "f2", "BF16": "u2", "I64": "i8", "I32": "i4", "I16": "i2", "I8": "i1",
    "U64": "u8", "U32": "u4", "U16": "u2", "U8": "u1", "BOOL": "b1",
}
# fmt: on


def read_weights(folder: str | os.PathLike, *, whole_model: bool = False) -> dict[str, np.ndarray]:
    """Read the weights of a model folder.

    Args:
        folder: a folder with `model.safetensors`, `model_state.pdparams` or `pytorch_model.bin`, or one of these in
            shards beside an index, such as `model.safetensors.index.json`, the first of these that exists; what lies
            in `dynabert.safetensors` is read, too.
        whole_model: leave out the weights that only sub-networks use.

    Returns:
        Each tensor's array by its name in the file; bfloat16 and float16 tensors, and packed integers, as float32.

    Raises:
        ModelError: the folder or file is missing, or the file is damaged or contains more than arrays.
    """
    folder = Path(folder)
    names = ", ".join(name for name in WEIGHT_FILES if not name.endswith("index.json")) + " or the index of its shards"
    if not folder.is_dir():
        raise ModelError(f"{folder} is not a folder: name a model folder with one of {names}")
    stock = next((read(folder / name) for name, read in WEIGHT_FILES.items() if (folder / name).is_file()), None)
    own = folder / OWN_WEIGHTS_FILE
    if own.is_file():
        try:
            arrays = unpack_weights(read_safetensors(own))
        except ModelError as error:
            raise ModelError(str(error) if str(own) in str(error) else f"{own}: {error}: copy it again") from None
        if stock and whole_model:  # the components of an elastic embedding; the whole embedding needs none
            arrays = {name: array for name, array in arrays.items() if not name.endswith((".up", ".down"))}
        return {**(stock or {}), **arrays}
    if stock is not None:
        return stock
    raise ModelError(f"{folder} holds no weights: looked for {names}; save the model there first")


def own_weight_names(folder: Path) -> set[str]:
    """Return the names of what lies in a folder's `dynabert.safetensors`, without reading its content.

    Args:
        folder: a model folder.

    Returns:
        The names in the file; none where there is no such file.

    Raises:
        ModelError: it is damaged.
    """
    path = folder / OWN_WEIGHTS_FILE
    if not path.is_file():
        return set()
    with _one_line_errors(path), safetensors.safe_open(str(path), framework="numpy") as file:
        return set(file.keys())


def stored_bytes(folder: Path) -> int:
    """Return the total size in bytes of a model folder's weight files."""
    shards = map(folder.glob, ("*.safetensors", "model_state-*", "pytorch_model-*"))
    files = chain((folder / name for name in WEIGHT_FILES), *shards)
    return sum(path.stat().st_size for path in set(files) if path.is_file())


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
        # Sorted, because the library returns the tensors in a different order in every process.
        for name, tensor in sorted(safetensors.deserialize(Path(path).read_bytes()), key=lambda item: item[0]):
            dtype = tensor["dtype"]
            if dtype not in _SAFETENSORS_CODES:
                raise ModelError(
                    f"{path}: {name} has dtype {dtype}, which is not supported; save it as F32, F16 or BF16"
                )
            array = array_from_bytes(tensor["data"], f"<{_SAFETENSORS_CODES[dtype]}", tensor["shape"])
            arrays[name] = widen(array, bfloat16=dtype == "BF16")
    return arrays


def _read_shards(index: Path, read: Callable[[Path], dict[str, np.ndarray]]) -> dict[str, np.ndarray]:
    """Read the tensors that an index maps to the files beside it, each with `read`."""
    with _one_line_errors(index):
        weight_map = dict(json.loads(index.read_text(encoding="utf-8"))["weight_map"])
    arrays: dict[str, np.ndarray] = {}
    for shard in sorted(set(map(str, weight_map.values()))):
        if Path(shard).name != shard:
            raise ModelError(f"{index} names the shard {shard!r}: a shard must be a file beside its index")
        if not (index.parent / shard).is_file():
            raise ModelError(f"{index} names {shard}, which is not in the folder: download or copy it again")
        tensors = read(index.parent / shard)
        wanted = [name for name, file in weight_map.items() if file == shard]
        missing = [name for name in wanted if name not in tensors]
        if missing:
            raise ModelError(f"{index.parent / shard} lacks {missing[0]}, which {index.name} lists: copy both again")
        arrays.update((name, tensors[name]) for name in wanted)
    return arrays


def read_pdparams(path: str | os.PathLike) -> dict[str, np.ndarray]:
    """Read a state dict that `paddle.save` wrote, without running code in the pickle.

    Args:
        path: the file, of any pickle protocol that Paddle writes (2 to 4).

    Returns:
        Each tensor's array by its structured name; bfloat16 and float16 tensors as float32.

    Raises:
        ModelError: the file is missing or damaged, holds no state dict, or refers to a global that is not allowed.
    """
    with (
        _one_line_errors(path),
        open(path, "rb") as file,
        mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as content,
    ):
        return unpickle_paddle(content, path)


def read_torch(path: str | os.PathLike) -> dict[str, np.ndarray]:
    """Read a state dict that `torch.save` wrote, without torch and without running code in the pickle.

    Args:
        path: the file, in the zip format (PyTorch 1.6 and later) or in the legacy format.

    Returns:
        Each tensor's array by its name, views of one storage as separate arrays; bfloat16 and float16 as float32.

    Raises:
        ModelError: the file is missing, damaged, or refers to a global that is not allowed.
    """
    with _one_line_errors(path), open(path, "rb") as file:
        if zipfile.is_zipfile(file):
            with zipfile.ZipFile(file) as archive:
                return unpickle_torch(archive, path)
        with mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as content:
            return unpickle_legacy_torch(content, path)


def write_safetensors(
    path: str | os.PathLike, arrays: Mapping[str, np.ndarray], *, metadata: Mapping[str, str] | None = None
) -> None:
    """Write arrays to a safetensors file atomically.

    Args:
        path: the file; an existing file is replaced.
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
    """Turn any error of a missing or damaged file into one line that names the file and the remedy."""
    try:
        yield
    except ModelError:
        raise
    except OSError as error:
        raise_memory_error(error)
        raise ModelError(f"{path} cannot be read: {error.strerror or error}") from error
    except BaseException as error:  # a damaged pickle, zip or JSON file can raise almost any type
        if not isinstance(error, Exception) and type(error).__name__ != "PanicException":  # of Rust's safetensors
            raise
        raise_memory_error(error)
        reason = " ".join(f"{type(error).__name__}: {error}".split())
        raise ModelError(f"{path} is truncated or corrupt ({reason[:200]}): download or copy it again") from error


STOCK_WEIGHTS_FILE = "model.safetensors"
# Weights of layers that stock PaddleNLP lacks: it would initialize its own in their place, so it must not find them.
OWN_WEIGHTS_FILE = "dynabert.safetensors"

# Readers by file name, in order of preference.
WEIGHT_FILES: dict[str, Callable[[Path], dict[str, np.ndarray]]] = {
    STOCK_WEIGHTS_FILE: read_safetensors,
    "model.safetensors.index.json": partial(_read_shards, read=read_safetensors),
    "model_state.pdparams": read_pdparams,
    "model_state.pdparams.index.json": partial(_read_shards, read=read_pdparams),
    "pytorch_model.bin": read_torch,
    "pytorch_model.bin.index.json": partial(_read_shards, read=read_torch),
}
