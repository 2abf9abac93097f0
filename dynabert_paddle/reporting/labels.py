"""The page's texts in English and Chinese, and its numbers with their units."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path

from markupsafe import Markup, escape

# English sentence -> Chinese sentence, for every sentence of the page.
CHINESE: dict[str, str] = json.loads(Path(__file__).with_name("chinese.json").read_text(encoding="utf-8"))

SCALES = {"ms": 1.0, "M": 1e6, "G": 1e9}


@dataclass(frozen=True)
class Text:
    """A text in both languages.

    Args:
        en: in English.
        zh: in Chinese.
    """

    en: str
    zh: str

    def __html__(self) -> str:
        """Return both, escaped; the page's style hides one of them."""
        if self.en == self.zh:
            return str(escape(self.en))
        return Markup('<span lang="en">{}</span><span lang="zh">{}</span>').format(self.en, self.zh)


def say(sentence: str, **values: Text | str | float) -> Text:
    """Return a sentence in both languages.

    Args:
        sentence: in English, a key of `CHINESE`, with placeholders in braces.
        values: the placeholders' values; a `Text` is inserted in the language of each.

    Returns:
        The text.
    """
    english = {name: value.en if isinstance(value, Text) else value for name, value in values.items()}
    chinese = {name: value.zh if isinstance(value, Text) else value for name, value in values.items()}
    return Text(sentence.format(**english), CHINESE[sentence].format(**chinese))


def verbatim(words: str) -> Text:
    """Return a name or a number, which is the same in both languages."""
    return Text(words, words)


def join(*texts: Text) -> Text:
    """Join sentences, in English with spaces between them."""
    return Text(" ".join(text.en for text in texts), "".join(text.zh for text in texts))


def quantity(value: float | None, unit: str) -> str:
    """Format a cost with its unit, a key of `SCALES`: for example `16.51 M`; empty for None."""
    return "" if value is None else f"{value / SCALES[unit]:.{3 if unit == 'G' else 2}f} {unit}"


def split_name(split: str) -> Text:
    """Return a readable name of a data split: `dev`, `holdout`, or another."""
    names = {"dev": say("the dev set"), "holdout": say("held-out training data")}
    return names.get(split, verbatim(split))
