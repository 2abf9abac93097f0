"""Rewrites of a legacy Paddle program (`model.pdmodel`), which is a protobuf message of operators and variables."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from pathlib import Path

import numpy as np

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


def fuse_quantized_products(program, scales: Mapping[str, np.ndarray]) -> None:
    """Write products that PaddleSlim has quantized as the `quantize` and `fc` operators that oneDNN runs.

    Paddle's own passes do it, too, but wrongly (3.1.1): `compute_propagate_scales_onednn_pass` reads the weights in the
    wrong order, so that columns are clipped at another's maximum; `quant_dequant_onednn_pass` applies the scales of
    square weights to rows in place of columns; and oneDNN's int8 products of activations, which PaddleSlim's rounding
    of all outputs leads to, compute garbage once the batch's shape changes. Those passes leave an `fc` alone that has
    its scales already. Products of one input, as queries, keys and values are, become a single one.

    Args:
        program: changed in place; its quantized products are `mul` with a bias added.
        scales: the range of every quantized tensor, by the name of the variable that holds it.
    """
    block = program.blocks[0]
    ranges = {argument(op.inputs, "X"): argument(op.inputs, "Scale") for op in block.ops if op.type in _ROUNDINGS}
    source = {argument(op.outputs, "Y"): argument(op.inputs, "X") for op in block.ops if op.type in _ROUNDINGS}
    weights = {variable.name for variable in block.vars if variable.persistable}
    ops = [_copy(op) for op in block.ops if op.type not in _ROUNDINGS]
    quantized = [op for op in ops if op.type == "mul" and argument(op.inputs, "Y") in source]
    for op in ops:
        for slot in op.inputs:
            for index, name in enumerate(slot.arguments):
                while name in source:
                    name = source[name]
                slot.arguments[index] = name
    groups: dict[str, list] = {}
    for op in quantized:
        groups.setdefault(argument(op.inputs, "X"), []).append(op)
    adders = {argument(op.inputs, "X"): op for op in ops if op.type == "elementwise_add"}
    starts, dropped = {}, set()
    for x, products in groups.items():
        sums = [adders[argument(op.outputs, "Out")] for op in products]
        names = [argument(op.inputs, "Y") for op in products]
        bound = np.concatenate([scales[ranges[name]].reshape(-1) for name in names])
        starts[id(products[0])] = _int8_product(
            program,
            x,
            float(scales[ranges[x]].item()),
            names,
            bound,
            [argument(op.inputs, "Y") for op in sums],
            [argument(op.outputs, "Out") for op in sums],
            [ranges[n] for n in names],
            products[0],
        )
        dropped |= {id(op) for op in [*products, *sums]}
    first = next(index for index, op in enumerate(ops) if op.type != "feed")
    constants = [op for made, _ in starts.values() for op in made]
    kept = [*ops[:first], *constants]
    for op in ops[first:]:
        if id(op) in starts:
            kept.extend(starts[id(op)][1])
        elif id(op) not in dropped:
            kept.append(op)
    del block.ops[:]
    block.ops.extend(kept)


_ROUNDINGS = ("quantize_linear", "dequantize_linear")


def _copy(op):
    return type(op).FromString(op.SerializeToString())


def _int8_product(program, x, bound_x, weights, bound, biases, outputs, range_names, product):
    protocol = _protocol()
    block = program.blocks[0]
    dims = {v.name: _dims(v) for v in block.vars}
    made = []

    def var(name, shape, kind=protocol.VarType.FP32):
        variable = block.vars.add()
        variable.CopyFrom(next(v for v in block.vars if v.name == x))
        variable.name, variable.persistable = name, False
        tensor = variable.type.dense_tensor.tensor
        tensor.data_type = kind
        del tensor.dims[:]
        tensor.dims.extend(shape)
        return name

    rows = dims[weights[0]][0]
    restored = []
    for weight, range_name in zip(weights, range_names, strict=False):
        shape = dims[weight]
        v = next(v for v in block.vars if v.name == weight)
        v.type.dense_tensor.tensor.data_type = protocol.VarType.INT8
        made.append(_op("cast", {"X": weight}, {"Out": var(weight + ".float", shape)}, in_dtype=21, out_dtype=5))
        made.append(
            _op(
                "elementwise_mul",
                {"X": weight + ".float", "Y": range_name},
                {"Out": var(weight + ".scaled", shape)},
                axis=-1,
            )
        )
        made.append(
            _op(
                "scale",
                {"X": weight + ".scaled"},
                {"Out": var(weight + ".restored", shape)},
                scale=1 / 127,
                bias=0.0,
                bias_after_scale=True,
            )
        )
        restored.append(weight + ".restored")
    w, b, out = restored[0], biases[0], outputs[0]
    width = len(bound)
    if len(weights) > 1:
        w, b, out = (
            var(x + end, shape)
            for end, shape in ((".weight", [rows, width]), (".bias", [width]), (".product", [*dims[x][:-1], width]))
        )
        made.append(_op("concat", {"X": restored}, {"Out": w}, axis=1))
        made.append(_op("concat", {"X": biases}, {"Out": b}, axis=0))
    rounded = var(x + ".int8", dims[x], protocol.VarType.INT8)
    run = [
        _op(
            "quantize",
            {"Input": x},
            {"Output": rounded},
            Scale=127 / bound_x,
            Shift=0.0,
            is_negative_input=True,
            output_format="NCHW",
            bfloat16=False,
        ),
        _op(
            "fc",
            {"Input": rounded, "W": w, "Bias": b},
            {"Out": out},
            in_num_col_dims=len(dims[x]) - 1,
            activation_type="",
            padding_weights=False,
            use_mkldnn=True,
            mkldnn_data_type="int8",
            use_quantizer=False,
            Scale_in=127 / bound_x,
            Scale_weights=[127 / v for v in bound.tolist()],
            Scale_out=1.0,
            Scale_in_eltwise=1.0,
            force_fp32_output=True,
        ),
    ]
    if len(weights) > 1:
        run.append(_op("split", {"X": out}, {"Out": outputs}, axis=len(dims[x]) - 1, num=len(outputs), sections=[]))
    return made, run


def _op(kind, inputs, outputs, **settings):
    protocol = _protocol()
    op = protocol.OpDesc()
    op.type = kind
    for slots, given in ((op.inputs, inputs), (op.outputs, outputs)):
        for name, value in given.items():
            slot = slots.add()
            slot.parameter = name
            slot.arguments.extend([value] if isinstance(value, str) else value)
    for name, value in settings.items():
        attribute = op.attrs.add()
        attribute.name = name
        if isinstance(value, bool):
            attribute.type, attribute.b = protocol.BOOLEAN, value
        elif isinstance(value, int):
            attribute.type, attribute.i = protocol.INT, value
        elif isinstance(value, float):
            attribute.type, attribute.f = protocol.FLOAT, value
        elif isinstance(value, str):
            attribute.type, attribute.s = protocol.STRING, value
        elif name == "sections":
            attribute.type = protocol.INTS
        else:
            attribute.type = protocol.FLOATS
            attribute.floats.extend(value)
    return op


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
