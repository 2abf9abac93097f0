"""Graphs in int8 with the scales that `quantize_aware` has trained, without a calibration."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from dynabert_paddle.exporting.int8 import quantize_embeddings
from dynabert_paddle.exporting.parameters import read_named_parameters, write_parameters
from dynabert_paddle.exporting.program import (
    argument,
    declare_copy,
    make_operator,
    matmul_to_mul,
    paddle_protobuf,
    prune,
    read_program,
    replace_operators,
    set_data_type,
    set_dims,
    write_program,
)
from dynabert_paddle.exporting.program_types import BlockDesc, OpDesc, ProgramDesc
from dynabert_paddle.supernet.quantized import find_quantized
from dynabert_paddle.supernet.supernet import Supernet

_ABS_MAX = 127  # Paddle's scales are those of the largest integer


@dataclass(frozen=True)
class TrainedScale:
    """The scales of a weight and of what it is multiplied with.

    Args:
        weight: `[1, outputs]` of a matrix, `[rows, 1]` of a table.
        input: of the matrix's input; None for a table.
    """

    weight: np.ndarray
    input: float | None

    def integers(self, weight: np.ndarray) -> np.ndarray:
        """Return a weight's integers, int8, of its shape."""
        return np.rint(weight / self.weight).astype(np.int8)


def read_scales(supernet: Supernet) -> dict[str, TrainedScale]:
    """Read the scales of a quantized model.

    Args:
        supernet: the model.

    Returns:
        By the name of a weight in the model's graph; empty for a model that is not quantized.
    """
    return {
        weight.weight.name: TrainedScale(
            weight.scale.numpy(), None if weight.input_scale is None else float(weight.input_scale.numpy()[0])
        )
        for weight in find_quantized(supernet.model)
    }


def quantize_as_trained(
    graph: Path,
    folder: Path,
    scales: Mapping[str, TrainedScale],
    write_matmuls: Callable[[ProgramDesc, dict[str, np.ndarray]], None],
) -> None:
    """Quantize a graph's embeddings and its matmuls with quantized weights; all else is computed in float32.

    Args:
        graph: folder with `model.pdmodel` and `model.pdiparams`.
        folder: where to write the same files, quantized.
        scales: from `read_scales`.
        write_matmuls: as for `quantize.quantize`.
    """
    program = read_program(graph / "model.pdmodel")
    matmul_to_mul(program)
    block = program.blocks[0]
    parameters = read_named_parameters(graph / "model.pdiparams", program)
    _simulate(block, parameters, {name: scale for name, scale in scales.items() if scale.input is not None})
    write_matmuls(program, parameters)
    quantize_embeddings(program, parameters, {name: s.weight for name, s in scales.items() if s.input is None})
    write_parameters(folder / "model.pdiparams", parameters)
    write_program(folder / "model.pdmodel", program)


def _simulate(block: BlockDesc, parameters: dict[str, np.ndarray], scales: Mapping[str, TrainedScale]) -> None:
    """Write matmuls as PaddleSlim does: both inputs are dequantized, and the weight is stored as integers."""
    dequantized: dict[str, str] = {}  # variable -> the same after quantization and dequantization
    ops: list[OpDesc] = []
    for op in block.ops:
        weight = argument(op.inputs, "Y") if op.type == "mul" else ""
        if weight not in scales:
            ops.append(op)
            continue
        x, scale = argument(op.inputs, "X"), scales[weight]
        assert scale.input is not None  # as the caller has chosen
        if x not in dequantized:
            name = _add_scale(block, parameters, x, np.array([scale.input * _ABS_MAX], np.float32))
            quantized, dequantized[x] = declare_copy(block, x, ".quantized"), declare_copy(block, x, ".dequantized")
            ops.append(_convert("quantize_linear", x, quantized, name, axis=-1))
            ops.append(_convert("dequantize_linear", quantized, dequantized[x], name, axis=-1))
        if weight not in dequantized:
            name = _add_scale(block, parameters, weight, scale.weight.reshape(-1) * np.float32(_ABS_MAX))
            parameters[weight] = scale.integers(parameters[weight])
            dequantized[weight] = declare_copy(block, weight, ".dequantized", persistable=False)
            set_data_type(block, weight, paddle_protobuf().VarType.INT8)
            ops.append(_convert("dequantize_linear", weight, dequantized[weight], name, axis=1))
        for slot in op.inputs:
            slot.arguments[0] = dequantized[slot.arguments[0]]
        ops.append(op)
    replace_operators(block, ops)
    prune(block, parameters)


def _add_scale(block: BlockDesc, parameters: dict[str, np.ndarray], name: str, abs_max: np.ndarray) -> str:
    """Add the scale of a variable, and its zero point under the name that `_convert` expects."""
    scale, zero = (declare_copy(block, name, ending, persistable=True) for ending in (".scale", ".scale.zero"))
    parameters[scale], parameters[zero] = abs_max, np.zeros(abs_max.shape, np.int32)
    for variable in (scale, zero):
        set_dims(block, variable, abs_max.shape)
    types = paddle_protobuf().VarType
    set_data_type(block, scale, types.FP32)
    set_data_type(block, zero, types.INT32)
    return scale


def _convert(kind: str, x: str, y: str, scale: str, *, axis: int) -> OpDesc:
    inputs = {"X": [x], "Scale": [scale], "ZeroPoint": [f"{scale}.zero"]}
    attributes = {"quant_axis": axis, "bit_length": 8, "qmin": -128, "qmax": 127, "round_type": 0}
    return make_operator(kind, inputs, {"Y": [y]}, attributes)
