"""The names of settings in messages: each entry point names a setting as its users write it.

Python's functions have arguments, the command line has flags and `-o section.key`, and a config file has lines.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from pathlib import Path
from typing import NamedTuple

# Settings whose argument in Python is not the last part of their key.
_ARGUMENTS = {
    "overwrite_output_dir": "overwrite=True",
    "overwrite_output_file": "overwrite=True",
    "force": "force=True",
}
# Sections that one function of Python takes, whose fields need no other name there.
_SECTIONS = ("task", "train", "search", "augment", "baseline", "compress")


def argument_name(key: str) -> str:
    """Return the name of a setting, by its dotted key, as a function of Python has it."""
    section, _, name = key.rpartition(".")
    return _ARGUMENTS.get(key, name if section in _SECTIONS else key)


_form: ContextVar[Callable[[str], str]] = ContextVar("_form", default=argument_name)


def setting(key: str) -> str:
    """Name a setting in a message: by default the argument of a Python function.

    Args:
        key: its dotted key in a config, such as `task.label_column`, where `train.max_steps` is that of any stage; for
            one that no config has, the name of its flag, such as `overwrite_output_dir`.

    Returns:
        The name that the users of the entry point know.
    """
    return _form.get()(key)


@contextmanager
def settings_named_by(name: Callable[[str], str]) -> Iterator[None]:
    """Let `setting` name settings as another entry point has them, within a `with` block.

    Args:
        name: returns the name of a setting by its key.

    Yields:
        Nothing.
    """
    token = _form.set(name)
    try:
        yield
    finally:
        _form.reset(token)


@contextmanager
def argument_named(key: str, name: str) -> Iterator[None]:
    """Let `setting` name one setting by another argument of Python, within a `with` block.

    Args:
        key: its dotted key.
        name: the argument of the function that its user has called.

    Yields:
        Nothing.
    """
    form = _form.get()
    if form is not argument_name:  # the user has called a command
        yield
        return
    with settings_named_by(lambda other: name if other == key else argument_name(other)):
        yield


def name_later(key: str) -> str:
    """Return a mark in place of a setting's name, for a process that does not know its user's entry point."""
    return f"\x02{key}\x03"


def name_marked(text: str) -> str:
    """Replace the marks of `name_later` in a message of another process by names."""
    return re.sub("\x02([\\w.]+)\x03", lambda match: setting(match[1]), text)


class Place(NamedTuple):
    """Where a user sets a setting.

    Args:
        key: its dotted key there: a section `train` sets those of all stages.
        source: the config file and the line; the name of an override.
        name: the setting's name in messages.
    """

    key: str
    source: str
    name: str


def find_place(key: str, path: str | Path | None, overrides: Iterable[str] = ()) -> Place | None:
    """Find where a config file or an override sets a setting.

    Args:
        key: its dotted key.
        path: the config file.
        overrides: `section.key=value` strings, which replace the file's values.

    Returns:
        The place, with a name such as `-o task.kind` or `task.kind in my.yaml, line 3`; None if neither sets it.
    """
    section, _, name = key.rpartition(".")
    keys = [key, f"train.{name}"] if section and section not in ("task", "space") else [key]
    given = [override.partition("=")[0].strip() for override in overrides]
    for candidate in keys:
        for own in given:
            if f"{candidate}.".startswith(f"{own}.") or own.startswith(f"{candidate}."):
                return Place(candidate, setting("override"), f"{setting('override')} {max(own, candidate, key=len)}")
    for candidate in keys if path else ():
        if line := _find_line(Path(str(path)), candidate):
            return Place(candidate, f"{path}, line {line}", f"{candidate} in {path}, line {line}")
    return None


def _find_line(path: Path, key: str) -> int | None:
    """The line of a key in a YAML file, counted from 1; None if the file lacks it, or cannot be read."""
    import yaml

    try:
        node = yaml.compose(path.read_text(encoding="utf-8"), Loader=yaml.SafeLoader)
    except Exception:  # the YAML parser raises Python's errors, too
        return None
    line = None
    for part in key.split("."):
        pairs = node.value if isinstance(node, yaml.MappingNode) else []
        found = [pair for pair in pairs if pair[0].value == part]
        if not found:
            return None
        line, node = found[-1][0].start_mark.line + 1, found[-1][1]
    return line
