"""Data augmentation by word replacement as in TinyBERT (Jiao et al., 2020, algorithm 1), and the augmented files.

Each row is written with N copies. In a copy, each word is replaced with probability p by one of its M candidates. Words
are runs of letters, in Chinese single characters; stop words, numbers and punctuation stay, as in TinyBERT's script.
"""

import json
import os
import unicodedata
from array import array
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np

from dynabert_paddle.data.layout import BARE_QUOTES
from dynabert_paddle.data.readers import Columns, Examples, read_column_names, read_rows
from dynabert_paddle.data.stored_texts import new_column
from dynabert_paddle.errors import DataError

# Column with the index, from 0, of the training row that a text was made from.
SOURCE_ROW = "source_row"

# From TinyBERT's script, English only. Tokenizers split words at apostrophes, so the parts are listed separately.
STOP_WORDS = frozenset(
    """
    i me my myself we our ours ourselves you your yours yourself yourselves he him his himself she her hers herself it
    its itself they them their theirs themselves this that these those am is are was were be been being have has had
    having do does did doing a an the and but if or because as until while of at by for with about against between into
    through during before after above below to from up down in out on off over under again further then once here there
    all any both each few more most other some such no nor not only own same so than too very s t can will just don
    should now d ll m o re ve y ain aren couldn didn doesn hadn hasn haven isn ma mightn mustn needn shan shouldn wasn
    weren won wouldn
    """.split()  # noqa: SIM905 - a list would take one line per word
)

_BREAKS = str.maketrans("\t\r\n", "   ")


class Word(NamedTuple):
    """A replaceable word: its start and end in the text, and the candidates to replace it."""

    start: int
    end: int
    candidates: Sequence[str]


def is_word(text: str) -> bool:
    """Whether a text consists of letters and accents only."""
    return bool(text) and all(unicodedata.category(character)[0] in "LM" for character in text)


def is_replaceable(text: str) -> bool:
    """Whether a text is a word but not a stop word."""
    return is_word(text) and text.lower() not in STOP_WORDS


def copy_row(
    texts: Sequence[str],
    words: Sequence[Sequence[Word]],
    rng: np.random.Generator,
    *,
    num_copies: int,
    probability: float,
    dropout: float = 0.0,
    swap: float = 0.0,
) -> tuple[list[tuple[str, ...]], int]:
    """Make copies of a row with replaced words.

    Args:
        texts: the row's text, or both texts of a pair; words of both are replaced in each copy.
        words: each text's replaceable words in order, each with at least one candidate.
        rng: the random generator.
        num_copies: N in the paper.
        probability: p in the paper, the probability that a word is replaced.
        dropout: the probability that a word of a copy is left out (random deletion: Wei and Zou, 2019).
        swap: the probability that a word of a copy changes places with the next one.

    Returns:
        The row and its copies, which can be equal, and the number of replaced words.
    """
    versions, num_replaced = [], 0
    for text, candidates in zip(texts, words, strict=True):
        shape = (num_copies, len(candidates))
        replaced = rng.random(shape) < probability
        picks = (rng.random(shape) * [len(word.candidates) for word in candidates]).astype(np.int64)
        copies = [_replace(text, candidates, *chosen) for chosen in zip(replaced, picks, strict=True)]
        if dropout or swap:
            copies = [_disturb(copy, rng, dropout=dropout, swap=swap) for copy in copies]
        versions.append([text, *copies])
        num_replaced += int(replaced.sum())
    return list(zip(*versions, strict=True)), num_replaced


def _replace(text: str, words: Sequence[Word], replaced: np.ndarray, picks: np.ndarray) -> str:
    parts, end = [], 0
    for index in np.flatnonzero(replaced):
        word = words[index]
        parts += [text[end : word.start], word.candidates[picks[index]]]
        end = word.end
    return "".join([*parts, text[end:]])


def _disturb(text: str, rng: np.random.Generator, *, dropout: float, swap: float) -> str:
    """Leave words out and let neighbours change places; words are what stands between blanks, and one always stays."""
    words = text.split(" ")
    stays = rng.random(len(words)) >= dropout
    if not stays.any():
        stays[rng.integers(len(words))] = True
    words = [word for word, kept in zip(words, stays, strict=True) if kept]
    for index in np.flatnonzero(rng.random(len(words) - 1) < swap):
        words[index], words[index + 1] = words[index + 1], words[index]
    return " ".join(words)


def to_line(values: Mapping[str, object], *, as_json: bool) -> str:
    """Format a row as a line of a data file.

    Args:
        values: values by column.
        as_json: as JSON; else as TSV, in which tabs and line breaks become spaces.

    Returns:
        The line with its end.
    """
    if as_json:
        return json.dumps(values, ensure_ascii=False) + "\n"
    return "\t".join(_one_line(str(value)) for value in values.values()) + "\n"


def read_augmented(path: str | os.PathLike, columns: Columns, train: Examples) -> tuple[Examples, np.ndarray]:
    """Read an augmented file; the texts of a large file stay on disk.

    Args:
        path: a file that `augment` wrote.
        columns: the task's columns; labels are not read.
        train: the training examples that the file was made from.

    Returns:
        The texts, and `[n]` int64 indices into `train` of the examples that they were made from.

    Raises:
        DataError: the file cannot be read, or was not made from these examples.
    """
    if SOURCE_ROW not in read_column_names(path):
        raise DataError(f"{path}:1: no column {SOURCE_ROW!r}; make the file with 'dynabert augment'.")
    path = Path(path)
    texts, pairs = new_column(path), new_column(path) if columns.pair else None
    sources = array("q")
    for row in read_rows(path, Columns(columns.text, columns.pair, SOURCE_ROW), BARE_QUOTES):
        label = row.label or ""
        source = int(label) if label.isdecimal() and len(label) < 19 else len(train)
        # The first text of each source row is the original.
        is_new = not sources or source != sources[-1]
        if source >= len(train) or (is_new and _one_line(row.text) != _one_line(train.texts[source])):
            raise DataError(
                f"{path}:{row.line}: {SOURCE_ROW} {row.label!r} is not this row of {train.source}; "
                "make the file again of these training rows with 'dynabert augment', and keep its order."
            )
        texts.append(row.text)
        if pairs is not None:
            pairs.append(row.pair or "")
        sources.append(source)
    return Examples(texts, pairs, None, train.source, documents=train.documents), np.asarray(sources)


def _one_line(text: str) -> str:
    return text.translate(_BREAKS)
