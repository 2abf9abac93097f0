"""OpenVINO inside of Paddle Inference, which Paddle 3's CPU wheels for x86 bring: one operator that runs a whole graph.

It takes less time between operators than Paddle's own executor, where that is almost half of a single text's. Three
things are to be minded (Paddle 3.1.1 and 3.3.1): engines are found by a hash of a graph's names, one of equal names
takes the place of another that is in use; they are kept until the process ends; and nothing that goes wrong in a run
is reported.

This file is a part of every bundle's `infer.py`.
"""

from __future__ import annotations

import importlib.util
import uuid
from pathlib import Path
from typing import Any

import numpy as np

from dynabert_paddle.bundle.manifest import BundleError


def has_openvino() -> bool:
    """Whether the installed Paddle brings OpenVINO; found out without importing it.

    Returns:
        Whether `configure_openvino` will do.
    """
    paddle = importlib.util.find_spec("paddle")
    folders = paddle.submodule_search_locations if paddle else None
    return any(path for folder in folders or () for path in Path(folder).glob("libs/libopenvino.*"))


def configure_openvino(folder: Path, description: dict[str, Any], scratch: Path, num_threads: int) -> Any:
    """Tell Paddle Inference to run a bundle's graph through OpenVINO.

    Args:
        folder: the bundle.
        description: what its `bundle.json` says: the precision counts.
        scratch: an empty folder, of use until the predictor is made; OpenVINO writes what it has compiled.
        num_threads: CPU threads.

    Returns:
        The configuration of a predictor.

    Raises:
        BundleError: the installed Paddle has no OpenVINO.
    """
    import paddle
    from paddle import inference

    if not has_openvino():
        raise BundleError(
            f"{folder}: format openvino needs the OpenVINO that paddlepaddle 3 brings for x86 CPUs, and Paddle "
            f"{paddle.__version__} as installed does not: install that, or export with another --format"
        )
    graph, weights = scratch / "model.pdmodel", scratch / "model.pdiparams"
    graph.write_bytes(_with_a_name_of_its_own((folder / graph.name).read_bytes()))
    weights.symlink_to((folder / weights.name).absolute())  # it looks beside the graph once more
    config = inference.Config(str(graph), str(weights))
    config.disable_glog_info()
    config.disable_gpu()
    config.set_optim_cache_dir(str(scratch))
    config.set_cpu_math_library_num_threads(num_threads)
    types = inference.PrecisionType  # of what is not int8
    config.enable_openvino_engine(types.Bfloat16 if description["precision"] == "bf16" else types.Float32)
    return config


def check_inputs(batch: dict[str, np.ndarray], description: dict[str, Any]) -> None:
    """Refuse inputs for which OpenVINO would compute something, where Paddle's own operators refuse them.

    Args:
        batch: arrays `[b, s]` by input name.
        description: what the bundle's `bundle.json` says.

    Raises:
        BundleError: an id that is not in the vocabulary, or more tokens than there are positions.
    """
    ids, vocab_size, longest = batch["input_ids"], description["vocab_size"], description["max_positions"]
    if ids.shape[1] > longest:
        raise BundleError(f"a row has {ids.shape[1]} tokens, the model takes at most {longest}")
    unknown = ids[(ids < 0) | (ids >= vocab_size)]
    if unknown.size:
        raise BundleError(f"a token has the id {unknown[0]}, the model has a vocabulary of {vocab_size}")


def _with_a_name_of_its_own(content: bytes) -> bytes:
    """The same program with a variable renamed as none other is in this process."""
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
