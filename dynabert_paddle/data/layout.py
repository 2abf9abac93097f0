"""What is peculiar to a benchmark's files: no header, columns made from others, rows that are left out."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class Layout:
    """How a task's files differ from a plain table or plain JSON lines.

    Args:
        header: names of the columns where a table's first line does not hold them.
        derive: makes the columns that are read from what a JSON object holds; a `ValueError` says what is wrong with
            the object, and a `KeyError` names what it lacks.
        skipped_label: rows with this label are counted and left out.
        skip_short_rows: whether rows with too few fields are counted and left out, not refused.
    """

    header: tuple[str, ...] | None = None
    derive: Callable[[dict[str, Any]], dict[str, Any]] | None = None
    skipped_label: str | None = None
    skip_short_rows: bool = False


PLAIN = Layout()


def join_keywords(record: dict[str, Any]) -> dict[str, Any]:
    """Make one text of CSL's list of keywords.

    Args:
        record: with the list `keyword`.

    Returns:
        The same with the keywords in one string, divided as Chinese lists are.

    Raises:
        ValueError: `keyword` is no list of strings.
    """
    keywords = record["keyword"]
    if not isinstance(keywords, list) or not all(isinstance(word, str) for word in keywords):
        raise ValueError(f"'keyword' is a list of strings, not {keywords!r:.60}")
    return {**record, "keyword": "、".join(keywords)}


def mark_spans(record: dict[str, Any]) -> dict[str, Any]:
    """Make a pair of texts of a CLUEWSC2020 row: the text with both spans marked, and the claim that they are the same.

    The claim names the spans; the marks tell them from the same words elsewhere in the text. For 张三说他病了 with the
    spans 张三 and 他 the pair is [张三]说_他_病了 and 他指的是张三.

    Args:
        record: with `text` and `target`, which holds the text and the position of `span1` and of `span2`.

    Returns:
        The same with `marked_text` and `claim`.

    Raises:
        ValueError: a span that is not where `target` says.
    """
    text, target = record["text"], record["target"]
    marks = []
    for span, left, right in (("span1", "[", "]"), ("span2", "_", "_")):
        start, words = target[f"{span}_index"], target[f"{span}_text"]
        end = start + len(words)
        if text[start:end] != words:
            raise ValueError(f"'{span}_text' is {words!r:.60}, but at {start} the text has {text[start:end]!r:.60}")
        marks += [(start, left), (end, right)]
    # From the end to the beginning, so that the positions hold.
    for position, mark in sorted(marks, reverse=True):
        text = text[:position] + mark + text[position:]
    return {**record, "marked_text": text, "claim": f"{target['span2_text']}指的是{target['span1_text']}"}
