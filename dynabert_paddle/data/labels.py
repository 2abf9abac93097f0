"""The names of classes: how values of data files become names, and which names mean the same class."""

import logging
import math
import re
from collections.abc import Iterable, Mapping
from decimal import Decimal

from dynabert_paddle.config.names import setting

logger = logging.getLogger(__name__)

_NUMBER = re.compile(r"-?(0|[1-9]\d*)(\.\d+)?([eE][-+]?\d{1,3})?", re.ASCII)  # JSON's; '007' and '1_0' are words

_LONGEST_NUMBER = 25  # Decimal rounds numbers of more than 28 digits, and so would take different ones for equal


def label_text(value: str | bool | int | float) -> str:
    """Return the name of a class that a JSON file or a Python caller gives as a value.

    Args:
        value: a string, which is its own name without the white space around it; a boolean; or a finite number.

    Returns:
        The name. A whole number has no decimal point: 1 and 1.0 are both `1`.
    """
    if isinstance(value, str):
        return value.strip()
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, float) and value.is_integer() and abs(value) < 2**53:
        return str(int(value))
    return str(value)


def is_missing(value: object) -> bool:
    """Whether a JSON value stands for a missing one: null, NaN, or an infinity, which is no number of a file."""
    return value is None or (isinstance(value, float) and not math.isfinite(value))


def is_number(name: str) -> bool:
    """Whether a label writes a finite number."""
    try:
        return math.isfinite(float(name))
    except ValueError:
        return False


def label_key(name: str) -> str:
    """Return what equal labels have in common: a number's value, else the name itself.

    Args:
        name: a class's name, such as `1`, `1.0` or `pos`.

    Returns:
        The key: the same for `1` and `1.0`.
    """
    if len(name) > _LONGEST_NUMBER or not _NUMBER.fullmatch(name):
        return name
    value = Decimal(name).normalize()
    return str(value + 0)  # -0 is 0


def merge_labels(names: Iterable[str], *, source: object) -> set[str]:
    """Keep one name of each class; that a number is written in several ways is logged.

    Args:
        names: the names in a file.
        source: the file, for the log.

    Returns:
        The shortest name of each class.
    """
    spellings: dict[str, list[str]] = {}
    for name in sorted(names, key=lambda name: (len(name), name)):
        spellings.setdefault(label_key(name), []).append(name)
    for first, *others in spellings.values():
        if others:
            listed = ", ".join(map(repr, others[:5]))
            logger.warning(
                "%s: the labels %r and %s are one number, and so one class, %r; to keep them apart, list all labels "
                "with %s",
                source,
                first,
                listed,
                first,
                setting("task.labels"),
            )
    return {first for first, *_ in spellings.values()}


class LabelIndex:
    """Finds the classes of names: by the name, else by the number that it writes in another way.

    Args:
        names: the classes in the order of the logits.
    """

    def __init__(self, names: Iterable[str]) -> None:
        self.names = tuple(names)
        self._indices = {name: index for index, name in enumerate(self.names)}
        self._by_key: Mapping[str, int] = {label_key(name): index for index, name in enumerate(self.names)}

    def find(self, name: str) -> int | None:
        """Return the index of a class, or None if there is none of this name."""
        index = self._indices.get(name)
        return self._by_key.get(label_key(name)) if index is None else index


def permutation(names: Iterable[str], order: Iterable[str]) -> list[int] | None:
    """Compare two lists of classes.

    Args:
        names: one list.
        order: the other one.

    Returns:
        For each class of `order` its index in `names`; None if they are not the same classes.
    """
    names, order = tuple(names), tuple(order)
    index = LabelIndex(names)
    found = [position for name in order if (position := index.find(name)) is not None]
    return found if len(names) == len(order) == len(set(found)) else None


def describe_difference(expected: Iterable[str], found: Iterable[str]) -> str:
    """Name the labels that only one of two lists has, for a message.

    Args:
        expected: the labels of a model.
        found: the labels of the data.

    Returns:
        Such as `'pos' is missing, 'positive' is new`; for the same labels in another order, both orders.
    """
    expected, found = tuple(expected), tuple(found)
    missing = [name for name in expected if LabelIndex(found).find(name) is None]
    new = [name for name in found if LabelIndex(expected).find(name) is None]
    parts = [
        f"{', '.join(map(repr, names[:10]))}{', ...' if len(names) > 10 else ''} {'is' if len(names) == 1 else 'are'} "
        f"{what}"
        for names, what in ((missing, "missing"), (new, "new"))
        if names
    ]
    if parts:
        return ", ".join(parts)
    listed = [", ".join(map(repr, names[:10])) + (", ..." if len(names) > 10 else "") for names in (expected, found)]
    return f"the order was {listed[0]}, now it is {listed[1]}"
