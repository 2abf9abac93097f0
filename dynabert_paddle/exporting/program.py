"""Reading and rewriting a legacy Paddle program (`model.pdmodel`), a protobuf message of operators and variables."""

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
    """Read a `model.pdmodel`."""
    program: ProgramDesc = paddle_protobuf().ProgramDesc()
    program.ParseFromString(path.read_bytes())
    return program


def write_program(path: Path, program: ProgramDesc) -> None:
    """Write a `model.pdmodel`."""
    path.write_bytes(program.SerializeToString())


def rewrite(path: Path, *changes: Callable[[ProgramDesc], None]) -> None:
    """Change a program file in place.

    Args:
        path: `model.pdmodel`.
        changes: functions that change a program in place.
    """
    program = read_program(path)
    for change in changes:
        change(program)
    write_program(path, program)


def strip_call_stacks(program: ProgramDesc) -> None:
    """Remove the Python call stack that every operator records: it contains paths of this machine.

    Args:
        program: changed in place.
    """
    for block in program.blocks:
        for op in block.ops:
            kept = [attribute for attribute in op.attrs if attribute.name != "op_callstack"]
            del op.attrs[:]
            op.attrs.extend(kept)


def matmul_to_mul(program: ProgramDesc) -> None:
    """Replace matmuls with a weight matrix by `mul`, which every runtime fuses with the bias into `fc`.

    Results in Paddle Inference are the same. In Paddle Lite, int8 and int16 weights compute NaN on x86 without it.

    Args:
        program: changed in place.
    """
    block = program.blocks[0]
    ranks = {variable.name: len(dims_of(variable)) for variable in block.vars}
    parameters = {variable.name for variable in block.vars if variable.persistable}
    for op in block.ops:
        if op.type != "matmul_v2":
            continue
        x, y = argument(op.inputs, "X"), argument(op.inputs, "Y")
        is_transposed = any(a.b for a in op.attrs if a.name in ("trans_x", "trans_y"))
        if y not in parameters or ranks[y] != 2 or is_transposed:
            continue
        op.type = "mul"
        # PaddleSlim reads the role of every operator; 0 means forward pass.
        del op.attrs[:]
        add_attributes(op, {"x_num_col_dims": ranks[x] - 1, "y_num_col_dims": 1, "op_role": 0})


def add_xshape_outputs(program: ProgramDesc) -> None:
    """Add the second output `XShape` to every `transpose2`, as Paddle 2 does.

    Paddle 3 omits it. Without it, Paddle Inference's pass that fuses a transposition and a reshape into the matmul
    before them (at the end of attention) does not match, and both copy their input in every layer.

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
    """Return the name of the variable in the slot `name` of `op.inputs` or `op.outputs`."""
    return next(slot.arguments[0] for slot in slots if slot.parameter == name)


def make_operator(
    kind: str, inputs: dict[str, list[str]], outputs: dict[str, list[str]], attributes: dict[str, Any]
) -> OpDesc:
    """Make an operator.

    Args:
        kind: its type, such as `matmul_v2`.
        inputs: variables by slot.
        outputs: variables by slot.
        attributes: booleans, integers, floats, strings, or lists of integers or floats, by name.

    Returns:
        The operator.
    """
    op: OpDesc = paddle_protobuf().OpDesc(type=kind)
    for slots, variables in ((op.inputs, inputs), (op.outputs, outputs)):
        for name, arguments in variables.items():
            slots.add(parameter=name, arguments=arguments)
    add_attributes(op, attributes)
    return op


def add_attributes(op: OpDesc, attributes: dict[str, Any]) -> None:
    """Add attributes to an operator.

    Args:
        op: changed in place.
        attributes: values by name, as for `make_operator`.
    """
    protobuf = paddle_protobuf()
    kinds = {bool: ("BOOLEAN", "b"), int: ("INT", "i"), float: ("FLOAT", "f"), str: ("STRING", "s")}
    lists = {int: ("INTS", "ints"), float: ("FLOATS", "floats")}
    for name, value in attributes.items():
        kind, field = lists[type(value[0])] if isinstance(value, list) else kinds[type(value)]
        op.attrs.add(name=name, type=getattr(protobuf, kind), **{field: value})


def replace_operators(block: BlockDesc, ops: Iterable[OpDesc]) -> None:
    """Set a block's operators; `feed` operators are moved to the front.

    Args:
        block: changed in place.
        ops: the operators.
    """
    copies = sorted(map(deepcopy, ops), key=lambda op: op.type != "feed")
    del block.ops[:]
    block.ops.extend(copies)


def prune(block: BlockDesc, parameters: dict[str, np.ndarray]) -> None:
    """Remove the variables that no operator uses.

    Args:
        block: changed in place.
        parameters: by name; changed in place, too.
    """
    used = {name for op in block.ops for slot in (*op.inputs, *op.outputs) for name in slot.arguments}
    kept = [deepcopy(variable) for variable in block.vars if variable.name in used]
    del block.vars[:]
    block.vars.extend(kept)
    for name in parameters.keys() - {variable.name for variable in kept if variable.persistable}:
        del parameters[name]


def parameter_names(program: ProgramDesc) -> list[str]:
    """List a program's parameters in the order of its `model.pdiparams`."""
    return sorted(v.name for v in program.blocks[0].vars if v.persistable and v.name not in ("feed", "fetch"))


def find_variable(block: BlockDesc, name: str) -> VarDesc:
    """Find a variable of a block by its name."""
    return next(variable for variable in block.vars if variable.name == name)


def declare_copy(block: BlockDesc, name: str, ending: str, *, persistable: bool = False) -> str:
    """Declare a variable with the shape and data type of another one.

    Args:
        block: changed in place.
        name: the variable to copy.
        ending: appended to `name` for the new variable's name.
        persistable: whether the new variable is a parameter.

    Returns:
        The new variable's name.
    """
    variable = block.vars.add()
    variable.CopyFrom(find_variable(block, name))
    variable.name, variable.persistable = name + ending, persistable
    return variable.name


def set_dims(block: BlockDesc, name: str, dims: Sequence[int]) -> None:
    """Set the shape of the variable `name`."""
    tensor = _tensor(find_variable(block, name))
    del tensor.dims[:]
    tensor.dims.extend(dims)


def set_data_type(block: BlockDesc, name: str, data_type: int) -> None:
    """Set the data type of the variable `name` to one of `paddle_protobuf().VarType`."""
    _tensor(find_variable(block, name)).data_type = data_type


def dims_of(variable: VarDesc) -> list[int]:
    """Return a variable's shape, with -1 for dynamic dimensions."""
    return list(_tensor(variable).dims)


def _tensor(variable: VarDesc) -> Any:
    # The field is dense_tensor in Paddle 3, lod_tensor in Paddle 2.
    names = {field.name for field in variable.type.DESCRIPTOR.fields}
    return getattr(variable.type, "dense_tensor" if "dense_tensor" in names else "lod_tensor").tensor


def paddle_protobuf() -> ModuleType:
    """Import the classes of Paddle's protobuf messages.

    Returns:
        The module that holds them.

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
