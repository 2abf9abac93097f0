"""Integers of 4 and 2 bits in bytes: every one comes back, and what is damaged is refused."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import array_shapes, arrays
from safetensors.numpy import save_file

from dynabert_paddle.errors import ModelError
from dynabert_paddle.files.packing import PACKED_BITS, pack, pack_weights, unpack, unpack_weights
from dynabert_paddle.files.weights import own_weight_names, read_weights


@st.composite
def integers(draw):
    bits = draw(st.sampled_from(PACKED_BITS))
    largest = 2 ** (bits - 1) - 1
    shape = draw(array_shapes(min_dims=1, max_dims=2, min_side=0, max_side=9))
    return bits, draw(arrays(np.int8, shape, elements=st.integers(-largest, largest)))


@settings(deadline=None)
@given(integers())
def test_integers_come_back(case):
    bits, values = case
    packed = pack(values, bits)
    assert packed.dtype == np.uint8
    assert packed.shape == (-(-values.size * bits // 8),)
    found = unpack(packed, bits, values.shape)
    assert found.dtype == np.int8
    np.testing.assert_array_equal(found, values)


def test_the_first_integer_has_the_lowest_bits():
    np.testing.assert_array_equal(pack(np.array([1, -7, 3], np.int8), 4), [9 + 16 * 1, 11])
    np.testing.assert_array_equal(pack(np.array([-1, 0, 1, 1, 0], np.int8), 2), [1 + 4 * 2 + 16 * 3 + 64 * 3, 2])


@pytest.mark.parametrize("bits", PACKED_BITS)
@pytest.mark.parametrize("scale_shape", [(1, 6), (5, 1)])
def test_weights_come_back_bit_for_bit(bits, scale_shape):
    rng = np.random.default_rng(0)
    largest = 2 ** (bits - 1) - 1
    scale = rng.uniform(1e-8, 0.1, scale_shape).astype(np.float32)
    weights = rng.integers(-largest, largest + 1, (5, 6)).astype(np.float32) * scale
    plain = {"w": weights, "w_scale": scale, "other": rng.normal(size=3).astype(np.float32)}
    stored = pack_weights(plain, {"w": bits})
    assert stored.keys() == {f"w.packed{bits}", "w.shape", "w_scale", "other"}
    found = unpack_weights(stored)
    assert found.keys() == plain.keys()
    for name, array in plain.items():
        assert found[name].dtype == np.float32
        np.testing.assert_array_equal(found[name], array)


STORED = pack_weights({"w": np.ones((3, 5), np.float32), "w_scale": np.ones((1, 5), np.float32)}, {"w": 2})


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"w_scale": None}, "'w.packed2' has no scale"),
        ({"w.shape": None}, "'w.packed2' has no shape"),
        ({"w.shape": np.array([3, 6])}, "18 integers of 2 bits are stored in 4 values of uint8"),
        ({"w.shape": np.array([2**40, 2**40])}, "integers of 2 bits are stored in 4 values"),
        ({"w.shape": np.array([-3, -5])}, "stored in 4 values of uint8"),
        ({"w.packed2": np.zeros(4, np.int8)}, "stored in 4 values of int8"),
    ],
)
def test_what_is_damaged_is_refused_with_the_file(tmp_path, change, message):
    stored = {name: array for name, array in {**STORED, **change}.items() if array is not None}
    save_file(stored, tmp_path / "dynabert.safetensors")
    with pytest.raises(ModelError, match=message) as error:
        read_weights(tmp_path)
    assert str(tmp_path / "dynabert.safetensors") in str(error.value)
    assert "\n" not in str(error.value)


def test_names_are_read_without_the_content(tmp_path):
    assert own_weight_names(tmp_path) == set()
    save_file(STORED, tmp_path / "dynabert.safetensors")
    assert own_weight_names(tmp_path) == {"w.packed2", "w.shape", "w_scale"}
    (tmp_path / "dynabert.safetensors").write_bytes(b"not a file of weights")
    with pytest.raises(ModelError, match=r"dynabert\.safetensors is truncated or corrupt"):
        own_weight_names(tmp_path)
