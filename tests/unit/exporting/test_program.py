"""Rewrites of a legacy program."""

from dynabert_paddle.exporting import program


def test_every_transposition_names_the_shape_that_it_had():
    message = program.framework().ProgramDesc()
    block = message.blocks.add(idx=0, parent_idx=-1)
    for name, dims in (("x", [-1, 12, -1, 32]), ("swapped", [-1, -1, 12, 32])):
        variable = block.vars.add(name=name)
        variable.type.type = 7  # LOD_TENSOR in Paddle 2, DENSE_TENSOR in Paddle 3
        program.set_type(block, name, program.framework().VarType.FP32)
        program.set_dims(block, name, dims)
    transposition = program.make_operator("transpose2", {"X": ["x"]}, {"Out": ["swapped"]}, {"axis": [0, 2, 1, 3]})
    program.replace_operators(block, [transposition])

    program.name_transposed_shapes(message)
    named = program.argument(block.ops[0].outputs, "XShape")
    assert program.dims_of(program.find_variable(block, named)) == [0, -1, 12, -1, 32]
    assert program.argument(block.ops[0].outputs, "Out") == "swapped"

    before = message.SerializeToString()
    program.name_transposed_shapes(message)  # as Paddle 2 has written it already
    assert message.SerializeToString() == before
