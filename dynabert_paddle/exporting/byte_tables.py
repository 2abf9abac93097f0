"""Embeddings stored as bytes, for Paddle Lite, whose own quantization leaves them in float32."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from dynabert_paddle.exporting.parameters import read_named_parameters, write_parameters
from dynabert_paddle.exporting.program import (
    argument,
    declare_copy,
    dims_of,
    find_variable,
    make_operator,
    paddle_protobuf,
    prune,
    read_program,
    replace_operators,
    set_data_type,
    set_dims,
    write_program,
)
from dynabert_paddle.exporting.program_types import BlockDesc, OpDesc

_LEVELS = 255  # a byte's values are 0 to 255


def store_tables_as_bytes(graph: Path) -> None:
    """Store each embedding that becomes smaller by it as one byte a value, with a scale and an offset a column.

    A look-up gathers the bytes of its tokens alone and converts these, so the whole table is never in memory as
    float32.

    Args:
        graph: folder with `model.pdmodel` and `model.pdiparams`; both are rewritten.
    """
    program = read_program(graph / "model.pdmodel")
    block = program.blocks[0]
    parameters = read_named_parameters(graph / "model.pdiparams", program)
    ops: list[OpDesc] = []
    for op in block.ops:
        ops += _gather_bytes(block, op, parameters) if op.type == "lookup_table_v2" else [op]
    replace_operators(block, ops)
    prune(block, parameters)
    write_program(graph / "model.pdmodel", program)
    write_parameters(graph / "model.pdiparams", parameters)


def quantize_columns(table: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Quantize a table so that `bytes * scale + offset` is as near to it as 256 levels a column allow.

    Args:
        table: `[v, e]`, float32.

    Returns:
        The bytes `[v, e]`, uint8; scale and offset `[e]`, float32.
    """
    lowest, highest = table.min(axis=0), table.max(axis=0)
    scale = (highest - lowest) / _LEVELS
    scale[scale < np.finfo(np.float32).tiny] = 1  # a column of equal values is its offset
    return np.rint((table - lowest) / scale).astype(np.uint8), scale, lowest


def _gather_bytes(block: BlockDesc, op: OpDesc, parameters: dict[str, np.ndarray]) -> list[OpDesc]:
    """Make the operators in place of a look-up; the look-up itself if its table is too short to gain by it."""
    name, ids, output = argument(op.inputs, "W"), argument(op.inputs, "Ids"), argument(op.outputs, "Out")
    table = parameters[name].copy()
    padding = next(attribute.l for attribute in op.attrs if attribute.name == "padding_idx")  # -1 for none
    if padding >= 0:
        table[padding] = 0  # as the look-up returns
    integers, scale, offset = quantize_columns(table)
    if integers.nbytes + scale.nbytes + offset.nbytes >= table.nbytes:
        return [op]
    stored, scales, offsets = (declare_copy(block, name, end, persistable=True) for end in (".bytes", ".scale", ".min"))
    # Paddle Lite has no kernel that gathers uint8, so that the variable is declared as int8.
    parameters.update({stored: integers.view(np.int8), scales: scale, offsets: offset})
    set_dims(block, scales, scale.shape)
    set_dims(block, offsets, offset.shape)
    index, shape = declare_copy(block, ids, ".index"), declare_copy(block, ids, ".xshape")
    dims = dims_of(find_variable(block, ids))
    set_dims(block, index, [*dims, 1])
    set_dims(block, shape, [0, *dims])
    rows, floats, scaled = (declare_copy(block, output, ending) for ending in (".bytes", ".cast", ".scaled"))
    types = paddle_protobuf().VarType
    for variable in (stored, rows):
        set_data_type(block, variable, types.INT8)
    # On ARM a plain char is unsigned, and Lite's conversion from int8 reads chars: it is wrong there, though right on
    # x86. From uint8 it is right on both.
    conversion = {"in_dtype": types.UINT8, "out_dtype": types.FP32}
    return [
        make_operator("unsqueeze2", {"X": [ids]}, {"Out": [index], "XShape": [shape]}, {"axes": [len(dims)]}),
        make_operator("gather_nd", {"X": [stored], "Index": [index]}, {"Out": [rows]}, {}),
        make_operator("cast", {"X": [rows]}, {"Out": [floats]}, conversion),
        make_operator("elementwise_mul", {"X": [floats], "Y": [scales]}, {"Out": [scaled]}, {"axis": -1}),
        make_operator("elementwise_add", {"X": [scaled], "Y": [offsets]}, {"Out": [output]}, {"axis": -1}),
    ]
