"""The names of classes: how values of data files become names, and which names mean the same class."""

import math
import re
import unicodedata
from collections import Counter
from collections.abc import Iterable, Mapping
from decimal import Decimal

from dynabert_paddle.config.names import setting

_NUMBER = re.compile(r"-?(0|[1-9]\d*)(\.\d+)?([eE][-+]?\d{1,3})?", re.ASCII)  # JSON's; '007' and '1_0' are words

_MAX_LISTED = 5
_LONGEST_NUMBER = 25  # Decimal rounds numbers of more than 28 digits, and so would take different ones for equal


def label_text(value: str | bool | int | float) -> str:
    """Return the name of a class whose label is a value of a JSON file or of a Python caller.

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
    """Return a key that equal labels share: a number's value, else the name in Unicode's composed form.

    Args:
        name: a class's name, such as `1`, `1.0` or `pos`.

    Returns:
        The key: the same for `1` and `1.0`, and for `é` as one character and as two.
    """
    if len(name) > _LONGEST_NUMBER or not _NUMBER.fullmatch(name):
        return unicodedata.normalize("NFC", name)
    value = Decimal(name).normalize()
    return str(value + 0)  # -0 is 0


def merge_labels(names: Iterable[str]) -> set[str]:
    """Keep one name of each class: the shortest.

    Args:
        names: the names in a file.

    Returns:
        The shortest name of each class.
    """
    shortest: dict[str, str] = {}
    for name in sorted(names, key=lambda name: (len(name), name)):
        shortest.setdefault(label_key(name), name)
    return set(shortest.values())


class LabelIndex:
    """Finds the classes of names: by the name, else by the same number or characters that it writes in another way.

    Args:
        names: the classes in the order of the logits.
    """

    def __init__(self, names: Iterable[str]) -> None:
        self.names = tuple(names)
        self._indices = {name: index for index, name in enumerate(self.names)}
        self._by_key: Mapping[str, int] = {label_key(name): index for index, name in enumerate(self.names)}
        self._rewritten: Counter[tuple[str, str]] = Counter()

    def find(self, name: str) -> int | None:
        """Return the index of a class, or None if there is none of this name."""
        index = self._indices.get(name)
        if index is None:
            index = self._by_key.get(label_key(name))
            if index is not None:
                self._rewritten[name, self.names[index]] += 1
        return index

    def describe_rewritten(self) -> str | None:
        """Tell which names were found by another way to write them; None if there were none."""
        if not self._rewritten:
            return None
        forms = [  # in ASCII, which shows the characters of a name that looks the same
            f"{name!a} ({count} {'row' if count == 1 else 'rows'}) as {other!a}"
            for (name, other), count in self._rewritten.most_common(_MAX_LISTED)
        ]
        more = ", ..." if len(self._rewritten) > _MAX_LISTED else ""
        return (
            f"labels that write a number or a character in another way are counted as one class: {', '.join(forms)}"
            f"{more}; to keep them apart, list all labels with {setting('task.labels')}"
        )


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
