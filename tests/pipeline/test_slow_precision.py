"""bf16 on a processor without it: whoever exports, loads or measures such a bundle is told in one line."""

import logging
import subprocess
import sys

import pytest
from conftest import FORMATS

import dynabert_paddle as db
from dynabert_paddle.runtime import machine

# Runs a script as on a processor that a file describes.
ON_PROCESSOR = """
import pathlib, runpy, sys
_, processor, *sys.argv = sys.argv
read = pathlib.Path.read_text
pathlib.Path.read_text = lambda path, *a, **k: read(
    pathlib.Path(processor) if str(path) == "/proc/cpuinfo" else path, *a, **k
)
runpy.run_path(sys.argv[0], run_name="__main__")
"""
SLOW = "bf16 is little or no faster than fp32 on this machine: its processor has none of avx512_bf16, amx_bf16"
FAST_FLAGS, SLOW_FLAGS = "avx2 avx512f avx512_bf16", "avx2 avx512f"


@pytest.fixture(scope="module")
def bundle(make_once, tiny_folder):
    return make_once("bf16", lambda folder: db.export(tiny_folder, folder, format=FORMATS[0], precision="bf16"))


@pytest.fixture(params=[SLOW_FLAGS, pytest.param(FAST_FLAGS, marks=pytest.mark.full)], ids=["slow", "fast"])
def processor(request, tmp_path, monkeypatch):
    """A file of a processor's flags in place of this machine's, and how often it must be warned of."""
    path = tmp_path / "cpuinfo"
    path.write_text(f"flags\t\t: {request.param}\n")
    monkeypatch.setattr(machine, "_CPU_FILE", path)
    return path, int(request.param == SLOW_FLAGS)


def test_commands_say_it(dynabert, bundle, tiny_folder, processor, tmp_path):
    texts = tmp_path / "texts.txt"
    texts.write_text("play some jazz\n")
    export = ("export", tiny_folder, "--output_dir", tmp_path / "b", "--format", FORMATS[0], "--precision", "bf16")
    bench = ("bench", bundle, "--batch_size", 1, "--seq_length", 8, "--rounds", 1)
    for words in (export, ("predict", bundle, "-i", texts), bench):
        done = dynabert(*words)
        assert done.code == 0, done.err
        assert " ".join(done.err.split()).count(SLOW) == processor[1], words[0]
    assert (f"no: {SLOW}" in dynabert("env").out) == processor[1]


@pytest.mark.parametrize("load", [db.Predictor, db.AdaptivePredictor])
def test_python_says_it(bundle, processor, caplog, load):
    with caplog.at_level(logging.WARNING):
        load(bundle)
    assert caplog.text.count(SLOW) == processor[1]


def test_the_script_in_a_bundle_says_it(bundle, processor):
    command = [sys.executable, "-c", ON_PROCESSOR, processor[0], bundle / "infer.py", "play some jazz"]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    assert done.stderr == f"warning: {SLOW}\n" * processor[1]
