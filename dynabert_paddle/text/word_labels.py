"""Reads the labels of words as entities: once for a task's labels, for metrics, decoding and predictions alike.

This file is part of every bundle's `infer.py` and `infer_lite.py`, so it stays Python 3.7 syntax.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Sequence
from typing import NamedTuple

from dynabert_paddle.text.marks import mark_of

OUTSIDE = "O"  # the label of a word outside of all entities
UNNAMED = "entity"  # the type of labels that are positions alone, as B, I and O
TYPES = "types"  # the scheme of labels that are types without positions
MARKS = "marks"  # the same where each labelled word stands for itself, as before a comma
DECODINGS = ("constrained", "free")


class _Position(NamedTuple):
    """Whether a word in a position begins an entity, and whether it ends one."""

    begins: int
    ends: int


_MUST, _MAY, _NEVER = 1, 0, -1
_BEGIN, _INSIDE, _END, _SINGLE = (
    _Position(_MUST, _NEVER),
    _Position(_NEVER, _NEVER),
    _Position(_NEVER, _MUST),
    _Position(_MUST, _MUST),
)
_OUTSIDE = _Position(_MAY, _MAY)
# The positions of each scheme. Where data fits several equally well, the first one is theirs.
_SCHEMES: dict[str, dict[str, _Position]] = {
    "IO": {"I": _Position(_MAY, _MAY)},
    "IOB2": {"B": _Position(_MUST, _MAY), "I": _Position(_NEVER, _MAY)},
    "IOB1": {"B": _Position(_MUST, _MAY), "I": _Position(_MAY, _MAY)},
    "IOE2": {"I": _Position(_MAY, _NEVER), "E": _Position(_MAY, _MUST)},
    "IOE1": {"I": _Position(_MAY, _MAY), "E": _Position(_MAY, _MUST)},
    "IOBES": {"B": _BEGIN, "I": _INSIDE, "E": _END, "S": _SINGLE},
    "BILOU": {"B": _BEGIN, "I": _INSIDE, "L": _END, "U": _SINGLE},
    "BMES": {"B": _BEGIN, "M": _INSIDE, "E": _END, "S": _SINGLE},
    "BMEWO": {"B": _BEGIN, "M": _INSIDE, "E": _END, "W": _SINGLE},
    "BIOS": {"B": _BEGIN, "I": _Position(_NEVER, _MAY), "S": _SINGLE},
    "BIOE": {"B": _Position(_MUST, _MAY), "I": _INSIDE, "E": _END},
}
# In these, a position is only for an entity that touches another one of its type: the one before it, or after it.
_AFTER_ITS_TYPE, _BEFORE_ITS_TYPE = ("IOB1", "B"), ("IOE1", "E")
LABEL_SCHEMES = (*_SCHEMES, TYPES, MARKS)

_POSITION_LETTERS = "".join(sorted({letter for positions in _SCHEMES.values() for letter in positions}))
_PREFIX = re.compile(f"(?P<position>[{_POSITION_LETTERS}])-(?P<type>.+)", re.DOTALL)  # B-PER
_SUFFIX = re.compile(f"(?P<type>.+)-(?P<position>[{_POSITION_LETTERS}])", re.DOTALL)  # PER-B
_BARE = re.compile(f"(?P<position>[{_POSITION_LETTERS}])(?P<type>)")  # B
_BARE_SMALL = re.compile(f"(?P<position>[{_POSITION_LETTERS.lower()}])(?P<type>)")
# Forms in which a label can also be a type, such as b-movie or size_s: only several positions of one type tell.
_OTHER_FORMS = tuple(
    re.compile(form.format(f"(?P<position>[{letters}])", f"[{separator}]", "(?P<type>.+)"), re.DOTALL)
    for letters in (_POSITION_LETTERS, _POSITION_LETTERS.lower())
    for separator in ("-", "_", ".", ":", "/", "|")
    for form in ("{0}{1}{2}", "{2}{1}{0}")
)
# Where only some labels have such a form, or their case is mixed, they are of no scheme, and no names of types either.
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
    """A label's position in an entity (a capital letter), and the entity's type; both empty outside."""

    position: str
    type: str


class Span(NamedTuple):
    """An entity: its type, and the indices of its first and last word."""

    type: str
    first: int
    last: int


class LabelRule(NamedTuple):
    """What a scheme says about the neighbours of a label.

    Args:
        type: the entity's type; empty outside.
        begins: whether the word begins an entity: 1 always, 0 perhaps, -1 never.
        ends: likewise whether it ends one.
        after_its_type: the word before it must belong to an entity of the same type.
        before_its_type: likewise the word after it.
    """

    type: str
    begins: int
    ends: int
    after_its_type: bool = False
    before_its_type: bool = False


class WordLabelScheme:
    """What the labels of a task say about entities.

    Known are positions before the types (`B-PER`) or after them (`PER-B`), in capitals or small letters, with `-` or
    one of `_.:/|` between, and types alone (`PER`): adjacent words of one type form one entity, unless the scheme is
    `marks`. Labels that are positions alone (`B`, `I`) are of one type, `entity`.

    Args:
        labels: all labels of the task.
        name: one of `LABEL_SCHEMES`; None for labels whose scheme is not known, which have no `rules`.

    Raises:
        UnknownSchemeError: they are of no known scheme, of several, or not of the named one.
    """

    def __init__(self, labels: Sequence[str], name: str | None = None) -> None:
        self.name = name
        self.outside = _find_outside(labels)  # the label of the words outside
        names = [label for label in dict.fromkeys(labels) if label != self.outside]
        parts: dict[str, _Parts] = {}
        if name not in (TYPES, MARKS):
            parts = _dashed(names, name) or _in_another_form(names, name) or _positions_alone(names, name)
            if not parts and name is not None and names:
                raise UnknownSchemeError(f"{_listed(names)} are not labels of {name}")
        parts = parts or _types_alone(names, has_outside=self.outside in labels, are_named=name in (TYPES, MARKS))
        self._parts = {OUTSIDE: _Parts("", ""), self.outside: _Parts("", ""), **parts}
        self._are_types = all(kind == label for label, (_, kind) in parts.items())

    @classmethod
    def of_bundle(cls, labels: Sequence[str]) -> WordLabelScheme:
        """Read the labels of a bundle that does not name their scheme: it was exported before it was recorded.

        Args:
            labels: the bundle's labels.

        Returns:
            The scheme; of labels that are of none, each is read by itself: `B-PER` as begin of PER, `PER` as a type.
        """
        scheme = cls([])
        names = [label for label in dict.fromkeys(labels) if label != OUTSIDE]
        try:
            scheme._parts.update(_dashed(names, None) or _types_alone(names, has_outside=OUTSIDE in labels))
        except UnknownSchemeError:
            for label in labels:
                position, dash, kind = label.partition("-")
                parts = _Parts(position, kind) if dash else _Parts("I", label)
                scheme._parts.setdefault(label, parts if parts.type else _Parts("", ""))
        return scheme

    @property
    def possible_names(self) -> list[str]:
        """The schemes that have all positions of the labels."""
        positions = {parts.position for parts in self._parts.values() if parts.type}
        if not positions or self._are_types:
            are_marks = positions and all(mark_of(label) for label in self._parts if not self.is_outside(label))
            return [MARKS, TYPES] if are_marks else [TYPES]
        return _having(positions)

    @property
    def types(self) -> set[str]:
        """The types of entities that the labels name."""
        return {kind for _, kind in self._parts.values() if kind}

    @property
    def has_marks(self) -> bool:
        """Whether the labels are punctuation marks, with which a text can be written."""
        return self.name == MARKS and all(mark_of(label) for label in self._parts if not self.is_outside(label))

    def is_outside(self, label: str) -> bool:
        """Whether a word with a label belongs to no entity."""
        return not self._parts[label].type

    def rules(self, labels: Iterable[str]) -> list[LabelRule]:
        """Return what the scheme says about the neighbours of labels.

        Args:
            labels: labels of the task, or `O`.

        Returns:
            A rule for each.
        """
        positions = {"I": _OUTSIDE} if self.name in (None, TYPES, MARKS) else _SCHEMES[str(self.name)]
        rules = []
        for position, kind in (self._parts[label] for label in labels):
            begins, ends = positions[position] if kind and self.name else _OUTSIDE
            place = (self.name, position)
            rules.append(LabelRule(kind, begins, ends, place == _AFTER_ITS_TYPE, place == _BEFORE_ITS_TYPE))
        return rules

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
            continues = parts.position in tuple("IEML") and previous.position in tuple("BIM") and self.name != MARKS
            if not (continues and parts.type == previous.type):
                if previous.type:
                    yield Span(previous.type, begin, index - 1)
                begin = index
            previous = parts
        if previous.type:
            yield Span(previous.type, begin, len(labels) - 1)


def _find_outside(labels: Sequence[str]) -> str:
    small = OUTSIDE.lower()
    return small if small in labels and OUTSIDE not in labels else OUTSIDE


def _having(positions: set[str]) -> list[str]:
    """The schemes that have some positions."""
    if positions == {"W"}:  # a label that begins so is a type, unless others are in the scheme
        return []
    return [name for name, letters in _SCHEMES.items() if positions <= set(letters)]


def _dashed(names: Sequence[str], scheme: str | None) -> dict[str, _Parts]:
    """Read labels as `B-PER` or `PER-B`; empty if they are not all so, or not of the scheme."""
    return _best(_read(names, form, scheme) for form in (_PREFIX, _SUFFIX))


def _in_another_form(names: Sequence[str], scheme: str | None) -> dict[str, _Parts]:
    """Read labels as `b-per`, `PER_B` and so on; empty if they are not all so, or may as well be types."""
    readings = [_read(names, form, scheme) for form in _OTHER_FORMS]
    certain = _best(reading for reading in readings if _has_entities(reading))
    return certain or ({} if scheme is None else _best(readings))


def _read(names: Sequence[str], form: re.Pattern[str], scheme: str | None) -> dict[str, _Parts]:
    """Read labels in one form; empty if one is not in it, or if together they are not of the scheme or of any."""
    found = [form.fullmatch(name) for name in names]
    parts = {match[0]: _Parts(match["position"].upper(), match["type"] or UNNAMED) for match in found if match}
    possible = _having({position for position, _ in parts.values()})
    fits = possible if scheme is None else scheme in possible
    return parts if len(parts) == len(names) and fits else {}


def _best(readings: Iterable[dict[str, _Parts]]) -> dict[str, _Parts]:
    # B-S and I-S are two positions of the type S, S-B and S-I too: the right reading has fewer types.
    found = [reading for reading in readings if reading]
    return min(found, key=lambda parts: len({kind for _, kind in parts.values()})) if found else {}


def _has_entities(parts: dict[str, _Parts]) -> bool:
    """Whether one type has positions that only a scheme has: a begin and what follows it, or an inside and an end."""
    of_types: dict[str, set[str]] = {}
    for position, kind in parts.values():
        of_types.setdefault(kind, set()).add(position)
    return any(("B" in found and found & set("IEML")) or {"I", "E"} <= found for found in of_types.values())


def _positions_alone(names: Sequence[str], scheme: str | None) -> dict[str, _Parts]:
    """Read labels as positions of one type without a name; empty if they are not, or may as well be types."""
    parts = _read(names, _BARE, scheme) or _read(names, _BARE_SMALL, scheme)
    return parts if scheme is not None or _has_entities(parts) else {}


def _types_alone(names: Sequence[str], *, has_outside: bool, are_named: bool = False) -> dict[str, _Parts]:
    """Read labels that are types, unless one has, or seems to have, a position.

    Raises:
        UnknownSchemeError: for such a label, unless the user has named the scheme.
    """
    if not are_named:
        _check_types(names, has_outside=has_outside)
    return {name: _Parts("I", name) for name in names}


def _check_types(names: Sequence[str], *, has_outside: bool) -> None:
    with_position = [name for name in names if _PREFIX.fullmatch(name) and not name.startswith("W-")]
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


def _listed(names: Sequence[str]) -> str:
    return ", ".join(map(repr, names[:_MAX_LISTED])) + (", ..." if len(names) > _MAX_LISTED else "")
