"""Calls of libraries in C++ and Rust, and what must not happen while a thread is inside of one.

This file is a part of every bundle's `infer.py`.
"""

from __future__ import annotations

import atexit
import os
import threading

from dynabert_paddle.bundle.manifest import BundleError

_PATIENCE = 5.0  # seconds that the end of Python waits


class Gate:
    """Lets threads into such calls, but none while the process forks or Python ends; both wait for those inside.

    It is made once the libraries are imported: what is told to clean up last when Python ends does so first. Python
    kills a thread that comes back after its end, which aborts the process where C++ code is on its stack. And what
    another thread has locked stays locked in a forked process for ever.
    """

    def __init__(self) -> None:
        self._inside, self._closed, self._changed = 0, False, threading.Condition()
        self._for_good = False
        atexit.register(self._end)
        if hasattr(os, "register_at_fork"):
            os.register_at_fork(before=self._close, after_in_parent=self._open, after_in_child=self._open)

    def __enter__(self) -> None:
        with self._changed:
            if self._for_good and threading.current_thread() is threading.main_thread():  # Python would wait for itself
                raise BundleError("Python is about to exit: predict before that, not in an atexit handler")
            self._changed.wait_for(lambda: not self._closed)
            self._inside += 1

    def __exit__(self, *_: object) -> None:
        with self._changed:
            self._inside -= 1
            self._changed.notify_all()

    def _close(self, *, timeout: float | None = None) -> None:
        self._changed.acquire()  # until it is opened, so that a fork finds it in the hands of the thread that forks
        self._closed = True
        self._changed.wait_for(lambda: not self._inside, timeout=timeout)

    def _end(self) -> None:
        self._close(timeout=_PATIENCE)
        self._for_good = True

    def _open(self) -> None:
        self._closed = False
        self._changed.notify_all()
        self._changed.release()
