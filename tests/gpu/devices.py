"""The device of the tests: `gpu:0`, and all are skipped on a machine without it.

`DYNABERT_TEST_DEVICE=cpu` runs the tests' code on a CPU, to see that it runs; it shows nothing about a GPU.
"""

import os
import sys
from pathlib import Path

import paddle
import pytest

from dynabert_paddle.runtime.device import set_device

DEVICE = os.environ.get("DYNABERT_TEST_DEVICE", "gpu:0")
NUM_GPUS = paddle.device.cuda.device_count() if paddle.is_compiled_with_cuda() else 0
NEEDED = pytest.mark.skipif(DEVICE != "cpu" and not NUM_GPUS, reason="no GPU, or a build of Paddle for CPUs")

sys.path.insert(0, str(Path(__file__).parents[1] / "parity"))  # the models that parity is tested with


@pytest.fixture(name="device")
def use_device():
    """The device, on which Paddle computes during the test."""
    set_device(DEVICE)
    yield DEVICE
    set_device("cpu")
