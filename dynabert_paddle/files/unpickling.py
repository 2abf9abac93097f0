"""The formats of pickled state dicts: Paddle's, PyTorch's zip archive, and PyTorch's legacy file.

No code in a pickle is executed, see `restricted_pickle.py`.
"""

import io
import mmap
import os
import pickle
import zipfile
from typing import Any

import numpy as np

from dynabert_paddle.errors import ModelError
from dynabert_paddle.files.restricted_pickle import ArrayUnpickler, PickledArray, check_scalar
from dynabert_paddle.files.tensor_bytes import array_from_bytes, copy_native, widen

_LEGACY_TORCH_MAGIC, _LEGACY_TORCH_VERSION = 0x1950A86A20F9469CFC6C, 1001  # of PyTorch before 1.6
# Tensors can share stored bytes and are copied and widened: a small file must not expand to gigabytes.
_MAX_EXPANSION, _MAX_EXTRA_BYTES = 8, 2**26  # allowed in total: file size times the first, plus the second


def unpickle_paddle(content: mmap.mmap, path: str | os.PathLike) -> dict[str, np.ndarray]:
    """Read the state dict in a pickle that `paddle.save` wrote.

    Args:
        content: the pickle; memory-mapped, so that a damaged length in it cannot make the unpickler allocate more than
            the file's size.
        path: the file's name for messages.

    Returns:
        Each tensor's array by its structured name; bfloat16 and float16 tensors as float32.

    Raises:
        ModelError: the pickle holds no state dict, or refers to a global that is not allowed.
        Exception: of almost any type, if the pickle is damaged.
    """
    if content[-1:] != pickle.STOP:
        raise EOFError("the pickle does not end")
    return _named_arrays(ArrayUnpickler(content, path).load(), path, len(content))


def unpickle_torch(archive: zipfile.ZipFile, path: str | os.PathLike) -> dict[str, np.ndarray]:
    """Read the state dict in a zip archive that `torch.save` wrote.

    Args:
        archive: the archive.
        path: the file's name for messages.

    Returns:
        Each tensor's array by its name, views of one storage as separate arrays; bfloat16 and float16 as float32.

    Raises:
        ModelError: the archive holds no state dict, or refers to a global that is not allowed.
        Exception: of almost any type, if the archive is damaged.
    """
    roots = [name.removesuffix("/data.pkl") for name in archive.namelist() if name.endswith("/data.pkl")]
    if len(roots) != 1:
        raise ValueError(f"expected 1 data.pkl in the archive, got {len(roots)}")
    size = sum(info.file_size for info in archive.infolist() if info.compress_type == zipfile.ZIP_STORED)
    if archive.fp is None or size > os.fstat(archive.fp.fileno()).st_size:
        raise zipfile.BadZipFile("the files in the archive overlap")
    return _named_arrays(_TorchUnpickler(archive, roots[0], path).load(), path, size)


def unpickle_legacy_torch(content: mmap.mmap, path: str | os.PathLike) -> dict[str, np.ndarray]:
    """Read the state dict in a file of the legacy format, which `torch.save` wrote before PyTorch 1.6.

    Args:
        content: pickles of a magic number, the version, the system, the state dict and its storages' keys; then for
            each storage its length and values.
        path: the file's name for messages.

    Returns:
        Each tensor's array by its name, as from `unpickle_torch`.

    Raises:
        ModelError: the file holds no state dict, or refers to a global that is not allowed.
        Exception: of almost any type, if the file is damaged.
    """
    if [ArrayUnpickler(content, path).load() for _ in range(2)] != [_LEGACY_TORCH_MAGIC, _LEGACY_TORCH_VERSION]:
        raise ValueError("neither a zip archive nor PyTorch's legacy format")
    is_little = ArrayUnpickler(content, path).load()["little_endian"]
    start = content.tell()
    # Two passes: the storages follow the pickle that refers to them, and the first pass collects their types and sizes.
    first_pass, storages = _LegacyTorchUnpickler(content, path), {}
    first_pass.load()
    for key in ArrayUnpickler(content, path).load():
        code, count = first_pass.found[check_scalar(key)]
        if int.from_bytes(content.read(8), "little" if is_little else "big") != count:
            raise ValueError(f"storage {key}: the state dict and the stored data differ in length")
        data = content.read(count * int(code[1:]))
        values = array_from_bytes(data, f"{'<' if is_little else '>'}{code}", (count,))
        storages[key] = PickledArray(widen(values, bfloat16=code == "u2"))
    content.seek(start)
    return _named_arrays(_LegacyTorchUnpickler(content, path, storages).load(), path, len(content))


class _TorchUnpickler(ArrayUnpickler):
    """Unpickles the data.pkl of a torch archive; each storage is a separate file beside it."""

    def __init__(self, archive: zipfile.ZipFile, root: str, path: str | os.PathLike) -> None:
        self._archive, self._root = archive, root
        self._storages: dict[tuple[str, str], PickledArray] = {}
        super().__init__(io.BytesIO(self._member("data.pkl")), path)
        is_big = f"{root}/byteorder" in archive.namelist() and self._member("byteorder") == b"big"
        self._order = ">" if is_big else "<"

    def _member(self, name: str) -> bytes:
        info = self._archive.getinfo(f"{self._root}/{name}")
        if info.compress_type != zipfile.ZIP_STORED:  # torch never compresses; a compressed file could be of any size
            raise zipfile.BadZipFile(f"{name} is compressed")
        return self._archive.read(info)

    def persistent_load(self, pid: Any) -> PickledArray:
        _kind, code, key, _device, count = pid
        code, key = check_scalar(code), check_scalar(key)
        if (key, code) not in self._storages:
            values = array_from_bytes(self._member(f"data/{key}"), f"{self._order}{code}", (count,))
            self._storages[key, code] = PickledArray(widen(values, bfloat16=code == "u2"))
        return self._storages[key, code]


class _LegacyTorchUnpickler(ArrayUnpickler):
    """Unpickles the state dict of the legacy format; without `storages` all values are zero."""

    def __init__(
        self, file: mmap.mmap, path: str | os.PathLike, storages: dict[str, PickledArray] | None = None
    ) -> None:
        super().__init__(file, path)
        self.found: dict[str, tuple[str, int]] = {}
        self._storages, self._limit = storages, len(file)

    def persistent_load(self, pid: Any) -> PickledArray:
        _kind, code, key, _device, count, view = pid
        code, key, count = check_scalar(code), check_scalar(key), check_scalar(count)
        if view is not None or not 0 <= count * int(code[1:]) <= self._limit:
            raise pickle.UnpicklingError(f"storage {key} is a view, or longer than the file")
        self.found[key] = code, count
        return PickledArray(np.zeros(count, code)) if self._storages is None else self._storages[key]


def _named_arrays(content: Any, path: str | os.PathLike, stored_bytes: int) -> dict[str, np.ndarray]:
    """Return the arrays of a state dict, without entries such as Paddle's `StructuredToParameterName@@`."""
    content = content if isinstance(content, dict) else {}
    arrays, bytes_left = {}, _MAX_EXPANSION * stored_bytes + _MAX_EXTRA_BYTES
    for name, value in content.items():
        # In a dict with other values, too, Paddle writes each tensor as (parameter name, array).
        value = value[1] if isinstance(value, tuple) and len(value) == 2 else value
        if isinstance(value, PickledArray):
            bytes_left -= value.values.nbytes
            if bytes_left < 0:
                raise ModelError(f"{path}: its tensors are far larger than the file: do not trust it")
            array = copy_native(value.values)
            arrays[str(name)] = widen(array, bfloat16=array.dtype == np.uint16)
    # Below pickle protocol 4 Paddle splits tensors of more than 1 GiB into slices, and lists the slices' names here.
    for name, cut in content.get("UnpackBigParamInfor@@", {}).items():
        slices = [arrays.pop(check_scalar(part)) for part in cut["slices"]]
        arrays[name] = np.concatenate(slices).reshape(cut["OriginShape"])
    if not arrays:
        raise ModelError(
            f"{path} holds no tensors by name: save model.state_dict() itself, not a dict or list around it"
        )
    return arrays
