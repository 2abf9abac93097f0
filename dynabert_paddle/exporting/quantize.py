"""PaddleSlim's quantization of a legacy static graph to int8: embeddings by their values, products by calibration."""

from __future__ import annotations

import contextlib
import io
import logging
import shutil
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
import paddle

from dynabert_paddle.errors import DataError
from dynabert_paddle.exporting.int8 import quantize_tables
from dynabert_paddle.exporting.program import matmul_to_mul, read_program, rewrite, strip_call_stacks, write_program


def quantize(
    graph: Path,
    folder: Path,
    batches: Sequence[dict[str, np.ndarray]],
    write_products: Callable[[Any, dict[str, np.ndarray]], None],
    *,
    algorithm: str = "mse",
) -> None:
    """Quantize a graph's embeddings and its products with weights.

    Weights are int8 per output channel; a product's other input is rounded to int8 while it runs, by one scale that the
    calibration finds. Everything else is computed in float32.

    Args:
        graph: folder with `model.pdmodel` and `model.pdiparams`.
        folder: gets the same files, quantized.
        batches: inputs by name, on which the activations' ranges are measured.
        write_products: writes them as the runtime reads them; gets the program, and its parameters by name.
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
            _copy_with_mul(graph, Path(scratch))
            executor = paddle.static.Executor(paddle.CPUPlace())
            quant_post_static(
                executor,
                scratch,
                str(folder),
                # Paddle 2.6 asks for this class.
                data_loader=paddle.io.DataLoader(
                    batches,  # type: ignore[arg-type] # any sequence works
                    batch_size=None,  # type: ignore[arg-type] # means that the items are batches
                    places=paddle.CPUPlace(),
                    return_list=True,
                ),
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
            names = [variable.name for variable in program.blocks[0].vars if variable.persistable]
            values = {n: np.array(scope.find_var(n).get_tensor()) for n in names if n not in ("feed", "fetch")}
            write_products(program, values)
            quantize_tables(program, values)
            _write_parameters(executor, folder, values)
    finally:
        paddle.disable_static()
    strip_call_stacks(program)
    write_program(folder / "model.pdmodel", program)


def _copy_with_mul(graph: Path, folder: Path) -> None:
    for name in ("model.pdmodel", "model.pdiparams"):
        shutil.copyfile(graph / name, folder / name)
    rewrite(folder / "model.pdmodel", matmul_to_mul)


def _write_parameters(executor: paddle.static.Executor, folder: Path, values: dict[str, np.ndarray]) -> None:
    holder, scope = paddle.static.Program(), paddle.static.global_scope()
    block = holder.global_block()
    for name, value in values.items():
        block.create_var(name=name, shape=value.shape, dtype=str(value.dtype), persistable=True)
        scope.var(name).get_tensor().set(value, paddle.CPUPlace())
    paddle.static.io.save_vars(  # type: ignore[has-type] # mypy cannot resolve its decorated overloads
        executor, str(folder), holder, vars=list(block.vars.values()), filename="model.pdiparams"
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
