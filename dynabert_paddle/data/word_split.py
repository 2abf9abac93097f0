"""How texts are split into the words that are labelled: as the training sentences are."""

import logging
from collections import Counter
from itertools import chain, pairwise

from dynabert_paddle.config.names import setting
from dynabert_paddle.data.token_classification import Sentences
from dynabert_paddle.errors import UsageError
from dynabert_paddle.text.encode import WORD_SPLITS, split_words, write_words

logger = logging.getLogger(__name__)

_USUAL_SHARE = 0.9  # of the words of a training file that a text's split finds again


def find_word_split(sentences: Sentences) -> str:
    """Find out how the words of a training file were split.

    Args:
        sentences: the training sentences.

    Returns:
        `characters` if letters and digits that follow one another are words of their own, as in Chinese data with one
        character a line; else `words`.
    """
    num_long = sum(_is_long(word) for words in sentences.words for word in words)
    neighbours = Counter(chain.from_iterable(map(pairwise, sentences.words)))
    # In a text these would be one word: 1 and 0 of 10.
    num_split = sum(
        count
        for (first, second), count in neighbours.items()
        if len(first) == len(second) == 1 and len(split_words(first + second)) == 1
    )
    return "characters" if num_split > num_long or not num_long else "words"


def check_word_split(word_split: str, sentences: Sentences) -> str:
    """Warn if texts that are split so have other words than the training sentences.

    Args:
        word_split: one of `WORD_SPLITS`.
        sentences: the training sentences.

    Returns:
        `word_split`.

    Raises:
        UsageError: it is not one of `WORD_SPLITS`.
    """
    if word_split not in WORD_SPLITS:
        raise UsageError(f"{setting('task.word_split')} is {word_split!r}; it must be one of {', '.join(WORD_SPLITS)}.")
    lost: list[str] = []
    for words in sentences.words:
        if word_split == "characters":
            lost += filter(_is_long, words)
            continue
        text, spans = write_words(words, word_split)
        found = set(split_words(text, word_split))
        lost += [word for word, span in zip(words, spans, strict=True) if span not in found]
    total = sum(map(len, sentences.words))
    if len(lost) > (1 - _USUAL_SHARE) * total:
        logger.warning(
            "%s: %d of %d words, such as %r, are not those that a text is split into for a prediction (%s); "
            "there, give lists of words, as JSON lines with 'tokens'",
            *(sentences.source, len(lost), total, lost[0], word_split),
        )
    return word_split


def _is_long(word: str) -> bool:
    """Whether a word has several characters; an accent belongs to the one before it."""
    return len(word) > 1 and len(split_words(word, "characters")) > 1
