"""Claims on output folders: every writer of a folder locks it first, also a folder that it has yet to make.

The lock is on the folder itself, so it counts only while that folder is the one at its path.
"""

from __future__ import annotations

import os
import shutil
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path

from dynabert_paddle.config.names import setting
from dynabert_paddle.errors import DynabertError, UsageError
from dynabert_paddle.files.atomic import handle_write_errors, move_content
from dynabert_paddle.files.folder import MARKER_FILE, check_ours, is_free, is_output_folder
from dynabert_paddle.files.ownership import find_unknown
from dynabert_paddle.files.partial import is_at, lock, partial_file, partial_folder, remove_stale
from dynabert_paddle.runtime.home import user_path
from dynabert_paddle.runtime.ranks import is_rank_zero

_POLL_SECONDS = 0.05


class Claim:
    """A locked output folder, from `claim`.

    Args:
        folder: the folder.
        maker: what writes it, such as a stage's name; None for a folder without a mark.
        handle: the descriptor that holds the lock; None in all processes of a run but the first one.
        is_users: the user has made the folder: it stays, even if nothing is written.
    """

    def __init__(self, folder: Path, maker: str | None, handle: int | None, *, is_users: bool = False) -> None:
        self.folder, self.maker, self._handle, self._is_users = folder, maker or "", handle, is_users

    def check(self) -> None:
        """Refuse to go on if the folder was removed or replaced since it was claimed.

        Raises:
            DynabertError: another folder, or none, is at its path.
        """
        with handle_write_errors(self.folder):
            is_ours = self._handle is None or is_at(self._handle, self.folder)
        if not is_ours:
            raise DynabertError(
                f"{self.folder} was removed or replaced while this run wrote to it: nothing more is written there; "
                f"start again, or name another {setting('output_dir')}"
            )

    def mark(self) -> None:
        """Write who has made the folder, unless it holds something already.

        Raises:
            DynabertError: the folder cannot be written to.
        """
        # os.access is wrong for root and on network file systems: only a write shows whether writing is possible.
        marker = self.folder / MARKER_FILE
        with handle_write_errors(self.folder), partial_file(marker) as probe:
            probe.write(f"{self.maker}\n")
            probe.flush()
            if self.maker and is_free(self.folder):
                Path(probe.name).replace(marker)

    def clear(self) -> None:
        """Remove the files that the folder's verb wrote, except its mark; see `ownership.check_removable`.

        Raises:
            UsageError: the folder is one of the user's.
            DynabertError: it cannot be removed.
        """
        self.check()
        with handle_write_errors(self.folder), _hold_inner(self.folder):
            check_ours(self.folder)  # whatever the caller has checked before
            (self.folder / MARKER_FILE).write_text(f"{self.maker}\n", encoding="utf-8")
            for path in self._known():
                if path.is_dir() and not path.is_symlink():
                    shutil.rmtree(path)
                elif path.name != MARKER_FILE:
                    path.unlink()

    def write(
        self, write: Callable[[Path], None], *, last: str, replace: bool = False, outdated: Iterable[str] = ()
    ) -> None:
        """Write files so that all of them are there or none.

        Args:
            write: writes all files into the folder that it receives.
            last: name of the file whose presence marks the folder as complete.
            replace: remove the files that the folder's verb wrote before, once the new files are written.
            outdated: names of files to remove, once the new files are written, if these do not replace them.

        Raises:
            UsageError: `replace`, and the folder is one of the user's.
            DynabertError: they cannot be written, or the folder was removed or replaced.
        """
        with self.partial() as partial:
            write(partial)
            self.take(partial, last=last, replace=replace, outdated=outdated)

    @contextmanager
    def partial(self) -> Iterator[Path]:
        """Make a hidden folder for new files, inside a `with` block; see `take`."""
        self.check()
        with handle_write_errors(self.folder), partial_folder(self.folder) as partial:
            yield partial

    def take(self, partial: Path, *, last: str, replace: bool = False, outdated: Iterable[str] = ()) -> None:
        """Move the files of a hidden folder from `partial` into the claimed folder; arguments as for `write`."""
        self.check()
        if not replace:
            old = [self.folder / name for name in outdated if not (partial / name).exists()]
            move_content(partial, self.folder, last=last, remove=old)
            return
        with _hold_inner(self.folder):
            check_ours(self.folder)  # whatever the caller has checked before
            (partial / MARKER_FILE).write_text(f"{self.maker}\n", encoding="utf-8")
            old = [path for path in self._known() if path != partial]
            move_content(partial, self.folder, last=last, remove=old)

    def _known(self) -> list[Path]:
        """The files that the folder's verb has written; files that the user added after the check stay."""
        added = {path.relative_to(self.folder).parts[0] for path in find_unknown(self.folder, self.maker)}
        return [path for path in self.folder.iterdir() if path.name not in added]

    def release(self, *unused: str) -> None:
        """Unlock the folder; remove it if it holds nothing but its mark and files of these names."""
        if self._handle is None:
            return
        with suppress(OSError):
            if is_at(self._handle, self.folder) and is_free(self.folder, *unused):
                if self._is_users or self.folder.is_symlink():
                    for name in (MARKER_FILE, *unused):
                        (self.folder / name).unlink(missing_ok=True)
                else:
                    shutil.rmtree(self.folder, ignore_errors=True)
        os.close(self._handle)
        self._handle = None


@contextmanager
def claim(
    folder: str | Path, maker: str | None, *, unused: tuple[str, ...] = (), wait_seconds: float = 0
) -> Iterator[Claim]:
    """Make an output folder if it is not there, and lock it against other writers for the length of a `with` block.

    In a run of several processes only rank zero holds the lock. A folder that stays empty is removed in the end, with
    those above it that were made for it.

    Args:
        folder: the folder.
        maker: what writes it, such as a stage's name; None for a folder without a mark.
        unused: names of files that do not keep an otherwise empty folder, unless they are there before.
        wait_seconds: how long to wait for another run that has locked it.

    Yields:
        The claim.

    Raises:
        UsageError: another run has locked it, or it is a file.
        DynabertError: it cannot be made or written to.
    """
    folder = user_path(folder)
    if not is_rank_zero():
        yield Claim(folder, maker, None)
        return
    with ExitStack() as undo:
        new = [parent for parent in folder.parents if not parent.exists()]  # the innermost first
        undo.callback(_remove_empty, new)
        is_users = folder.is_dir() and not is_output_folder(folder)
        claimed = Claim(folder, maker, _open(folder, wait_seconds), is_users=is_users)
        undo.callback(claimed.release, *(name for name in unused if not (folder / name).exists()))
        if is_output_folder(folder):
            remove_stale(folder)
        claimed.mark()
        yield claimed


def _open(folder: Path, wait_seconds: float = 0) -> int:
    """Make a folder if it is not there, and lock it."""
    end = time.monotonic() + wait_seconds
    while True:
        if folder.exists() and not folder.is_dir():
            raise UsageError(f"{folder} is a file: name another {setting('output_dir')}")
        with handle_write_errors(folder):
            folder.mkdir(parents=True, exist_ok=True)
            try:
                handle = os.open(folder, os.O_RDONLY)
            except FileNotFoundError:  # removed meanwhile
                continue
        if not lock(handle):
            os.close(handle)
            if time.monotonic() < end:
                time.sleep(_POLL_SECONDS)
                continue
            raise UsageError(
                f"{folder} is in use by another run: wait until it has ended, or name another {setting('output_dir')}"
            )
        with handle_write_errors(folder):
            is_there = is_at(handle, folder)
        if is_there:
            return handle
        os.close(handle)


@contextmanager
def _hold_inner(folder: Path) -> Iterator[None]:
    """Lock the output folders inside a folder that is to be removed, such as a search's in its model's folder."""
    inner = sorted(path.parent for path in folder.rglob(MARKER_FILE) if path.parent != folder)
    with ExitStack() as stack:
        for path in inner:
            stack.callback(os.close, _open(path))
        yield


def _remove_empty(folders: list[Path]) -> None:
    for folder in folders:
        with suppress(OSError):
            folder.rmdir()
