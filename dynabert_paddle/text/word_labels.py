"""Reads the labels of words as entities: once for a task's labels, for metrics and predictions alike.

This file is part of every bundle's `infer.py` and `infer_lite.py`, so it stays Python 3.7 syntax.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from typing import NamedTuple

OUTSIDE = "O"  # the label of a word outside of all entities

_PREFIX = re.compile(r"([BIEMSLU])-(.+)", re.DOTALL)  # B-PER
_SUFFIX = re.compile(r"(.+)-([BIEMSLU])", re.DOTALL)  # PER-B
_SCHEMES = ("BIES", "BILU", "BMES")  # BIO is a part of each of the first two
# Other letters or separators, such as b-per, B_PER, PER.B or BPER, are of no scheme, and no names of types either.
_LIKE_POSITIONS = (
    re.compile(r"(?P<position>[BIEMSLU])[-_.:/|](?P<type>.+)", re.DOTALL | re.IGNORECASE),
    re.compile(r"(?P<type>.+)[-_.:/|](?P<position>[BIEMSLU])", re.DOTALL | re.IGNORECASE),
)
_GLUED = re.compile(r"(?P<position>[BIEMSLU])(?P<type>[^a-z]+)")
_LIKE_OUTSIDE = ("o", "0", "outside", "none")
_MAX_LISTED = 6


class UnknownSchemeError(ValueError):
    """Labels that are of no known scheme; the message is a part of a line."""


class _Parts(NamedTuple):
    """A label's position in an entity (B, I, E, M, S, L or U), and the entity's type; both empty outside."""

    position: str
    type: str


class Span(NamedTuple):
    """An entity: its type, and the indices of its first and last word."""

    type: str
    first: int
    last: int


class WordLabelScheme:
    """What the labels of a task say about entities.

    Known are positions before the types (`B-PER`) or after them (`PER-B`), in BIO, BIOES, BILOU and BMES, and types
    alone (`PER`): adjacent words of one type form one entity.

    Args:
        labels: all labels of the task.

    Raises:
        UnknownSchemeError: they are of no known scheme, or of several.
    """

    def __init__(self, labels: Sequence[str]) -> None:
        names = [label for label in dict.fromkeys(labels) if label != OUTSIDE]
        parts = _with_positions(names) or _types_alone(names, has_outside=OUTSIDE in labels)
        self._parts = {OUTSIDE: _Parts("", ""), **parts}

    @classmethod
    def of_bundle(cls, labels: Sequence[str]) -> WordLabelScheme:
        """Read the labels of a finished bundle, which may be older than the schemes' check.

        Args:
            labels: the bundle's labels.

        Returns:
            The scheme; of labels that are of none, each is read by itself: `B-PER` as begin of PER, `PER` as a type.
        """
        try:
            return cls(labels)
        except UnknownSchemeError:
            scheme = cls([])
            for label in labels:
                position, dash, kind = label.partition("-")
                parts = _Parts(position, kind) if dash else _Parts("I", label)
                scheme._parts.setdefault(label, parts if parts.type else _Parts("", ""))
            return scheme

    def spans(self, labels: Sequence[str]) -> Iterator[Span]:
        """Find the entities of a text.

        Args:
            labels: each word's label.

        Yields:
            The entities in order; a word inside of an entity that has no beginning begins one.
        """
        begin, previous = 0, _Parts("", "")
        for index, label in enumerate(labels):
            parts = self._parts[label]
            continues = parts.position in tuple("IEML") and previous.position in tuple("BIM")
            if not (continues and parts.type == previous.type):
                if previous.type:
                    yield Span(previous.type, begin, index - 1)
                begin = index
            previous = parts
        if previous.type:
            yield Span(previous.type, begin, len(labels) - 1)


def _with_positions(names: Sequence[str]) -> dict[str, _Parts]:
    """Read labels that all have a position of one scheme, before or after the type; empty if they do not."""
    readings: list[dict[str, _Parts]] = [{}]
    for pattern, groups in ((_PREFIX, (1, 2)), (_SUFFIX, (2, 1))):
        found = [pattern.fullmatch(name) for name in names]
        parts = {match.group(): _Parts(*match.group(*groups)) for match in found if match}
        positions = {position for position, _ in parts.values()}
        if len(parts) == len(names) and any(positions <= set(scheme) for scheme in _SCHEMES):
            readings.append(parts)
    # B-S and I-S are two positions of the type S, S-B and S-I too: the right reading has fewer types.
    return min(readings[1:] or readings, key=lambda parts: len({kind for _, kind in parts.values()}))


def _types_alone(names: Sequence[str], *, has_outside: bool) -> dict[str, _Parts]:
    """Read labels that are types, unless one has, or seems to have, a position.

    Raises:
        UnknownSchemeError: for such a label.
    """
    with_position = [name for name in names if _PREFIX.fullmatch(name)]
    others = [name for name in names if name not in with_position]
    if with_position and others:
        raise UnknownSchemeError(f"{_listed(with_position)} begin with a position, {_listed(others)} do not")
    if with_position:
        raise UnknownSchemeError(f"the positions of {_listed(names)} are not those of BIO, BIOES, BILOU or BMES")
    patterns = [*_LIKE_POSITIONS, *([_GLUED] if all(map(_GLUED.fullmatch, names)) else [])]
    for pattern in patterns:
        by_type: dict[str, dict[str, str]] = {}
        for match in filter(None, map(pattern.fullmatch, names)):
            by_type.setdefault(match.group("type"), {})[match.group("position").upper()] = match.group()
        for alike in by_type.values():
            if "B" in alike and set(alike) & set("IEML"):
                raise UnknownSchemeError(f"{_listed(sorted(alike.values()))} are in no known form")
    bare = {name for name in names if name.upper() in tuple("BIEMSLU")}
    if {"B", "I"} <= {name.upper() for name in bare} or {"B", "E"} <= bare:
        raise UnknownSchemeError(f"{_listed(sorted(bare))} have a position and no type")
    outside = [name for name in names if name.lower() in _LIKE_OUTSIDE]
    if outside and not has_outside:
        raise UnknownSchemeError(f"{_listed(outside)} seems to be the label of the words outside, which is {OUTSIDE!r}")
    return {name: _Parts("I", name) for name in names}


def _listed(names: Sequence[str]) -> str:
    return ", ".join(map(repr, names[:_MAX_LISTED])) + (", ..." if len(names) > _MAX_LISTED else "")
