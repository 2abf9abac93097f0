"""Rewrites of a legacy Paddle program (`model.pdmodel`), which is a protobuf message of operators and variables."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from copy import deepcopy
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np

from dynabert_paddle.errors import DynabertError
from dynabert_paddle.exporting.program_types import BlockDesc, OpDesc, ProgramDesc, Repeated, Slot, VarDesc


def read_program(path: Path) -> ProgramDesc:
    """Read a program.

    Args:
        path: `model.pdmodel`.

    Returns:
        Its `ProgramDesc`.
    """
    program: ProgramDesc = framework().ProgramDesc()
    program.ParseFromString(path.read_bytes())
    return program


def write_program(path: Path, program: ProgramDesc) -> None:
    """Write a program.

    Args:
        path: `model.pdmodel`.
        program: a `ProgramDesc`.
    """
    path.write_bytes(program.SerializeToString())


def rewrite(path: Path, *changes: Callable[[ProgramDesc], None]) -> None:
    """Change a program where it lies.

    Args:
        path: `model.pdmodel`.
        changes: each changes a `ProgramDesc` in place.
    """
    program = read_program(path)
    for change in changes:
        change(program)
    write_program(path, program)


def strip_call_stacks(program: ProgramDesc) -> None:
    """Remove every operator's record of the source lines, with paths of this machine, that made it.

    Args:
        program: changed in place.
    """
    for block in program.blocks:
        for op in block.ops:
            kept = [attribute for attribute in op.attrs if attribute.name != "op_callstack"]
            del op.attrs[:]
            op.attrs.extend(kept)


def matmul_to_mul(program: ProgramDesc) -> None:
    """Write products with a weight matrix as `mul`, which every runtime fuses with the bias into `fc`.

    Paddle Inference computes the same; Paddle Lite's weight-only int8 and int16 give NaN on x86 without it.

    Args:
        program: changed in place.
    """
    protocol = framework()
    block = program.blocks[0]
    ranks = {variable.name: len(dims_of(variable)) for variable in block.vars}
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


def name_transposed_shapes(program: ProgramDesc) -> None:
    """Give every `transpose2` its second output, `XShape`, as Paddle 2 does.

    Paddle 3 leaves it out, and then Paddle Inference's pass that puts a transposition and a reshape into the product
    before them, as at the end of attention, finds nothing: both copy in every layer.

    Args:
        program: changed in place.
    """
    block = program.blocks[0]
    for op in block.ops:
        if op.type == "transpose2" and not any(slot.parameter == "XShape" for slot in op.outputs):
            x = argument(op.inputs, "X")
            shape = declare_copy(block, argument(op.outputs, "Out"), ".xshape")
            set_dims(block, shape, [0, *dims_of(find_variable(block, x))])
            op.outputs.add(parameter="XShape", arguments=[shape])


def argument(slots: Repeated[Slot], name: str) -> str:
    """The variable in one of an operator's slots.

    Args:
        slots: `op.inputs` or `op.outputs`.
        name: the slot.

    Returns:
        The variable's name.
    """
    return next(slot.arguments[0] for slot in slots if slot.parameter == name)


def make_operator(
    kind: str, inputs: dict[str, list[str]], outputs: dict[str, list[str]], settings: dict[str, Any]
) -> OpDesc:
    """Make an operator.

    Args:
        kind: its type.
        inputs: variables by slot.
        outputs: variables by slot.
        settings: attributes: booleans, integers, floats, strings, or lists of integers or floats.

    Returns:
        An `OpDesc`.
    """
    protocol = framework()
    op: OpDesc = protocol.OpDesc(type=kind)
    for slots, given in ((op.inputs, inputs), (op.outputs, outputs)):
        for name, arguments in given.items():
            slots.add(parameter=name, arguments=arguments)
    add_attributes(op, settings)
    return op


def add_attributes(op: OpDesc, settings: dict[str, Any]) -> None:
    """Give an operator attributes.

    Args:
        op: changed in place.
        settings: values by name, as for `make_operator`.
    """
    protocol = framework()
    kinds = {bool: ("BOOLEAN", "b"), int: ("INT", "i"), float: ("FLOAT", "f"), str: ("STRING", "s")}
    lists = {int: ("INTS", "ints"), float: ("FLOATS", "floats")}
    for name, value in settings.items():
        kind, field = lists[type(value[0])] if isinstance(value, list) else kinds[type(value)]
        op.attrs.add(name=name, type=getattr(protocol, kind), **{field: value})


def replace_operators(block: BlockDesc, ops: Iterable[OpDesc]) -> None:
    """Set a block's operators; the first ones, `feed`, stay first.

    Args:
        block: changed in place.
        ops: the operators.
    """
    copies = sorted(map(deepcopy, ops), key=lambda op: op.type != "feed")
    del block.ops[:]
    block.ops.extend(copies)


def prune(block: BlockDesc, values: dict[str, np.ndarray]) -> None:
    """Drop the variables that no operator has, and their values.

    Args:
        block: changed in place.
        values: parameters by name; changed in place, too.
    """
    used = {name for op in block.ops for slot in (*op.inputs, *op.outputs) for name in slot.arguments}
    kept = [deepcopy(variable) for variable in block.vars if variable.name in used]
    del block.vars[:]
    block.vars.extend(kept)
    for name in values.keys() - {variable.name for variable in kept if variable.persistable}:
        del values[name]


def find_variable(block: BlockDesc, name: str) -> VarDesc:
    """Find a variable.

    Args:
        block: the program's block.
        name: the variable's.

    Returns:
        Its `VarDesc`.
    """
    return next(variable for variable in block.vars if variable.name == name)


def declare_copy(block: BlockDesc, name: str, ending: str, *, persistable: bool = False) -> str:
    """Declare a variable like another one.

    Args:
        block: changed in place.
        name: the other one.
        ending: what the new one's name has after that.
        persistable: whether it is a parameter.

    Returns:
        The new one's name.
    """
    variable = block.vars.add()
    variable.CopyFrom(find_variable(block, name))
    variable.name, variable.persistable = name + ending, persistable
    return variable.name


def set_dims(block: BlockDesc, name: str, dims: Sequence[int]) -> None:
    """Set a variable's shape.

    Args:
        block: changed in place.
        name: the variable.
        dims: its shape.
    """
    tensor = _tensor(find_variable(block, name))
    del tensor.dims[:]
    tensor.dims.extend(dims)


def set_type(block: BlockDesc, name: str, data_type: int) -> None:
    """Set what a variable holds.

    Args:
        block: changed in place.
        name: the variable.
        data_type: one of `framework().VarType`.
    """
    _tensor(find_variable(block, name)).data_type = data_type


def dims_of(variable: VarDesc) -> list[int]:
    """A variable's shape, -1 for what is not fixed."""
    return list(_tensor(variable).dims)


def _tensor(variable: VarDesc) -> Any:
    # Paddle 3 calls the field dense_tensor, Paddle 2 lod_tensor.
    kind = variable.type
    names = {field.name for field in kind.DESCRIPTOR.fields}
    return (kind.dense_tensor if "dense_tensor" in names else kind.lod_tensor).tensor


def framework() -> ModuleType:
    """Paddle's protobuf messages, of which a program is made.

    Returns:
        The module of the message classes.

    Raises:
        DynabertError: protobuf is not installed.
    """
    try:
        from paddle.base.proto import framework_pb2
    except ImportError as error:
        if (error.name or "").startswith("google"):
            raise DynabertError(
                "rewriting a program needs protobuf: run 'pip install \"dynabert-paddle[lite]\"'"
            ) from None
        raise
    return framework_pb2
