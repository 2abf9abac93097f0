"""What a run logs: lines of JSON, VisualDL's scalars, and progress that keeps off stdout."""

import json
import subprocess
import sys

import pytest
from visualdl import LogReader

from dynabert_paddle.training.logging import RunLog


def open_log(folder, *, first_step=0):
    return RunLog(
        folder, "width", total_steps=10, first_step=first_step, hparams={"seed": 3, "amp": "off"}, metrics=["eval/a/x"]
    )


def read_lines(folder):
    return [json.loads(line) for line in (folder / "train.jsonl").read_text(encoding="utf-8").splitlines()]


def read_scalars(folder):
    """VisualDL's scalars as (tag, step) -> value, of all its files; a tag's slashes are stored as percent signs."""
    scalars = {}
    for path in sorted((folder / "vdl").iterdir()):
        reader = LogReader(file_path=str(path))
        for tag in reader.tags():
            if reader.tags()[tag] == "scalar":
                short = tag.rpartition("/")[2].replace("%", "/")
                for point in reader.get_data("scalar", short):
                    scalars[short, point.id] = point.value
    return scalars


def test_lines_and_visualdl_hold_the_same_scalars(tmp_path):
    with open_log(tmp_path) as log:
        log.train(5, {"loss": 1.25, "logit": 1.0, "learning_rate": 2e-5})
        log.evaluation(5, {"w1.00d1.00": {"accuracy": 0.5, "macro_f1": 0.25}, "w0.50d1.00": {"accuracy": 0.75}}, "dev")
        log.train(10, {"loss": 0.5, "logit": 0.25, "learning_rate": 0.0})
    lines = read_lines(tmp_path)
    assert lines == [
        {"step": 5, "train/loss": 1.25, "train/logit": 1.0, "train/learning_rate": 2e-5},
        {
            "step": 5,
            "eval/accuracy/w1.00d1.00": 0.5,
            "eval/macro_f1/w1.00d1.00": 0.25,
            "eval/accuracy/w0.50d1.00": 0.75,
        },
        {"step": 10, "train/loss": 0.5, "train/logit": 0.25, "train/learning_rate": 0.0},
    ]
    expected = {(tag, line["step"]): value for line in lines for tag, value in line.items() if tag != "step"}
    assert read_scalars(tmp_path) == pytest.approx(expected)


def test_a_resumed_run_drops_log_lines_after_its_checkpoint(tmp_path):
    with open_log(tmp_path) as log:
        for step in (1, 2, 3, 4):
            log.train(step, {"loss": float(step)})
    with open_log(tmp_path, first_step=2) as log:
        log.train(3, {"loss": 30.0})
    assert [(line["step"], line["train/loss"]) for line in read_lines(tmp_path)] == [(1, 1.0), (2, 2.0), (3, 30.0)]


@pytest.mark.parametrize("tail", ['{"step": 2, "train/lo', '{"step": 2}', "\x00\x00\x00\x00"])
def test_a_last_line_that_a_killed_process_left_is_dropped(tmp_path, tail):
    """A line without its end is not whole; after a power cut a file may end in zeros."""
    (tmp_path / "train.jsonl").write_text('{"step": 1, "train/loss": 1.0}\n' + tail, encoding="utf-8")
    with open_log(tmp_path, first_step=5) as log:
        log.train(6, {"loss": 6.0})
    assert [line["step"] for line in read_lines(tmp_path)] == [1, 6]


def test_progress_goes_to_stderr_only(tmp_path, capfd, caplog):
    with caplog.at_level("INFO", logger="dynabert_paddle"), open_log(tmp_path) as log:
        log.advance()
        log.train(1, {"loss": 0.5})
        log.evaluation(1, {"x": {"accuracy": 0.5}, "y": {"accuracy": 0.25}}, "holdout")
    assert capfd.readouterr().out == ""
    messages = [record.getMessage() for record in caplog.records]
    assert messages == ["width 1/10 loss 0.5000", "width 1/10 accuracy on holdout: mean 0.3750, lowest 0.2500"]


IN_A_NOTEBOOK = """
import builtins, sys

class ZMQInteractiveShell:
    pass

builtins.get_ipython = ZMQInteractiveShell
sys.modules["ipywidgets"] = None
from pathlib import Path
from dynabert_paddle.training.logging import RunLog, console
assert console.is_jupyter
with RunLog(Path(sys.argv[1]), "width", total_steps=1, first_step=0, hparams={}, metrics=[]) as log:
    log.advance()
"""


def test_a_notebook_without_widgets_gets_no_warning(tmp_path):
    command = [sys.executable, "-c", IN_A_NOTEBOOK, tmp_path]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert "ipywidgets" not in done.stderr


@pytest.mark.parametrize("line", [b"[1, 2]", b'{"stop": 1}', b'{"step": "x"}', b"\xff\xfe", b"[" * 100_000])
def test_a_line_that_was_damaged_is_dropped(tmp_path, line):
    content = b'{"step": 1, "train/loss": 1.0}\n' + line + b'\n{"step": 2, "train/loss": 2.0}\n'
    (tmp_path / "train.jsonl").write_bytes(content)
    with open_log(tmp_path, first_step=5) as log:
        log.train(6, {"loss": 6.0})
    assert [line["step"] for line in read_lines(tmp_path)] == [1, 2, 6]
