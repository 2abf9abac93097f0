"""Token classification: sentences with labelled words, in CoNLL's format or as JSON lines.

Shapes: n sentences, k selected ones.
"""

from __future__ import annotations

import logging
import os
import unicodedata
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from dynabert_paddle.config.names import setting
from dynabert_paddle.data.annotated import AnnotatedRecords
from dynabert_paddle.data.batches import split_holdout
from dynabert_paddle.data.data_file import AnyFile, ending_of
from dynabert_paddle.data.features import OffsetEncoder, flatten
from dynabert_paddle.data.records import JSON_ENDINGS, TEXT_COLUMNS, first_record, open_records, quote, read_lines
from dynabert_paddle.data.word_features import IGNORED, WordFeatures
from dynabert_paddle.data.word_settings import WordSettings
from dynabert_paddle.errors import DataError, did_you_mean
from dynabert_paddle.text.conll import CONLL_ENDINGS, count_columns, is_conll, split_sentences
from dynabert_paddle.text.encode import first_tokens, join_words
from dynabert_paddle.text.lines import LineError
from dynabert_paddle.text.word_labels import OUTSIDE, UnknownSchemeError, WordLabelScheme
from dynabert_paddle.text.word_windows import WordWindow, word_windows

logger = logging.getLogger(__name__)

SENTENCE_ENDINGS = (*CONLL_ENDINGS, ".txt", ".tsv", *JSON_ENDINGS)
TEXT_COLUMN, LABEL_COLUMN = "tokens", "labels"  # in JSON lines
_SENTENCES_PER_CALL = 1024


class Sentence(NamedTuple):
    """A sentence of a data file.

    Args:
        line: the number of its first line.
        words: its words.
        labels: their labels; None for a file without labels.
        fields: the object of JSON lines that it is from.
        lines: the number of each word's line; None if all are in one.
    """

    line: int
    words: list[str]
    labels: list[str] | None
    fields: Mapping[str, Any] | None = None
    lines: list[int] | None = None


@dataclass(frozen=True, eq=False)
class Sentences:
    """The sentences of one data file.

    Args:
        words: each sentence's words.
        labels: their labels.
        names: the classes in the order of the logits.
        source: the file that was read, as an absolute path.
        settings: how words are labelled.
    """

    words: list[list[str]]
    labels: list[list[str]]
    names: tuple[str, ...]
    source: Path
    settings: WordSettings = WordSettings()  # noqa: RUF009 - it is frozen

    def __len__(self) -> int:
        return len(self.words)

    def hold_out(self, num_examples: int, *, seed: int) -> tuple[np.ndarray, np.ndarray]:
        """Hold out sentences.

        Args:
            num_examples: number of sentences to hold out.
            seed: random seed of the choice.

        Returns:
            Ascending indices of the sentences to train on, and of those held out.
        """
        return split_holdout(np.zeros(len(self), dtype=np.float32), num_examples=num_examples, seed=seed)

    def select(self, indices: np.ndarray) -> Sentences:
        """Select some of the sentences.

        Args:
            indices: `[k]` integers, in any order.

        Returns:
            The sentences in the order of `indices`.
        """
        words, labels = ([rows[i] for i in indices] for rows in (self.words, self.labels))
        return replace(self, words=words, labels=labels)

    def tokenize(self, tokenizer: OffsetEncoder, *, max_seq_length: int) -> WordFeatures:
        """Tokenize the sentences, in windows where they are long; a word's label belongs to its first token.

        Args:
            tokenizer: returns each token's position in the text.
            max_seq_length: tokens of an example, at most, including special tokens.

        Returns:
            The tokenized sentences.

        Raises:
            UsageError: windows of this length would not overlap.
        """
        template = tokenizer.template(1)
        max_tokens, before = max_seq_length - template.num_special_tokens, len(template.ids[0])
        stride = self.settings.window_stride(max_tokens, max_seq_length=max_seq_length)
        limit = max_tokens if stride is None else None
        classes = {name: index for index, name in enumerate(self.names)}
        windows: list[list[WordWindow]] = []
        num_cut: list[int] = []
        parts: list[tuple[np.ndarray, ...]] = []
        for start in range(0, len(self), _SENTENCES_PER_CALL):
            joined = [join_words(words) for words in self.words[start : start + _SENTENCES_PER_CALL]]
            rows: list[tuple[list[int], list[int]]] = []
            token_labels: list[np.ndarray] = []
            encoded = tokenizer.encode_offsets([text for text, _ in joined], limit)
            for index, ((ids, offsets, rest), (_, spans)) in enumerate(zip(encoded, joined, strict=True), start=start):
                first = first_tokens(offsets, spans, rest=rest)
                found, cut = word_windows(first, len(ids), max_tokens=max_tokens, stride=stride)
                windows.append(found)
                num_cut.append(cut)
                own = np.array([classes[name] for name in self.labels[index]], dtype=np.int64)
                for window in found:
                    rows.append(template.wrap(ids[window.start : window.end]))
                    token_labels.append(np.full(len(rows[-1][0]), IGNORED, dtype=np.int64))
                    token_labels[-1][before + window.tokens] = own[window.words]
            parts.append((*flatten(rows), np.concatenate(token_labels)))
        input_ids, type_ids, offsets_of, labels = zip(*parts, strict=True)
        lengths = np.concatenate([np.diff(offsets) for offsets in offsets_of])
        return WordFeatures(
            np.concatenate(input_ids),
            np.concatenate(type_ids),
            np.concatenate([[0], np.cumsum(lengths, dtype=np.int64)]),
            None,
            token_labels=np.concatenate(labels),
            windows=windows,
            before=before,
            word_labels=self.labels,
            num_cut=np.array(num_cut),
            names=self.names,
            scheme=WordLabelScheme(self.names, self.settings.label_scheme),
            decode=self.settings.decode,
        )


def read_sentences(
    path: str | os.PathLike,
    names: Sequence[str],
    *,
    text_column: str = TEXT_COLUMN,
    label_column: str = LABEL_COLUMN,
    given_names: Sequence[str] | None = None,
    word_split: str = "words",
) -> Sentences:
    """Read a data file into memory.

    Args:
        path: CoNLL's format, with a word and its label per line; or JSON lines, with an object per sentence.
        names: the classes in the order of the logits.
        text_column: key of the list of words in JSON lines.
        label_column: key of the list of labels in JSON lines.
        given_names: the user's labels in their order, which integers may stand for.
        word_split: how texts with annotated spans are split into words.

    Returns:
        The file's sentences in order.

    Raises:
        DataError: the file cannot be read, or a sentence has another format.
    """
    path = Path(path)
    words: list[list[str]] = []
    labels: list[list[str]] = []
    for sentence in iterate_sentences(
        path, text_column=text_column, label_column=label_column, given_names=given_names, word_split=word_split
    ):
        sentence_labels = sentence.labels or []
        for label in sentence_labels:
            if label not in names:
                allowed = ", ".join(map(quote, names[:20])) + (", ..." if len(names) > 20 else "")
                raise DataError(
                    f"{path}:{sentence.line}: the sentence has the label {quote(label)}, which is not one of the "
                    f"task's, {allowed}.{did_you_mean(label, names)} Correct it, or list all labels with "
                    f"{setting('task.labels')}."
                )
        words.append(sentence.words)
        labels.append(sentence_labels)
    return Sentences(words, labels, tuple(names), path.absolute())


def find_word_labels(path: str | os.PathLike, *, text_column: str, label_column: str) -> tuple[str, ...]:
    """List the labels that occur in a data file.

    Args:
        path: the training file.
        text_column: key of the list of words in JSON lines.
        label_column: key of the list of labels in JSON lines.

    Returns:
        The distinct labels: first `O`, or `o`, if it occurs, then the others, sorted.

    Raises:
        DataError: the file cannot be read, or has only one label.
    """
    found: set[str] = set()
    perhaps_comments: dict[str, int] = {}
    has_spans = False
    for sentence in iterate_sentences(
        Path(path), text_column=text_column, label_column=label_column, is_read_again=True
    ):
        labels = sentence.labels or []
        if sentence.words[0] == "#" and ending_of(Path(path)) not in JSON_ENDINGS:
            perhaps_comments.setdefault(labels[0], sentence.line)
            labels = labels[1:]
        found.update(labels)
        has_spans = has_spans or (
            sentence.fields is not None and not isinstance(sentence.fields.get(text_column), list)
        )
    if has_spans:  # a type has both labels, whichever its spans in this file need
        found.add(OUTSIDE)
        found.update(f"I-{label[2:]}" for label in list(found) if label.startswith("B-"))
    for label, line in perhaps_comments.items():
        if label not in found:
            raise DataError(
                f"{path}:{line}: begins with #, has as many columns as the other lines, and ends with {quote(label)}, "
                f"which no other line does; remove the line if it is a comment, or list all labels with "
                f"{setting('task.labels')}."
            )
    if len(found) < 2:
        raise DataError(f"{path}: every word has the label {quote(*found)}; a classifier needs at least two labels.")
    forms: dict[str, str] = {}
    for label in sorted(found):
        other = forms.setdefault(unicodedata.normalize("NFC", label), label)
        if other != label:
            logger.warning(
                "%s: the labels %s and %s are the same characters in two forms of Unicode, and two classes: write them "
                "alike",
                *(path, ascii(other), ascii(label)),
            )
    outside = OUTSIDE if OUTSIDE in found else OUTSIDE.lower()
    return tuple(sorted(found, key=lambda label: (label != outside, label)))


def check_word_labels(labels: Sequence[str], source: str | os.PathLike, *, scheme: str | None = None) -> None:
    """Refuse labels that name no entities in a known way.

    Args:
        labels: all labels of the task.
        source: where they are from, for the message.
        scheme: the user's choice of `LABEL_SCHEMES`.

    Raises:
        DataError: they are of no known scheme, or not of the user's.
    """
    try:
        WordLabelScheme(labels, scheme)
    except UnknownSchemeError as error:
        if scheme is not None:
            raise DataError(
                f"{source}: {error}: leave out {setting('task.label_scheme')}, or name the scheme of the labels."
            ) from None
        raise DataError(
            f"{source}: the labels do not say which words form an entity: {error}. Write B-PER for the first and I-PER "
            "for the other words of an entity of the type PER, and O for the words outside."
        ) from None


def iterate_sentences(
    path: AnyFile,
    *,
    text_column: str = TEXT_COLUMN,
    label_column: str | None = LABEL_COLUMN,
    given_names: Sequence[str] | None = None,
    word_split: str = "words",
    is_read_again: bool = False,
) -> Iterator[Sentence]:
    """Read a data file sentence by sentence, without loading it into memory.

    Args:
        path: the data file.
        text_column: key of the list of words in JSON lines.
        label_column: key of the list of labels in JSON lines; None: labels are not read and may be missing.
        given_names: the user's labels in their order, which integers may stand for.
        word_split: how texts with annotated spans are split into words.
        is_read_again: the file is read more than once, and warnings are given another time.

    Yields:
        The non-empty sentences; without labels an empty list of words, too, so that each object has its prediction.

    Raises:
        DataError: at the first error.
    """
    ending = ending_of(path)
    if ending not in SENTENCE_ENDINGS:
        raise DataError(
            f"{path}: unknown file ending {ending!r}; the endings of token classification are "
            f"{', '.join(SENTENCE_ENDINGS)}.{did_you_mean(ending, SENTENCE_ENDINGS)} Rename or convert the file."
        )
    sentence = None
    if ending in JSON_ENDINGS:
        annotated = AnnotatedRecords(
            path, text_column, label_column or LABEL_COLUMN, given_names=given_names, word_split=word_split
        )
        rows = _json_sentences(path, text_column, label_column, annotated)
    else:
        annotated = None
        rows = _conll_sentences(path, label_column)
    for sentence in rows:
        if any(not word.strip() or any(map(str.isspace, word)) for word in sentence.words):
            raise DataError(f"{path}:{sentence.line}: a word is empty or contains white space; split or remove it.")
        yield sentence
    for message in annotated.check() if annotated else ():
        if not is_read_again:
            logger.warning("%s", message)
    if sentence is None:
        raise DataError(f"{path}:1: the file has no sentences; add at least one.")


def has_sentences(path: Path, text_column: str | None, labels: Sequence[str]) -> bool:
    """Tell a file of sentences that are divided into words from a file of texts.

    Args:
        path: a file to predict.
        text_column: the column to read; None if the file has none of the task's.
        labels: the labels that the last column of a file in CoNLL's format has.

    Returns:
        Whether `iterate_sentences` reads the file.

    Raises:
        DataError: the file cannot be read, or only most of its lines are in CoNLL's format.
    """
    ending = ending_of(path)
    if ending in CONLL_ENDINGS:
        return True
    if ending in JSON_ENDINGS:
        record = first_record(path, open_records(path))[1]
        return isinstance(record, dict) and isinstance(record.get(text_column or TEXT_COLUMN), list)
    if ending not in SENTENCE_ENDINGS:
        return False
    if ending == ".tsv" and {text_column, *TEXT_COLUMNS} & set(first_record(path, open_records(path))[1]):
        return False
    if text_column is not None:
        return text_column == TEXT_COLUMN
    num_columns = count_columns(text for _, text in read_lines(path))
    try:
        return is_conll((text for _, text in read_lines(path)), num_columns, labels)
    except LineError as error:
        raise DataError(f"{path}:{error.line}: {error}.") from None


def _conll_sentences(path: AnyFile, label_column: str | None) -> Iterator[Sentence]:
    labelled = label_column is not None
    column = None if label_column == LABEL_COLUMN else label_column
    try:
        for rows in split_sentences((text for _, text in read_lines(path)), labelled=labelled, label_column=column):
            words = [fields[0] for _, fields in rows]
            labels = [fields[-1] for _, fields in rows] if labelled else None
            yield Sentence(rows[0][0], words, labels, lines=[number for number, _ in rows])
    except LineError as error:
        raise DataError(f"{path}:{error.line}: {error}.") from None


def _json_sentences(
    path: AnyFile, text_column: str, label_column: str | None, annotated: AnnotatedRecords
) -> Iterator[Sentence]:
    for line, original in open_records(path):
        record = original if label_column is None else annotated.plain(line, original)
        lists: list[list[str] | None] = []
        for key, name in (("task.text_column", text_column), ("task.label_column", label_column)):
            if name is None:
                lists.append(None)
                continue
            if name not in record:
                raise DataError(
                    f"{path}:{line}: no {name!r}; the keys here are {', '.join(map(quote, record))}."
                    f"{did_you_mean(name, record)} Choose one with {setting(key)}."
                )
            values = record[name]
            if not isinstance(values, list) or not all(isinstance(value, str) for value in values):
                raise DataError(f"{path}:{line}: {name!r} is {quote(values)}; it must be a list of strings.")
            lists.append(values)
        words, labels = lists[0] or [], lists[1]
        if labels is not None and len(words) != len(labels):
            raise DataError(f"{path}:{line}: {len(words)} tokens and {len(labels)} labels; give each token one label.")
        if labels is not None:
            labels = [label.strip() for label in labels]
            if "" in labels:
                raise DataError(f"{path}:{line}: a label is empty; give each token one label.")
            labels = [label for word, label in zip(words, labels, strict=True) if not word.isspace()]
        words = [word for word in words if not word.isspace()]  # blanks of a text whose characters are words
        if words or label_column is None:
            yield Sentence(line, words, labels, fields=original)
