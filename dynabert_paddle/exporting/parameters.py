"""Reading and writing `model.pdiparams`, the parameters of a legacy program: they are sorted by their names."""

from __future__ import annotations

import struct
from collections.abc import Mapping
from pathlib import Path

import numpy as np

from dynabert_paddle.bundle.members import PARAMETER_HEADER, PARAMETER_TYPES
from dynabert_paddle.exporting.program import paddle_protobuf, parameter_names
from dynabert_paddle.exporting.program_types import ProgramDesc

# Paddle's numbers of the types that graphs have; bundles of several sub-networks have no int8.
_TYPES = {**{name: number for number, name in enumerate(PARAMETER_TYPES)}, "int8": 21}


def read_parameters(path: Path) -> list[np.ndarray]:
    """Read the parameters in a `model.pdiparams` file, sorted by their names, which the file does not hold."""
    names = {number: name for name, number in _TYPES.items()}
    content, start, arrays = path.read_bytes(), 0, []
    while start < len(content):
        *_, size = struct.unpack_from(PARAMETER_HEADER, content, start)
        start += struct.calcsize(PARAMETER_HEADER)
        tensor = paddle_protobuf().VarType.TensorDesc.FromString(content[start : start + size])
        start += size
        shape, dtype = tuple(tensor.dims), np.dtype(names[tensor.data_type])
        arrays.append(np.frombuffer(content, dtype, int(np.prod(shape)), start).reshape(shape))
        start += arrays[-1].nbytes
    return arrays


def read_named_parameters(path: Path, program: ProgramDesc) -> dict[str, np.ndarray]:
    """Read the parameters of a program in a `model.pdiparams` file, by their names."""
    return dict(zip(parameter_names(program), read_parameters(path), strict=True))


def write_parameters(path: Path, parameters: Mapping[str, np.ndarray]) -> None:
    """Write parameters, by name, as a `model.pdiparams` file."""
    with path.open("wb") as file:
        for _, array in sorted(parameters.items()):
            tensor = paddle_protobuf().VarType.TensorDesc(data_type=_TYPES[array.dtype.name], dims=array.shape)
            message = tensor.SerializeToString()
            file.write(struct.pack(PARAMETER_HEADER, 0, 0, 0, len(message)) + message + array.tobytes())
