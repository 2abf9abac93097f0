"""Tables of results in the guides of docs/, each between two marks."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path

from dynabert_paddle.errors import UsageError
from dynabert_paddle.files.atomic import write_text

END = "<!-- end -->"


def markdown(headings: Sequence[str], lines: Iterable[Sequence[str]]) -> str:
    """Return a table in Markdown."""
    return "".join(f"| {' | '.join(line)} |\n" for line in (headings, ["---"] * len(headings), *lines))


def update(guide: Path, begin: str, content: str) -> None:
    """Replace the lines of a guide between a mark and the next end mark.

    Args:
        guide: the file.
        begin: the line of the first mark.
        content: the new lines.

    Raises:
        UsageError: the guide lacks the marks.
    """
    head, mark, rest = guide.read_text(encoding="utf-8").partition(f"{begin}\n")
    _, end, tail = rest.partition(END)
    if not mark or not end:
        raise UsageError(f"{guide}: has no lines '{begin}' and '{END}', between which the table goes: put them back")
    write_text(guide, f"{head}{begin}\n{content}{end}{tail}")
