"""SQuAD's format: one JSON object, with questions about the contexts of articles' paragraphs.

This file is part of every bundle's `infer.py` and `infer_lite.py`, so it stays Python 3.7 syntax.
"""

from __future__ import annotations

from typing import Any


class SquadError(ValueError):
    """An object that is not in SQuAD's format; the message is one line."""


def split_squad(document: Any) -> list[tuple[Any, Any]]:
    """Pair the questions of an object in SQuAD's format with their contexts.

    Args:
        document: the content of a `.json` file.

    Returns:
        For each question its record and the context, whose types are not checked.

    Raises:
        SquadError: another format.
    """
    try:
        paragraphs = [(p["context"], p["qas"]) for article in document["data"] for p in article["paragraphs"]]
        return [(record, context) for context, records in paragraphs for record in records]
    except (KeyError, TypeError) as error:
        raise SquadError(
            f"not in SQuAD's format ({type(error).__name__}: {error}); expected an object whose 'data' lists articles "
            "with 'paragraphs', each with a 'context' and 'qas'"
        ) from None
