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
from dynabert_paddle.exporting.int8 import MIN_ABS_MAX, quantize_embeddings
from dynabert_paddle.exporting.parameters import read_named_parameters, write_parameters
from dynabert_paddle.exporting.program import (
    argument,
    matmul_to_mul,
    parameter_names,
    read_program,
    rewrite,
    strip_call_stacks,
    write_program,
)
from dynabert_paddle.exporting.program_types import ProgramDesc
from dynabert_paddle.runtime.environment import quiet_import
from dynabert_paddle.supernet.rounding import MAX_WEIGHT_INTEGER


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
    with quiet_import():
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
        parameters = {name: np.array(scope.find_var(name).get_tensor()) for name in parameter_names(program)}
        weights = read_named_parameters(graph / "model.pdiparams", read_program(graph / "model.pdmodel"))
        _limit_weights(program, parameters, weights)
        write_matmuls(program, parameters)
        quantize_embeddings(program, parameters)
        write_parameters(folder / "model.pdiparams", parameters)
    strip_call_stacks(program)
    write_program(folder / "model.pdmodel", program)


def _limit_weights(program: ProgramDesc, parameters: dict[str, np.ndarray], weights: dict[str, np.ndarray]) -> None:
    """Round the matmuls' weights anew, to integers of at most `MAX_WEIGHT_INTEGER`; PaddleSlim has no such setting.

    Args:
        program: as PaddleSlim writes it; it divides a scale by 127.
        parameters: of the program, by name; changed in place.
        weights: the float32 parameters before quantization, by name.
    """
    for op in program.blocks[0].ops:
        if op.type == "dequantize_linear" and (name := argument(op.inputs, "X")) in weights:
            abs_max = np.maximum(np.abs(weights[name]).max(axis=0), MIN_ABS_MAX)
            parameters[name] = np.rint(weights[name] / abs_max * MAX_WEIGHT_INTEGER).astype(np.int8)
            parameters[argument(op.inputs, "Scale")] = (abs_max * (127 / MAX_WEIGHT_INTEGER)).astype(np.float32)


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
