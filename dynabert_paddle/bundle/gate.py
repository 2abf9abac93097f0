"""Keeps the process from forking or exiting while a thread runs C++ or Rust code.

This file is part of every bundle's `infer.py`.
"""

from __future__ import annotations

import atexit
import os
import threading

from dynabert_paddle.bundle.manifest import BundleError

_EXIT_TIMEOUT = 5.0  # seconds that Python's exit waits for running calls


class Gate:
    """Context manager around native calls: a fork or Python's exit waits for running calls and blocks new ones.

    At exit Python kills a thread that returns from native code, which aborts the process if C++ frames are on its
    stack. And in a forked process the locks of the parent's other threads stay locked for ever. Create the gate after
    importing the libraries: exit handlers run in reverse order, so its own then runs before theirs.
    """

    def __init__(self) -> None:
        self._num_inside, self._is_closed, self._changed = 0, False, threading.Condition()
        self._is_exiting = False
        atexit.register(self._end)
        if hasattr(os, "register_at_fork"):
            os.register_at_fork(before=self._close, after_in_parent=self._open, after_in_child=self._open)

    def __enter__(self) -> None:
        with self._changed:
            if self._is_exiting and threading.current_thread() is threading.main_thread():  # it would wait for itself
                raise BundleError("Python is about to exit: predict before that, not in an atexit handler")
            self._changed.wait_for(lambda: not self._is_closed)
            self._num_inside += 1

    def __exit__(self, *_: object) -> None:
        with self._changed:
            self._num_inside -= 1
            self._changed.notify_all()

    def _close(self, *, timeout: float | None = None) -> None:
        self._changed.acquire()  # released in _open: the forking thread holds the lock during the fork
        self._is_closed = True
        self._changed.wait_for(lambda: not self._num_inside, timeout=timeout)

    def _end(self) -> None:
        self._close(timeout=_EXIT_TIMEOUT)
        self._is_exiting = True

    def _open(self) -> None:
        self._is_closed = False
        self._changed.notify_all()
        self._changed.release()
