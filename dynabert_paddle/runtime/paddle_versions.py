"""The supported versions of Paddle and their abilities, determined without importing Paddle."""

from __future__ import annotations

import logging
import re
from contextlib import suppress

from dynabert_paddle.errors import DynabertError

logger = logging.getLogger(__name__)

# Each has a lock requirements/paddle-X.Y.txt, and runs the tests.
TESTED = ("2.6.2", "3.1.1", "3.3.1")
_REFERENCE_LOCK = "requirements/paddle-3.1.txt"  # of the one that can do everything

# Static graph -> the versions that write it, in words and as a test. From 3.2 on, Paddle's matmul refuses the legacy
# format, which PaddleSlim's quantization and Paddle Lite need.
_WRITES = {
    "legacy": ("3.1 or older", lambda release: release <= (3, 1)),
    "pir": ("3.0 or later", lambda release: release >= (3, 0)),
}


def paddle_version() -> str:
    """The version of the installed Paddle; empty where there is none."""
    import importlib.metadata  # which takes a tenth of the time until --help is shown

    for package in ("paddlepaddle", "paddlepaddle-gpu"):
        with suppress(importlib.metadata.PackageNotFoundError):
            return importlib.metadata.version(package)
    return ""


def check_version() -> None:
    """Refuse a Paddle that is too old for this package, and warn of one that it is not tested with.

    Raises:
        DynabertError: the Paddle is older than all that are tested.
    """
    version = paddle_version()
    if not version:
        return
    tested = f"{', '.join(TESTED[:-1])} and {TESTED[-1]}"
    if _numbers(version) < _numbers(TESTED[0])[:2]:
        raise DynabertError(f"Paddle {version} is too old: {tested} are supported; install {_REFERENCE_LOCK}")
    if _numbers(version) not in map(_numbers, TESTED):
        logger.warning("Paddle %s is not tested with this package, %s are", version, tested)


def can_write(static: str) -> bool:
    """Whether the installed Paddle can write a static graph.

    Args:
        static: `legacy` (`model.pdmodel`) or `pir` (`model.json`).

    Returns:
        True where there is no Paddle to ask, too.
    """
    _, writes = _WRITES[static]
    release = _numbers(paddle_version())[:2]
    return not release or writes(release)


def check_can_write(static: str, *, what: str, instead: str) -> None:
    """Refuse a format for which the installed Paddle cannot write the static graph.

    Args:
        static: `legacy` or `pir`.
        what: what needs it.
        instead: what to do with this Paddle.

    Raises:
        DynabertError: with the versions that can.
    """
    if not can_write(static):
        able, _ = _WRITES[static]
        raise DynabertError(
            f"{what} needs Paddle {able}, this is {paddle_version()}: {instead}, or install {_REFERENCE_LOCK}"
        )


def _numbers(version: str) -> tuple[int, ...]:
    """The first three numbers of a version such as `2.6.2.post120` or `3.3.1+cu`."""
    release = re.split(r"[^\d.]", version)[0]
    return tuple(map(int, re.findall(r"\d+", release)))[:3]
