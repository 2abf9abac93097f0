"""The user's home folder, which may be missing (a container's user without one) or not writable."""

from __future__ import annotations

import atexit
import logging
import os
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache
from pathlib import Path

from dynabert_paddle.errors import UsageError

logger = logging.getLogger(__name__)

# What the libraries make in the home folder when they are imported.
PADDLENLP_FOLDERS = (".paddlenlp/models", ".paddlenlp/datasets", ".paddlenlp/packages")
VISUALDL_FOLDERS = (".visualdl/conf", ".visualdl/fastdeployserver", ".visualdl/x2paddle")


def user_path(path: str | os.PathLike) -> Path:
    """Replace `~` in a user's path by the home folder, and `~name` by that of another user, if there is one.

    Args:
        path: the path.

    Returns:
        The path.

    Raises:
        UsageError: there is no home folder.
    """
    try:
        return Path(path).expanduser()
    except RuntimeError:
        if Path(path).parts[0] != "~":  # a file's own name, such as `~draft.tsv`
            return Path(path)
        raise UsageError(f"{path}: this user has no home folder: write the whole path, or set HOME") from None


def cache_home() -> Path | None:
    """Return the folder of users' caches; None for a user without a home folder."""
    try:
        return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
    except RuntimeError:
        return None


@contextmanager
def writable_home(*folders: str) -> Iterator[None]:
    """Let libraries whose import writes to the home folder use a temporary one where that is impossible.

    Args:
        folders: the folders that they make there.

    Yields:
        Nothing.
    """
    home = os.path.expanduser("~")
    try:
        if not os.path.isabs(home):  # no HOME, and no entry in the list of users
            raise OSError
        for folder in folders:
            os.makedirs(os.path.join(home, folder), exist_ok=True)
    except OSError:
        before = os.environ.get("HOME")
        os.environ["HOME"] = _temporary_home(home)
        try:
            yield
        finally:
            del os.environ["HOME"]
            if before is not None:
                os.environ["HOME"] = before
        return
    yield


@cache
def _temporary_home(home: str) -> str:
    folder = tempfile.mkdtemp(prefix="dynabert-home-")
    atexit.register(shutil.rmtree, folder, ignore_errors=True)
    logger.warning("the home folder (%s) cannot be written: PaddleNLP and VisualDL use %s until the end", home, folder)
    return folder
