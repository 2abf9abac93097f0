"""Progress of a search."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager

from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn

from dynabert_paddle.training.logging import console, logger


@contextmanager
def show_progress(total: int) -> Iterator[Callable[[int], None]]:
    """Show how many sub-networks are scored: a bar on a terminal, lines elsewhere.

    Args:
        total: the final number.

    Yields:
        A function to call with the number so far.
    """
    if not (console.is_terminal or console.is_jupyter):
        yield lambda done: logger.info("search %d/%d", done, total)
        return
    columns = (TextColumn("search"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn(), TimeRemainingColumn())
    with Progress(*columns, console=console) as progress:
        task = progress.add_task("search", total=total)
        yield lambda done: progress.update(task, completed=done)
