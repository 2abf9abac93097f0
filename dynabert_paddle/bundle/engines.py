"""The runtimes that execute a bundle's graph: Paddle Inference, alone or with OpenVINO, and ONNX Runtime.

Shapes: b batch, s sequence.

This file is a part of every bundle's `infer.py`.
"""

from __future__ import annotations

import contextlib
import json
import os
import re
import sys
import tempfile
import threading
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from dynabert_paddle.bundle.manifest import BundleError
from dynabert_paddle.bundle.openvino import check_inputs, configure_openvino
from dynabert_paddle.runtime.cores import num_cores

INPUTS = ("input_ids", "token_type_ids", "attention_mask")

Engine = Callable[[dict[str, np.ndarray]], np.ndarray]

# Operators that open files, sockets or compiled code, print, or call Python: those of Paddle 2.6, 3.1 and 3.3, by
# `paddle.base.core.get_all_op_names()` and the dialects of PIR in its library. No graph of an export has one.
_REACHING_OUT = re.compile(
    r"(load|save)(_combine)?|read(_file)?|create_\w+_reader|print|check_numerics"
    r"|py_?(func|layer)|run_program|\w+_engine|ap_\w+|jit_kernel"
    r"|(c_)?comm_init\w*|(c_)?gen_\w+_id|(heter_)?listen_and_serv|(p_|partial_)?(send|recv)(_\w+)?"
    r"|(distributed_)?(push|pull)_\w+|distributed_lookup_table"
)
_QUIET = threading.RLock()  # descriptors are the whole process's


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
        A function from a batch, arrays by input name, to logits, which raises a `BundleError` where it fails.

    Raises:
        BundleError: the runtime is not installed, or cannot run this format, or there is no such device; or the graph
            would reach outside of the bundle.
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
    through_openvino = description["format"] == "openvino"
    runtime = f"Paddle {paddle.__version__}" + " with OpenVINO" * through_openvino
    with _in_one_line(f"{folder}: {runtime} cannot load it"):
        reaching_out = sorted(filter(_REACHING_OUT.fullmatch, _find_operators(folder / graph)))
    if reaching_out:
        raise BundleError(f"{folder / graph}: '{reaching_out[0]}' in it reaches outside of the bundle: export it again")
    with contextlib.ExitStack() as stack, _in_one_line(f"{folder}: {runtime} cannot load it"):
        if through_openvino:
            if device != "cpu":
                raise BundleError(f"device '{device}': format openvino runs on CPUs alone: use cpu")
            scratch = stack.enter_context(tempfile.TemporaryDirectory(prefix="dynabert-openvino-"))
            config = configure_openvino(folder, description, Path(scratch), num_threads)
        else:
            config = _configure(folder, description, graph, device, num_threads)
        with quiet():
            predictor = inference.create_predictor(config)
    names = predictor.get_input_names()
    output = predictor.get_output_names()[0]
    process_threads = int(os.environ["OMP_NUM_THREADS"].partition(",")[0])

    def run(batch: dict[str, np.ndarray]) -> np.ndarray:
        with _in_one_line(f"{runtime} cannot run it"):
            if through_openvino:
                check_inputs(batch, description)
            for name in names:
                predictor.get_input_handle(name).copy_from_cpu(batch[name])
            try:
                predictor.run()
            finally:  # it sets them for the whole process, where a training would go on with sums in another order
                paddle.base.core.set_num_threads(process_threads)
            return predictor.get_output_handle(output).copy_to_cpu()

    return run


def _configure(folder: Path, description: dict[str, Any], graph: str, device: str, num_threads: int) -> Any:
    """The configuration of Paddle Inference with its own operators."""
    import paddle
    from paddle import inference

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
        return config
    config.disable_gpu()
    config.set_cpu_math_library_num_threads(num_threads)
    config.enable_mkldnn()
    config.set_mkldnn_cache_capacity(16)  # shapes; without a bound every new shape stays in memory
    if description["precision"] == "bf16":
        with quiet():
            config.enable_mkldnn_bfloat16()
    elif description["precision"] == "int8":
        config.enable_mkldnn_int8()
    return config


def _find_operators(graph: Path) -> set[str]:
    """The names of a graph's operators, without those of dialects."""
    content = graph.read_bytes()
    if graph.suffix == ".pdmodel":
        from paddle.base.proto import framework_pb2

        program = framework_pb2.ProgramDesc.FromString(content)  # type: ignore[attr-defined] # made by protobuf
        return {operator.type for block in program.blocks for operator in block.ops}
    names: list[object] = []  # of types and attributes, too; all pairs are seen, those that others override, too
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
    else:  # it would take the CPU and say nothing
        raise BundleError(f"device '{device}': the installed ONNX Runtime is a CPU build: use cpu")
    graph, runtime = folder / "model.onnx", f"ONNX Runtime {onnxruntime.__version__}"
    with _in_one_line(f"{folder}: {runtime} cannot load it"):
        reaching_out = b"location" in graph.read_bytes()  # the key of a tensor's file, which may be any
    if reaching_out:
        raise BundleError(f"{graph}: keeps weights outside of the bundle: export it again")
    with _in_one_line(f"{folder}: {runtime} cannot load it"):
        session = onnxruntime.InferenceSession(str(graph), options, providers=providers)
    names = [graph_input.name for graph_input in session.get_inputs()]

    def run(batch: dict[str, np.ndarray]) -> np.ndarray:
        with _in_one_line(f"{runtime} cannot run it"):
            return session.run(None, {name: batch[name] for name in names})[0]

    return run


@contextlib.contextmanager
def _in_one_line(what: str) -> Iterator[None]:
    """Turn whatever a runtime raises, which may be a C++ trace of many lines, into a `BundleError`."""
    try:
        yield
    except BundleError:
        raise
    except Exception as error:
        lines = [line for line in str(error).splitlines() if "Error" in line] or [f"{type(error).__name__}: {error}"]
        raise BundleError(f"{what}: {' '.join(lines[-1].split())[:200]}") from None


@contextlib.contextmanager
def quiet() -> Iterator[None]:
    """Keep what C++ code prints out of the results and off the terminal; Python cannot catch that by itself."""
    with _QUIET:
        kept = {}
        for descriptor, stream in ((1, sys.stdout), (2, sys.stderr)):
            with contextlib.suppress(AttributeError, ValueError):  # None, as for a daemon, or closed
                stream.flush()
            with contextlib.suppress(OSError):  # closed
                kept[descriptor] = os.dup(descriptor)
        null = os.open(os.devnull, os.O_WRONLY)
        try:
            for descriptor in kept:
                os.dup2(null, descriptor)
            yield
        finally:
            for descriptor, copy in kept.items():
                os.dup2(copy, descriptor)
                os.close(copy)
            os.close(null)
