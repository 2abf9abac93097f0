"""The sub-networks of a bundle that has several: their weights are stored once, each has leading blocks of them.

This file is a part of every bundle's `infer.py`. A runtime needs a sub-network's parameters as a file of their own,
which is made when it is loaded, and removed: Paddle reads one from memory, too, but then takes more of it and longer.
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

WEIGHTS_FILE = "model.npz"

# Paddle's file of parameters has for each: three versions of nothing, the size of a protobuf message of type and shape,
# that message, and the values. Types are numbered in this order.
HEAD = "<IQIi"
TYPES = ("bool", "int16", "int32", "int64", "float16", "float32", "float64")


def members_of(description: dict[str, Any]) -> dict[str, dict[str, Any]]:
    """The sub-networks of a bundle, the best first.

    Args:
        description: what `bundle.json` says.

    Returns:
        What it says of each, by its name; a bundle of one sub-network describes that by itself.
    """
    return {member["subnet"]: member for member in description.get("members", [description])}


def choose_subnet(folder: Path, description: dict[str, Any], subnet: str | None) -> str:
    """Find the sub-network of a bundle that a user asks for.

    Args:
        folder: the bundle.
        description: what its `bundle.json` says.
        subnet: its name; the best where not given.

    Returns:
        Its name.

    Raises:
        BundleError: the bundle does not have it.
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
    """Load a sub-network of a bundle into the runtime.

    Args:
        folder: the bundle.
        description: what its `bundle.json` says.
        subnet: which.
        device: `cpu`, `gpu` or `gpu:N`.
        num_threads: CPU threads; all cores that the process may use where not given.

    Returns:
        What runs it, as `open_engine` gives it.

    Raises:
        BundleError: as from `open_engine`, or there is no room for temporary files.
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
    """Write one sub-network's graph and parameters as a bundle of that one alone has them.

    Args:
        folder: the bundle.
        description: what its `bundle.json` says.
        subnet: which.
        target: an existing folder.

    Raises:
        BundleError: they cannot be written, or the weights are damaged.
    """
    member = members_of(description)[subnet]
    source = folder / WEIGHTS_FILE
    try:
        shutil.copyfile(folder / member["graph"], target / f"model{Path(member['graph']).suffix}")
        with zipfile.ZipFile(source) as archive:  # as numpy.savez writes it; a compressed one can be of any size
            if any(entry.compress_type != zipfile.ZIP_STORED for entry in archive.infolist()):
                raise zipfile.BadZipFile
        with np.load(source) as weights, open(target / "model.pdiparams", "wb") as file:
            for index, shape in member["parameters"]:
                block = weights[f"arr_{index}"][tuple(map(slice, shape))]
                file.write(_head(block) + block.tobytes())
    except OSError as error:
        raise BundleError(
            f"{target}: '{subnet}' cannot be unpacked there: {error.strerror}: make room, or set TMPDIR"
        ) from None
    except Exception:  # whatever numpy meets
        raise BundleError(f"{source}: damaged: copy the bundle again, or export it again") from None


def _head(array: np.ndarray) -> bytes:
    """What stands before an array's values: the message has the type as its field 1, each dimension as a field 2."""
    message = bytes([1 << 3, TYPES.index(array.dtype.name)])
    for size in array.shape:
        message += bytes([2 << 3])
        while size > 0x7F:  # a varint: seven bits a byte, the lowest first
            message += bytes([size & 0x7F | 0x80])
            size >>= 7
        message += bytes([size])
    return struct.pack(HEAD, 0, 0, 0, len(message)) + message
