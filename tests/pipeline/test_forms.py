"""supernet = extracted = reloaded = paddle = pir = onnx = lite, for the paper's grid and for any other sub-network."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

pytestmark = pytest.mark.full

TOLERANCES = {"extracted": 1e-6, "reloaded": 1e-6, "paddle": 1e-5, "pir": 1e-5, "onnx": 1e-4, "lite": 1e-4}
FORMS = {"legacy": ("extracted", "reloaded", "paddle", "onnx", "lite"), "pir": ("extracted", "reloaded", "pir")}


def compare_forms(static, num_random, folder):
    result = folder / f"{static}.json"
    command = [sys.executable, str(Path(__file__).with_name("forms.py")), str(num_random), str(result)]
    environment = {**os.environ, "FLAGS_enable_pir_api": "0" if static == "legacy" else "1"}
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=3000)
    assert done.returncode == 0, done.stderr[-3000:]
    return json.loads(result.read_text())


def check(differences, static, num_subnets):
    assert len(differences) == num_subnets
    for name, forms in differences.items():
        assert tuple(forms) == FORMS[static], name
        for form, difference in forms.items():
            assert difference <= TOLERANCES[form], (name, form)


@pytest.mark.parametrize("static", FORMS)
def test_every_form_computes_what_the_slice_computes(static, tmp_path, request):
    if static == "legacy":
        request.getfixturevalue("converter")
    check(compare_forms(static, 20, tmp_path), static, 12 + 20)


@pytest.mark.parametrize("static", FORMS)
def test_every_form_of_a_hundred_random_subnets(static, tmp_path, request):
    if static == "legacy":
        request.getfixturevalue("converter")
    check(compare_forms(static, 100, tmp_path), static, 12 + 100)
