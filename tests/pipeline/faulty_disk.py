"""Run by test_full_disk.py in mounts of its own: commands on a disk that fills up, or turns read-only, in mid-work.

faulty_disk.py DISK ATTEMPTS.json RESULTS.json; an attempt is a command, how the disk fails and by which line of
the log (at once where there is none), and which folder turns read-only. Afterwards the disk is as it was.
"""

import contextlib
import io
import json
import logging
import subprocess
import sys
from pathlib import Path

from dynabert_paddle.cli.main import main

DISK, ATTEMPTS, RESULTS = map(Path, sys.argv[1:])
FILLER = DISK / "filler"


def fill(_):
    with contextlib.suppress(OSError), FILLER.open("wb", buffering=0) as file:
        for size in (2**20, 2**12):
            with contextlib.suppress(OSError):
                while file.write(b"x" * size) == size:
                    pass


def make_room(_):
    FILLER.unlink(missing_ok=True)


def make_read_only(folder):
    # A mount on top, because the file system itself cannot turn read-only while a log is open.
    subprocess.run(["mount", "--bind", folder, folder], check=True)
    subprocess.run(["mount", "-o", "remount,bind,ro", folder], check=True)


def make_writable(folder):
    subprocess.run(["umount", folder], check=False)


DISK_FAULTS = {"full": (fill, make_room), "read-only": (make_read_only, make_writable)}


class FailAt(logging.Handler):
    """Makes the disk fail when a certain line is logged."""

    def __init__(self, line, break_disk):
        super().__init__(logging.INFO)
        self.line, self.break_disk = line, break_disk

    def emit(self, record):
        if self.break_disk and record.getMessage().startswith(self.line):
            self.break_disk()
            self.break_disk = None


def attempt(words, how=None, line="", folder=None):
    """The command's exit code and what it printed; and the files there are after it."""
    logger = logging.getLogger("dynabert_paddle")
    before, sys.argv = logger.handlers[:], ["dynabert", *map(str, words)]
    break_disk, repair = DISK_FAULTS.get(how, (None, None))
    out, err = io.StringIO(), io.StringIO()
    with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
        if break_disk and line:
            logger.addHandler(FailAt(line, lambda: break_disk(folder)))
        elif break_disk:
            break_disk(folder)
        try:
            main()
        except SystemExit as end:
            code = end.code or 0
    logger.handlers[:] = before
    if repair:
        repair(folder)
    files = {str(path.relative_to(DISK)): path.stat().st_size for path in DISK.rglob("*") if path.is_file()}
    return {"code": code, "out": out.getvalue(), "err": err.getvalue(), "files": files}


subprocess.run(["mount", "-t", "tmpfs", "-o", "size=150m", "tmpfs", DISK], check=True)
RESULTS.write_text(json.dumps([attempt(*words) for words in json.loads(ATTEMPTS.read_text())]))
