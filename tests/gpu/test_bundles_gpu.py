"""Bundles on a GPU answer as on a CPU, in Paddle Inference, in ONNX Runtime's GPU build and in TensorRT."""

import importlib.util
import re

import numpy as np
import pytest
from bundles import make_bundle
from conftest import FORMATS
from devices import NEEDED, use_device  # noqa: F401 - a fixture

import dynabert_paddle as db
from dynabert_paddle.bundle.engines import open_engine
from dynabert_paddle.bundle.manifest import read_bundle
from dynabert_paddle.bundle.timing import make_batch

pytestmark = NEEDED

TEXTS = ["play some jazz", "book a table for two in a small town", "will it rain", "rate this book five stars"] * 9


def has_onnx_gpu():
    if importlib.util.find_spec("onnxruntime") is None:
        return False
    import onnxruntime

    return "CUDAExecutionProvider" in onnxruntime.get_available_providers()


@pytest.mark.parametrize("format", [format for format in FORMATS if format in ("paddle", "pir", "onnx")])
def test_answers_are_those_of_a_cpu(device, make_once, format):
    if format == "onnx" and device != "cpu" and not has_onnx_gpu():
        pytest.skip("onnxruntime-gpu is not installed")
    bundle = make_bundle(make_once, "snips", format)
    here, there = (db.Predictor(bundle, device=where)(TEXTS) for where in (device, "cpu"))
    assert [one.label for one in here] == [other.label for other in there]
    assert np.abs(np.subtract([one.score for one in here], [other.score for other in there])).max() < 1e-4


@pytest.mark.skipif("paddle" not in FORMATS, reason="Paddle cannot write the graph that TensorRT reads")
def test_tensorrt_in_half_precision(device, make_once, tmp_path):
    from paddle import inference

    if device == "cpu" or inference.get_trt_compile_version() == (0, 0, 0):
        pytest.skip("this build of Paddle has no TensorRT")
    bundle = make_bundle(make_once, "snips", "paddle")
    description = read_bundle(bundle)
    batches = [make_batch(size, length, description["vocab_size"]) for size, length in ((1, 9), (4, 17), (8, 24))]
    shapes = tmp_path / "shapes.txt"
    index = int(re.sub(r"\D", "", device) or 0)

    def configure():
        config = inference.Config(str(bundle / "model.pdmodel"), str(bundle / "model.pdiparams"))
        config.disable_glog_info()
        config.enable_use_gpu(256, index)
        return config

    def run(config):
        predictor = inference.create_predictor(config)
        logits = []
        for batch in batches:
            for name in predictor.get_input_names():
                predictor.get_input_handle(name).copy_from_cpu(batch[name])
            predictor.run()
            logits.append(predictor.get_output_handle(predictor.get_output_names()[0]).copy_to_cpu())
        return logits

    collecting = configure()
    collecting.collect_shape_range_info(str(shapes))
    run(collecting)
    config = configure()
    config.enable_tensorrt_engine(
        workspace_size=1 << 28,
        max_batch_size=8,
        min_subgraph_size=3,
        precision_mode=inference.PrecisionType.Half,
        use_static=False,
        use_calib_mode=False,
    )
    config.enable_tuned_tensorrt_dynamic_shape(str(shapes), True)
    engine = open_engine(bundle, description)
    for batch, logits in zip(batches, run(config), strict=True):
        expected = engine(batch)
        assert np.abs(logits - expected).max() <= 1e-2 * max(1.0, np.abs(expected).max())
