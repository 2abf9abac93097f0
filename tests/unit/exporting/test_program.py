"""Rewriting a legacy program."""

from dynabert_paddle.exporting import program


def test_every_transpose_gets_an_output_with_the_shape_of_its_input():
    message = program.paddle_protobuf().ProgramDesc()
    block = message.blocks.add(idx=0, parent_idx=-1)
    for name, dims in (("x", [-1, 12, -1, 32]), ("swapped", [-1, -1, 12, 32])):
        variable = block.vars.add(name=name)
        variable.type.type = 7  # LOD_TENSOR in Paddle 2, DENSE_TENSOR in Paddle 3
        program.set_data_type(block, name, program.paddle_protobuf().VarType.FP32)
        program.set_dims(block, name, dims)
    transpose = program.make_operator("transpose2", {"X": ["x"]}, {"Out": ["swapped"]}, {"axis": [0, 2, 1, 3]})
    program.replace_operators(block, [transpose])

    program.add_xshape_outputs(message)
    xshape = program.argument(block.ops[0].outputs, "XShape")
    assert program.dims_of(program.find_variable(block, xshape)) == [0, -1, 12, -1, 32]
    assert program.argument(block.ops[0].outputs, "Out") == "swapped"

    before = message.SerializeToString()
    program.add_xshape_outputs(message)  # no change if the output exists, as in Paddle 2
    assert message.SerializeToString() == before
