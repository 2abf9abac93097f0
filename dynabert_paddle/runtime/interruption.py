"""Ctrl-C, SIGTERM and SIGHUP, outside the training loop, which ends its step first."""

import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from signal import SIGINT

from dynabert_paddle.errors import Interrupted
from dynabert_paddle.runtime.streams import TERMINATING, Terminated


@contextmanager
def resumable(
    name: str, progress: Callable[[], str] = str, *, resume_point: Callable[[], str] = lambda: "there"
) -> Iterator[None]:
    """On a signal, raise an error that says how to resume; a context manager.

    Args:
        name: of the work.
        progress: returns how far the work is, such as ` after step 3`.
        resume_point: returns where a repetition of the command goes on; the empty string if nothing is saved.

    Yields:
        Nothing.

    Raises:
        Interrupted: in place of KeyboardInterrupt and Terminated.
    """
    try:
        yield
    except (KeyboardInterrupt, Terminated) as stop:
        number = stop.number if isinstance(stop, Terminated) else SIGINT
        point = resume_point()
        then = f"goes on from {point}" if point else "begins anew, since nothing was saved yet"
        message = f"{name}: stopped{progress()}; the same command {then}"
        raise Interrupted(message, exit_code=128 + number, is_saved=bool(point)) from None


@contextmanager
def postpone_signals() -> Iterator[None]:
    """Let a `with` block of milliseconds end before SIGINT, SIGTERM and SIGHUP are handled.

    Yields:
        Nothing.
    """
    if threading.current_thread() is not threading.main_thread():  # Python handles signals in the main thread alone
        yield
        return
    came: list[int] = []
    own = [number for number in (SIGINT, *TERMINATING) if callable(signal.getsignal(number))]
    previous = {number: signal.signal(number, lambda came_now, frame: came.append(came_now)) for number in own}
    try:
        yield
    finally:
        for number, handler in previous.items():
            signal.signal(number, handler)
        for late in came:
            signal.raise_signal(late)
