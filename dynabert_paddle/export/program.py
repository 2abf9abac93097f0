"""Rewrites of a legacy Paddle program (`model.pdmodel`), which is a protobuf message of operators and variables."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from dynabert_paddle.errors import DynabertError

_LEAST = 1e-8  # range of what is zero throughout


def read_program(path: Path):
    """Read a program.

    Args:
        path: `model.pdmodel`.

    Returns:
        Its `ProgramDesc`.
    """
    program = _protocol().ProgramDesc()
    program.ParseFromString(path.read_bytes())
    return program


def write_program(path: Path, program) -> None:
    """Write a program.

    Args:
        path: `model.pdmodel`.
        program: a `ProgramDesc`.
    """
    path.write_bytes(program.SerializeToString())


def strip_call_stacks(program) -> None:
    """Remove every operator's record of the source lines, with paths of this machine, that made it.

    Args:
        program: changed in place.
    """
    for block in program.blocks:
        for op in block.ops:
            kept = [attribute for attribute in op.attrs if attribute.name != "op_callstack"]
            del op.attrs[:]
            op.attrs.extend(kept)


def matmul_to_mul(program) -> None:
    """Write products with a weight matrix as `mul`, which every runtime fuses with the bias into `fc`.

    Paddle Inference computes the same; Paddle Lite's weight-only int8 and int16 give NaN on x86 without it.

    Args:
        program: changed in place.
    """
    protocol = _protocol()
    block = program.blocks[0]
    ranks = {variable.name: len(_dims(variable)) for variable in block.vars}
    weights = {variable.name for variable in block.vars if variable.persistable}
    for op in block.ops:
        if op.type != "matmul_v2":
            continue
        transposed = any(a.b for a in op.attrs if a.name in ("trans_x", "trans_y"))
        if argument(op.inputs, "Y") not in weights or ranks[argument(op.inputs, "Y")] != 2 or transposed:
            continue
        op.type = "mul"
        # PaddleSlim asks every operator for its role, which is 0 in a forward pass.
        settings = {"x_num_col_dims": ranks[argument(op.inputs, "X")] - 1, "y_num_col_dims": 1, "op_role": 0}
        del op.attrs[:]
        for name, value in settings.items():
            attribute = op.attrs.add()
            attribute.name, attribute.type, attribute.i = name, protocol.INT, value


def fuse_int8_products(program, values: dict[str, np.ndarray]) -> None:
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
    ops, ranges, products = _without_roundings(block)
    sums = {argument(op.inputs, "X"): op for op in ops if op.type == "elementwise_add"}
    gelus = {argument(op.outputs, "Out"): op for op in ops if op.type == "gelu"}
    uses = Counter(name for op in ops for slot in op.inputs for name in slot.arguments)
    groups: dict[str, list] = {}
    for product in products:
        groups.setdefault(argument(product.inputs, "X"), []).append(product)
    constants, replaced, single = [], {}, {}
    for x, group in groups.items():
        integers, bounds, biases, outputs = [], [], [], []
        for product in group:
            weight, output = argument(product.inputs, "Y"), argument(product.outputs, "Out")
            integers.append(values[weight])
            bounds.append(np.maximum(values[ranges[weight]].reshape(-1), _LEAST))
            bias = np.zeros(bounds[-1].shape, np.float32)
            added = sums.get(output)
            if added is not None and argument(added.inputs, "Y") in values:
                bias, output = values[argument(added.inputs, "Y")], argument(added.outputs, "Out")
                replaced[id(added)] = []
            biases.append(bias)
            outputs.append(output)
            replaced[id(product)] = []
        weight, bias = _declare_copy(block, x, ".weight"), _declare_copy(block, x, ".bias", persistable=True)
        values[bias] = np.concatenate(biases)
        _set_dims(block, bias, values[bias].shape)
        constants += _restore(block, values, weight, np.concatenate(integers, axis=1), np.concatenate(bounds)[None])
        made = _int8_product(block, x, max(values[ranges[x]].item(), _LEAST), weight, bias, bounds, outputs)
        gelu = gelus.get(x)
        before = gelu and single.get(argument(gelu.inputs, "X"))
        if before and uses[x] == len(group) and uses[argument(gelu.inputs, "X")] == 1:
            _round_output(before, gelu, made.pop(0))
            replaced[id(gelu)] = []
        replaced[id(group[0])] = made
        if len(group) == 1:
            single[outputs[0]] = made[-1]
    _replace_operators(block, [*constants, *(new for op in ops for new in replaced.get(id(op), [op]))])
    _prune(block, values)


def quantize_tables(program, values: dict[str, np.ndarray]) -> None:
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
            restored = _declare_copy(block, slot.arguments[0], ".restored", persistable=False)
            constants += _restore(block, values, restored, np.rint(table / bounds * 127).astype(np.int8), bounds)
            slot.arguments[0] = restored
    _replace_operators(block, [*constants, *block.ops])
    _prune(block, values)


def count_ops(program) -> Counter:
    """Count a program's operators by type."""
    return Counter(op.type for op in program.blocks[0].ops)


def argument(slots, name: str) -> str:
    """The variable in one of an operator's slots.

    Args:
        slots: `op.inputs` or `op.outputs`.
        name: the slot.

    Returns:
        The variable's name.
    """
    return next(slot.arguments[0] for slot in slots if slot.parameter == name)


def _without_roundings(block) -> tuple[list, dict[str, str], list]:
    """A block's operators but for roundings to int8, the variables' ranges, and the products with int8 weights."""
    roundings = [op for op in block.ops if op.type in ("quantize_linear", "dequantize_linear")]
    ranges = {argument(op.inputs, "X"): argument(op.inputs, "Scale") for op in roundings}
    source = {argument(op.outputs, "Y"): argument(op.inputs, "X") for op in roundings}
    ops = [_copy(op) for op in block.ops if op.type not in ("quantize_linear", "dequantize_linear")]
    products = [op for op in ops if op.type == "mul" and argument(op.inputs, "Y") in source]
    for op in ops:
        for slot in op.inputs:
            for index, name in enumerate(slot.arguments):
                while name in source:
                    name = source[name]
                slot.arguments[index] = name
    return ops, ranges, products


def _int8_product(
    block, x: str, bound: float, weight: str, bias: str, bounds: list[np.ndarray], outputs: list[str]
) -> list:
    """Operators that round an input, multiply it, and split the result."""
    rank = len(_dims(_variable(block, x)))
    rounded = _declare_copy(block, x, ".int8")
    _set_type(block, rounded, _protocol().VarType.INT8)
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
        together = _declare_copy(block, x, ".product")
        _set_dims(block, together, [*_dims(_variable(block, x))[:-1], sum(widths)])
    made = [
        _operator("quantize", {"Input": [x]}, {"Output": [rounded]}, scale),
        _operator("fc", {"Input": [rounded], "W": [weight], "Bias": [bias]}, {"Out": [together]}, settings),
    ]
    if len(outputs) > 1:
        made.append(
            _operator("split", {"X": [together]}, {"Out": outputs}, {"axis": rank - 1, "num": 0, "sections": widths})
        )
    return made


def _round_output(product, gelu, quantize) -> None:
    """Have a product compute the activation that follows it and round the result for the next product."""
    product.outputs[0].arguments[0] = argument(quantize.outputs, "Output")
    next(attribute for attribute in product.attrs if attribute.name == "force_fp32_output").b = False
    approximate = any(attribute.b for attribute in gelu.attrs if attribute.name == "approximate")
    scale = next(attribute.f for attribute in quantize.attrs if attribute.name == "Scale")
    _add_attributes(product, {"fuse_activation": "gelu_tanh" if approximate else "gelu_erf", "Scale_out": scale})


def _restore(block, values: dict[str, np.ndarray], name: str, integers: np.ndarray, bounds: np.ndarray) -> list:
    """Operators that make a float32 constant of an int8 one."""
    stored, scale = (_declare_copy(block, name, end, persistable=True) for end in (".integers", ".scale"))
    cast = _declare_copy(block, name, ".cast")
    values[stored], values[scale] = integers, (bounds / 127).astype(np.float32)
    for variable in (name, stored, cast):
        _set_dims(block, variable, integers.shape)
    _set_dims(block, scale, bounds.shape)
    protocol = _protocol()
    _set_type(block, stored, protocol.VarType.INT8)
    types = {"in_dtype": protocol.VarType.INT8, "out_dtype": protocol.VarType.FP32}
    return [
        _operator("cast", {"X": [stored]}, {"Out": [cast]}, types),
        _operator("elementwise_mul", {"X": [cast], "Y": [scale]}, {"Out": [name]}, {"axis": -1}),
    ]


def _operator(kind: str, inputs: dict[str, list[str]], outputs: dict[str, list[str]], settings: dict[str, Any]):
    protocol = _protocol()
    op = protocol.OpDesc(type=kind)
    for slots, given in ((op.inputs, inputs), (op.outputs, outputs)):
        for name, arguments in given.items():
            slots.add(parameter=name, arguments=arguments)
    _add_attributes(op, settings)
    return op


def _add_attributes(op, settings: dict[str, Any]) -> None:
    protocol = _protocol()
    kinds = {bool: ("BOOLEAN", "b"), int: ("INT", "i"), float: ("FLOAT", "f"), str: ("STRING", "s")}
    lists = {int: ("INTS", "ints"), float: ("FLOATS", "floats")}
    for name, value in settings.items():
        kind, field = lists[type(value[0])] if isinstance(value, list) else kinds[type(value)]
        op.attrs.add(name=name, type=getattr(protocol, kind), **{field: value})


def _copy(op):
    return type(op).FromString(op.SerializeToString())


def _replace_operators(block, ops: Iterable) -> None:
    """Set a block's operators; the first ones, `feed`, stay first."""
    copies = sorted(map(_copy, ops), key=lambda op: op.type != "feed")
    del block.ops[:]
    block.ops.extend(copies)


def _prune(block, values: dict[str, np.ndarray]) -> None:
    used = {name for op in block.ops for slot in (*op.inputs, *op.outputs) for name in slot.arguments}
    kept = [_copy(variable) for variable in block.vars if variable.name in used]
    del block.vars[:]
    block.vars.extend(kept)
    for name in values.keys() - {variable.name for variable in kept if variable.persistable}:
        del values[name]


def _variable(block, name: str):
    return next(variable for variable in block.vars if variable.name == name)


def _declare_copy(block, name: str, ending: str, *, persistable: bool = False) -> str:
    variable = block.vars.add()
    variable.CopyFrom(_variable(block, name))
    variable.name, variable.persistable = name + ending, persistable
    return variable.name


def _set_dims(block, name: str, dims: Sequence[int]) -> None:
    tensor = _tensor(_variable(block, name))
    del tensor.dims[:]
    tensor.dims.extend(dims)


def _set_type(block, name: str, data_type: int) -> None:
    _tensor(_variable(block, name)).data_type = data_type


def _dims(variable) -> list[int]:
    return list(_tensor(variable).dims)


def _tensor(variable):
    # Paddle 3 calls the field dense_tensor, Paddle 2 lod_tensor.
    kind = variable.type
    names = {field.name for field in kind.DESCRIPTOR.fields}
    return (kind.dense_tensor if "dense_tensor" in names else kind.lod_tensor).tensor


def _protocol():
    try:
        from paddle.base.proto import framework_pb2
    except ImportError as error:
        if (error.name or "").startswith("google"):
            raise DynabertError(
                "rewriting a program needs protobuf: run 'pip install \"dynabert-paddle[lite]\"'"
            ) from None
        raise
    return framework_pb2
