"""Output of the command line: tables or JSON on stdout; written files and the next command on stderr."""

from __future__ import annotations

import gzip
import json
import os
import re
import shlex
import stat
import sys
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from io import TextIOWrapper
from pathlib import Path
from typing import Any, TextIO

from dynabert_paddle.config.names import setting
from dynabert_paddle.errors import DynabertError, UsageError
from dynabert_paddle.files.partial import partial_file
from dynabert_paddle.runtime.ranks import is_rank_zero
from dynabert_paddle.runtime.streams import print_message
from dynabert_paddle.training.logging import console

_MAX_LINKS = 40  # as many as Linux follows
_CONTROLS = re.compile("[\x00-\x1f\x7f-\x9f\u2028\u2029\u202a-\u202e\u2066-\u2069]")


def one_line(text: str) -> str:
    """Escape control characters and line breaks, which a terminal would obey, in a text that may come from a file."""
    return _CONTROLS.sub(lambda match: repr(match[0])[1:-1], text)


def show_json(values: Any) -> None:
    """Print JSON."""
    print(json.dumps(values, ensure_ascii=False, indent=2))


def show_next(*then: str | Path, wrote: Sequence[str | Path] = ()) -> None:
    """End a verb: print the files that it wrote and the next command, in the first process alone, unless it is quiet.

    Args:
        then: the next command's words after `dynabert`.
        wrote: files and folders.
    """
    if not is_rank_zero() or console.quiet:
        return
    sys.stdout.flush()  # an error of it comes first
    for path in wrote:
        print_message(one_line(f"wrote {path}"))
    print_message(one_line(f"next: {shlex.join(['dynabert', *map(str, then)])}"))


def check_output_file(
    name: str, *, overwrite: bool, inputs: Iterable[str | Path] = (), key: str = "output_file"
) -> None:
    """Refuse to replace a file unless the user asks for it, and a file that is read in any case; streams are written.

    Args:
        name: the file.
        overwrite: it may be replaced.
        inputs: the files that the command reads.
        key: the setting that names the file.

    Raises:
        UsageError: it exists, or is read.
    """
    if not Path(name).exists():
        return
    if any(Path(path).exists() and Path(name).samefile(path) for path in inputs):
        raise UsageError(f"{name} is the file to read: name another {setting(key)}")
    if _find_file(Path(name)) is not None and not overwrite:
        raise UsageError(
            f"{name} exists: pass {setting('overwrite_output_file')} to replace it, or name another {setting(key)}"
        )


def is_pipe(stream: TextIO) -> bool:
    """Whether what is written goes to a program or a terminal, which may wait for it, and not into a file."""
    try:
        return not stat.S_ISREG(os.fstat(stream.fileno()).st_mode)
    except (OSError, ValueError):
        return False


@contextmanager
def open_output(name: str, *, key: str = "output_file") -> Iterator[TextIO]:
    """Open a file for writing that is replaced only when it is complete; a device or a pipe is written directly.

    Args:
        name: the file, or a link to it; one whose name ends with `.gz` is compressed.
        key: the setting that names the file.

    Yields:
        The open file, UTF-8.

    Raises:
        UsageError: its folder is missing.
        DynabertError: it cannot be written.
    """
    path, file = Path(name), _find_file(Path(name))
    for parent in (path.parent, (file or path).parent):
        if not parent.is_dir():
            raise UsageError(f"{path}: there is no folder {parent}: make it, or name another {setting(key)}")
    try:
        with path.open("w", encoding="utf-8") if file is None else partial_file(file) as stream:
            if path.suffix.lower() == ".gz" and file is not None:
                # Neither a time nor a name, so that the same content is the same file.
                with (
                    gzip.GzipFile("", "wb", fileobj=stream.buffer, mtime=0) as packed,
                    TextIOWrapper(packed, encoding="utf-8") as text,
                ):
                    yield text
            else:
                yield stream
            if file is not None:
                stream.flush()
                Path(stream.name).replace(file)
    except OSError as error:
        raise DynabertError(f"{path}: cannot be written: {error.strerror}") from None


def _find_file(path: Path) -> Path | None:
    """The regular file that a path means, or would make; None for a device or a stream.

    A stream such as /dev/stdout can be redirected to a file, whose descriptor the caller holds: a new file in its place
    would never be seen.
    """
    for _ in range(_MAX_LINKS):
        place = path.parent.resolve()
        if place == Path("/dev") or Path("/proc") in (place, *place.parents):
            return None
        if not path.is_symlink():
            return path if path.is_file() or not path.exists() else None
        path = path.parent / path.readlink()
    return None
