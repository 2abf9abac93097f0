"""Special formats of benchmark files: no header, derived columns, skipped rows."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class Layout:
    """How a task's files differ from a plain table or plain JSON lines.

    Args:
        header: names of the columns, for a table without a header line.
        derive: computes the columns from a JSON object; raises a `ValueError` with the reason if the object is invalid,
            and a `KeyError` for a missing key.
        skipped_label: rows with this label are skipped and counted.
        skip_short_rows: whether rows with too few fields are skipped and counted; otherwise they are errors.
        bare_quotes: whether the quotes in TSV files are part of the texts; otherwise each file's content tells.
    """

    header: tuple[str, ...] | None = None
    derive: Callable[[dict[str, Any]], dict[str, Any]] | None = None
    skipped_label: str | None = None
    skip_short_rows: bool = False
    bare_quotes: bool = False


PLAIN = Layout()
BARE_QUOTES = Layout(bare_quotes=True)


def join_keywords(record: dict[str, Any]) -> dict[str, Any]:
    """Join the keywords of a CSL row to one text.

    Args:
        record: a JSON object with the list `keyword`.

    Returns:
        The object with the keywords in one string, separated by a Chinese comma.

    Raises:
        ValueError: `keyword` is not a list of strings.
    """
    keywords = record["keyword"]
    if not isinstance(keywords, list) or not all(isinstance(word, str) for word in keywords):
        raise ValueError(f"'keyword' must be a list of strings, not {keywords!r:.60}")
    return {**record, "keyword": "、".join(keywords)}


def mark_spans(record: dict[str, Any]) -> dict[str, Any]:
    """Make a pair from a CLUEWSC2020 row: the text with both spans marked, and the claim that they are the same.

    The claim names the spans; the marks distinguish them from equal words elsewhere in the text. For 张三说他病了 with
    the spans 张三 and 他 the pair is [张三]说_他_病了 and 他指的是张三.

    Args:
        record: a JSON object with `text` and `target`, which has text and position of `span1` and `span2`.

    Returns:
        The object with `marked_text` and `claim`.

    Raises:
        ValueError: a span is not at its position.
    """
    text, target = record["text"], record["target"]
    marks = []
    for span, left, right in (("span1", "[", "]"), ("span2", "_", "_")):
        start, words = target[f"{span}_index"], target[f"{span}_text"]
        end = start + len(words)
        if text[start:end] != words:
            raise ValueError(f"'{span}_text' is {words!r:.60}, but at {start} the text has {text[start:end]!r:.60}")
        marks += [(start, left), (end, right)]
    # From the end to the beginning, so that the positions stay valid.
    for position, mark in sorted(marks, reverse=True):
        text = text[:position] + mark + text[position:]
    return {**record, "marked_text": text, "claim": f"{target['span2_text']}指的是{target['span1_text']}"}
