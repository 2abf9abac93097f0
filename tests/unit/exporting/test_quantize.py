"""Quantization restores the state of the process, whether it succeeds or fails."""

import logging

import paddle
import pytest

from dynabert_paddle.errors import DataError
from dynabert_paddle.exporting.quantize import quantize


@pytest.mark.parametrize("disabled_level", [logging.NOTSET, logging.INFO, logging.CRITICAL])
@pytest.mark.parametrize("dynamic", [True, False])
def test_a_failure_restores_the_mode_and_the_logging_level(tmp_path, dynamic, disabled_level):
    logging.disable(disabled_level)
    if not dynamic:
        paddle.enable_static()
    try:
        with pytest.raises(FileNotFoundError):
            quantize(tmp_path / "missing", tmp_path, [{}], write_matmuls=lambda program, parameters: None)
        assert paddle.in_dynamic_mode() == dynamic
        assert logging.root.manager.disable == disabled_level
    finally:
        paddle.disable_static()
        logging.disable(logging.NOTSET)


def test_a_calibration_without_texts_is_refused(tmp_path):
    with pytest.raises(DataError, match="the training data has no rows"):
        quantize(tmp_path, tmp_path, [], write_matmuls=lambda program, parameters: None)
