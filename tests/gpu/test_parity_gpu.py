"""Every model with a head computes on a GPU what it computes on a CPU, whose parity tests/parity proves."""

from contextlib import nullcontext

import numpy as np
import paddle
import pytest
from devices import NEEDED, use_device  # noqa: F401 - a fixture
from test_backbones import FITTING_NAMES
from zoo import build, heterogeneous, make_inputs

import dynabert_paddle as db
from dynabert_paddle.backbone.structure import join_logits
from dynabert_paddle.runtime.device import set_device

pytestmark = NEEDED

AMP = {"fp32": 1e-4, "bf16": 1e-2, "fp16": 1e-2}  # relative to the largest logit, if that exceeds 1
TYPES = {"bf16": "bfloat16", "fp16": "float16"}


def autocast(amp):
    return nullcontext() if amp == "fp32" else paddle.amp.auto_cast(level="O1", dtype=TYPES[amp])


def run_on(device, name, folder, amp):
    """Logits of the full model and of a sub-network, and the gradients of the sum of their squares."""
    set_device(device)
    supernet = db.Supernet(build(name, folder))
    inputs = make_inputs(supernet.model)
    found = {}
    for subnet in (supernet.full, heterogeneous(supernet.full)):
        with autocast(amp):
            logits = join_logits(supernet(subnet, **inputs).logits)
        logits.astype("float32").square().sum().backward()
        found[str(subnet)] = logits.astype("float32").numpy()
    gradients = {
        key: parameter.grad.astype("float32").numpy()
        for key, parameter in supernet.model.named_parameters()
        if parameter.grad is not None
    }
    return found, gradients


def assert_close(actual, expected, tolerance, name):
    scale = max(1.0, float(np.abs(expected).max()))
    assert np.abs(actual - expected).max() <= tolerance * scale, name


@pytest.mark.parametrize("amp", AMP)
@pytest.mark.parametrize("name", FITTING_NAMES)
def test_logits_and_gradients_are_those_of_a_cpu(device, name, amp, tmp_path):
    expected, expected_gradients = run_on("cpu", name, tmp_path, "fp32")
    actual, gradients = run_on(device, name, tmp_path, amp)
    for subnet, logits in expected.items():
        assert_close(actual[subnet], logits, AMP[amp], subnet)
    assert gradients.keys() == expected_gradients.keys()
    for key, gradient in expected_gradients.items():
        # A gradient is a sum over tokens and layers: its error is of the size of its tensor's largest value.
        assert_close(gradients[key], gradient, 10 * AMP[amp], key)
