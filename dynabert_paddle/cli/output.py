"""Output of the command line: tables or JSON on stdout; written files and the next command on stderr."""

from __future__ import annotations

import json
import re
import shlex
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, TextIO

from dynabert_paddle.errors import DynabertError, UsageError
from dynabert_paddle.files.partial import partial_path
from dynabert_paddle.runtime.ranks import is_rank_zero
from dynabert_paddle.runtime.streams import print_message

_CONTROLS = re.compile("[\x00-\x1f\x7f-\x9f\u2028\u2029\u202a-\u202e\u2066-\u2069]")


def one_line(text: str) -> str:
    """Escape control characters and line breaks, which a terminal would obey, in a text that may come from a file."""
    return _CONTROLS.sub(lambda match: repr(match[0])[1:-1], text)


def show_json(values: Any) -> None:
    """Print JSON."""
    print(json.dumps(values, ensure_ascii=False, indent=2))


def show_next(*then: str | Path, wrote: Sequence[str | Path] = ()) -> None:
    """End a verb: print the files that it wrote and the next command, in the first process alone.

    Args:
        then: the next command's words after `dynabert`.
        wrote: files and folders.
    """
    if not is_rank_zero():
        return
    sys.stdout.flush()  # an error of it comes first
    for path in wrote:
        print_message(one_line(f"wrote {path}"))
    print_message(one_line(f"next: {shlex.join(['dynabert', *map(str, then)])}"))


@contextmanager
def open_output(name: str) -> Iterator[TextIO]:
    """Open a file for writing that is replaced only when it is complete; a device or a pipe is written directly.

    Args:
        name: the file.

    Yields:
        The open file, UTF-8.

    Raises:
        UsageError: its folder is missing.
        DynabertError: it cannot be written.
    """
    path = Path(name)
    if not path.parent.is_dir():
        raise UsageError(f"{path}: there is no folder {path.parent}: make it, or name another file")
    # A link is written directly: /dev/stdout is one.
    is_file = not path.is_symlink() and (path.is_file() or not path.exists())
    target = partial_path(path) if is_file else path
    try:
        with target.open("w", encoding="utf-8") as file:
            yield file
        if target != path:
            target.replace(path)
    except OSError as error:
        raise DynabertError(f"{path}: cannot be written: {error.strerror}") from None
    finally:
        if target != path:
            target.unlink(missing_ok=True)
