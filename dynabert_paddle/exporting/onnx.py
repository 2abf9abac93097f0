"""A static graph as ONNX, for ONNX Runtime on servers and on phones."""

from __future__ import annotations

from pathlib import Path

from dynabert_paddle.errors import DynabertError

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
        reduce_range=True,  # weights from -64 to 64: see MAX_WEIGHT_INTEGER in quantize.py
        # Only matmuls with weights: int8 does not speed up those between activations, in attention.
        extra_options={"MatMulConstBOnly": True},
    )
