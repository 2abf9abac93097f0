"""The runtimes that execute a bundle's graph: Paddle Inference, with or without OpenVINO, and ONNX Runtime.

Shapes: b batch, s sequence.

This file is part of every bundle's `infer.py`.
"""

from __future__ import annotations

import contextlib
import json
import os
import re
import tempfile
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from dynabert_paddle.bundle.manifest import BundleError, check_inputs
from dynabert_paddle.bundle.openvino import configure_openvino
from dynabert_paddle.runtime.cores import num_cores
from dynabert_paddle.runtime.memory import MEMORY_ADVICE, is_memory_error
from dynabert_paddle.runtime.streams import keep_signal_handlers, quiet

INPUTS = ("input_ids", "token_type_ids", "attention_mask")

Engine = Callable[[dict[str, np.ndarray]], np.ndarray]

# Operators of Paddle 2.6, 3.1 and 3.3 that open files or sockets, load compiled code, print, or call Python. From
# `paddle.base.core.get_all_op_names()` and the PIR dialects in its library. No exported graph contains any.
_UNSAFE_OPERATORS = re.compile(
    r"(load|save)(_combine)?|read(_file)?|create_\w+_reader|print|check_numerics"
    r"|py_?(func|layer)|run_program|\w+_engine|ap_\w+|jit_kernel"
    r"|(c_)?comm_init\w*|(c_)?gen_\w+_id|(heter_)?listen_and_serv|(p_|partial_)?(send|recv)(_\w+)?"
    r"|(distributed_)?(push|pull)_\w+|distributed_lookup_table"
)


def collate(
    rows: Sequence[tuple[list[int], list[int]]], seq_length: int, description: dict[str, Any]
) -> dict[str, np.ndarray]:
    """Pad rows and join them to a batch.

    Args:
        rows: ids and token type ids.
        seq_length: tokens to pad to.
        description: the content of `bundle.json`; its padding token is used.

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
        description: the content of its `bundle.json`; format and precision are used.
        device: `cpu`, `gpu` or `gpu:N`.
        num_threads: CPU threads; by default all cores that the process may use.

    Returns:
        A function from a batch, arrays by input name, to logits; it raises a `BundleError` on failure.

    Raises:
        BundleError: the runtime is not installed or does not support the format, the device does not exist, or the
            graph could access files, sockets or code outside of the bundle.
    """
    if not re.fullmatch(r"cpu|gpu(:\d+)?", device):
        raise BundleError(f"device '{device}' is not one of cpu, gpu, gpu:N")
    if num_threads is not None and num_threads < 1:
        raise BundleError(f"num_threads is at least 1, not {num_threads}")
    if num_threads is None:
        num_threads = num_cores()
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
        if "libgomp.so.1" in str(error):
            remedy = "install it (Debian, Ubuntu: 'apt-get install libgomp1')"
            raise BundleError(f"{folder}: {module} does not load: {error}: {remedy}") from None
        raise


def _open_paddle(folder: Path, description: dict[str, Any], device: str, num_threads: int) -> Engine:
    process_threads = _set_process_threads(num_threads)
    # By default oneDNN caches a thousand compiled operators, also of shapes that are no longer used.
    os.environ.setdefault("DNNL_PRIMITIVE_CACHE_CAPACITY", "64")
    # scikit-learn sets it to FALSE on import: with a single thread a forked process would then hang in its first run.
    os.environ["KMP_INIT_AT_FORK"] = "TRUE"
    with keep_signal_handlers(), quiet():
        import paddle
        from paddle import inference

    if description["format"] == "pir" and paddle.__version__.startswith("2."):
        raise BundleError(f"{folder}: format pir needs Paddle 3, this is {paddle.__version__}: export with paddle")
    graph = "model.json" if description["format"] == "pir" else "model.pdmodel"
    use_openvino = description["format"] == "openvino"
    runtime = f"Paddle {paddle.__version__}" + " with OpenVINO" * use_openvino
    with _one_line_errors(f"{folder}: {runtime} cannot load it"):
        unsafe = sorted(filter(_UNSAFE_OPERATORS.fullmatch, _find_operators(folder / graph)))
    if unsafe:
        raise BundleError(f"{folder / graph}: operator '{unsafe[0]}' reaches outside of the bundle: export it again")
    with contextlib.ExitStack() as stack, _one_line_errors(f"{folder}: {runtime} cannot load it"):
        if use_openvino:
            if device != "cpu":
                raise BundleError(f"device '{device}': format openvino runs on CPUs only: use cpu")
            scratch = stack.enter_context(tempfile.TemporaryDirectory(prefix="dynabert-openvino-"))
            config = configure_openvino(folder, description, Path(scratch), num_threads)
        else:
            config = _configure(folder, description, graph, device, num_threads)
        with quiet(), _keep_threads(process_threads):
            predictor = inference.create_predictor(config)
    names = predictor.get_input_names()
    output = predictor.get_output_names()[0]

    def run(batch: dict[str, np.ndarray]) -> np.ndarray:
        with _one_line_errors(f"{runtime} cannot run it"):
            if use_openvino:
                check_inputs(batch, description)
            for name in names:
                predictor.get_input_handle(name).copy_from_cpu(batch[name])
            with _keep_threads(process_threads):
                predictor.run()
            return predictor.get_output_handle(output).copy_to_cpu()

    return run


@contextlib.contextmanager
def _keep_threads(process_threads: int) -> Iterator[None]:
    """Undo that Paddle Inference sets the thread count of the process, which would change sums in a training run."""
    import paddle

    try:
        yield
    finally:
        paddle.base.core.set_num_threads(process_threads)


def _set_process_threads(num_threads: int) -> int:
    """Set `OMP_NUM_THREADS`, unless it is set; returns its value.

    Paddle reads it once, at import, and uses a single thread if it is not set.
    """
    if os.environ.get("OMP_NUM_THREADS", "") in ("", "0"):
        os.environ["OMP_NUM_THREADS"] = str(num_threads)
    return int(os.environ["OMP_NUM_THREADS"].partition(",")[0])


def _configure(folder: Path, description: dict[str, Any], graph: str, device: str, num_threads: int) -> Any:
    """Configure Paddle Inference with its own operators."""
    import paddle
    from paddle import inference

    config = inference.Config(str(folder / graph), str(folder / "model.pdiparams"))
    config.disable_glog_info()
    if graph == "model.pdmodel":  # with it, Paddle 3.1 cannot load a PIR graph
        config.enable_memory_optim()
    else:  # This pass drops the tanh between a product and relu, as in TinyBERT's head (Paddle 3.1.1 and 3.3.1).
        config.delete_pass("fc_activation_fuse_pass")
    name, _, index = device.partition(":")
    if name == "gpu":
        if not paddle.is_compiled_with_cuda():
            raise BundleError(f"device '{device}': the installed Paddle is a CPU build: use cpu")
        if description["precision"] in ("int8", "bf16"):
            raise BundleError(f"{folder}: {description['precision']} needs oneDNN, which runs on CPUs only: use cpu")
        config.enable_use_gpu(256, int(index or 0))
        return config
    config.disable_gpu()
    config.set_cpu_math_library_num_threads(num_threads)
    config.enable_mkldnn()
    config.set_mkldnn_cache_capacity(16)  # number of shapes; without a limit every new shape stays in memory
    if description["precision"] == "bf16":
        with quiet():
            config.enable_mkldnn_bfloat16()
    elif description["precision"] == "int8":
        config.enable_mkldnn_int8()
    return config


def _find_operators(graph: Path) -> set[str]:
    """Return the names of a graph's operators, without their dialects' names."""
    content = graph.read_bytes()
    if graph.suffix == ".pdmodel":
        from paddle.base.proto import framework_pb2

        program = framework_pb2.ProgramDesc.FromString(content)  # type: ignore[attr-defined] # made by protobuf
        return {operator.type for block in program.blocks for operator in block.ops}
    names: list[object] = []  # also of types and attributes; the hook also sees pairs with duplicate keys
    json.loads(content, object_pairs_hook=lambda pairs: names.extend(value for key, value in pairs if key == "#"))
    return {str(name).rpartition(".")[2].rstrip("_") for name in names}


def _open_onnx(folder: Path, description: dict[str, Any], device: str, num_threads: int) -> Engine:
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = num_threads
    options.log_severity_level = 3
    name, _, index = device.partition(":")
    if name == "cpu":
        providers: list[Any] = ["CPUExecutionProvider"]
    elif "CUDAExecutionProvider" in onnxruntime.get_available_providers():
        providers = [("CUDAExecutionProvider", {"device_id": int(index or 0)})]
    else:  # ONNX Runtime would silently use the CPU
        raise BundleError(f"device '{device}': the installed ONNX Runtime is a CPU build: use cpu")
    graph, runtime = folder / "model.onnx", f"ONNX Runtime {onnxruntime.__version__}"
    with _one_line_errors(f"{folder}: {runtime} cannot load it"):
        has_external_data = b"location" in graph.read_bytes()  # key of a tensor's file, which could be any file
    if has_external_data:
        raise BundleError(f"{graph}: keeps weights outside of the bundle: export it again")
    with _one_line_errors(f"{folder}: {runtime} cannot load it"):
        session = onnxruntime.InferenceSession(str(graph), options, providers=providers)
    names = [graph_input.name for graph_input in session.get_inputs()]

    def run(batch: dict[str, np.ndarray]) -> np.ndarray:
        with _one_line_errors(f"{runtime} cannot run it"):
            return session.run(None, {name: batch[name] for name in names})[0]

    return run


@contextlib.contextmanager
def _one_line_errors(what: str) -> Iterator[None]:
    """Replace any error of a runtime, which can be a long C++ stack trace, by a one-line `BundleError`."""
    try:
        yield
    except BundleError:
        raise
    except Exception as error:
        if is_memory_error(error):
            raise BundleError(f"{what}: {MEMORY_ADVICE}") from None
        lines = [line for line in str(error).splitlines() if "Error" in line] or [f"{type(error).__name__}: {error}"]
        raise BundleError(f"{what}: {' '.join(lines[-1].split())[:200]}") from None
