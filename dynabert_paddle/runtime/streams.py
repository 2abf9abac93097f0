"""What surrounds a command: standard streams that may be closed or full, and signals that ask the process to end.

This file is part of every bundle's `infer.py` and `infer_lite.py`, so it stays Python 3.7 syntax.
"""

from __future__ import annotations

import contextlib
import errno
import io
import os
import signal
import sys
import threading
from collections.abc import Callable, Iterator

# Beside SIGINT, for which Python raises KeyboardInterrupt. Windows has no SIGHUP.
TERMINATING = tuple(getattr(signal, name) for name in ("SIGTERM", "SIGHUP") if hasattr(signal, name))
# Of a write that fails: no reader, no room, no device, or not open.
_WRITE_ERRORS = (errno.EPIPE, errno.ENOSPC, errno.EFBIG, errno.EIO, errno.EBADF, getattr(errno, "EDQUOT", errno.ENOSPC))
_QUIET_LOCK = threading.RLock()  # file descriptors are shared by all threads


class Terminated(BaseException):
    """SIGTERM or SIGHUP asked a command to end: raised as Python raises KeyboardInterrupt on Ctrl-C."""

    def __init__(self, number: int = signal.SIGTERM) -> None:
        super().__init__(number)
        self.number = number


def run_process(command: Callable[[], int]) -> int:
    """Run a command with open standard streams and handlers of signals; all is undone but the opened descriptors.

    Args:
        command: returns the exit code.

    Returns:
        The exit code: 1 if stdout cannot be written, 128 + N after signal N.
    """
    with _open_streams(), _terminations():
        try:
            code = command()
            sys.stdout.flush()
            return code
        except (KeyboardInterrupt, Terminated) as stop:
            print_message("stopped")
            return 128 + getattr(stop, "number", signal.SIGINT)
        except BrokenPipeError:  # the reader has closed the pipe, as `| head` does
            return 1
        except OSError as error:
            print_message(f"error: {error.filename or 'stdout'}: {error.strerror or error}")
            return 1
        finally:
            for stream in (sys.stdout, sys.stderr):
                try:
                    stream.flush()
                except (OSError, ValueError):
                    _discard(stream)


def print_message(line: str) -> None:
    """Print a line on stderr, unless that is closed or full: a message that nobody can read is no failure."""
    try:
        print(line, file=sys.stderr, flush=True)
    except (OSError, ValueError):
        _discard(sys.stderr)


def is_of_stdout(error: Exception) -> bool:
    """Whether an error is that of a failed write to stdout, which names no file."""
    if not isinstance(error, OSError) or error.filename is not None:
        return False
    try:
        sys.stdout.flush()
    except OSError:
        return True
    # With PYTHONUNBUFFERED nothing is left to flush, and only the kind of error tells.
    return getattr(sys.stdout, "write_through", False) and error.errno in _WRITE_ERRORS


def is_ignored(number: int) -> bool:
    """Whether a signal is ignored, as nohup and background jobs have it, or handled by code that is not Python's."""
    return signal.getsignal(number) in (signal.SIG_IGN, None)


@contextlib.contextmanager
def keep_signal_handlers() -> Iterator[None]:
    """Keep the handlers of signals that end a process, while a library is imported that sets its own.

    Paddle takes SIGTERM for a crash and prints a trace, and Ctrl-C for a failure of its import. A signal that comes
    inside the block is delivered after it.

    Yields:
        Nothing.
    """
    if threading.current_thread() is not threading.main_thread() or not hasattr(signal, "pthread_sigmask"):
        yield
        return
    numbers = (*TERMINATING, signal.SIGINT)
    handlers = {number: signal.getsignal(number) for number in numbers}
    mask = signal.pthread_sigmask(signal.SIG_BLOCK, numbers)
    try:
        yield
    finally:
        for number, handler in handlers.items():
            if handler is not None:
                signal.signal(number, handler)
        signal.pthread_sigmask(signal.SIG_SETMASK, mask)


@contextlib.contextmanager
def _open_streams() -> Iterator[None]:
    """Open the standard streams that are closed, so that no file of the program gets their descriptors.

    Reading stdin and writing stdout fail then, as they would have; what goes to stderr is lost.
    """
    missing = []
    for descriptor, name in enumerate(("stdin", "stdout", "stderr")):
        is_closed = not _is_open(descriptor)
        if is_closed or getattr(sys, name) is None:
            # The wrong mode, so that reading stdin and writing stdout fail.
            null = os.open(os.devnull, os.O_RDONLY if name == "stdout" else os.O_WRONLY)
            if is_closed:  # then it got the lowest free number
                os.set_inheritable(null, True)
        if getattr(sys, name) is None:
            missing.append(name)
            mode = "r" if name == "stdin" else "w"
            stream = open(null, mode, encoding="utf-8", errors="backslashreplace", closefd=False)  # noqa: SIM115
            setattr(sys, name, stream)
    try:
        yield
    finally:
        for name in missing:
            setattr(sys, name, None)


def _is_open(descriptor: int) -> bool:
    try:
        os.fstat(descriptor)
    except OSError:
        return False
    return True


@contextlib.contextmanager
def _terminations() -> Iterator[None]:
    """Raise `Terminated` on SIGTERM and SIGHUP, unless they are ignored or this is not the main thread."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return

    def terminate(number: int, frame: object) -> None:
        raise Terminated(number)

    numbers = [number for number in TERMINATING if not is_ignored(number)]
    before = {number: signal.signal(number, terminate) for number in numbers}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def _discard(stream: object) -> None:
    """Discard the buffer of a stream that cannot be written: Python would fail to flush it again at exit."""
    with contextlib.suppress(OSError, ValueError, AttributeError, io.UnsupportedOperation):
        null = os.open(os.devnull, os.O_WRONLY)
        try:
            os.dup2(null, stream.fileno())  # type: ignore[attr-defined]
        finally:
            os.close(null)
        stream.flush()  # type: ignore[attr-defined]


@contextlib.contextmanager
def quiet() -> Iterator[None]:
    """Suppress the output of C++ code, which bypasses sys.stdout, by redirecting file descriptors 1 and 2."""
    with _QUIET_LOCK:
        saved: dict[int, int | None] = {}
        with open(os.devnull, "wb") as file:
            null = _copy_descriptor(file.fileno())
        assert null is not None
        try:
            for descriptor, stream in ((1, sys.stdout), (2, sys.stderr)):
                with contextlib.suppress(AttributeError, ValueError, OSError):  # None, as in a daemon, closed, or full
                    stream.flush()
                saved[descriptor] = _copy_descriptor(descriptor)
                os.dup2(null, descriptor)
            yield
        finally:
            for descriptor, copy in saved.items():
                if copy is None:
                    os.close(descriptor)
                else:
                    os.dup2(copy, descriptor)
                    os.close(copy)
            os.close(null)


def _copy_descriptor(descriptor: int) -> int | None:
    """Duplicate a file descriptor to a number above those of the standard streams; None if it is closed."""
    copies: list[int] = []
    try:
        while not copies or copies[-1] <= 2:
            copies.append(os.dup(descriptor))
    except OSError:
        return None
    finally:
        for copy in copies[:-1]:
            os.close(copy)
    return copies[-1]
