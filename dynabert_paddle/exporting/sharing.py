"""Several sub-networks' graphs in one bundle, with the weights that they have in common stored once.

A sub-network has the first heads and neurons of every layer, so its parameters are leading blocks of those of a larger
one: `w[:a, :b]`. They are found by what they hold, which needs no names.
"""

from __future__ import annotations

import shutil
import struct
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from dynabert_paddle.bundle.members import HEAD, TYPES, WEIGHTS_FILE
from dynabert_paddle.exporting.program import framework


def share_weights(graphs: Mapping[str, Path], folder: Path) -> list[dict[str, Any]]:
    """Put sub-networks' graphs into a bundle.

    Args:
        graphs: for each sub-network the folder with `model.pdmodel` or `model.json`, and `model.pdiparams`.
        folder: the bundle; gets one file of weights, and each graph.

    Returns:
        For each sub-network the file of its graph, and its parameters in their order: the weight that each is a leading
        block of, and its shape.
    """
    members = [read_parameters(graph / "model.pdiparams") for graph in graphs.values()]
    weights: list[np.ndarray] = []
    found: dict[tuple[int, int], int] = {}  # (member, parameter) -> weight
    places = [(i, j) for i, parameters in enumerate(members) for j in range(len(parameters))]
    for i, j in sorted(places, key=lambda place: -members[place[0]][place[1]].size):
        array = members[i][j]
        found[i, j] = next((k for k, weight in enumerate(weights) if _is_leading_block(array, weight)), len(weights))
        if found[i, j] == len(weights):
            weights.append(array)
    np.savez(folder / WEIGHTS_FILE, *weights)
    entries = []
    for i, (graph, parameters) in enumerate(zip(graphs.values(), members, strict=True)):
        source = next(path for path in graph.glob("model.*") if path.suffix != ".pdiparams")
        name = f"model.{i + 1}{source.suffix}"
        shutil.copyfile(source, folder / name)
        blocks = [[found[i, j], list(array.shape)] for j, array in enumerate(parameters)]
        entries.append({"graph": name, "parameters": blocks})
    return entries


def read_parameters(path: Path) -> list[np.ndarray]:
    """Read a file of parameters as Paddle writes it, in the order of their names, which are not in it.

    Args:
        path: `model.pdiparams`.

    Returns:
        The parameters.
    """
    content, start, arrays = path.read_bytes(), 0, []
    while start < len(content):
        *_, size = struct.unpack_from(HEAD, content, start)
        start += struct.calcsize(HEAD)
        tensor = framework().VarType.TensorDesc.FromString(content[start : start + size])
        start += size
        shape, kind = tuple(tensor.dims), np.dtype(TYPES[tensor.data_type])
        arrays.append(np.frombuffer(content, kind, int(np.prod(shape)), start).reshape(shape))
        start += arrays[-1].nbytes
    return arrays


def _is_leading_block(array: np.ndarray, weight: np.ndarray) -> bool:
    if array.ndim != weight.ndim or array.dtype != weight.dtype or any(np.greater(array.shape, weight.shape)):
        return False
    block = weight[tuple(map(slice, array.shape))]
    first = (slice(1),) * array.ndim  # most differ there already
    return array[first] == block[first] and array.tobytes() == block.tobytes()
