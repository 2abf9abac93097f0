"""A program that PaddleSlim has quantized, in the form that OpenVINO computes in int8: matmuls of quantized inputs."""

from __future__ import annotations

from copy import deepcopy

import numpy as np

from dynabert_paddle.exporting.int8 import remove_quantization
from dynabert_paddle.exporting.program import argument, make_operator, prune, replace_operators, set_dims
from dynabert_paddle.exporting.program_types import OpDesc, ProgramDesc


def quantize_matmul_inputs(program: ProgramDesc, parameters: dict[str, np.ndarray]) -> None:
    """Keep the quantization of the matmuls' inputs only.

    PaddleSlim also quantizes the inputs of most other operators, and OpenVINO would really compute that.

    Args:
        program: changed in place.
        parameters: by name; scales and zero points get the one dimension that OpenVINO requires.
    """
    block = program.blocks[0]
    before = [deepcopy(op) for op in block.ops]
    quantize, dequantize = (
        {argument(op.inputs, "X"): op for op in before if op.type == kind}
        for kind in ("quantize_linear", "dequantize_linear")
    )
    ops, _, matmuls = remove_quantization(block)
    matmul_ids = {id(matmul) for matmul in matmuls}
    dequantized: dict[str, str] = {}  # a matmul's input -> the same after quantization and dequantization
    after = []
    for op in ops:
        if id(op) not in matmul_ids:
            after.append(_to_matmul(op) if op.type == "mul" else op)
            continue
        for name in (argument(op.inputs, "X"), argument(op.inputs, "Y")):
            if name in dequantized:
                continue
            steps = [quantize[name]] if name in quantize else []  # weights are stored as integers
            steps.append(dequantize[argument(steps[0].outputs, "Y") if steps else name])
            for step in steps:
                for slot in ("Scale", "ZeroPoint"):
                    constant = argument(step.inputs, slot)
                    parameters[constant] = parameters[constant].reshape(-1)
                    set_dims(block, constant, parameters[constant].shape)
            after += steps
            dequantized[name] = argument(steps[-1].outputs, "Y")
        for given in op.inputs:
            given.arguments[0] = dequantized[given.arguments[0]]
        after.append(_to_matmul(op))
    replace_operators(block, after)
    prune(block, parameters)


def _to_matmul(op: OpDesc) -> OpDesc:
    """Write a `mul`, which OpenVINO does not know, as the matmul that it is."""
    inputs = {slot: [argument(op.inputs, slot)] for slot in ("X", "Y")}
    outputs = {"Out": [argument(op.outputs, "Out")]}
    return make_operator("matmul_v2", inputs, outputs, {"trans_x": False, "trans_y": False})
