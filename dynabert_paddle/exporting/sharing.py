"""Several sub-networks' graphs in one bundle, with their shared weights stored once.

A sub-network has the first heads and neurons of every layer, so its parameters are leading blocks, `w[:a, :b]`, of a
larger one's. They are matched by value, because parameter files hold no names.
"""

from __future__ import annotations

import shutil
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from dynabert_paddle.bundle.members import WEIGHTS_FILE
from dynabert_paddle.exporting.parameters import read_parameters
from dynabert_paddle.files.npz import write_npz


@dataclass(frozen=True)
class SharedGraph:
    """A sub-network's graph in the bundle, and the location of its weights.

    Args:
        graph: file name of the graph.
        parameters: in the graph's order, of each parameter: the index of the stored weight whose leading block it is,
            and its shape.
    """

    graph: str
    parameters: Sequence[tuple[int, list[int]]]


def share_weights(graphs: Mapping[str, Path], folder: Path) -> list[SharedGraph]:
    """Copy sub-networks' graphs into a bundle, with one file of weights for all of them.

    Args:
        graphs: by sub-network, the folder with `model.pdmodel` or `model.json`, and `model.pdiparams`.
        folder: the bundle.

    Returns:
        One entry for each sub-network, in the order of `graphs`.
    """
    members = [read_parameters(graph / "model.pdiparams") for graph in graphs.values()]
    weights: list[np.ndarray] = []
    weight_index: dict[tuple[int, int], int] = {}  # (member, parameter) -> index in weights
    indices = [(i, j) for i, parameters in enumerate(members) for j in range(len(parameters))]
    for i, j in sorted(indices, key=lambda index: -members[index[0]][index[1]].size):  # the largest first
        array = members[i][j]
        for k, weight in enumerate(weights):
            if _is_leading_block(array, weight):
                weight_index[i, j] = k
                break
        else:
            weight_index[i, j] = len(weights)
            weights.append(array)
    with open(folder / WEIGHTS_FILE, "wb") as file:
        write_npz(file, {f"arr_{index}": weight for index, weight in enumerate(weights)})
    shared = []
    for i, (graph, parameters) in enumerate(zip(graphs.values(), members, strict=True)):
        source = next(path for path in graph.glob("model.*") if path.suffix != ".pdiparams")
        name = f"model.{i + 1}{source.suffix}"
        shutil.copyfile(source, folder / name)
        blocks = [(weight_index[i, j], list(array.shape)) for j, array in enumerate(parameters)]
        shared.append(SharedGraph(graph=name, parameters=blocks))
    return shared


def _is_leading_block(array: np.ndarray, weight: np.ndarray) -> bool:
    if array.ndim != weight.ndim or array.dtype != weight.dtype or any(np.greater(array.shape, weight.shape)):
        return False
    block = weight[tuple(map(slice, array.shape))]
    first = (slice(1),) * array.ndim  # a cheap test that most pairs fail
    return array[first] == block[first] and array.tobytes() == block.tobytes()
