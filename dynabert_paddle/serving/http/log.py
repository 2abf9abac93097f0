"""The server's log: JSON lines on stdout."""

from __future__ import annotations

import json
import logging
import os
import threading
import traceback
from datetime import datetime, timezone
from typing import Any


class JsonLog:
    """Writes events, one line each; a log that cannot be written stops no request.

    Args:
        descriptor: where to; a copy of it is kept, because loading a bundle silences stdout for a while.
    """

    def __init__(self, descriptor: int = 1) -> None:
        self._descriptor = os.dup(descriptor)
        self._lock = threading.Lock()

    def write(self, event: str, *, level: str = "info", **fields: Any) -> None:
        """Write an event.

        Args:
            event: a word.
            level: info, warning or error.
            fields: what is known of it; None is left out.
        """
        content = {
            "time": datetime.now(timezone.utc).isoformat(timespec="milliseconds"),
            "level": level,
            "event": event,
            "pid": os.getpid(),
            **{name: value for name, value in fields.items() if value is not None},
        }
        line = json.dumps(content, ensure_ascii=True).encode() + b"\n"
        with self._lock:
            try:
                while line:
                    line = line[os.write(self._descriptor, line) :]
            except OSError:  # no reader, or a full disk
                pass


class ToJsonLog(logging.Handler):
    """Sends the records of a logger to the log: the message alone, because values can be texts.

    Args:
        log: the log.
    """

    def __init__(self, log: JsonLog) -> None:
        super().__init__()
        self._log = log

    def emit(self, record: logging.LogRecord) -> None:
        """Write a record."""
        self._log.write("message", level=record.levelname.lower(), message=record.getMessage())


def describe_error(error: BaseException) -> dict[str, Any]:
    """Describe an error for the log.

    Args:
        error: of any class.

    Returns:
        Its class, its message, and the functions that it went through.
    """
    frames = traceback.extract_tb(error.__traceback__)
    where = [f"{frame.filename}:{frame.lineno} {frame.name}" for frame in frames]
    return {"error": type(error).__name__, "message": str(error)[:500], "where": where}
