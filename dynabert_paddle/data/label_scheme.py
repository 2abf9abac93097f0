"""The scheme of a task's labels of words, found in the training sentences, and labels that it does not allow."""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import Iterator, Sequence
from itertools import chain, pairwise

import numpy as np

from dynabert_paddle.config.names import setting
from dynabert_paddle.data.metrics import TYPE_F1
from dynabert_paddle.data.readers import Columns
from dynabert_paddle.data.token_classification import LABEL_COLUMN, Sentences, iterate_sentences
from dynabert_paddle.errors import UsageError, did_you_mean
from dynabert_paddle.text.word_decoding import allowed_transitions
from dynabert_paddle.text.word_labels import MARKS, TYPES, WordLabelScheme

logger = logging.getLogger(__name__)

_MAX_FORBIDDEN = 0.05  # of the words of entities: errors are rarer, another scheme is not
_MAX_SHOWN = 3

_Pair = tuple[str | None, str | None]  # labels of successive words; None before the first and after the last one


def find_label_scheme(sentences: Sentences, given: str | None) -> str:
    """Find the scheme of a task's labels, and log it.

    Args:
        sentences: the training sentences.
        given: the user's choice, which has the positions of the labels; None: of those that have, the one that forbids
            the fewest successive labels of the sentences, the first of `LABEL_SCHEMES` at a tie.

    Returns:
        One of `LABEL_SCHEMES`.

    Raises:
        UsageError: the user's choice forbids many.
    """
    names = sentences.names
    if given in (TYPES, MARKS):
        return given
    scheme = WordLabelScheme(names, given)
    counts = _count_pairs(sentences)
    forbidden = {name: _count_forbidden(counts, names, name) for name in scheme.possible_names}
    best = min(forbidden, key=lambda name: forbidden[name])
    if given is None:
        _log_choice(sentences, best)
        return best
    words = sum(count for (label, _), count in counts.items() if label is not None and not scheme.is_outside(label))
    if forbidden[given] > max(forbidden[best], _MAX_FORBIDDEN * words):
        raise UsageError(
            f"{setting('task.label_scheme')} is {given}, which forbids {forbidden[given]:,} successive labels of "
            f"{sentences.source}, where {best} forbids {forbidden[best]:,}: name {best}, or correct the labels."
        )
    return given


def check_type_metrics(metrics: Sequence[str], names: Sequence[str], scheme: str) -> None:
    """Refuse the F1 of a type that no label has.

    Args:
        metrics: names of metrics.
        names: all labels of the task.
        scheme: one of `LABEL_SCHEMES`.

    Raises:
        UsageError: a metric such as `f1_PER` names another type.
    """
    types = sorted(WordLabelScheme(names, scheme).types)
    for metric in metrics:
        kind = metric[len(TYPE_F1) :]
        if metric.startswith(TYPE_F1) and kind not in types:
            raise UsageError(
                f"{setting('task.metrics')} has {metric}, and the types of the labels are {', '.join(types[:20])}."
                f"{did_you_mean(kind, types)}"
            )


def describe_forbidden(sentences: Sentences, columns: Columns) -> Iterator[str]:
    """Describe the successive labels of a file that its scheme does not allow.

    Args:
        sentences: the file's sentences.
        columns: the columns that were read.

    Yields:
        A message of one line, if there are any.
    """
    name, names = sentences.settings.label_scheme, sentences.names
    if name is None:
        return
    counts = _count_pairs(sentences)
    forbidden = _forbidden_pairs(counts, names, name)
    if not forbidden:
        return
    number = sum(counts[pair] for pair in forbidden)
    places = list(_first_places(sentences, columns, forbidden))
    if not places:  # the file has changed
        return
    decoded = "; predictions have no such labels" if sentences.settings.decode == "constrained" else ""
    labels = "1 label stands" if number == 1 else f"{number:,} labels stand"
    yield (
        f"{sentences.source}: {labels} where {name} does not allow it{':' if number == 1 else ', first'} "
        f"{', '.join(places)}; correct them, or name another {setting('task.label_scheme')}{decoded}"
    )


def _count_pairs(sentences: Sentences) -> Counter[_Pair]:
    counts: Counter[_Pair] = Counter()
    for labels in sentences.labels:
        counts.update(pairwise(chain([None], labels, [None])))
    return counts


def _forbidden_pairs(counts: Counter[_Pair], names: Sequence[str], scheme: str) -> set[_Pair]:
    allowed = allowed_transitions(WordLabelScheme(names, scheme), names)
    index: dict[str | None, int] = {None: len(names), **{name: number for number, name in enumerate(names)}}
    return {pair for pair in counts if not allowed[index[pair[0]], index[pair[1]]]}


def _count_forbidden(counts: Counter[_Pair], names: Sequence[str], scheme: str) -> int:
    return int(np.sum([counts[pair] for pair in _forbidden_pairs(counts, names, scheme)], dtype=np.int64))


def _first_places(sentences: Sentences, columns: Columns, forbidden: set[_Pair]) -> Iterator[str]:
    """Describe the first places of some pairs: the second label, or the last one of a sentence, with its line."""
    num_found = 0
    for sentence in iterate_sentences(
        sentences.source,
        text_column=columns.text,
        label_column=columns.label or LABEL_COLUMN,
        given_names=sentences.names,
        is_read_again=True,
    ):
        labels = sentence.labels or []
        for word, pair in enumerate(pairwise(chain([None], labels, [None]))):
            if pair not in forbidden:
                continue
            before, after = pair
            line = sentence.line if sentence.lines is None else sentence.lines[min(word, len(labels) - 1)]
            if after is None:
                yield f"line {line} ({before} at the end)"
            else:
                yield f"line {line} ({after} {f'after {before}' if before else 'at the beginning'})"
            num_found += 1
            if num_found == _MAX_SHOWN:
                return


def _log_choice(sentences: Sentences, name: str) -> None:
    if name in (MARKS, TYPES):
        what = {MARKS: "punctuation marks behind the words", TYPES: "types without positions"}[name]
        logger.info("%s: the labels of words are %s", sentences.source, what)
    else:
        logger.info(
            "%s: the labels of words are in the scheme %s; %s names another",
            *(sentences.source, name, setting("task.label_scheme")),
        )
