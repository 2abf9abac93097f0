"""What a user should know about tokenized rows: what is cut, unknown, or taken for a special token."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import NamedTuple, Protocol

import numpy as np

from dynabert_paddle.bundle.input_counts import MAX_UNKNOWN
from dynabert_paddle.config.names import setting
from dynabert_paddle.data.cut_texts import measure_cut
from dynabert_paddle.data.document_features import DocumentFeatures
from dynabert_paddle.data.features import Features, FeatureSet
from dynabert_paddle.data.question_answering import WindowFeatures
from dynabert_paddle.data.readers import Examples
from dynabert_paddle.data.streaming import StreamedFeatures
from dynabert_paddle.data.word_features import WordFeatures

# Rows of a file that is too large for memory, and the bytes of their texts.
_SAMPLE, _SAMPLE_BYTES = 1000, 2**24


class KnownTokens(Protocol):
    """A tokenizer that tells which of its ids are special."""

    @property
    def unk_token_id(self) -> int | None: ...

    @property
    def special_tokens(self) -> Mapping[int, str]: ...

    def count_special_tokens(self, texts: int) -> int: ...

    def num_special_tokens(self, texts: int) -> int: ...

    def encode_whole(self, texts: Sequence[str]) -> list[list[int]]: ...


class TokenCounts(NamedTuple):
    """Counts over the rows of a data file.

    Args:
        rows: the rows that were counted.
        cut: rows that were truncated.
        with_special: rows whose texts have special tokens.
        tokens: tokens, without the special tokens around the texts.
        unknown: tokens that are not in the vocabulary.
        words: labelled words; 0 for other kinds of tasks.
        cut_words: those that were truncated.
        unread: further rows, of a file that is too large for memory.
    """

    rows: int = 0
    cut: int = 0
    with_special: int = 0
    tokens: int = 0
    unknown: int = 0
    words: int = 0
    cut_words: int = 0
    unread: int = 0


def count_tokens(features: FeatureSet, tokenizer: KnownTokens, *, takes_pairs: bool) -> TokenCounts:
    """Count what `describe_tokens` warns about; for a file that is too large for memory, in a sample of rows.

    Args:
        features: tokenized rows.
        tokenizer: the tokenizer that made them.
        takes_pairs: whether a row has two texts.

    Returns:
        The counts.
    """
    num_rows = _num_rows(features)
    if isinstance(features, StreamedFeatures):
        chosen = _choose(features.lengths)
        if not len(chosen):
            return TokenCounts(unread=num_rows)
        features = features.tokenize(chosen)
    assert isinstance(features, Features)
    around = tokenizer.count_special_tokens(1 + takes_pairs)
    special = np.flatnonzero(np.isin(features.input_ids, list(tokenizer.special_tokens)))
    num_special = np.bincount(
        np.searchsorted(features.offsets, special, side="right") - 1,  # the row of each special token
        minlength=len(features),
    )
    is_unknown = features.input_ids == (-1 if tokenizer.unk_token_id is None else tokenizer.unk_token_id)
    words, cut_words, cut = 0, 0, 0
    if isinstance(features, WordFeatures):
        words, cut_words = sum(map(len, features.word_labels)), int(features.num_cut.sum())
        cut = int(np.count_nonzero(features.num_cut))
    elif features.is_cut is not None:
        cut = _count_rows(features, features.is_cut)
    return TokenCounts(
        rows=_num_rows(features),
        cut=cut,
        with_special=_count_rows(features, num_special > around),
        tokens=len(features.input_ids) - around * len(features),
        unknown=int(np.count_nonzero(is_unknown)),
        words=words,
        cut_words=cut_words,
        unread=num_rows - _num_rows(features),
    )


def _num_rows(features: FeatureSet) -> int:
    """The rows of the file; what is scored of texts to embed are pairs of them, or queries."""
    return len(features) if features.kind == "embedding" else features.num_scored


def _choose(sizes: np.ndarray) -> np.ndarray:
    """Choose rows at random, given the bytes of each row's texts."""
    rows = np.random.default_rng(0).permutation(len(sizes))[:_SAMPLE]
    return np.sort(rows[np.cumsum(sizes[rows], dtype=np.int64) <= _SAMPLE_BYTES])


def _count_rows(features: Features, mask: np.ndarray) -> int:
    """Count the rows of a file with an example in `mask`; a row in windows has an example for each."""
    if isinstance(features, (DocumentFeatures, WindowFeatures, WordFeatures)):
        return len(np.unique(features.owners[mask]))
    return int(mask.sum())


def describe_tokens(
    counts: Iterable[TokenCounts],
    tokenizer: KnownTokens,
    source: object,
    *,
    max_seq_length: int,
    is_fixed: bool = False,
    examples: object = None,
) -> Iterator[str]:
    """Describe what a user should know about the tokens of a data file.

    Args:
        counts: of the parts of the file.
        tokenizer: the tokenizer that made them.
        source: the file.
        max_seq_length: longer rows were truncated to this number of tokens.
        is_fixed: the caller reads texts as the model was trained to, so that only another training can change it.
        examples: the file's rows, to measure how much of them is cut; None if they are not known.

    Yields:
        Messages of one line.
    """
    total = TokenCounts(*map(sum, zip(*counts, strict=True)))
    rows = f"{total.rows:,}{' rows that were looked at' if total.unread else ' rows'}"
    longer = f"choose a larger {setting('task.max_seq_length')}"
    as_text = f"with {setting('task.special_tokens_in_text')} off it is read as text"
    if is_fixed:
        longer = "fine-tune a model with a larger max_seq_length"
        as_text = "a model that is fine-tuned with special_tokens_in_text off reads it as text"
    remedy = f"split them, or {longer}"
    if total.cut_words:
        yield (
            f"{source}: {total.cut_words:,} of {total.words:,} words, in {total.cut:,} of {rows}, are past "
            f"max_seq_length {max_seq_length}: they are not trained on, and predicted as O; {remedy}"
        )
    elif total.cut:
        measured = measure_cut(examples, tokenizer, max_seq_length) if isinstance(examples, Examples) else None
        amount = f": {measured.share:.0%} of their tokens, of {measured.longest:,} in the longest" if measured else ""
        can_have_windows = isinstance(examples, Examples) and examples.labels is not None and not is_fixed
        windows = f", or set {setting('task.long_text')} to windows" if can_have_windows else ""
        yield (
            f"{source}: {_share(total.cut, total.rows, rows)} are longer than max_seq_length {max_seq_length}, and "
            f"what is beyond it is not read{amount}; {remedy}{windows}"
        )
    if total.unknown > MAX_UNKNOWN * total.tokens:
        yield (
            f"{source}: {total.unknown / total.tokens:.0%} of the tokens are not in the model's vocabulary; fine-tune "
            f"a backbone ({setting('model_name_or_path')}) whose vocabulary is of this language and case"
        )
    if total.with_special:
        names = ", ".join(sorted(tokenizer.special_tokens.values())[:5])
        yield (
            f"{source}: {_share(total.with_special, total.rows, rows)} contain the text of a special token ({names}), "
            f"which is read as that token; {as_text}"
        )


def _share(part: int, whole: int, rows: str) -> str:
    return f"all {rows}" if part == whole else f"{part:,} of {rows} ({part / whole:.1%})"
