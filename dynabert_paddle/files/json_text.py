"""Parses JSON and refuses duplicate keys, whose last value Python's parser would take silently.

This file is part of every bundle's `infer.py` and `infer_lite.py`, so it stays Python 3.7 syntax.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
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


def split_array(text: str) -> Iterator[tuple[int, Any]]:
    """Parse a JSON array value by value, as pandas writes one with `to_json(orient="records")`.

    Args:
        text: the JSON, which begins with `[`.

    Yields:
        Each value's first line, from 1, and the value.

    Raises:
        RepeatedKeyError: an object has a key twice.
        ValueError: not JSON.
        RecursionError: it is nested too deeply.
    """
    decoder = json.JSONDecoder(object_pairs_hook=_make_object)
    line, counted = 1, 0
    start = _skip_blanks(text, text.index("[") + 1)
    mark = ","
    if text.startswith("]", start):
        mark, start = "]", _skip_blanks(text, start + 1)
    while mark == ",":
        line += text.count("\n", counted, start)
        counted = start
        value, end = decoder.raw_decode(text, start)
        yield line, value
        end = _skip_blanks(text, end)
        mark, start = text[end : end + 1], _skip_blanks(text, end + 1)
    if mark != "]" or start < len(text):
        raise ValueError("the array does not end as one" if mark == "]" else "a comma or ] is missing")


def _skip_blanks(text: str, start: int) -> int:
    while text[start : start + 1].isspace():
        start += 1
    return start


def _make_object(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    values = dict(pairs)
    if len(values) < len(pairs):
        names = [name for name, _ in pairs]
        repeated = next(name for i, name in enumerate(names) if name in names[:i])
        raise RepeatedKeyError(f"the key {repeated[:60]!r} occurs twice in one object")
    return values
