"""Tables of one byte a value."""

import numpy as np
import pytest

from dynabert_paddle.exporting.byte_tables import quantize_columns

pytestmark = pytest.mark.reference


def test_every_value_is_off_by_at_most_half_a_step_of_its_column():
    rng = np.random.default_rng(0)
    for _ in range(300):
        rows, columns = rng.integers(1, 40, 2)
        spread, center = 10.0 ** rng.uniform(-44, 6, columns), 10.0 ** rng.uniform(-6, 3)  # down to subnormal numbers
        table = (rng.normal(0, spread, (rows, columns)) + center * rng.integers(-1, 2)).astype(np.float32)
        integers, scale, offset = quantize_columns(table)
        assert integers.dtype == np.uint8
        error = np.abs(integers * scale.astype(np.float64) + offset - table)
        step = (table.max(axis=0).astype(np.float64) - table.min(axis=0)) / 255
        assert (error <= step / 2 * 1.001 + 1e-6 * np.abs(table).max() + 1e-30).all()


def test_the_ends_of_a_column_and_a_constant_column_are_exact():
    table = np.array([[-3, 5, 0], [9, 5, 0.25], [1, 5, 1]], np.float32)
    integers, scale, offset = quantize_columns(table)
    restored = integers * scale + offset
    np.testing.assert_allclose(restored[:2, 0], [-3, 9], atol=1e-6)
    np.testing.assert_array_equal(restored[:, 1], 5)
    np.testing.assert_allclose(restored[:, 2], [0, 64 / 255, 1], atol=1e-6)
