"""The runtimes that execute a bundle's graph: Paddle Inference and ONNX Runtime. Shapes: b batch, s sequence.

This file is a part of every bundle's `infer.py`.
"""

from __future__ import annotations

import contextlib
import os
import re
import sys
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from dynabert_paddle.deploy.bundle_files import BundleError

INPUTS = ("input_ids", "token_type_ids", "attention_mask")

Engine = Callable[[dict[str, np.ndarray]], np.ndarray]


def collate(
    rows: Sequence[tuple[list[int], list[int]]], seq_length: int, description: dict[str, Any]
) -> dict[str, np.ndarray]:
    """Pad rows to one batch.

    Args:
        rows: ids and token type ids.
        seq_length: tokens to pad to.
        description: the bundle's, which knows the padding token.

    Returns:
        The graph's inputs, int64 `[b, s]`.
    """
    shape = (len(rows), seq_length)
    input_ids = np.full(shape, description["pad_token_id"], dtype=np.int64)
    token_type_ids, mask = np.zeros(shape, dtype=np.int64), np.zeros(shape, dtype=np.int64)
    for i, (ids, type_ids) in enumerate(rows):
        input_ids[i, : len(ids)] = ids
        token_type_ids[i, : len(ids)] = type_ids
        mask[i, : len(ids)] = 1
    return dict(zip(INPUTS, (input_ids, token_type_ids, mask), strict=True))


def open_engine(
    folder: Path, description: dict[str, Any], *, device: str = "cpu", num_threads: int | None = None
) -> Engine:
    """Load a bundle's graph into its runtime.

    Args:
        folder: the bundle.
        description: what its `bundle.json` says: the format and the precision count.
        device: `cpu`, `gpu` or `gpu:N`.
        num_threads: CPU threads; all cores that the process may use where not given.

    Returns:
        A function from a batch, arrays by input name, to logits.

    Raises:
        BundleError: the runtime is not installed, or cannot run this format, or there is no such device.
    """
    if not re.fullmatch(r"cpu|gpu(:\d+)?", device):
        raise BundleError(f"device '{device}' is not one of cpu, gpu, gpu:N")
    if num_threads is not None and num_threads < 1:
        raise BundleError(f"num_threads is at least 1, not {num_threads}")
    if num_threads is None:
        num_threads = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    kind = description["format"]
    if kind == "lite":
        raise BundleError(f"{folder}: a Paddle Lite bundle: run it with 'python {folder / 'infer_lite.py'}'")
    module = "onnxruntime" if kind == "onnx" else "paddle"
    try:
        open_graph = _open_onnx if kind == "onnx" else _open_paddle
        return open_graph(folder, description, device, num_threads)
    except ImportError as error:
        if error.name and error.name.partition(".")[0] == module:
            package = "paddlepaddle" if module == "paddle" else module
            raise BundleError(f"{folder}: format {kind} needs {module}: run 'pip install {package}'") from None
        raise


def _open_paddle(folder: Path, description: dict[str, Any], device: str, num_threads: int) -> Engine:
    # Paddle reads it once, when it is imported, and takes a single thread where it is not set.
    os.environ.setdefault("OMP_NUM_THREADS", str(num_threads))
    # oneDNN keeps a thousand operators' code by default, for shapes that are long gone.
    os.environ.setdefault("DNNL_PRIMITIVE_CACHE_CAPACITY", "64")
    with quiet():
        import paddle
        from paddle import inference

    if description["format"] == "pir" and paddle.__version__.startswith("2."):
        raise BundleError(f"{folder}: format pir needs Paddle 3, this is {paddle.__version__}: export with paddle")
    graph = "model.json" if description["format"] == "pir" else "model.pdmodel"
    config = inference.Config(str(folder / graph), str(folder / "model.pdiparams"))
    config.disable_glog_info()
    if graph == "model.pdmodel":  # Paddle 3.1 cannot load a PIR graph with it
        config.enable_memory_optim()
    else:  # Of tanh and relu after a product, as in TinyBERT's head, it forgets tanh (Paddle 3.1.1 and 3.3.1).
        config.delete_pass("fc_activation_fuse_pass")
    name, _, index = device.partition(":")
    if name == "gpu":
        if not paddle.is_compiled_with_cuda():
            raise BundleError(f"device '{device}': the installed Paddle is a CPU build: use cpu")
        if description["precision"] in ("int8", "bf16"):
            raise BundleError(f"{folder}: {description['precision']} runs through oneDNN, on CPUs alone: use cpu")
        config.enable_use_gpu(256, int(index or 0))
    else:
        config.disable_gpu()
        config.set_cpu_math_library_num_threads(num_threads)
        config.enable_mkldnn()
        config.set_mkldnn_cache_capacity(16)  # shapes; without a bound every new shape stays in memory
        if description["precision"] == "bf16":
            with quiet():
                config.enable_mkldnn_bfloat16()
        elif description["precision"] == "int8":
            config.enable_mkldnn_int8()
    try:
        with quiet():
            predictor = inference.create_predictor(config)
    except Exception as error:  # Paddle's errors are C++ traces of many lines
        lines = [line for line in str(error).splitlines() if "Error" in line] or [type(error).__name__]
        raise BundleError(f"{folder}: Paddle {paddle.__version__} cannot load it: {lines[-1].strip()[:200]}") from None
    names = predictor.get_input_names()
    output = predictor.get_output_names()[0]
    process_threads = int(os.environ["OMP_NUM_THREADS"].partition(",")[0])

    def run(batch: dict[str, np.ndarray]) -> np.ndarray:
        for name in names:
            predictor.get_input_handle(name).copy_from_cpu(batch[name])
        predictor.run()
        # A predictor sets it for the whole process, where a training would go on with other sums in another order.
        paddle.base.core.set_num_threads(process_threads)
        return predictor.get_output_handle(output).copy_to_cpu()

    return run


def _open_onnx(folder: Path, description: dict[str, Any], device: str, num_threads: int) -> Engine:
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = num_threads
    options.log_severity_level = 3
    name, _, index = device.partition(":")
    if name == "cpu":
        providers = ["CPUExecutionProvider"]
    elif "CUDAExecutionProvider" in onnxruntime.get_available_providers():
        providers = [("CUDAExecutionProvider", {"device_id": int(index or 0)})]
    else:  # it would take the CPU and say nothing
        raise BundleError(f"device '{device}': the installed ONNX Runtime is a CPU build: use cpu")
    try:
        session = onnxruntime.InferenceSession(str(folder / "model.onnx"), options, providers=providers)
    except Exception as error:  # whatever the runtime meets
        reason = " ".join(str(error).split())[:200]
        raise BundleError(f"{folder}: ONNX Runtime {onnxruntime.__version__} cannot load it: {reason}") from None
    names = [graph_input.name for graph_input in session.get_inputs()]
    return lambda batch: session.run(None, {name: batch[name] for name in names})[0]


@contextlib.contextmanager
def quiet() -> Iterator[None]:
    """Keep what C++ code prints out of the results and off the terminal; Python cannot catch that by itself."""
    sys.stdout.flush()
    sys.stderr.flush()
    kept = os.dup(1), os.dup(2)
    null = os.open(os.devnull, os.O_WRONLY)
    try:
        os.dup2(null, 1)
        os.dup2(null, 2)
        yield
    finally:
        for descriptor, copy in zip((1, 2), kept, strict=True):
            os.dup2(copy, descriptor)
            os.close(copy)
        os.close(null)
