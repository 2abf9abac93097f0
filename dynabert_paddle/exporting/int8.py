"""int8 operators of oneDNN in place of PaddleSlim's simulated quantization, and embeddings stored as int8."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from copy import deepcopy
from dataclasses import dataclass

import numpy as np

from dynabert_paddle.exporting.program import (
    add_attributes,
    argument,
    declare_copy,
    dims_of,
    find_variable,
    make_operator,
    paddle_protobuf,
    prune,
    replace_operators,
    set_data_type,
    set_dims,
)
from dynabert_paddle.exporting.program_types import BlockDesc, OpDesc, ProgramDesc

MIN_ABS_MAX = 1e-8  # avoids a division by zero where all values are zero


@dataclass(frozen=True)
class _Linear:
    """A matmul with an int8 weight `[i, o]`, and the bias that is added to it.

    Args:
        weight: int8.
        abs_max: of the float weight, by output `[o]`.
        bias: float32 `[o]`, zero if none is added.
        output: the variable with the result.
        ops: the operators that compute it.
    """

    weight: np.ndarray
    abs_max: np.ndarray
    bias: np.ndarray
    output: str
    ops: list[OpDesc]


def fuse_int8_matmuls(program: ProgramDesc, parameters: dict[str, np.ndarray]) -> None:
    """Replace the matmuls that PaddleSlim has quantized by oneDNN's operators `quantize` and `fc`.

    Paddle's own passes do this incorrectly (3.1.1): `compute_propagate_scales_onednn_pass` reads weights in the wrong
    order and clips columns at the maximum of another one; `quant_dequant_onednn_pass` applies a square weight's scales
    to rows instead of columns; and if the outputs of all operators are quantized, oneDNN's int8 matmuls of activations
    compute garbage once the batch's shape changes. The passes do not change an `fc` that has its scales already.

    Matmuls with the same input, such as queries, keys and values, are joined into one. The file stores their weights as
    int8. `fc` expects float32 weights, so operators on constants convert them; the runtime evaluates these once, when
    it loads the model.

    Args:
        program: changed in place.
        parameters: by name, the matmuls' weights as int8; changed in place, too.
    """
    block = program.blocks[0]
    ops, scale_names, matmuls = remove_quantization(block)
    bias_additions = {argument(op.inputs, "X"): op for op in ops if op.type == "elementwise_add"}
    gelus = {argument(op.outputs, "Out"): op for op in ops if op.type == "gelu"}
    num_uses = Counter(name for op in ops for slot in op.inputs for name in slot.arguments)
    groups: dict[str, list[OpDesc]] = {}  # input -> its matmuls
    for matmul in matmuls:
        groups.setdefault(argument(matmul.inputs, "X"), []).append(matmul)
    constants: list[OpDesc] = []
    joined: dict[tuple[str, ...], tuple[str, str]] = {}  # weights and biases -> the joined ones; layers may share them
    replacements: dict[int, list[OpDesc]] = {}  # id of an operator -> the operators in its place
    producers: dict[str, OpDesc] = {}  # output of a matmul that was not joined -> its `fc`
    for x, group in groups.items():
        linears = [_read_linear(matmul, parameters, scale_names, bias_additions) for matmul in group]
        replacements |= {id(op): [] for linear in linears for op in linear.ops}
        sources = tuple(argument(op.inputs, "Y") for linear in linears for op in linear.ops)
        if sources not in joined:
            weight, bias = declare_copy(block, x, ".weight"), declare_copy(block, x, ".bias", persistable=True)
            joined[sources] = weight, bias
            parameters[bias] = np.concatenate([linear.bias for linear in linears])
            set_dims(block, bias, parameters[bias].shape)
            integers = np.concatenate([linear.weight for linear in linears], axis=1)
            abs_max = np.concatenate([linear.abs_max for linear in linears])
            constants += _dequantize_constant(block, parameters, weight, integers, abs_max[None])
        weight, bias = joined[sources]
        x_abs_max = max(parameters[scale_names[x]].item(), MIN_ABS_MAX)
        quantize, fc, *split = _int8_fc(block, x, x_abs_max, weight, bias, linears)
        gelu = gelus.get(x)
        producer = producers.get(argument(gelu.inputs, "X")) if gelu else None
        if gelu and producer and num_uses[x] == len(group) and num_uses[argument(gelu.inputs, "X")] == 1:
            _fuse_gelu(producer, gelu, quantize)
            replacements[id(gelu)] = []
            replacements[id(group[0])] = [fc, *split]
        else:
            replacements[id(group[0])] = [quantize, fc, *split]
        if len(group) == 1:
            producers[linears[0].output] = fc
    replace_operators(block, [*constants, *(new for op in ops for new in replacements.get(id(op), [op]))])
    prune(block, parameters)


def quantize_embeddings(
    program: ProgramDesc, parameters: dict[str, np.ndarray], scales: Mapping[str, np.ndarray] | None = None
) -> None:
    """Store embeddings as int8, with a scale for each row.

    PaddleSlim's `quant_embedding` has a single scale per table, which costs about as much accuracy as all matmuls
    together.

    Args:
        program: changed in place.
        parameters: by name; changed in place, too.
        scales: by name, `[rows, 1]`, of tables whose values are multiples of them.
    """
    block = program.blocks[0]
    constants = []
    for op in block.ops:
        if op.type == "lookup_table_v2":
            slot = next(slot for slot in op.inputs if slot.parameter == "W")
            table = parameters[slot.arguments[0]]
            if scales and slot.arguments[0] in scales:
                abs_max = scales[slot.arguments[0]] * 127
            else:
                abs_max = np.maximum(np.abs(table).max(axis=1, keepdims=True), MIN_ABS_MAX)
            integers = np.rint(table / abs_max * 127).astype(np.int8)
            dequantized = declare_copy(block, slot.arguments[0], ".restored", persistable=False)
            constants += _dequantize_constant(block, parameters, dequantized, integers, abs_max)
            slot.arguments[0] = dequantized
    replace_operators(block, [*constants, *block.ops])
    prune(block, parameters)


def remove_quantization(block: BlockDesc) -> tuple[list[OpDesc], dict[str, str], list[OpDesc]]:
    """Copy a block's operators without PaddleSlim's `quantize_linear` and `dequantize_linear`.

    Args:
        block: the program's; it is not changed.

    Returns:
        The copies; by variable that was quantized, the name of its scale; and those of the copies that are matmuls with
        int8 weights.
    """
    removed = [op for op in block.ops if op.type in ("quantize_linear", "dequantize_linear")]
    scale_names = {argument(op.inputs, "X"): argument(op.inputs, "Scale") for op in removed}
    source = {argument(op.outputs, "Y"): argument(op.inputs, "X") for op in removed}
    ops = [deepcopy(op) for op in block.ops if op.type not in ("quantize_linear", "dequantize_linear")]
    matmuls = [op for op in ops if op.type == "mul" and argument(op.inputs, "Y") in source]
    for op in ops:
        for slot in op.inputs:
            for index, name in enumerate(slot.arguments):
                while name in source:
                    name = source[name]
                slot.arguments[index] = name
    return ops, scale_names, matmuls


def _read_linear(
    matmul: OpDesc, parameters: dict[str, np.ndarray], scale_names: dict[str, str], bias_additions: dict[str, OpDesc]
) -> _Linear:
    weight, output = argument(matmul.inputs, "Y"), argument(matmul.outputs, "Out")
    abs_max = np.maximum(parameters[scale_names[weight]].reshape(-1), MIN_ABS_MAX)
    addition = bias_additions.get(output)
    if addition is None or argument(addition.inputs, "Y") not in parameters:
        return _Linear(parameters[weight], abs_max, np.zeros(abs_max.shape, np.float32), output, [matmul])
    bias, output = parameters[argument(addition.inputs, "Y")], argument(addition.outputs, "Out")
    return _Linear(parameters[weight], abs_max, bias, output, [matmul, addition])


def _int8_fc(
    block: BlockDesc, x: str, x_abs_max: float, weight: str, bias: str, linears: list[_Linear]
) -> list[OpDesc]:
    """Make the operators that quantize an input, multiply it by the joined weights, and split the result."""
    shape = dims_of(find_variable(block, x))
    quantized = declare_copy(block, x, ".int8")
    set_data_type(block, quantized, paddle_protobuf().VarType.INT8)
    quantize_attributes = {
        "Scale": 127 / x_abs_max,
        "Shift": 0.0,
        "is_negative_input": True,
        "output_format": "NCHW",
        "bfloat16": False,
    }
    fc_attributes = {
        "in_num_col_dims": len(shape) - 1,
        "activation_type": "",
        "padding_weights": False,
        "Scale_in": 127 / x_abs_max,
        "Scale_weights": (127 / np.concatenate([linear.abs_max for linear in linears])).tolist(),
        "force_fp32_output": True,
    }
    outputs, widths = [linear.output for linear in linears], [len(linear.abs_max) for linear in linears]
    product = outputs[0]
    if len(outputs) > 1:
        product = declare_copy(block, x, ".product")
        set_dims(block, product, [*shape[:-1], sum(widths)])
    ops = [
        make_operator("quantize", {"Input": [x]}, {"Output": [quantized]}, quantize_attributes),
        make_operator("fc", {"Input": [quantized], "W": [weight], "Bias": [bias]}, {"Out": [product]}, fc_attributes),
    ]
    if len(outputs) > 1:
        split_attributes = {"axis": len(shape) - 1, "num": 0, "sections": widths}
        ops.append(make_operator("split", {"X": [product]}, {"Out": outputs}, split_attributes))
    return ops


def _fuse_gelu(fc: OpDesc, gelu: OpDesc, quantize: OpDesc) -> None:
    """Let an `fc` compute the GELU that follows it and quantize the result for the next matmul."""
    fc.outputs[0].arguments[0] = argument(quantize.outputs, "Output")
    next(attribute for attribute in fc.attrs if attribute.name == "force_fp32_output").b = False
    approximate = any(attribute.b for attribute in gelu.attrs if attribute.name == "approximate")
    scale = next(attribute.f for attribute in quantize.attrs if attribute.name == "Scale")
    add_attributes(fc, {"fuse_activation": "gelu_tanh" if approximate else "gelu_erf", "Scale_out": scale})


def _dequantize_constant(
    block: BlockDesc, parameters: dict[str, np.ndarray], name: str, integers: np.ndarray, abs_max: np.ndarray
) -> list[OpDesc]:
    """Store a constant as int8, and make the operators that convert it to the float32 variable `name`."""
    stored, scale = (declare_copy(block, name, ending, persistable=True) for ending in (".integers", ".scale"))
    cast = declare_copy(block, name, ".cast")
    parameters[stored], parameters[scale] = integers, (abs_max / 127).astype(np.float32)
    for variable in (name, stored, cast):
        set_dims(block, variable, integers.shape)
    set_dims(block, scale, abs_max.shape)
    protobuf = paddle_protobuf()
    set_data_type(block, stored, protobuf.VarType.INT8)
    types = {"in_dtype": protobuf.VarType.INT8, "out_dtype": protobuf.VarType.FP32}
    return [
        make_operator("cast", {"X": [stored]}, {"Out": [cast]}, types),
        make_operator("elementwise_mul", {"X": [cast], "Y": [scale]}, {"Out": [name]}, {"axis": -1}),
    ]
