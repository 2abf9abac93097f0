"""Several sub-networks' graphs in one bundle, with their common weights stored once.

A sub-network has the first heads and neurons of every layer, so its parameters are leading blocks of a larger one's:
`w[:a, :b]`. They are matched by value, because the files of parameters hold no names.
"""

from __future__ import annotations

import shutil
import struct
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from dynabert_paddle.bundle.members import PARAMETER_HEADER, PARAMETER_TYPES, WEIGHTS_FILE
from dynabert_paddle.exporting.program import framework


@dataclass(frozen=True)
class SharedGraph:
    """A sub-network's graph in the bundle, and where its weights are.

    Args:
        graph: file of the graph.
        parameters: in the graph's order: the index of the stored weight that a parameter is a leading block of, and
            the parameter's shape.
    """

    graph: str
    parameters: Sequence[tuple[int, list[int]]]


def share_weights(graphs: Mapping[str, Path], folder: Path) -> list[SharedGraph]:
    """Copy sub-networks' graphs into a bundle, with one file of weights for all.

    Args:
        graphs: for each sub-network the folder with `model.pdmodel` or `model.json`, and `model.pdiparams`.
        folder: the bundle.

    Returns:
        One entry for each sub-network, in the order of `graphs`.
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
        blocks = [(found[i, j], list(array.shape)) for j, array in enumerate(parameters)]
        entries.append(SharedGraph(graph=name, parameters=blocks))
    return entries


def read_parameters(path: Path) -> list[np.ndarray]:
    """Read a `model.pdiparams` file: the parameters sorted by their names, which the file does not hold."""
    content, start, arrays = path.read_bytes(), 0, []
    while start < len(content):
        *_, size = struct.unpack_from(PARAMETER_HEADER, content, start)
        start += struct.calcsize(PARAMETER_HEADER)
        tensor = framework().VarType.TensorDesc.FromString(content[start : start + size])
        start += size
        shape, kind = tuple(tensor.dims), np.dtype(PARAMETER_TYPES[tensor.data_type])
        arrays.append(np.frombuffer(content, kind, int(np.prod(shape)), start).reshape(shape))
        start += arrays[-1].nbytes
    return arrays


def _is_leading_block(array: np.ndarray, weight: np.ndarray) -> bool:
    if array.ndim != weight.ndim or array.dtype != weight.dtype or any(np.greater(array.shape, weight.shape)):
        return False
    block = weight[tuple(map(slice, array.shape))]
    first = (slice(1),) * array.ndim  # a cheap test that most pairs fail
    return array[first] == block[first] and array.tobytes() == block.tobytes()
