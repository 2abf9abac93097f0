"""Output folders: created, locked by one run, and removed only if this package created them."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from dynabert_paddle.errors import UsageError
from dynabert_paddle.files.atomic import handle_write_errors
from dynabert_paddle.files.metadata import METADATA_FILE
from dynabert_paddle.runtime.ranks import is_rank_zero

try:
    import fcntl
except ImportError:  # Windows
    fcntl = None  # type: ignore[assignment]

# Beside the folders of a run's stages: its settings, the grid's scores on the dev set, fixed-size models to compare
# with, and its report as HTML and for VisualDL.
CONFIG_FILE = "run.yaml"
GRID_FILE = "grid.json"
BASELINES_FOLDER = "baselines"
REPORT_FILE = "report.html"
RECORDS_FOLDER = "vdl_report"

# Marks an output folder that this package created; no other folder is ever removed.
MARKER_FILE = ".dynabert"


def make_folder(folder: str | Path) -> Path:
    """Create an output folder with its parents, and mark it as this package's if it is new or empty.

    Args:
        folder: the folder, which may exist.

    Returns:
        The folder.

    Raises:
        DynabertError: it cannot be created or written to.
    """
    folder = Path(folder)
    with handle_write_errors(folder):
        folder.mkdir(parents=True, exist_ok=True)
        is_ours = is_output_folder(folder) or not any(folder.iterdir())
        # os.access is wrong for root and on network file systems: only a write shows whether writing is possible.
        marker = folder / MARKER_FILE
        marker.touch()
        if not is_ours:
            marker.unlink()
    return folder


@contextmanager
def claim(folder: Path) -> Iterator[None]:
    """Lock an output folder against other runs for the length of a `with` block, or until the process ends.

    In a run of several processes only rank zero holds the lock.

    Args:
        folder: an existing folder.

    Yields:
        Nothing.

    Raises:
        UsageError: another run has locked it.
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
        False if another process has locked it.
    """
    if fcntl:
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            return False
        except OSError:  # the file system does not support locks
            pass
    return True


def remove_unused(folder: Path, *settings: str) -> None:
    """Remove an output folder that holds no results.

    Args:
        folder: an existing folder.
        settings: names of files that do not count as results.
    """
    if is_output_folder(folder) and {path.name for path in folder.iterdir()} <= {MARKER_FILE, *settings}:
        shutil.rmtree(folder, ignore_errors=True)


def is_output_folder(folder: Path) -> bool:
    """Whether this package created a folder, so that it may be removed when the user asks for it."""
    return (folder / METADATA_FILE).is_file() or (folder / MARKER_FILE).is_file()


def check_replaceable(folder: str | Path, *, overwrite: bool) -> None:
    """Check that an output folder is free or may be replaced, without touching it.

    Args:
        folder: the output folder.
        overwrite: an existing folder may be replaced.

    Raises:
        UsageError: it is not empty, and `overwrite` is false or this package did not create it; or it is a file.
    """
    folder = Path(folder)
    if folder.is_dir() and any(folder.iterdir()):
        if not overwrite:
            raise UsageError(
                f"{folder} exists: pass --overwrite_output_dir to replace it, or name another --output_dir"
            )
        if folder.resolve() in (Path.cwd(), *Path.cwd().parents):
            raise UsageError(f"{folder} contains the current directory, and is not removed: name another --output_dir")
        if folder.is_symlink() or not is_output_folder(folder):
            raise UsageError(f"{folder} was not created by dynabert, and is not removed: name another --output_dir")
    elif folder.exists() and not folder.is_dir():
        raise UsageError(f"{folder} is a file: name another --output_dir")


def ensure_absent(folder: str | Path, *, overwrite: bool) -> Path:
    """Check that an output folder is free, or remove it if `overwrite` allows that.

    Args:
        folder: the output folder.
        overwrite: remove an existing folder.

    Returns:
        The folder, which is now absent or empty.

    Raises:
        UsageError: it is not empty, and `overwrite` is false, this package did not create it, or another run has locked
            it; or it is a file.
    """
    folder = Path(folder)
    check_replaceable(folder, overwrite=overwrite)
    if folder.is_dir() and any(folder.iterdir()):
        with claim(folder):
            remove_folder(folder)
    return folder


def remove_folder(folder: Path) -> None:
    """Remove an output folder, its marker last, so that it can still be removed if this process is killed midway.

    Args:
        folder: a folder that this package created.

    Raises:
        DynabertError: it cannot be removed.
    """
    with handle_write_errors(folder):
        (folder / MARKER_FILE).touch()
        clear_folder(folder)
        shutil.rmtree(folder)


def clear_folder(folder: Path) -> None:
    """Remove an output folder's content, but keep the folder and its marker, because the run holds its lock.

    Args:
        folder: a folder that `make_folder` created.

    Raises:
        DynabertError: it cannot be removed.
    """
    with handle_write_errors(folder):
        for path in folder.iterdir():
            if path.is_dir() and not path.is_symlink():
                shutil.rmtree(path)
            elif path.name != MARKER_FILE:
                path.unlink()
