"""Started by fuzz.py: runs `dynabert` commands from stdin, one JSON object per line, through `cli.main`."""

from __future__ import annotations

import json
import logging
import os
import sys
import traceback
from pathlib import Path

os.environ.setdefault("OMP_NUM_THREADS", "1")

from dynabert_paddle.runtime.environment import import_paddle

import_paddle()

from dynabert_paddle.cli import main as command  # noqa: E402 - Paddle's environment comes first


def run(folder: Path, words: list[str]) -> int:
    """Run a command in a folder, with stdout and stderr in files there; returns the exit code."""
    kept = os.dup(1), os.dup(2)
    files = [os.open(folder / name, os.O_WRONLY | os.O_CREAT | os.O_TRUNC) for name in ("stdout", "stderr")]
    for number, file in enumerate(files, start=1):
        os.dup2(file, number)
    logger = logging.getLogger("dynabert_paddle")
    before = logger.handlers[:], logger.level, logger.propagate
    sys.argv = ["dynabert", *words]
    os.chdir(folder)
    try:
        command.main()
    except SystemExit as end:
        code = end.code or 0
    except BaseException:
        traceback.print_exc()
        code = 70
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
        logger.handlers[:], logger.level, logger.propagate = before
        os.chdir("/")
        for number, (copy, file) in enumerate(zip(kept, files, strict=True), start=1):
            os.dup2(copy, number)
            os.close(copy)
            os.close(file)
    return code


def main() -> None:
    """Answer each line on stdin with the exit code of its command."""
    answers = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)  # stdout is only for answers
    print("ready", file=answers, flush=True)
    for line in sys.stdin:
        job = json.loads(line)
        os.environ["DYNABERT_CACHE_DIR"] = job["cache"]
        print(json.dumps({"code": run(Path(job["folder"]), job["words"])}), file=answers, flush=True)


if __name__ == "__main__":
    main()
