"""OpenVINO inside Paddle Inference, included in Paddle 3's CPU wheels for x86: one operator runs the whole graph.

It has less overhead between operators than Paddle's executor, where that is almost half of the latency of a single
text. Limitations in Paddle 3.1.1 and 3.3.1: engines are cached by a hash of the graph's names, so a graph with equal
names replaces an engine in use; engines are kept until the process ends; errors during a run are not reported.

This file is part of every bundle's `infer.py`.
"""

from __future__ import annotations

import importlib.util
import uuid
from pathlib import Path
from typing import Any

from dynabert_paddle.bundle.manifest import BundleError


def has_openvino() -> bool:
    """Whether the installed Paddle includes OpenVINO; does not import Paddle."""
    paddle = importlib.util.find_spec("paddle")
    folders = paddle.submodule_search_locations if paddle else None
    return any(path for folder in folders or () for path in Path(folder).glob("libs/libopenvino.*"))


def configure_openvino(folder: Path, description: dict[str, Any], scratch: Path, num_threads: int) -> Any:
    """Configure Paddle Inference to run a bundle's graph with OpenVINO.

    Args:
        folder: the bundle.
        description: the content of its `bundle.json`; its precision is used.
        scratch: an empty folder for files that are needed until the predictor is created.
        num_threads: CPU threads.

    Returns:
        The predictor's configuration.

    Raises:
        BundleError: the installed Paddle has no OpenVINO.
    """
    import paddle
    from paddle import inference

    if not has_openvino():
        raise BundleError(
            f"{folder}: format openvino needs the OpenVINO that paddlepaddle 3 brings for x86 CPUs; the installed "
            f"Paddle {paddle.__version__} has none: install paddlepaddle 3, or export in another format"
        )
    graph, weights = scratch / "model.pdmodel", scratch / "model.pdiparams"
    graph.write_bytes(_make_unique((folder / graph.name).read_bytes()))
    weights.symlink_to((folder / weights.name).absolute())  # OpenVINO also looks for weights beside the graph
    config = inference.Config(str(graph), str(weights))
    config.disable_glog_info()
    config.disable_gpu()
    config.set_optim_cache_dir(str(scratch))
    config.set_cpu_math_library_num_threads(num_threads)
    types = inference.PrecisionType  # of operators that are not int8
    config.enable_openvino_engine(types.Bfloat16 if description["precision"] == "bf16" else types.Float32)
    return config


def _make_unique(content: bytes) -> bytes:
    """Return the program with a variable renamed uniquely in this process, for OpenVINO's cache of engines."""
    from paddle.base.proto import framework_pb2

    program = framework_pb2.ProgramDesc.FromString(content)  # type: ignore[attr-defined] # made by protobuf
    (block,) = program.blocks
    computed = next(op for op in block.ops if op.type != "feed")
    old = computed.outputs[0].arguments[0]
    new = f"{old}.{uuid.uuid4().hex}"
    for variable in block.vars:
        if variable.name == old:
            variable.name = new
    for op in block.ops:
        for slot in (*op.inputs, *op.outputs):
            slot.arguments[:] = [new if name == old else name for name in slot.arguments]
    return program.SerializeToString()
