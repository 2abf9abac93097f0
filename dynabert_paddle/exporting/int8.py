"""A program that PaddleSlim has quantized, written with oneDNN's own int8 operators, and embeddings stored as int8."""

from __future__ import annotations

from collections import Counter
from copy import deepcopy

import numpy as np

from dynabert_paddle.exporting.program import (
    add_attributes,
    argument,
    declare_copy,
    dims_of,
    find_variable,
    framework,
    make_operator,
    prune,
    replace_operators,
    set_dims,
    set_type,
)
from dynabert_paddle.exporting.program_types import BlockDesc, OpDesc, ProgramDesc

_LEAST = 1e-8  # range of what is zero throughout


def fuse_int8_products(program: ProgramDesc, values: dict[str, np.ndarray]) -> None:
    """Write the products that PaddleSlim has quantized as oneDNN's operators `quantize` and `fc`.

    Paddle's passes would do it, but wrongly (3.1.1): `compute_propagate_scales_onednn_pass` reads weights in the wrong
    order and clips columns at another's maximum; `quant_dequant_onednn_pass` applies a square weight's scales to rows
    in place of columns; and with the outputs of all operators rounded, oneDNN's int8 products of activations compute
    garbage once the batch's shape changes. They leave an `fc` alone that comes with its scales.

    Products of the same input, as queries, keys and values are, become one. Weights stay int8 in the file; operators on
    constants make them the float32 that `fc` asks for, which the runtime evaluates once, when it loads the model.

    Args:
        program: changed in place.
        values: its parameters by name, the weights' as int8; changed in place, too.
    """
    block = program.blocks[0]
    ops, ranges, products = without_roundings(block)
    sums = {argument(op.inputs, "X"): op for op in ops if op.type == "elementwise_add"}
    gelus = {argument(op.outputs, "Out"): op for op in ops if op.type == "gelu"}
    uses = Counter(name for op in ops for slot in op.inputs for name in slot.arguments)
    groups: dict[str, list[OpDesc]] = {}
    for product in products:
        groups.setdefault(argument(product.inputs, "X"), []).append(product)
    constants: list[OpDesc] = []
    replaced: dict[int, list[OpDesc]] = {}
    single: dict[str, OpDesc] = {}
    for x, group in groups.items():
        integers, bounds, biases, outputs = [], [], [], []
        for product in group:
            weight, output = argument(product.inputs, "Y"), argument(product.outputs, "Out")
            integers.append(values[weight])
            bounds.append(np.maximum(values[ranges[weight]].reshape(-1), _LEAST))
            offset = np.zeros(bounds[-1].shape, np.float32)
            added = sums.get(output)
            if added is not None and argument(added.inputs, "Y") in values:
                offset, output = values[argument(added.inputs, "Y")], argument(added.outputs, "Out")
                replaced[id(added)] = []
            biases.append(offset)
            outputs.append(output)
            replaced[id(product)] = []
        weight, bias = declare_copy(block, x, ".weight"), declare_copy(block, x, ".bias", persistable=True)
        values[bias] = np.concatenate(biases)
        set_dims(block, bias, values[bias].shape)
        constants += _restore(block, values, weight, np.concatenate(integers, axis=1), np.concatenate(bounds)[None])
        made = _int8_product(block, x, max(values[ranges[x]].item(), _LEAST), weight, bias, bounds, outputs)
        gelu = gelus.get(x)
        before = single.get(argument(gelu.inputs, "X")) if gelu else None
        if gelu and before and uses[x] == len(group) and uses[argument(gelu.inputs, "X")] == 1:
            _round_output(before, gelu, made.pop(0))
            replaced[id(gelu)] = []
        replaced[id(group[0])] = made
        if len(group) == 1:
            single[outputs[0]] = made[-1]
    replace_operators(block, [*constants, *(new for op in ops for new in replaced.get(id(op), [op]))])
    prune(block, values)


def quantize_tables(program: ProgramDesc, values: dict[str, np.ndarray]) -> None:
    """Keep embeddings in the file as int8, with a scale for each row.

    PaddleSlim's `quant_embedding` has one scale for all, which costs about as much accuracy as all products together.

    Args:
        program: changed in place.
        values: its parameters by name; changed in place, too.
    """
    block = program.blocks[0]
    constants = []
    for op in block.ops:
        if op.type == "lookup_table_v2":
            slot = next(slot for slot in op.inputs if slot.parameter == "W")
            table = values[slot.arguments[0]]
            bounds = np.maximum(np.abs(table).max(axis=1, keepdims=True), _LEAST)
            restored = declare_copy(block, slot.arguments[0], ".restored", persistable=False)
            constants += _restore(block, values, restored, np.rint(table / bounds * 127).astype(np.int8), bounds)
            slot.arguments[0] = restored
    replace_operators(block, [*constants, *block.ops])
    prune(block, values)


def without_roundings(block: BlockDesc) -> tuple[list[OpDesc], dict[str, str], list[OpDesc]]:
    """Take PaddleSlim's roundings to int8 out of a block's operators.

    Args:
        block: the program's; it is left as it is.

    Returns:
        Copies of the other operators; the names of the ranges of what was rounded; of the copies the products with int8
        weights.
    """
    roundings = [op for op in block.ops if op.type in ("quantize_linear", "dequantize_linear")]
    ranges = {argument(op.inputs, "X"): argument(op.inputs, "Scale") for op in roundings}
    source = {argument(op.outputs, "Y"): argument(op.inputs, "X") for op in roundings}
    ops = [deepcopy(op) for op in block.ops if op.type not in ("quantize_linear", "dequantize_linear")]
    products = [op for op in ops if op.type == "mul" and argument(op.inputs, "Y") in source]
    for op in ops:
        for slot in op.inputs:
            for index, name in enumerate(slot.arguments):
                while name in source:
                    name = source[name]
                slot.arguments[index] = name
    return ops, ranges, products


def _int8_product(
    block: BlockDesc, x: str, bound: float, weight: str, bias: str, bounds: list[np.ndarray], outputs: list[str]
) -> list[OpDesc]:
    """Operators that round an input, multiply it, and split the result."""
    rank = len(dims_of(find_variable(block, x)))
    rounded = declare_copy(block, x, ".int8")
    set_type(block, rounded, framework().VarType.INT8)
    scale = {"Scale": 127 / bound, "Shift": 0.0, "is_negative_input": True, "output_format": "NCHW", "bfloat16": False}
    settings = {
        "in_num_col_dims": rank - 1,
        "activation_type": "",
        "padding_weights": False,
        "Scale_in": 127 / bound,
        "Scale_weights": (127 / np.concatenate(bounds)).tolist(),
        "force_fp32_output": True,
    }
    together, widths = outputs[0], [len(part) for part in bounds]
    if len(outputs) > 1:
        together = declare_copy(block, x, ".product")
        set_dims(block, together, [*dims_of(find_variable(block, x))[:-1], sum(widths)])
    made = [
        make_operator("quantize", {"Input": [x]}, {"Output": [rounded]}, scale),
        make_operator("fc", {"Input": [rounded], "W": [weight], "Bias": [bias]}, {"Out": [together]}, settings),
    ]
    if len(outputs) > 1:
        made.append(
            make_operator(
                "split", {"X": [together]}, {"Out": outputs}, {"axis": rank - 1, "num": 0, "sections": widths}
            )
        )
    return made


def _round_output(product: OpDesc, gelu: OpDesc, quantize: OpDesc) -> None:
    """Have a product compute the activation that follows it and round the result for the next product."""
    product.outputs[0].arguments[0] = argument(quantize.outputs, "Output")
    next(attribute for attribute in product.attrs if attribute.name == "force_fp32_output").b = False
    approximate = any(attribute.b for attribute in gelu.attrs if attribute.name == "approximate")
    scale = next(attribute.f for attribute in quantize.attrs if attribute.name == "Scale")
    add_attributes(product, {"fuse_activation": "gelu_tanh" if approximate else "gelu_erf", "Scale_out": scale})


def _restore(
    block: BlockDesc, values: dict[str, np.ndarray], name: str, integers: np.ndarray, bounds: np.ndarray
) -> list[OpDesc]:
    """Operators that make a float32 constant of an int8 one."""
    stored, scale = (declare_copy(block, name, end, persistable=True) for end in (".integers", ".scale"))
    cast = declare_copy(block, name, ".cast")
    values[stored], values[scale] = integers, (bounds / 127).astype(np.float32)
    for variable in (name, stored, cast):
        set_dims(block, variable, integers.shape)
    set_dims(block, scale, bounds.shape)
    protocol = framework()
    set_type(block, stored, protocol.VarType.INT8)
    types = {"in_dtype": protocol.VarType.INT8, "out_dtype": protocol.VarType.FP32}
    return [
        make_operator("cast", {"X": [stored]}, {"Out": [cast]}, types),
        make_operator("elementwise_mul", {"X": [cast], "Y": [scale]}, {"Out": [name]}, {"axis": -1}),
    ]
