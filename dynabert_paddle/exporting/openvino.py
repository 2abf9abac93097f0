"""A program that PaddleSlim has quantized, as OpenVINO reads it: it makes int8 products of rounded inputs."""

from __future__ import annotations

from copy import deepcopy

import numpy as np

from dynabert_paddle.exporting.int8 import without_roundings
from dynabert_paddle.exporting.program import argument, make_operator, prune, replace_operators, set_dims
from dynabert_paddle.exporting.program_types import ProgramDesc


def round_products(program: ProgramDesc, values: dict[str, np.ndarray]) -> None:
    """Leave no roundings but those of the products that PaddleSlim has quantized.

    PaddleSlim rounds what most operators read, too, which OpenVINO would compute as written.

    Args:
        program: changed in place.
        values: its parameters by name; scales and zeros get the one dimension that OpenVINO asks for.
    """
    block = program.blocks[0]
    before = [deepcopy(op) for op in block.ops]
    quantize, dequantize = (
        {argument(op.inputs, "X"): op for op in before if op.type == kind}
        for kind in ("quantize_linear", "dequantize_linear")
    )
    ops, _, products = without_roundings(block)
    multiplied = {id(product) for product in products}
    rounded: dict[str, str] = {}
    written = []
    for op in ops:
        if id(op) not in multiplied:
            written.append(op)
            continue
        for name in (argument(op.inputs, "X"), argument(op.inputs, "Y")):
            if name in rounded:
                continue
            steps = [quantize[name]] if name in quantize else []  # weights are stored as integers
            steps.append(dequantize[argument(steps[0].outputs, "Y") if steps else name])
            for step in steps:
                for slot in ("Scale", "ZeroPoint"):
                    constant = argument(step.inputs, slot)
                    values[constant] = values[constant].reshape(-1)
                    set_dims(block, constant, values[constant].shape)
            written += steps
            rounded[name] = argument(steps[-1].outputs, "Y")
        inputs = {slot: [rounded[argument(op.inputs, slot)]] for slot in ("X", "Y")}
        outputs = {"Out": [argument(op.outputs, "Out")]}
        written.append(make_operator("matmul_v2", inputs, outputs, {"trans_x": False, "trans_y": False}))
    replace_operators(block, written)
    prune(block, values)
