"""The page's words in English and Chinese, and its numbers with their units."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path

from markupsafe import Markup, escape

# Every sentence of the page by what it is in English.
CHINESE: dict[str, str] = json.loads(Path(__file__).with_name("chinese.json").read_text(encoding="utf-8"))

SCALES = {"ms": 1.0, "M": 1e6, "G": 1e9}


@dataclass(frozen=True)
class Text:
    """Words in both languages.

    Args:
        en: in English.
        zh: in Chinese.
    """

    en: str
    zh: str

    def __html__(self) -> str:
        """Both, escaped; the page's style hides one of them."""
        if self.en == self.zh:
            return str(escape(self.en))
        return Markup('<span lang="en">{}</span><span lang="zh">{}</span>').format(self.en, self.zh)


def say(sentence: str, **values: Text | str | float) -> Text:
    """Say something in both languages.

    Args:
        sentence: in English, a key of `CHINESE`, with names of values in braces.
        values: what stands for the names; a `Text` in the language of each.

    Returns:
        The words.
    """
    english = {name: value.en if isinstance(value, Text) else value for name, value in values.items()}
    chinese = {name: value.zh if isinstance(value, Text) else value for name, value in values.items()}
    return Text(sentence.format(**english), CHINESE[sentence].format(**chinese))


def verbatim(words: str) -> Text:
    """Names and numbers, which are the same in both languages.

    Args:
        words: the name.

    Returns:
        The words.
    """
    return Text(words, words)


def join(*texts: Text) -> Text:
    """Put sentences one behind the other.

    Args:
        texts: the sentences.

    Returns:
        All of them; Chinese has no spaces between.
    """
    return Text(" ".join(text.en for text in texts), "".join(text.zh for text in texts))


def quantity(value: float | None, unit: str) -> str:
    """Write what something costs.

    Args:
        value: in ones; None where it is not known.
        unit: a key of `SCALES`.

    Returns:
        For example `16.51 M`; empty where the value is not known.
    """
    return "" if value is None else f"{value / SCALES[unit]:.{3 if unit == 'G' else 2}f} {unit}"


def split_name(split: str) -> Text:
    """Name the data that was scored.

    Args:
        split: `dev`, `holdout`, or another.

    Returns:
        What a reader calls it.
    """
    names = {"dev": say("the dev set"), "holdout": say("held-out training data")}
    return names.get(split, verbatim(split))
