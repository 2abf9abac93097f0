"""Log lines of a command: on stderr, in a file, or left out; all is undone when the command ends."""

import logging
import re
import shutil
import subprocess
import sys

import pytest

from dynabert_paddle.training.logging import console, logger


@pytest.fixture
def state():
    """What a command changes in its process: the same before and after."""

    def read():
        return [*logger.handlers], logger.level, logger.propagate, console.quiet

    before = read()
    yield
    assert read() == before


WORDS = ("extract", "gone", "w0.50d0.50", "--output_dir", "out")


@pytest.mark.parametrize("place", ["before", "behind", "hyphens"])
def test_the_log_file_has_the_error_with_its_time(dynabert, tmp_path, monkeypatch, state, place):
    monkeypatch.chdir(tmp_path)
    option = ["--log-file=my.log"] if place == "hyphens" else ["--log_file", "my.log"]
    words = [*option, *WORDS] if place == "before" else [*WORDS, *option]
    done = dynabert(*words)
    assert done.code == 1
    for _ in range(2):  # lines are appended
        (line,) = (tmp_path / "my.log").read_text().splitlines()[-1:]
        assert re.fullmatch(r"\d{4}-\d\d-\d\d \d\d:\d\d:\d\d,\d{3} ERROR error: .*gone.*", line)
        assert line.endswith(done.err.rstrip("\n"))
        dynabert(*words)
    assert len((tmp_path / "my.log").read_text().splitlines()) == 3


def test_a_log_file_that_cannot_be_written(dynabert, tmp_path, state):
    done = dynabert("--log_file", tmp_path / "missing" / "x.log", "configs")
    assert (done.code, done.out, done.err.count("\n")) == (2, "", 1)
    assert "cannot be written: No such file or directory: name another file" in done.err


def test_a_full_disk_is_told_once_and_ends_nothing(dynabert, state):
    done = dynabert("--log_file", "/dev/full", "predict", "gone", "a.txt", "b.txt")
    assert done.err.count("--log_file /dev/full: cannot be written any more") == 1
    assert "error: gone" in done.err


def test_quiet_leaves_the_result_the_warnings_and_the_errors(dynabert, tmp_path, state):
    loud, quiet = (dynabert("predict", tmp_path, "text.tsv", *flags) for flags in ((), ("--quiet",)))
    assert quiet.err == loud.err  # a warning and an error
    assert dynabert("--quiet", "configs").out == dynabert("configs").out


def test_a_text_behind_two_dashes_is_no_option(dynabert, tmp_path, state):
    done = dynabert("predict", tmp_path, "--", "--quiet")
    assert "no bundle.json" in done.err


def complete(shell, line):
    """What the shell would offer for a line that is being typed."""
    words = line.split(" ")
    variables = {
        "bash": {"COMP_WORDS": line, "COMP_CWORD": str(len(words) - 1)},
        "zsh": {"_TYPER_COMPLETE_ARGS": line},
        "fish": {"_TYPER_COMPLETE_ARGS": line, "_TYPER_COMPLETE_FISH_ACTION": "get-args"},
    }[shell]
    command = "import sys; sys.argv[0] = 'dynabert'; from dynabert_paddle.cli.main import main; main()"
    environment = {**variables, "_DYNABERT_COMPLETE": f"complete_{shell}", "PATH": "/usr/bin:/bin"}
    done = subprocess.run([sys.executable, "-c", command], env=environment, capture_output=True, text=True, check=False)
    assert done.stderr == ""
    return done.stdout


@pytest.mark.parametrize(
    ("shell", "line", "offered"),
    [
        ("bash", "dynabert train_", "train_width\ntrain_depth\ntrain_final\n"),
        ("bash", "dynabert run glue/mn", "glue/mnli\nglue/mnli-mm\n"),
        ("bash", "dynabert finetune --learning_r", "--learning_rate\n"),
        ("bash", "dynabert finetune --amp b", "bf16\n"),
        ("zsh", "dynabert --sho", "--show_completion"),
        ("fish", "dynabert predict b --quot", "--quoting"),
    ],
)
@pytest.mark.full
def test_words_are_completed(shell, line, offered):
    assert offered in complete(shell, line)


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_the_script_that_completes_is_printed(dynabert, shell):
    done = dynabert("--show_completion", shell)
    assert (done.code, done.err) == (0, "")
    assert f"_DYNABERT_COMPLETE=complete_{shell}" in done.out
    if shutil.which(shell):
        subprocess.run([shell, "-n"], input=done.out, text=True, check=True)
    assert dynabert("--show_completion", "tcsh").code == 2


def test_steps_that_a_bar_shows_go_to_the_file_alone(tmp_path, monkeypatch, caplog):
    """On a terminal they would stand between the bar's lines."""
    from dynabert_paddle.training.logging import RunLog

    options = {"total_steps": 2, "first_step": 0, "hparams": {}, "metrics": []}
    for is_terminal, level in ((True, logging.DEBUG), (False, logging.INFO)):
        monkeypatch.setattr(console, "_force_terminal", is_terminal)
        monkeypatch.setattr(console, "quiet", True)
        caplog.clear()
        with caplog.at_level(logging.DEBUG, "dynabert_paddle"), RunLog(tmp_path, "width", **options) as log:
            log.train(1, {"loss": 1.0})
        assert [record.levelno for record in caplog.records if "loss" in record.message] == [level]
