"""A static graph as ONNX, for ONNX Runtime on servers and on phones."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from dynabert_paddle.errors import DynabertError
from dynabert_paddle.exporting.trained_scales import TrainedScale

# From 2022: ONNX Runtime supports it since 1.13, on servers and phones, and it has all operators that our graphs need.
OPSET = 17


def to_onnx(graph: Path, path: Path) -> None:
    """Convert a Paddle graph.

    Args:
        graph: folder with `model.pdmodel` or `model.json`, and `model.pdiparams`.
        path: the ONNX file to write.

    Raises:
        DynabertError: paddle2onnx is missing, or wrote no file.
    """
    try:
        import paddle2onnx
    except ImportError:
        raise DynabertError("format onnx needs paddle2onnx: run 'pip install \"dynabert-paddle[onnx]\"'") from None
    source = next(graph / name for name in ("model.pdmodel", "model.json") if (graph / name).exists())
    paddle2onnx.export(str(source), str(graph / "model.pdiparams"), str(path), opset_version=OPSET)
    if not path.exists():
        raise DynabertError("paddle2onnx wrote no model: export in another format")
    _constants_to_initializers(path)


def _constants_to_initializers(path: Path) -> None:
    """Turn the Constant nodes that paddle2onnx writes for weights into initializers, where ONNX's tools expect them."""
    import onnx

    model = onnx.load(str(path))
    kept = []
    for node in model.graph.node:
        if node.op_type == "Constant" and node.attribute[0].name == "value":
            node.attribute[0].t.name = node.output[0]
            model.graph.initializer.append(node.attribute[0].t)
        else:
            kept.append(node)
    del model.graph.node[:]
    model.graph.node.extend(kept)
    onnx.checker.check_model(model)
    onnx.save(model, str(path))


def quantize_static(path: Path, quantized: Path, scales: Mapping[str, TrainedScale]) -> None:
    """Quantize an ONNX model with the scales that its training gave.

    Both inputs of a matmul with a quantized weight come from a `DequantizeLinear`, which ONNX Runtime joins with the
    matmul to one in int8; of a quantized table the integers and scales of a text's tokens alone are looked up.

    Args:
        path: the float32 model.
        quantized: the file to write.
        scales: by the name of a weight.
    """
    import onnx
    from onnx import numpy_helper

    model = onnx.load(str(path))
    graph = model.graph
    weights = {one.name: numpy_helper.to_array(one) for one in graph.initializer if one.name in scales}
    groups: dict[str, list[Any]] = {}  # input -> its matmuls: ONNX Runtime computes several of one input in float32
    for node in graph.node:
        if node.op_type == "MatMul" and node.input[1] in weights:
            groups.setdefault(node.input[0], []).append(node)
    nodes: list[Any] = []
    added: dict[str, np.ndarray] = {}
    for node in graph.node:
        if node.op_type == "MatMul" and node.input[1] in weights:
            if group := groups.pop(node.input[0], None):
                nodes += _multiply_integers(group, weights, scales, added)
        elif node.op_type == "Gather" and node.input[0] in weights:
            table = node.input[0]
            nodes += _look_up(node, table)
            added[f"{table}.integers"] = scales[table].integers(weights[table])
            added[f"{table}.scale"] = scales[table].weight
        else:
            nodes.append(node)
    kept = [one for one in graph.initializer if one.name not in weights]
    del graph.initializer[:], graph.node[:]
    graph.initializer.extend([*kept, *(numpy_helper.from_array(value, name) for name, value in added.items())])
    graph.node.extend(nodes)
    onnx.checker.check_model(model)
    onnx.save(model, str(quantized))


def _multiply_integers(
    group: Sequence[Any],
    weights: Mapping[str, np.ndarray],
    scales: Mapping[str, TrainedScale],
    added: dict[str, np.ndarray],
) -> list[Any]:
    """The nodes in place of the matmuls of one input; what they read is added."""
    from onnx import helper

    x, names = group[0].input[0], [node.input[1] for node in group]
    name = "+".join(names)  # layers that share their weights have them once
    own = [scales[weight] for weight in names]
    added[f"{x}.scale"], added[f"{x}.zero"] = np.array(own[0].input, np.float32), np.array(0, np.int8)
    added[f"{name}.integers"] = np.concatenate([scales[one].integers(weights[one]) for one in names], axis=1)
    added[f"{name}.scale"] = np.concatenate([scale.weight.reshape(-1) for scale in own])
    added[f"{name}.zero"] = np.zeros(added[f"{name}.scale"].shape, np.int8)
    outputs = [node.output[0] for node in group]
    product = outputs[0] if len(group) == 1 else f"{x}.product"
    nodes = [
        helper.make_node("QuantizeLinear", [x, f"{x}.scale", f"{x}.zero"], [f"{x}.integers"]),
        helper.make_node("DequantizeLinear", [f"{x}.integers", f"{x}.scale", f"{x}.zero"], [f"{x}.float"]),
        helper.make_node(
            "DequantizeLinear",
            [f"{name}.integers", f"{name}.scale", f"{name}.zero"],
            [f"{x}.weight"],
            axis=1,
        ),
        helper.make_node("MatMul", [f"{x}.float", f"{x}.weight"], [product]),
    ]
    if len(group) > 1:
        added[f"{name}.widths"] = np.array([scale.weight.size for scale in own], np.int64)
        nodes.append(helper.make_node("Split", [product, f"{name}.widths"], outputs, axis=-1))
    return nodes


def _look_up(node: Any, table: str) -> list[Any]:
    """The nodes that look rows of integers up, and multiply them by the rows' scales."""
    from onnx import TensorProto, helper

    ids, (output,) = node.input[1], node.output
    return [
        helper.make_node("Gather", [f"{table}.integers", ids], [f"{output}.integers"]),
        helper.make_node("Gather", [f"{table}.scale", ids], [f"{output}.scale"]),
        helper.make_node("Cast", [f"{output}.integers"], [f"{output}.cast"], to=TensorProto.FLOAT),
        helper.make_node("Mul", [f"{output}.cast", f"{output}.scale"], [output]),
    ]


def quantize_dynamic(path: Path, quantized: Path) -> None:
    """Quantize an ONNX model's weights to int8 with ONNX Runtime; activations are quantized at run time, per batch.

    Args:
        path: the float32 model.
        quantized: the file to write.
    """
    from onnxruntime.quantization import QuantType, quantize_dynamic

    quantize_dynamic(
        path,
        quantized,
        weight_type=QuantType.QInt8,
        per_channel=True,
        reduce_range=True,  # weights from -64 to 64: see MAX_WEIGHT_INTEGER in supernet/rounding.py
        # Only matmuls with weights: int8 does not speed up those between activations, in attention.
        extra_options={"MatMulConstBOnly": True},
    )
