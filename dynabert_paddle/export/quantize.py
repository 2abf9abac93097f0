"""PaddleSlim's quantization of a legacy static graph to int8: embeddings by their values, products by calibration."""

from __future__ import annotations

import contextlib
import io
import logging
from collections.abc import Iterator, Sequence
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
import paddle

from dynabert_paddle.errors import DataError
from dynabert_paddle.export.program import (
    argument,
    fuse_quantized_products,
    read_program,
    strip_call_stacks,
    write_program,
)


def quantize(graph: Path, folder: Path, batches: Sequence[dict[str, np.ndarray]], *, algorithm: str = "avg") -> None:
    """Quantize a graph's embeddings and its products with weights.

    Weights are int8 per output channel; a product's other input is rounded to int8 while it runs, by one scale that the
    calibration finds. Everything else is computed in float32.

    Args:
        graph: folder with `model.pdmodel`, its products written as `mul`, and `model.pdiparams`.
        folder: gets the same files, quantized.
        batches: inputs by name, on which the activations' ranges are measured.
        algorithm: how: one of PaddleSlim's `algo`.

    Raises:
        DataError: there is nothing to calibrate on.
    """
    if not batches:
        raise DataError("int8 needs texts to calibrate on, and the training data has none: add rows")
    from paddleslim.quant import quant_post_static

    paddle.enable_static()
    try:
        with TemporaryDirectory() as scratch, paddle.static.scope_guard(paddle.static.Scope()), _quiet():
            _quantize_embeddings(graph, Path(scratch))
            quant_post_static(
                paddle.static.Executor(paddle.CPUPlace()),
                scratch,
                str(folder),
                data_loader=lambda: iter(batches),
                model_filename="model.pdmodel",
                params_filename="model.pdiparams",
                batch_nums=len(batches),
                algo=algorithm,
                quantizable_op_type=["mul"],
                weight_quantize_type="channel_wise_abs_max",
                onnx_format=True,
            )
            program = read_program(folder / "model.pdmodel")
            scope = paddle.static.global_scope()
            fuse_quantized_products(
                program,
                {
                    o: np.array(scope.find_var(o).get_tensor())
                    for o in {
                        argument(op.inputs, "Scale") for op in program.blocks[0].ops if "quantize_linear" in op.type
                    }
                },
            )
    finally:
        paddle.disable_static()
    strip_call_stacks(program)
    write_program(folder / "model.pdmodel", program)


def _quantize_embeddings(graph: Path, folder: Path) -> None:
    from paddleslim.quant import quant_embedding

    place = paddle.CPUPlace()
    executor = paddle.static.Executor(place)
    program, inputs, outputs = paddle.static.load_inference_model(str(graph / "model"), executor)
    settings = {"quantize_type": "abs_max", "quantize_bits": 8, "dtype": "int8"}
    program = quant_embedding(program, place, {"quantize_op_types": ["lookup_table_v2"], "lookup_table_v2": settings})
    variables = program.global_block().var
    paddle.static.save_inference_model(
        str(folder / "model"),
        [variables(name) for name in inputs],
        [variables(output.name) for output in outputs],
        executor,
        program=program,
    )


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """PaddleSlim draws progress bars on stderr, and logs every tensor."""
    with contextlib.redirect_stderr(io.StringIO()), contextlib.redirect_stdout(io.StringIO()):
        logging.disable(logging.WARNING)
        try:
            yield
        finally:
            logging.disable(logging.NOTSET)
