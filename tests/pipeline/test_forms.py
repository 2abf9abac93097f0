"""supernet = extracted = reloaded = paddle = pir = onnx = lite, for the paper's grid and for any other sub-network."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

pytestmark = pytest.mark.full

TOLERANCES = {"extracted": 1e-6, "reloaded": 1e-6, "paddle": 1e-5, "pir": 1e-5, "onnx": 1e-4, "lite": 1e-4}
FORMS = {"legacy": ("extracted", "reloaded", "paddle", "onnx", "lite"), "pir": ("pir",)}
NUM_GRID, NUM_RANDOM = 12, 6
LITE_STEP = 3  # every third: each is converted and run by another interpreter, which takes seconds


@pytest.mark.parametrize("static", FORMS)
def test_every_form_of_a_subnet_equals_the_slice(static, tmp_path, request):
    if static == "legacy":
        request.getfixturevalue("converter")
    result = tmp_path / "differences.json"
    command = [sys.executable, Path(__file__).with_name("forms.py"), NUM_RANDOM, LITE_STEP, result]
    environment = {**os.environ, "FLAGS_enable_pir_api": "0" if static == "legacy" else "1"}
    done = subprocess.run(list(map(str, command)), env=environment, capture_output=True, text=True, timeout=3000)
    assert done.returncode == 0, done.stderr[-3000:]
    differences = json.loads(result.read_text())
    assert len(differences) == NUM_GRID + NUM_RANDOM
    for number, (name, forms) in enumerate(differences.items()):
        assert tuple(forms) == tuple(form for form in FORMS[static] if form != "lite" or number % LITE_STEP == 0), name
        for form, difference in forms.items():
            assert difference <= TOLERANCES[form], (name, form)
