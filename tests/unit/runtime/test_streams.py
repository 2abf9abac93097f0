"""Standard streams that are closed or full, and signals: one line, the right exit code, nothing lost."""

import errno
import io
import os
import signal
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor

import pytest

from dynabert_paddle.runtime import streams

pytestmark = pytest.mark.reference

COMMAND = """
import os, sys
from dynabert_paddle.runtime.streams import quiet
from dynabert_paddle.runtime.streams import print_message, run_process

def command():
    with quiet():
        os.write(1, b"noise")
        os.write(2, b"noise")
        opened = os.open(os.devnull, os.O_RDONLY)
    print("answer")
    print_message("message")
    assert opened > 2
    return 0

sys.exit(run_process(command))
"""


def shell(redirections, code=COMMAND, **variables):
    """Run a program in a shell with redirections; returns the exit code, and what reached the two streams."""
    words = ["bash", "-c", f'"$0" -c "$1" {redirections}', sys.executable, code]
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONUNBUFFERED"} | variables
    done = subprocess.run(words, capture_output=True, text=True, check=False, env=environment)
    return done.returncode, done.stdout, done.stderr


@pytest.mark.parametrize(
    ("redirections", "expected"),
    [
        ("", (0, "answer\n", "message\n")),
        ("<&-", (0, "answer\n", "message\n")),
        ("2>&-", (0, "answer\n", "")),
        ("<&- 2>&-", (0, "answer\n", "")),
        ("2>/dev/full", (0, "answer\n", "")),
        (">&-", (1, "", "message\nerror: stdout: Bad file descriptor\n")),
        ("<&- >&-", (1, "", "message\nerror: stdout: Bad file descriptor\n")),
        (">/dev/full", (1, "", "message\nerror: stdout: No space left on device\n")),
        (">&- 2>&-", (1, "", "")),
        ("<&- >&- 2>&-", (1, "", "")),
        ("| true; exit ${PIPESTATUS[0]}", (1, "", "message\n")),
    ],
)
def test_streams_that_are_closed_or_full(redirections, expected):
    assert shell(redirections) == expected


@pytest.mark.parametrize("redirections", ["2>&-", "<&- 2>&-"])
def test_a_program_that_calls_the_package_keeps_its_output(redirections):
    """The descriptor that quiet() saves must not get the number of a closed stream."""
    code = "from dynabert_paddle.runtime.streams import quiet\nwith quiet(): pass\nprint('kept')"
    assert shell(redirections, code) == (0, "kept\n", "")


def test_a_file_that_has_the_number_of_a_closed_stream_is_left_alone(tmp_path):
    """A daemon closes its streams, and the next file that it opens is number 2."""
    code = (
        "import os, sys\nfrom dynabert_paddle.runtime.streams import quiet\n"
        "from dynabert_paddle.runtime.streams import print_message, run_process\n"
        "file = open(sys.argv[1], 'w')\nassert file.fileno() == 2\n"
        "with quiet():\n    os.write(2, b'noise')\n"
        "assert run_process(lambda: print_message('message') or 0) == 0\nassert sys.stderr is None\nfile.write('kept')"
    )
    done = shell(f"{tmp_path / 'file'} 2>&-", code)
    assert done == (0, "", "")
    assert (tmp_path / "file").read_text() == "kept"


@pytest.mark.parametrize("unbuffered", ["", "1"])
@pytest.mark.parametrize(
    ("words", "redirections", "expected"),
    [
        (["configs", "quickstart"], ">&-", (1, "error: stdout: Bad file descriptor\n")),
        (["configs", "quickstart"], ">/dev/full", (1, "error: stdout: No space left on device\n")),
        (["configs", "quickstart"], "2>&- >/dev/null", (0, "")),
        (["configs", "misspelt"], "2>&-", (2, "")),
        (["--help"], ">&-", (1, "error: stdout: Bad file descriptor\n")),
        (["run", "missing.yaml"], ">&- 2>/dev/full", (2, "")),
    ],
)
def test_commands(words, redirections, expected, unbuffered):
    code = f"import sys; sys.argv[1:] = {words}\nfrom dynabert_paddle.cli.main import main\nmain()"
    code, out, err = shell(redirections, code, PYTHONUNBUFFERED=unbuffered)
    assert (code, err) == expected
    assert not out


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_a_signal_ends_a_command_with_the_exit_code_of_shells(capsys, number):
    handlers = [signal.getsignal(n) for n in streams.TERMINATING]
    undone = []

    def command():
        try:
            signal.raise_signal(number)
        finally:
            undone.append(True)

    assert streams.run_process(command) == 128 + number
    assert undone
    assert capsys.readouterr() == ("", "stopped\n")
    assert [signal.getsignal(n) for n in streams.TERMINATING] == handlers


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGHUP])
def test_a_signal_that_was_ignored_at_the_start_stays_ignored(number):
    before = signal.signal(number, signal.SIG_IGN)
    try:
        assert streams.run_process(lambda: signal.raise_signal(number) or 0) == 0
    finally:
        signal.signal(number, before)


def test_a_library_that_is_imported_sets_no_handler():
    """And a signal that comes meanwhile reaches the handler of before."""
    heard = []
    before = signal.signal(signal.SIGTERM, lambda *_: heard.append(True))
    try:
        with streams.keep_signal_handlers():
            signal.signal(signal.SIGTERM, signal.SIG_DFL)
            signal.raise_signal(signal.SIGTERM)
        assert heard == [True]
    finally:
        signal.signal(signal.SIGTERM, before)


def test_a_command_may_run_in_a_thread():
    """Python handles signals in the main thread alone, and sets no handler elsewhere."""
    with ThreadPoolExecutor(1) as threads:
        assert threads.submit(streams.run_process, lambda: 0).result() == 0


@pytest.mark.parametrize("unbuffered", [True, False])
@pytest.mark.parametrize(("number", "expected"), [(errno.ENOSPC, True), (errno.ECONNREFUSED, False)])
def test_an_error_without_a_file_is_blamed_on_stdout_only_if_it_is_of_a_write(
    monkeypatch, unbuffered, number, expected
):
    """With PYTHONUNBUFFERED, a refused connection was reported as one of stdout."""
    monkeypatch.setattr(sys, "stdout", io.TextIOWrapper(io.BytesIO(), write_through=unbuffered))
    assert streams.is_of_stdout(OSError(number, os.strerror(number))) == (expected and unbuffered)
    assert not streams.is_of_stdout(OSError(number, os.strerror(number), "file"))
