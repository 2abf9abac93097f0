"""Rewrites of a legacy Paddle program (`model.pdmodel`), which is a protobuf message of operators and variables."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

from dynabert_paddle.errors import DynabertError


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


def keep_quantized_products(program) -> None:
    """Drop the quantization of every activation that is not the input of a quantized product.

    PaddleSlim rounds the outputs of all operators, too. oneDNN would then keep residuals and attention scores in int8,
    which costs accuracy, and its int8 products of activations compute garbage once the batch's shape changes (Paddle
    3.1.1: 57 % accuracy in place of 98 % on snips).

    Args:
        program: changed in place.
    """
    block = program.blocks[0]
    product_inputs = {argument(op.inputs, "X") for op in block.ops if op.type == "mul"}
    source = {argument(op.outputs, "Y"): argument(op.inputs, "X") for op in block.ops if op.type == "quantize_linear"}
    kept, original = [], {}
    for op in block.ops:
        if op.type == "dequantize_linear":
            quantized, restored = argument(op.inputs, "X"), argument(op.outputs, "Y")
            if quantized in source and restored not in product_inputs:
                original[restored] = original.get(source[quantized], source[quantized])
                continue
        kept.append(op)
    for op in kept:
        for slot in op.inputs:
            for index, name in enumerate(slot.arguments):
                slot.arguments[index] = original.get(name, name)
    needed = {name for op in kept if op.type != "quantize_linear" for slot in op.inputs for name in slot.arguments}
    kept = [op for op in kept if op.type != "quantize_linear" or argument(op.outputs, "Y") in needed]
    copies = [type(op).FromString(op.SerializeToString()) for op in kept]
    del block.ops[:]
    block.ops.extend(copies)


def declare_weight_scales(program) -> None:
    """Tell oneDNN the scale of every quantized weight.

    Paddle's `compute_propagate_scales_onednn_pass` finds the scales anew where it knows none, and reads the weights in
    the wrong order (3.1.1: `data[j + i * rows]` for column i), so that columns are clipped at another's maximum. It
    keeps a scale that a `quantize_linear` of the same variable has declared; the pass that reads it removes the operator.

    Args:
        program: changed in place.
    """
    block = program.blocks[0]
    weights = {variable.name for variable in block.vars if variable.persistable}
    declared = []
    for op in block.ops:
        if op.type == "dequantize_linear" and argument(op.inputs, "X") in weights:
            declaration = type(op).FromString(op.SerializeToString())
            declaration.type = "quantize_linear"
            declaration.outputs[0].arguments[0] = argument(op.inputs, "X") + ".declared"
            declared.append(declaration)
    for declaration in declared:
        source = argument(declaration.inputs, "X")
        variable = block.vars.add()
        variable.CopyFrom(next(v for v in block.vars if v.name == source))
        variable.name, variable.persistable = source + ".declared", False
    first = next(index for index, op in enumerate(block.ops) if op.type != "feed")
    operators = [type(op).FromString(op.SerializeToString()) for op in block.ops]
    del block.ops[:]
    block.ops.extend([*operators[:first], *declared, *operators[first:]])


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


def _dims(variable) -> list[int]:
    # Paddle 3 calls the field dense_tensor, Paddle 2 lod_tensor.
    kind = variable.type
    names = {field.name for field in kind.DESCRIPTOR.fields}
    return list((kind.dense_tensor if "dense_tensor" in names else kind.lod_tensor).tensor.dims)


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
