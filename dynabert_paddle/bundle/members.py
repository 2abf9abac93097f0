"""Bundles of several sub-networks: the weights are stored once, and each sub-network uses leading blocks of them.

To load a sub-network, its parameters are written to a temporary file. Paddle could read them from memory, but that is
slower and uses more memory.

This file is part of every bundle's `infer.py`.
"""

from __future__ import annotations

import difflib
import shutil
import struct
import tempfile
import zipfile
from pathlib import Path
from typing import Any

import numpy as np

from dynabert_paddle.bundle.engines import Engine, open_engine
from dynabert_paddle.bundle.manifest import BundleError
from dynabert_paddle.runtime.memory import MEMORY_ADVICE, is_memory_error

WEIGHTS_FILE = "model.npz"
_MAX_REPEATS = 16  # equal weights are stored once, but they are small, such as zeros of biases

# In Paddle's parameter file each tensor has a header (three zeros: format versions and LoD level; then the size of the
# protobuf message), a protobuf message with type and shape, and the values. The type is an index into PARAMETER_TYPES.
PARAMETER_HEADER = "<IQIi"
PARAMETER_TYPES = ("bool", "int16", "int32", "int64", "float16", "float32", "float64")


def members_of(description: dict[str, Any]) -> dict[str, dict[str, Any]]:
    """Return the sub-networks of a bundle, best first.

    Args:
        description: the content of `bundle.json`.

    Returns:
        The description of each by its name; for a bundle of one sub-network the whole description.
    """
    return {member["subnet"]: member for member in description.get("members", [description])}


def choose_subnet(folder: Path, description: dict[str, Any], subnet: str | None) -> str:
    """Check a sub-network's name, or choose the default.

    Args:
        folder: the bundle.
        description: the content of its `bundle.json`.
        subnet: a name, or None for the best sub-network.

    Returns:
        The name.

    Raises:
        BundleError: the bundle has no such sub-network.
    """
    names = list(members_of(description))
    if subnet is None or subnet in names:
        return names[0] if subnet is None else subnet
    near = difflib.get_close_matches(subnet, names, n=1)
    hint = f". Did you mean '{near[0]}'?" if near else ""
    raise BundleError(f"{folder}: has no sub-network '{subnet}', only {', '.join(names)}{hint}")


def open_subnet(
    folder: Path, description: dict[str, Any], subnet: str, *, device: str = "cpu", num_threads: int | None = None
) -> Engine:
    """Load a sub-network of a bundle into its runtime.

    Args:
        folder: the bundle.
        description: the content of its `bundle.json`.
        subnet: its name.
        device: `cpu`, `gpu` or `gpu:N`.
        num_threads: CPU threads; by default all cores that the process may use.

    Returns:
        The engine, from `open_engine`.

    Raises:
        BundleError: from `open_engine`, or temporary files cannot be written.
    """
    if "members" not in description:
        return open_engine(folder, description, device=device, num_threads=num_threads)
    try:
        scratch = tempfile.TemporaryDirectory(prefix="dynabert-subnet-")
    except OSError as error:
        raise BundleError(f"no temporary folder: {error.strerror}: make room, or set TMPDIR") from None
    with scratch as name:
        unpack(folder, description, subnet, Path(name))
        try:
            return open_engine(Path(name), description, device=device, num_threads=num_threads)
        except BundleError as error:
            raise BundleError(str(error).replace(name, str(folder))) from None


def unpack(folder: Path, description: dict[str, Any], subnet: str, target: Path) -> None:
    """Write one sub-network's graph and parameters, in the form of a bundle with one sub-network.

    Args:
        folder: the bundle.
        description: the content of its `bundle.json`.
        subnet: its name.
        target: an existing folder.

    Raises:
        BundleError: they cannot be written, or the weights are damaged.
    """
    member = members_of(description)[subnet]
    source = folder / WEIGHTS_FILE
    try:
        shutil.copyfile(folder / member["graph"], target / f"model{Path(member['graph']).suffix}")
        with zipfile.ZipFile(source) as archive:  # numpy.savez does not compress; compressed data could be huge
            if any(entry.compress_type != zipfile.ZIP_STORED for entry in archive.infolist()):
                raise zipfile.BadZipFile
        with np.load(source) as weights, open(target / "model.pdiparams", "wb") as file:
            left = _MAX_REPEATS * source.stat().st_size
            for index, shape in member["parameters"]:
                block = weights[f"arr_{index}"][tuple(map(slice, shape))]
                left -= block.nbytes
                if left < 0:
                    raise zipfile.BadZipFile
                file.write(_header(block) + block.tobytes())
    except OSError as error:
        raise BundleError(
            f"{target}: '{subnet}' cannot be unpacked there: {error.strerror}: make room, or set TMPDIR"
        ) from None
    except Exception as error:  # numpy raises errors of many types
        if is_memory_error(error):
            raise BundleError(f"{folder}: '{subnet}' cannot be loaded: {MEMORY_ADVICE}") from None
        raise BundleError(f"{source}: damaged: copy the bundle again, or export it again") from None


def _header(array: np.ndarray) -> bytes:
    """Return the bytes before an array's values; the message has the type as field 1 and each dimension as field 2."""
    message = bytes([1 << 3, PARAMETER_TYPES.index(array.dtype.name)])
    for size in array.shape:
        message += bytes([2 << 3])
        while size > 0x7F:  # a varint: seven bits per byte, lowest first
            message += bytes([size & 0x7F | 0x80])
            size >>= 7
        message += bytes([size])
    return struct.pack(PARAMETER_HEADER, 0, 0, 0, len(message)) + message
