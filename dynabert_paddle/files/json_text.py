"""Parses JSON, and refuses an object with a key twice, of which Python's parser takes the last value unsaid.

This file is part of every bundle's `infer.py` and `infer_lite.py`, so it stays Python 3.7 syntax.
"""

from __future__ import annotations

import json
from typing import Any


class RepeatedKeyError(ValueError):
    """An object has a key twice."""


def parse_json(text: str | bytes) -> Any:
    """Parse JSON.

    Args:
        text: the JSON; a byte order mark before it is allowed.

    Returns:
        Its value.

    Raises:
        RepeatedKeyError: an object has a key twice.
        ValueError: not JSON.
        RecursionError: it is nested too deeply.
    """
    if isinstance(text, str) and text.startswith("\ufeff"):
        text = text[1:]
    return json.loads(text, object_pairs_hook=_make_object)


def _make_object(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    values = dict(pairs)
    if len(values) < len(pairs):
        names = [name for name, _ in pairs]
        repeated = next(name for i, name in enumerate(names) if name in names[:i])
        raise RepeatedKeyError(f"the key {repeated[:60]!r} occurs twice in one object")
    return values
