"""Annotated spans of characters, as labels of a text's words. Offsets count code points."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from typing import Any, NamedTuple

from dynabert_paddle.config.names import setting
from dynabert_paddle.data.data_file import AnyFile
from dynabert_paddle.data.records import quote
from dynabert_paddle.errors import DataError
from dynabert_paddle.text.encode import split_words
from dynabert_paddle.text.word_labels import OUTSIDE

_MAX_MISFITS = 0.25  # share of the spans that may begin or end at wrong places, in a file with several
_MIN_SPANS = 4

# Other units in which programs count characters -> how many of them a text has.
_UNITS: dict[str, Callable[[str], int]] = {
    "UTF-16 units, as JavaScript and Java do": lambda text: len(text.encode("utf-16-le", "surrogatepass")) // 2,
    "bytes of UTF-8": lambda text: len(text.encode("utf-8", "surrogatepass")),
}
_EFFECTS = {
    "converted": "are counted in {unit}, as the text that they annotate tells, and were converted",
    "found": "annotate a text that is not at their offsets, and were moved to the only place that has it",
    "lost": "annotate a text that is not at their offsets, and were left out",
    "moved": "begin or end inside of a word, and were moved to the ends of the word",
    "cut": "end outside of their text, and were cut at its end",
    "outside": "are outside of their text, and were left out",
    "empty": "do not end after they begin, and were left out",
    "blank": "have no word, and were left out",
    "overlapping": "overlap another span, the longest of which stays, and were left out",
}
_MISPLACED = ("found", "lost", "moved", "cut", "outside")


class Span(NamedTuple):
    """An annotated span.

    Args:
        start: the index of its first character.
        end: the index after its last character.
        type: the entity's type.
        text: what is annotated, if the file tells it.
    """

    start: int
    end: int
    type: str
    text: str | None = None


def parse_span(value: Any) -> Span | None:
    """Read a span as annotation tools write them.

    Args:
        value: doccano's `[start, end, type]`, or its object with `start_offset`, `end_offset` and `label`; Label
            Studio's object with `start`, `end`, `labels` and `text`.

    Returns:
        The span; None for another value.
    """
    if isinstance(value, dict):
        start, end = value.get("start", value.get("start_offset")), value.get("end", value.get("end_offset"))
        types, text = value.get("labels", value.get("label")), value.get("text")
        value = [start, end, *(types if isinstance(types, list) else [types])]
    else:
        text = None
    if not isinstance(value, list) or len(value) != 3:
        return None
    start, end, kind = value
    if any(isinstance(place, bool) or not isinstance(place, int) for place in (start, end)):
        return None
    if not isinstance(kind, str) or not kind.strip():
        return None
    return Span(start, end, kind.strip(), text if isinstance(text, str) else None)


class SpanReader:
    """Turns the spans of a file's texts into labels, and counts those that do not fit.

    Args:
        source: the file, for messages.
        word_split: how the texts are split into words.
    """

    def __init__(self, source: AnyFile, word_split: str) -> None:
        self._source, self._word_split = source, word_split
        self._num_spans = 0
        self._counts: Counter[str] = Counter()
        self._lines: dict[str, int] = {}  # of the first span of each count
        self._unit = ""
        self._fitting: Counter[tuple[str, str]] = Counter()  # spans that other units move, and those that fit words

    def read(self, text: str, spans: Sequence[Span], line: int) -> tuple[list[str], list[str]]:
        """Label the words of a text.

        Args:
            text: the text.
            spans: its spans, in any order.
            line: its line in the file.

        Returns:
            The words, and their labels in the scheme IOB2.
        """
        words = split_words(text, self._word_split)
        labels = [OUTSIDE] * len(words)
        placed = [self._place(text, words, span, line) for span in dict.fromkeys(spans)]
        self._num_spans += len(placed)
        for span in sorted(filter(None, placed), key=lambda span: (span.start - span.end, span.start)):
            inside = [index for index, word in enumerate(words) if word[0] < span.end and word[1] > span.start]
            if not inside:
                self._count("blank", line)
            elif any(labels[index] != OUTSIDE for index in inside):
                self._count("overlapping", line)
            else:
                if words[inside[0]][0] < span.start or words[inside[-1]][1] > span.end:
                    self._count("moved", line)
                labels[inside[0]] = f"B-{span.type}"
                labels[inside[0] + 1 : inside[-1] + 1] = [f"I-{span.type}"] * (len(inside) - 1)
        return [text[start:end] for start, end in words], labels

    def _place(self, text: str, words: Sequence[tuple[int, int]], span: Span, line: int) -> Span | None:
        """Find a span's place in its text; None where it has none."""
        if span.text is not None and not _is_same(text[max(span.start, 0) : max(span.end, 0)], span.text):
            return self._find(text, span, line)
        if span.start >= span.end:
            self._count("empty", line)
            return None
        if span.text is None:
            self._compare_units(text, words, span)
        if span.start < 0 or span.start >= len(text):
            self._count("outside", line)
            return None
        if span.end > len(text):
            self._count("cut", line)
        return span._replace(end=min(span.end, len(text)))

    def _find(self, text: str, span: Span, line: int) -> Span | None:
        """Find a span whose text is not at its offsets."""
        assert span.text is not None
        for unit in _UNITS:
            start, end = (_to_characters(text, place, unit) for place in (span.start, span.end))
            if start is not None and end is not None and _is_same(text[start:end], span.text):
                self._unit = unit
                self._count("converted", line)
                return span._replace(start=start, end=end)
        if span.text and text.count(span.text) == 1:
            self._count("found", line)
            start = text.index(span.text)
            return span._replace(start=start, end=start + len(span.text))
        self._count("lost", line)
        return None

    def _compare_units(self, text: str, words: Sequence[tuple[int, int]], span: Span) -> None:
        """Count whether a span that other units would move fits better in these."""
        if text.isascii():
            return
        starts, ends = {start for start, _ in words}, {end for _, end in words}
        for unit in _UNITS:
            start, end = (_to_characters(text, place, unit) for place in (span.start, span.end))
            if (start, end) == (span.start, span.end):
                continue
            self._fitting["all", unit] += 1
            self._fitting["other", unit] += start in starts and end in ends
            self._fitting["own", unit] += span.start in starts and span.end in ends

    def _count(self, what: str, line: int) -> None:
        self._counts[what] += 1
        self._lines.setdefault(what, line)

    def check(self) -> Iterator[str]:
        """Judge the whole file, after its last text.

        Yields:
            Messages of one line about spans that were moved or left out.

        Raises:
            DataError: so many spans do not fit that the offsets count something else.
        """
        for unit in _UNITS:
            differ, other, own = (self._fitting[key, unit] for key in ("all", "other", "own"))
            if differ and other == differ and own <= (1 - _MAX_MISFITS) * differ:
                raise DataError(
                    f"{self._source}: the offsets of its spans seem to count {unit}, and not characters: of {differ} "
                    f"spans that this moves, all then begin and end with a word, else {own}; convert the offsets, or "
                    "export the annotated texts with them."
                )
        misplaced = {what: self._counts[what] for what in _MISPLACED if self._counts[what]}
        if self._num_spans >= _MIN_SPANS and sum(misplaced.values()) > _MAX_MISFITS * self._num_spans:
            first = min(self._lines[what] for what in misplaced)
            listed = ", ".join(f"{count} {_EFFECTS[what].split(',')[0]}" for what, count in misplaced.items())
            raise DataError(
                f"{self._source}:{first}: {sum(misplaced.values())} of {self._num_spans} spans do not fit their texts "
                f"({listed}); the first is of this line: offsets count the characters of the text from 0, and spans "
                f"consist of words; where each character is one, set {setting('task.word_split')} to characters."
            )
        for what, effect in _EFFECTS.items():
            if self._counts[what]:
                share = f"{self._counts[what]} of {self._num_spans} spans"
                first = self._lines[what]
                yield f"{self._source}: {share} {effect.format(unit=self._unit)}; the first is of line {first}"


def _to_characters(text: str, place: int, unit: str) -> int | None:
    """Return the index of the character at an offset in another unit; None inside of a character or outside."""
    count = _UNITS[unit]
    low, high = 0, len(text)
    while low < high:  # the number of units before a character grows with its index
        middle = (low + high) // 2
        low, high = (middle + 1, high) if count(text[:middle]) < place else (low, middle)
    return low if count(text[:low]) == place else None


def _is_same(found: str, annotated: str) -> bool:
    """Whether two texts have the same words: tools write line breaks in several ways."""
    return found.split() == annotated.replace("\\n", "\n").split()


def find_spans(values: Any, path: AnyFile, line: int, name: str) -> list[Span]:
    """Read the list of spans of a row.

    Args:
        values: the row's value.
        path: the file, for the message.
        line: the row's line, likewise.
        name: the column.

    Returns:
        The spans.

    Raises:
        DataError: another value.
    """
    if not isinstance(values, list):
        raise DataError(f"{path}:{line}: {name!r} is {quote(values)}; it must be a list of [start, end, type].")
    spans = []
    for value in values:
        span = parse_span(value)
        if span is None:
            raise DataError(
                f"{path}:{line}: {name!r} has {quote(value)}, which is no span: expected [start, end, type], where "
                "start and end are whole numbers."
            )
        spans.append(span)
    return spans
