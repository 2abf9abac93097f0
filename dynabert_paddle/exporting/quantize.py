"""Quantization of a legacy static graph to int8 with PaddleSlim, whose calibration measures the activations' ranges."""

from __future__ import annotations

import contextlib
import io
import logging
import shutil
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
import paddle

from dynabert_paddle.errors import DataError
from dynabert_paddle.exporting.int8 import quantize_embeddings
from dynabert_paddle.exporting.parameters import write_parameters
from dynabert_paddle.exporting.program import matmul_to_mul, read_program, rewrite, strip_call_stacks, write_program
from dynabert_paddle.exporting.program_types import ProgramDesc


def quantize(
    graph: Path,
    folder: Path,
    batches: Sequence[dict[str, np.ndarray]],
    write_matmuls: Callable[[ProgramDesc, dict[str, np.ndarray]], None],
    *,
    algorithm: str = "mse",
) -> None:
    """Quantize a graph's embeddings and its matmuls with weights.

    The weights of matmuls get one scale per output channel. The matmuls' other inputs are quantized at run time, with
    one scale each from the calibration. Everything else is computed in float32.

    Args:
        graph: folder with `model.pdmodel` and `model.pdiparams`.
        folder: where to write the same files, quantized.
        batches: inputs by name, for the calibration.
        write_matmuls: rewrites the program and its parameters (by name) so that the runtime computes matmuls in int8.
        algorithm: how the calibration chooses scales, one of PaddleSlim's `algo`.

    Raises:
        DataError: there are no batches.
    """
    if not batches:
        raise DataError("the training data has no rows, and int8 needs some for its calibration: add rows")
    from paddleslim.quant import quant_post_static

    with _static_mode(), _quiet(), paddle.static.scope_guard(paddle.static.Scope()), TemporaryDirectory() as scratch:
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
        parameters = {n: np.array(scope.find_var(n).get_tensor()) for n in names if n not in ("feed", "fetch")}
        write_matmuls(program, parameters)
        quantize_embeddings(program, parameters)
        write_parameters(folder / "model.pdiparams", parameters)
    strip_call_stacks(program)
    write_program(folder / "model.pdmodel", program)


def _copy_with_mul(graph: Path, folder: Path) -> None:
    for name in ("model.pdmodel", "model.pdiparams"):
        shutil.copyfile(graph / name, folder / name)
    rewrite(folder / "model.pdmodel", matmul_to_mul)


@contextlib.contextmanager
def _static_mode() -> Iterator[None]:
    was_dynamic = paddle.in_dynamic_mode()
    paddle.enable_static()
    try:
        yield
    finally:
        if was_dynamic:
            paddle.disable_static()


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """Silence PaddleSlim, which draws progress bars on stderr and logs every tensor."""
    disabled_level = logging.root.manager.disable
    with contextlib.redirect_stderr(io.StringIO()), contextlib.redirect_stdout(io.StringIO()):
        logging.disable(max(disabled_level, logging.WARNING))
        try:
            yield
        finally:
            logging.disable(disabled_level)
