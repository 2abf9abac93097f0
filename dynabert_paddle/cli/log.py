"""Where a command's log lines go: stderr, above the progress bar if there is one, and the file of `--log_file`."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from rich.logging import RichHandler

from dynabert_paddle.cli.output import one_line
from dynabert_paddle.errors import UsageError
from dynabert_paddle.runtime.ranks import is_rank_zero
from dynabert_paddle.runtime.streams import print_message
from dynabert_paddle.training.logging import console, logger


class CommandLog:
    """The log of the running command.

    Args:
        handler: writes log lines to stderr.
    """

    def __init__(self, handler: logging.Handler) -> None:
        self._handler = handler
        self._file: logging.Handler | None = None

    def be_quiet(self) -> None:
        """Leave out of stderr all but warnings and errors: log lines, progress bars, and the next command."""
        logger.removeHandler(self._handler)
        self._handler = _with_lines(logging.StreamHandler())  # Rich's writes to the console
        self._handler.setLevel(logging.WARNING)
        logger.addHandler(self._handler)
        console.quiet = True

    def copy_to(self, path: Path) -> None:
        """Append all log lines to a file, those that a progress bar stands for on a terminal, too.

        Args:
            path: the file, or one to make.

        Raises:
            UsageError: it cannot be written.
        """
        if not is_rank_zero():
            return
        try:
            self._file = _with_lines(_LogFile(path, encoding="utf-8"), "%(asctime)s %(levelname)s %(message)s")
        except OSError as error:
            raise UsageError(f"--log_file {path}: cannot be written: {error.strerror}: name another file") from None
        self._handler.setLevel(max(self._handler.level, logging.INFO))
        logger.addHandler(self._file)
        logger.setLevel(logging.DEBUG)

    def report(self, message: str) -> None:
        """Print the message that ends a command, in any case, and append it to the file."""
        print_message(one_line(message))
        if self._file is not None and self._file.level <= logging.ERROR:
            self._file.handle(logger.makeRecord(logger.name, logging.ERROR, "", 0, "%s", (message,), None))

    def close(self) -> None:
        """Close the file."""
        logger.removeHandler(self._handler)
        if self._file is not None:
            logger.removeHandler(self._file)
            with suppress(OSError):  # of a disk that is full, as was said
                self._file.close()


class _LogFile(logging.FileHandler):
    """A log file; where it cannot be written any more, that is said once, and the command goes on."""

    def handleError(self, record: logging.LogRecord) -> None:
        self.setLevel(logging.CRITICAL + 1)
        print_message(f"--log_file {self.baseFilename}: cannot be written any more")


class _OneLine(logging.Formatter):
    """Formats a record in one line: a message may quote a file."""

    def format(self, record: logging.LogRecord) -> str:
        return one_line(super().format(record))


def _with_lines(handler: logging.Handler, form: str | None = None) -> logging.Handler:
    handler.setFormatter(_OneLine(form))
    return handler


@contextmanager
def log_to_stderr() -> Iterator[CommandLog]:
    """Send the package's log lines to stderr within a `with` block; all is undone, since a program may call `main`.

    Yields:
        The command's log.
    """
    # Rich keeps the progress bar below the log lines; in a file it would wrap them.
    handler = (
        RichHandler(console=console, show_time=False, show_level=False, show_path=False)
        if console.is_terminal
        else logging.StreamHandler()
    )
    level, propagate, is_quiet = logger.level, logger.propagate, console.quiet
    log = CommandLog(_with_lines(handler))
    logger.addHandler(handler)
    logger.setLevel(logging.INFO if is_rank_zero() else logging.ERROR)
    logger.propagate = False
    try:
        yield log
    finally:
        log.close()
        logger.setLevel(level)
        logger.propagate = propagate
        console.quiet = is_quiet
