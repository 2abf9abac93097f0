"""The files of a task: which file of a folder is meant, and its default columns."""

import os
from collections.abc import Sequence
from pathlib import Path

from dynabert_paddle.config.names import setting
from dynabert_paddle.data.data_file import AnyFile
from dynabert_paddle.data.declaration import Declaration
from dynabert_paddle.data.fetch import fetch
from dynabert_paddle.data.kinds import KINDS
from dynabert_paddle.data.readers import read_column_names
from dynabert_paddle.data.records import DATA_FILE_ENDINGS
from dynabert_paddle.errors import DataError, UsageError
from dynabert_paddle.runtime.home import user_path
from dynabert_paddle.text.lines import data_ending


def find_data_file(declared: Declaration, given: str | os.PathLike | None, name: str, key: str) -> Path:
    """Find a data file of a task.

    Args:
        declared: the task.
        given: the file that the user named, if any.
        name: the file's name in the task's folder; without an ending, any ending of the task's kind is accepted.
        key: that of the setting that names the file, for error messages.

    Returns:
        The file's path.

    Raises:
        UsageError: neither a file nor a folder is given, and the task cannot be downloaded.
        DataError: the folder has no such file, or several.
    """
    if given is not None:
        return user_path(given)
    if declared.data_dir is None:
        if declared.loader:
            return fetch(declared.loader, name)
        raise UsageError(
            f"task {declared.name!r} needs files: pass {setting('task.data_dir')}, or both "
            f"{setting('task.train_file')} and {setting('task.dev_file')}."
        )
    folder = user_path(declared.data_dir)
    if not folder.is_dir():
        raise DataError(
            f"{folder}: no such folder. Give one with {setting('task.data_dir')}, or a file with {setting(key)}."
        )
    folder = next((folder / name for name in declared.folders if (folder / name).is_dir()), folder)
    names = sorted(path.name for path in folder.glob("*"))
    allowed = [name] if name.endswith(DATA_FILE_ENDINGS) else [name + ending for ending in KINDS[declared.kind].endings]
    found = [file for file in names if _with_small_ending(file) in allowed]
    if len(found) == 1:
        return folder / found[0]
    if found:
        raise DataError(f"{folder}: {' and '.join(found)} all match. Choose one with {setting(key)}.")
    expected = "none of " + ", ".join(allowed)
    if declared.folders:
        expected = f"task {declared.name!r} is in {declared.train_name} and {declared.dev_name}"
    content = ", ".join(names[:10]) + (", ..." if len(names) > 10 else "") or "no file"
    raise DataError(f"{folder}: {expected}; the folder contains {content}. Give the file with {setting(key)}.")


def has_data_file(declared: Declaration, name: str) -> bool:
    """Whether a task's folder has a file of a name, with any ending of the task's kind; as `find_data_file`."""
    folder = None if declared.data_dir is None else user_path(declared.data_dir)
    if folder is None or not folder.is_dir():
        return False
    allowed = [name + ending for ending in KINDS[declared.kind].endings]
    return any(_with_small_ending(path.name) in allowed for path in folder.glob("*"))


def _with_small_ending(name: str) -> str:
    """The name with the ending that tells its format in small letters, without that of gzip."""
    ending = data_ending(name)
    stem = name[: -len(".gz")] if name.lower().endswith(".gz") else name
    return stem[: len(stem) - len(ending)] + ending


def default_text_column(path: AnyFile, kind: str = "classification") -> str:
    """Find the default text column of a file.

    Args:
        path: a data file.
        kind: the kind of task.

    Returns:
        The first of the kind's default names that is a column of the file; the first name if none is.
    """
    return _first_column(path, KINDS[kind].text_columns)


def default_label_column(path: Path, kind: str) -> str:
    """Find the default label column of a file.

    Args:
        path: a data file.
        kind: the kind of task.

    Returns:
        The first of the kind's default names that is a column of the file; the first name if none is.
    """
    return _first_column(path, KINDS[kind].label_columns)


def _first_column(path: AnyFile, defaults: Sequence[str]) -> str:
    if len(defaults) == 1:
        return defaults[0]
    names = read_column_names(path)
    return next((column for column in defaults if column in names), defaults[0])
