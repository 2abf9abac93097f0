"""Progress of a long computation that is no training: evaluation, search, measurement of latencies."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn

from dynabert_paddle.runtime.ranks import is_rank_zero
from dynabert_paddle.training.logging import console, logger


@contextmanager
def show_progress(name: str, total: int, *, seconds: float = 0.0) -> Iterator[Callable[[int], None]]:
    """Show how much is done, of several processes in the first one alone: a bar on a terminal, lines elsewhere.

    Args:
        name: what is done.
        total: the final number.
        seconds: between two lines, at least; the last line is left out if it would be the only one.

    Yields:
        A function to call with the number so far.
    """
    if not is_rank_zero():
        yield lambda done: None
        return
    is_live = console.is_terminal or console.is_jupyter
    level = logging.DEBUG if is_live else logging.INFO  # where a bar shows them, lines are for a log file alone
    last, num_lines = time.monotonic(), 0

    def log(done: int) -> None:
        nonlocal last, num_lines
        if time.monotonic() - last >= seconds or (done == total and num_lines):
            last, num_lines = time.monotonic(), num_lines + 1
            logger.log(level, "%s %d/%d", name, done, total)

    if not is_live:
        yield log
        return
    columns = (TextColumn(name), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn(), TimeRemainingColumn())
    with Progress(*columns, console=console) as progress:
        task = progress.add_task(name, total=total)

        def show(done: int) -> None:
            progress.update(task, completed=done)
            log(done)

        yield show
