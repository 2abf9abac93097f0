"""Output folders: made, claimed by one run, and removed only where this package has made them."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from dynabert_paddle.errors import UsageError
from dynabert_paddle.files.atomic import writing
from dynabert_paddle.files.metadata import METADATA_FILE
from dynabert_paddle.runtime.ranks import is_rank_zero

try:
    import fcntl
except ImportError:  # Windows
    fcntl = None  # type: ignore[assignment]

# What a run keeps beside its stages' folders: its settings, the grid on the dev set, models of a fixed size to compare
# with, and its report as a page and for VisualDL.
CONFIG_FILE = "run.yaml"
GRID_FILE = "grid.json"
BASELINES_FOLDER = "baselines"
REPORT_FILE = "report.html"
RECORDS_FOLDER = "vdl_report"

# In every output folder that this package has made; no other is ever removed.
MARKER_FILE = ".dynabert"


def make_folder(folder: str | Path) -> Path:
    """Make an output folder, with its parents, and mark it as this package's own where it is new.

    Args:
        folder: the folder, which may exist.

    Returns:
        The folder.

    Raises:
        DynabertError: it cannot be made or written to.
    """
    folder = Path(folder)
    with writing(folder):
        folder.mkdir(parents=True, exist_ok=True)
        own = is_own(folder) or not any(folder.iterdir())
        # os.access answers wrongly for root and on network file systems: only writing tells.
        marker = folder / MARKER_FILE
        marker.touch()
        if not own:
            marker.unlink()
    return folder


@contextmanager
def claim(folder: Path) -> Iterator[None]:
    """Keep other runs from writing to an output folder meanwhile; the system forgets it when the process ends.

    Of several processes of one run the first one claims the folder.

    Args:
        folder: an existing folder.

    Yields:
        Nothing.

    Raises:
        UsageError: another run writes to it.
    """
    if not is_rank_zero():
        yield
        return
    handle = os.open(folder, os.O_RDONLY)
    try:
        if not lock(handle):
            raise UsageError(
                f"{folder} is in use by another run: wait until it has ended, or name another --output_dir"
            )
        yield
    finally:
        os.close(handle)


def lock(handle: int) -> bool:
    """Lock an open file or folder until it is closed.

    Args:
        handle: its descriptor.

    Returns:
        False where another process has locked it.
    """
    if fcntl:
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            return False
        except OSError:  # a file system that knows no locks
            pass
    return True


def remove_unused(folder: Path, *settings: str) -> None:
    """Remove an output folder in which nothing was made.

    Args:
        folder: a folder that `make_folder` has made.
        settings: names of files that are nothing without results.
    """
    if is_own(folder) and {path.name for path in folder.iterdir()} <= {MARKER_FILE, *settings}:
        shutil.rmtree(folder, ignore_errors=True)


def is_own(folder: Path) -> bool:
    """Whether this package has made a folder.

    Args:
        folder: an existing folder.

    Returns:
        True where it has, so that it may be removed when the user asks for that.
    """
    return (folder / METADATA_FILE).is_file() or (folder / MARKER_FILE).is_file()


def check_replaceable(folder: str | Path, *, overwrite: bool) -> None:
    """Refuse a folder that is in the way, without touching it.

    Args:
        folder: the output folder.
        overwrite: what is there may be removed.

    Raises:
        UsageError: it exists and is not empty, and `overwrite` is false or this package did not make it.
    """
    folder = Path(folder)
    if folder.is_dir() and any(folder.iterdir()):
        if not overwrite:
            raise UsageError(
                f"{folder} exists: pass --overwrite_output_dir to replace it, or name another --output_dir"
            )
        if folder.resolve() in (Path.cwd(), *Path.cwd().parents):
            raise UsageError(f"{folder} holds the working folder, and is not removed: name another --output_dir")
        if folder.is_symlink() or not is_own(folder):
            raise UsageError(f"{folder} was not made by dynabert, and is not removed: name another --output_dir")
    elif folder.exists() and not folder.is_dir():
        raise UsageError(f"{folder} is a file: name another --output_dir")


def check_absent(folder: str | Path, *, overwrite: bool) -> Path:
    """Refuse a folder that is in the way, or clear it away where that was asked for.

    Args:
        folder: the output folder.
        overwrite: remove what is there.

    Returns:
        The folder, which holds nothing now.

    Raises:
        UsageError: it exists and is not empty, and `overwrite` is false, this package did not make it, or another run
            writes to it.
    """
    folder = Path(folder)
    check_replaceable(folder, overwrite=overwrite)
    if folder.is_dir() and any(folder.iterdir()):
        with claim(folder):
            remove_folder(folder)
    return folder


def remove_folder(folder: Path) -> None:
    """Remove an output folder, its marker last: what a process that is killed leaves of it is still this package's.

    Args:
        folder: a folder that this package has made.

    Raises:
        DynabertError: it cannot be removed.
    """
    with writing(folder):
        (folder / MARKER_FILE).touch()
        clear_folder(folder)
        shutil.rmtree(folder)


def clear_folder(folder: Path) -> None:
    """Remove what an output folder holds, and keep the folder, which its run has claimed.

    Args:
        folder: a folder that `make_folder` has made.

    Raises:
        DynabertError: it cannot be removed.
    """
    with writing(folder):
        for path in folder.iterdir():
            if path.is_dir() and not path.is_symlink():
                shutil.rmtree(path)
            elif path.name != MARKER_FILE:
                path.unlink()
