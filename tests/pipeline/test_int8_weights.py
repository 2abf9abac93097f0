"""int8 bundles compute the same on processors with and without VNNI: sums of two products fit into 16 bits."""

import numpy as np
import pytest
from conftest import FORMATS

import dynabert_paddle as db
from dynabert_paddle.exporting.parameters import read_parameters

MAX_INT16 = 2**15 - 1


def read_int8_weights(bundle):
    """The int8 matrices of the encoder's linear layers; of the look-up tables, none has as many rows as these."""
    if (bundle / "model.onnx").exists():
        import onnx

        graph = onnx.load(bundle / "model.onnx").graph
        arrays = [onnx.numpy_helper.to_array(initializer) for initializer in graph.initializer]
    else:
        arrays = read_parameters(bundle / "model.pdiparams")
    return [array for array in arrays if array.dtype == np.int8 and array.ndim == 2 and len(array) in (32, 48)]


@pytest.mark.skipif("paddle" not in FORMATS, reason="this line of Paddle exports no int8 but ONNX's")
@pytest.mark.parametrize(
    "format", ["onnx", *(pytest.param(name, marks=pytest.mark.full_on_reference) for name in ("paddle", "openvino"))]
)
def test_two_products_fit_into_16_bits(chain, tmp_path, format):
    bundle = db.export(chain / "depth", tmp_path / "bundle", format=format, precision="int8", tolerance=1)
    weights = read_int8_weights(bundle)
    assert len(weights) >= 4 * 4  # layers: query, key and value (joined by Paddle), output, two of the FFN
    largest = max(abs(int(value)) for array in weights for value in (array.min(), array.max()))
    assert 2 * 255 * largest <= MAX_INT16
    assert largest == 64  # no range is left unused
