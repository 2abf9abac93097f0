"""SIGTERM at any moment: no traceback, no half-written file, and work that can be resumed says so and is resumed."""

import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

import dynabert_paddle as db

pytestmark = pytest.mark.full

RESUMED = "; the same command goes on from there"
ANEW = "; the same command begins anew, since nothing was saved yet"
AFTER_A_STAGE = "; the same command goes on from the first stage that has not finished"


def wait_for_import(process):
    """Wait until a process has begun to import Paddle."""
    while process.poll() is None and "libpaddle" not in Path(f"/proc/{process.pid}/maps").read_text():
        time.sleep(0.01)


def terminate(words, line=None):
    """Send SIGTERM after a line of the log, or while Paddle is imported; returns exit code, stdout and lines."""
    command = [sys.executable, "-m", "dynabert_paddle", *map(str, words)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
        before = []
        if line is None:
            wait_for_import(process)
        while line and not (before and before[-1].startswith(line)):
            before.append(process.stderr.readline())
            assert before[-1], f"no line '{line}': {before}"
        process.send_signal(signal.SIGTERM)
        out, err = process.communicate()
    return process.returncode, out, [*"".join(before).splitlines(), *err.splitlines()]


def half_written(folder):
    return [path for path in folder.rglob("*") if "partial" in path.name or path.suffix == ".tmp"]


@pytest.fixture(scope="module")
def run(tiny_folder, tiny_data, tmp_path_factory):
    """The words of a short run, and its output folder."""
    folder = tmp_path_factory.mktemp("terminated")
    words = ["run", "default", "--output_dir", folder / "out", "-o", f"model_name_or_path={tiny_folder}"]
    words += ["-o", f"task.data_dir={tiny_data}", "-o", "task.max_seq_length=16", "-o", "train.max_steps=4"]
    words += ["-o", "space.width_mult_list=[1.0, 0.5]", "-o", "space.depth_mult_list=[1.0, 0.5]"]
    return [*words, "-o", "train.eval_steps=2", "-o", "train.logging_steps=1"], folder / "out"


@pytest.mark.parametrize(
    ("line", "ends"),
    [
        (None, (ANEW,)),  # while Paddle is imported, which has a handler of its own
        ("finetune: ", (ANEW, RESUMED)),
        ("finetune 2/4 accuracy", (RESUMED,)),
        ("rewire: computing", (AFTER_A_STAGE, RESUMED)),  # or in the first step of the next one
        ("evaluating", (AFTER_A_STAGE,)),
    ],
)
def test_a_run_ends_cleanly_on_a_signal(run, line, ends):
    words, output = run
    code, out, lines = terminate(words, line)
    assert (code, out) == (143, ""), lines
    assert lines[-1].endswith(ends), lines
    assert not [text for text in lines if "Traceback" in text]
    assert not half_written(output.parent)


def test_a_search_goes_on_and_an_export_is_made_anew(run, tmp_path):
    words, output = run
    command = [sys.executable, "-m", "dynabert_paddle", *map(str, words)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    code, out, lines = terminate(
        ["search", output / "depth", "--num_evaluations", 18, "--population_size", 6], "search 6"
    )
    assert (code, out) == (143, "")
    assert lines[-1].startswith("search: stopped after ")
    assert lines[-1].endswith(RESUMED)
    # Whoever waits for the bundle must not take it for made.
    code, out, lines = terminate(["export", output / "depth", "--output_dir", tmp_path / "bundle"], "exporting")
    assert (code, out, lines[-1]) == (128 + signal.SIGTERM, "", "stopped")
    assert not list(Path(tmp_path).iterdir())


@pytest.mark.parametrize(
    ("number", "seconds"), [(signal.SIGTERM, 2.0), (signal.SIGTERM, 6.0), (signal.SIGINT, 6.0), (signal.SIGHUP, 2.0)]
)
def test_predict_leaves_no_partial_file_after_a_signal(chain, make_once, tmp_path, number, seconds):
    """At either moment: while Paddle is imported, and while it predicts."""
    bundle = make_once("terminated_bundle", lambda folder: db.export(chain / "depth", folder))
    texts = tmp_path / "texts.txt"
    texts.write_text("play some jazz\n" * 300_000)
    output = tmp_path / "labels.tsv"
    for words in (
        ["-m", "dynabert_paddle", "predict", bundle, "-i", texts, "-o", output],
        [bundle / "infer.py", "-i", texts],
    ):
        with subprocess.Popen(
            [sys.executable, *map(str, words)], stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True
        ) as process:
            time.sleep(seconds)
            process.send_signal(number)
            _, err = process.communicate()
        assert process.returncode in (128 + number, -number), err  # the latter before the program's own code runs
        assert err in ("", "stopped\n")
        assert [path.name for path in tmp_path.iterdir()] == [texts.name]


@pytest.mark.parametrize(
    ("number", "exists"),
    [
        (signal.SIGTERM, True),
        (signal.SIGINT, False),
        (signal.SIGHUP, False),
        (signal.SIGKILL, True),
        (signal.SIGKILL, False),
    ],
)
def test_a_stopped_export_leaves_no_lasting_files(finetuned, tmp_path, number, exists):
    """Partial folders of the size of a model gathered beside the bundles."""
    bundle = tmp_path / "out" / "bundle"
    words = [sys.executable, "-m", "dynabert_paddle", "export", finetuned, "--output_dir", bundle]
    words += ["--overwrite_output_dir"] if exists else []
    if exists:
        bundle.mkdir(parents=True)
        (bundle / ".dynabert").write_text("export\n")
        (bundle / "bundle.json").write_text("before")
    with subprocess.Popen(words, stderr=subprocess.PIPE, text=True) as process:
        while not list(tmp_path.rglob(".*.partial/tokenizer.json")):
            assert process.poll() is None, process.stderr.read()
            time.sleep(0.01)
        process.send_signal(number)
        process.communicate()
    assert process.returncode == (-number if number == signal.SIGKILL else 128 + number)
    if exists:
        assert (bundle / "bundle.json").read_text() == "before"
    if number != signal.SIGKILL:
        assert not half_written(tmp_path)
        assert exists or not list(tmp_path.iterdir())
    if not exists and number != signal.SIGKILL:  # nothing is left that a second export could meet
        return
    words += [] if exists else ["--overwrite_output_dir"]
    done = subprocess.run(words, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert not half_written(tmp_path)
    assert "before" not in (bundle / "bundle.json").read_text()
