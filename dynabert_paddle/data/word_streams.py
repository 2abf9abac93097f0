"""A stream of labelled words without blank lines, such as a speech whose punctuation is to be restored."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import replace
from itertools import pairwise

from dynabert_paddle.data.token_classification import Sentences
from dynabert_paddle.text.word_labels import WordLabelScheme

logger = logging.getLogger(__name__)

_MIN_WORDS, _MAX_WORDS, _PARTS = 50, 500, 20


def divide_stream(sentences: Sentences) -> Sentences:
    """Divide a file that is one long text into parts, so that some can be held out, and a score has several examples.

    Args:
        sentences: the file's sentences, with a scheme.

    Returns:
        Parts of similar length, of 50 to 500 words, cut between entities; the same sentences if
        they are several, or one of fewer words.
    """
    words, labels = sentences.words[0], sentences.labels[0]
    if len(sentences) > 1 or len(words) < 2 * _MIN_WORDS:
        return sentences
    num_parts = -(-len(words) // min(_MAX_WORDS, max(_MIN_WORDS, len(words) // _PARTS)))
    scheme = WordLabelScheme(sentences.names, sentences.settings.label_scheme)
    targets = [len(words) * part // num_parts for part in range(num_parts)]
    ends = sorted({0, len(words), *(_outside(labels, target, scheme) for target in targets[1:])})
    logger.info(
        "%s: one text of %d words without blank lines, which is read in %d parts",
        *(sentences.source, len(words), len(ends) - 1),
    )
    parts = [slice(start, end) for start, end in pairwise(ends)]
    return replace(sentences, words=[words[part] for part in parts], labels=[labels[part] for part in parts])


def _outside(labels: Sequence[str], target: int, scheme: WordLabelScheme) -> int:
    """Return the index of the first word outside of entities from one on; that one if there is none near it."""
    near = range(target, min(target + _MIN_WORDS, len(labels)))
    return next((index for index in near if scheme.is_outside(labels[index])), target)
