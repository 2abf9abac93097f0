"""A static graph as ONNX, for ONNX Runtime on servers and on phones."""

from __future__ import annotations

from pathlib import Path

from dynabert_paddle.errors import DynabertError

# Of 2022: ONNX Runtime takes it from 1.13 on, on servers and on phones, and it holds all that our graphs need.
OPSET = 17


def to_onnx(graph: Path, path: Path) -> None:
    """Convert a Paddle graph.

    Args:
        graph: folder with `model.pdmodel` or `model.json`, and `model.pdiparams`.
        path: the ONNX file to write.

    Raises:
        DynabertError: paddle2onnx is missing, or has written nothing.
    """
    try:
        import paddle2onnx
    except ImportError:
        raise DynabertError("format onnx needs paddle2onnx: run 'pip install \"dynabert-paddle[onnx]\"'") from None
    source = next(graph / name for name in ("model.pdmodel", "model.json") if (graph / name).exists())
    paddle2onnx.export(str(source), str(graph / "model.pdiparams"), str(path), opset_version=OPSET)
    if not path.exists():
        raise DynabertError("paddle2onnx has written no model: export in another format")
    _name_constants(path)


def _name_constants(path: Path) -> None:
    """Turn the nodes that paddle2onnx makes of weights into initializers, where ONNX's tools look for weights."""
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
    """Quantize an ONNX model's weights to int8, by ONNX Runtime; activations are rounded while it runs, batch by batch.

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
        # Only products with weights: those of attention's activations gain no time.
        extra_options={"MatMulConstBOnly": True},
    )
