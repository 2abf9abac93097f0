"""Encodes rows of texts for a bundle's graph, and decodes its logits to predictions, for every kind of task.

This file is part of every bundle's `infer.py` and `infer_lite.py`, so it stays Python 3.7 syntax.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np

from dynabert_paddle.bundle.input_counts import InputCounts
from dynabert_paddle.bundle.label_choice import LabelChoice
from dynabert_paddle.bundle.manifest import PROMPTS, ROLES, WINDOW_POOLINGS, BundleError, RowError
from dynabert_paddle.text.decode import (
    Answer,
    AnyPrediction,
    Embedding,
    MarkedText,
    Prediction,
    WordLabels,
    best_answer,
    column_names,
    find_entities,
    softmax,
)
from dynabert_paddle.text.document_windows import (
    NoRoomError,
    document_windows,
    pool_windows,
)
from dynabert_paddle.text.encode import (
    Template,
    first_tokens,
    join_words,
    question_windows,
    safe_text,
    split_words,
    truncate,
    write_words,
)
from dynabert_paddle.text.leading import CutRules, Tokens, encode_leading
from dynabert_paddle.text.marks import write_marks
from dynabert_paddle.text.word_decoding import WordDecoder
from dynabert_paddle.text.word_labels import DECODINGS, UnknownSchemeError, WordLabelScheme
from dynabert_paddle.text.word_windows import word_windows


def short_repr(value: object) -> str:
    """Return a value's repr for a message, in one line of at most 60 characters."""
    text = " ".join(repr(value).split())
    return text if len(text) <= 60 else text[:57] + "..."


class Row(NamedTuple):
    """A row's texts as they are tokenized, and for token classification its words.

    Args:
        texts: one text, or a pair.
        words: start and end of each word in the text.
        shown: the text that a prediction refers to.
        shown_words: start and end of each word in that text.
        number: the row's number for messages.
    """

    texts: list[str]
    words: Sequence[tuple[int, int]] = ()
    shown: str = ""
    shown_words: Sequence[tuple[int, int]] = ()
    number: int = 0


class Encoded(NamedTuple):
    """An encoded row: ids and token type ids of its windows, and how their logits become the prediction.

    Args:
        windows: ids and token type ids of each.
        decode: from the windows' logits, and the name of the sub-network that computed them, to the prediction.
    """

    windows: list[tuple[list[int], list[int]]]
    decode: Callable[[list[np.ndarray], str], AnyPrediction]


class RowEncoder:
    """Encodes rows for a bundle's graph, and decodes its predictions.

    Args:
        description: the content of `bundle.json`.
        template: the tokenizer's template for one text or a pair, as the task has.
        decode: one of `DECODINGS`, for labels of words; by default the bundle's.
        threshold: for several labels a text, as `LabelChoice` takes it.
        top_k: likewise.
        role: one of `ROLES`: what texts to embed are, where `read` is not told; by default documents.
        output_dim: the size that vectors are cut to, one of those that the model was trained for; by default whole.

    Raises:
        BundleError: the bundle cannot be read so, or has been damaged.
    """

    def __init__(
        self,
        description: dict[str, Any],
        template: Template,
        *,
        decode: str | None = None,
        threshold: float | Mapping[str, float] | None = None,
        top_k: int | None = None,
        role: str | None = None,
        output_dim: int | None = None,
    ) -> None:
        self.kind: str = description["task"].get("kind", "classification")
        self.labels: list[str] = description["labels"]
        if self.kind == "classification" and len(self.labels) < 2:  # earlier exports named a single output so
            self.kind, self.labels = "regression", []
        self._scheme, self._decoder = _make_decoder(self.kind, self.labels, description["task"], decode)
        # Tokens between the starts of windows; in a bundle that does not say it, long texts are cut.
        self._stride: int | None = None
        if self.kind != "question_answering":
            self._stride = description["task"].get("doc_stride")
        self._pooling: str = description["task"].get("window_pooling", WINDOW_POOLINGS[0])
        self._choice: LabelChoice | None = None
        if self.kind == "multi_label":
            self._choice = LabelChoice(description, threshold=threshold, top_k=top_k)
        elif threshold is not None or top_k is not None:
            name = "threshold" if threshold is not None else "top_k"
            raise BundleError(
                f"{name} is for bundles of several labels a text, and this one is for {self.kind}: leave it out"
            )
        self._prompts = {one: description["task"].get(PROMPTS[one], "") for one in ROLES}
        self._role = self._check_role(role)
        self._normalize = bool(description["task"].get("normalize"))
        self._output_dim = self._check_output_dim(output_dim, description)
        self.takes_pairs: bool = description["pair"]
        # How raw text is split; a bundle that does not say it was exported before this was recorded.
        self._word_split: str | None = description["task"].get("word_split")
        self._answers: dict[str, Any] = description.get("answers", {})
        self._max_seq_length: int = description["max_seq_length"]
        self._max_tokens = self._max_seq_length - template.num_special_tokens
        # A window that is not all question, or that comes forward.
        least = 4 if self.kind == "question_answering" else int(self._stride is not None)
        if self._max_tokens < least:
            raise BundleError(
                f"max_seq_length is {self._max_seq_length}, but a row needs at least "
                f"{template.num_special_tokens + least} tokens: export the model again"
            )
        self._template = template
        self.counts = InputCounts(description)
        # Tokens that count of each text; all of one that is split into windows.
        # One more tells that a text is cut; a pair loses the same tokens however long it is.
        self._limits: list[int | None] = [self._max_tokens + 1] * (1 + self.takes_pairs)
        if self.kind == "question_answering":
            self._limits = [self._max_tokens // 2 + 1, None]
        elif self._stride is not None:
            self._limits[-1] = None

    @property
    def column_names(self) -> list[str]:
        """The names of the `cells` of a prediction."""
        return ["text"] if self._scheme.has_marks else column_names(self.kind)

    @property
    def has_word_windows(self) -> bool:
        """Whether words are labelled, and long texts read in windows."""
        return self._stride is not None and self.kind == "token_classification"

    def _check_role(self, role: str | None) -> str:
        if role is not None and self.kind != "embedding":
            raise BundleError(f"role {role!r} is for bundles that embed texts, and this one is for {self.kind}")
        if role not in (None, *ROLES):
            raise BundleError(f"role is {role!r}; it must be one of {', '.join(ROLES)}")
        return role or ROLES[0]

    def _check_output_dim(self, size: int | None, description: dict[str, Any]) -> int | None:
        sizes = [*description["task"].get("output_dims", ()), description.get("vector_size")]
        if size is not None and self.kind != "embedding":
            raise BundleError(f"output_dim {size} is for bundles that embed texts, and this one is for {self.kind}")
        if size is not None and size not in sizes:
            allowed = ", ".join(map(str, sizes))
            raise BundleError(f"output_dim is {size}, and the model was trained for {allowed}: give one of these")
        return size

    def read(self, row: Sequence[str], number: int, role: str | None = None) -> Row:
        """Check a row.

        Args:
            row: one text, or a pair; for token classification a text can be a list of words.
            number: the row's number for the message.
            role: what a text to embed is; by default as the encoder was made for.

        Returns:
            Its texts, without lone surrogates; one to embed behind its prompt.

        Raises:
            BundleError: the row has another type or length.
        """
        # A str is a sequence too, but its characters are not texts.
        is_row = isinstance(row, Sequence) and not isinstance(row, (str, bytes)) and len(row) == 1 + self.takes_pairs
        if not is_row or not all(map(self._is_text, row)):
            wanted = "tuples of two texts" if self.takes_pairs else "tuples of one text"
            raise BundleError(f"row {number} is {short_repr(row)}: this bundle takes {wanted}")
        role = self._role if role is None else self._check_role(role)
        if self.kind == "embedding":
            return Row([safe_text(self._prompts[role] + row[0])])
        if self.kind != "token_classification":
            return Row([safe_text(text) for text in row], number=number)
        word_split = self._word_split or "words"
        if isinstance(row[0], str):
            text = safe_text(row[0])
            spans = split_words(text, word_split)
            if self._word_split is None:
                return Row([text], spans, text, spans)
            words = [text[start:end] for start, end in spans]
        else:
            words = [safe_text(word) for word in row[0]]
            text, spans = write_words(words, word_split)
        joined, positions = join_words(words)  # as in training
        return Row([joined], positions, text, spans)

    def _is_text(self, value: object) -> bool:
        if self.kind == "token_classification" and isinstance(value, (list, tuple)):
            return all(isinstance(word, str) for word in value)
        return isinstance(value, str)

    def encode_all(
        self, rows: Sequence[Row], encode: Callable[[list[str]], Sequence[Any]], rules: CutRules | None
    ) -> list[Encoded]:
        """Tokenize and encode rows.

        Args:
            rows: from `read`.
            encode: the tokenizer, without special tokens; returns encodings with `ids` and `offsets`.
            rules: where it can cut texts.

        Returns:
            The rows' windows.
        """
        texts = map(list, zip(*(row.texts for row in rows)))  # noqa: B905 - Python 3.7 has no strict
        with_offsets = self.kind in ("token_classification", "question_answering")
        columns = [
            encode_leading(column, limit, encode, rules, with_offsets=with_offsets)
            for column, limit in zip(texts, self._limits)  # noqa: B905
        ]
        return [self.encode(row, tokens) for row, tokens in zip(rows, zip(*columns))]  # noqa: B905

    def encode(self, row: Row, tokens: Sequence[Tokens]) -> Encoded:
        """Truncate a row or split it into windows, and add the special tokens.

        Args:
            row: from `read`.
            tokens: the tokens of each of its texts, without special tokens.

        Returns:
            Its windows; several only of a long text.

        Raises:
            RowError: the first text of a pair leaves no room for windows of the second.
        """
        if self.kind == "token_classification":
            return self._encode_words(row, tokens[0])
        if self.kind == "question_answering":
            return self._encode_question(row, *tokens)
        if self._stride is not None:
            return self._encode_document(row, [text.ids for text in tokens], self._stride)
        cut = truncate([text.ids for text in tokens], self._max_tokens)
        self.counts.add(cut, is_cut=sum(len(text.ids) for text in tokens) > self._max_tokens)
        return Encoded([self._template.wrap(*cut)], lambda logits, subnet: self._classify(logits[0], subnet))

    def _encode_document(self, row: Row, texts: list[list[int]], stride: int) -> Encoded:
        try:
            windows = document_windows(texts, max_tokens=self._max_tokens, stride=stride)
        except NoRoomError as error:
            raise RowError(f"row {row.number} ({short_repr(row.texts[0])}): {error} tokens: shorten it") from None
        self.counts.add(texts, is_cut=False)
        num_new = [window.num_new for window in windows]

        def decode(logits: list[np.ndarray], subnet: str) -> AnyPrediction:
            return self._classify(pool_windows(logits, num_new, [0], self._pooling)[0], subnet)

        return Encoded([self._template.wrap(*window.texts) for window in windows], decode)

    def _classify(self, logits: np.ndarray, subnet: str) -> AnyPrediction:
        if self._choice is not None:
            return self._choice.decode(logits, subnet)
        if self.kind == "embedding":
            vector = logits[: self._output_dim]
            if self._output_dim is not None and self._normalize:
                vector = vector / max(float(np.linalg.norm(vector)), 1e-12)
            return Embedding(vector.astype(np.float32).tolist())
        if not self.labels:
            return Prediction(None, float(logits[0]), {})
        scores = dict(zip(self.labels, softmax(logits).tolist()))  # noqa: B905 - Python 3.7 has no strict
        label = self.labels[int(logits.argmax())]
        return Prediction(label, scores[label], scores)

    def _encode_words(self, row: Row, tokens: Tokens) -> Encoded:
        before = len(self._template.ids[0])
        first = first_tokens(tokens.offsets, row.words, rest=tokens.rest)
        windows, num_cut = word_windows(first, len(tokens.ids), max_tokens=self._max_tokens, stride=self._stride)
        read = tokens.ids if self._stride is not None else tokens.ids[: self._max_tokens]
        self.counts.add([read], is_cut=num_cut > 0, num_cut_words=num_cut)

        def decode(logits: list[np.ndarray], subnet: str) -> WordLabels:
            labels, scores = self._decoder(len(first), windows, logits, before=before)
            entities = find_entities(row.shown, row.shown_words, labels, scores, self._scheme)
            words = [row.shown[start:end] for start, end in row.shown_words]
            if self._scheme.has_marks:
                marked = write_marks(row.shown, row.shown_words, labels)
                return MarkedText(words, labels, entities, num_cut, marked)
            return WordLabels(words, labels, entities, num_cut)

        return Encoded([self._template.wrap(tokens.ids[window.start : window.end]) for window in windows], decode)

    def _encode_question(self, row: Row, question: Tokens, context: Tokens) -> Encoded:
        longest = self._max_tokens // 2
        self.counts.add([question.ids[:longest], context.ids], is_cut=len(question.ids) > longest)
        settings = dict(self._answers)
        lengths = {"max_seq_length": self._max_seq_length, "doc_stride": settings.pop("doc_stride")}
        windows = question_windows(self._template, question.ids, context.ids, **lengths)

        def decode(logits: list[np.ndarray], subnet: str) -> Answer:
            scored = [
                (values, window.first, context.offsets[window.start : window.end])
                for values, window in zip(logits, windows)  # noqa: B905
            ]
            return best_answer(row.texts[1], scored, **settings)

        return Encoded([(window.ids, window.type_ids) for window in windows], decode)


def _make_decoder(
    kind: str, labels: list[str], task: dict[str, Any], decode: str | None
) -> tuple[WordLabelScheme, WordDecoder]:
    """Return the scheme of the labels of words, and what labels words by it; both empty for other kinds of tasks."""
    if kind != "token_classification":
        if decode is not None:
            raise BundleError(
                f"decode {decode!r} is for labels of words, and the bundle's task is {kind}: leave it out"
            )
        return WordLabelScheme([]), WordDecoder([], WordLabelScheme([]), decode="free")
    if decode is not None and decode not in DECODINGS:
        raise BundleError(f"decode is {decode!r}; it must be one of {', '.join(DECODINGS)}")
    name = task.get("label_scheme")
    if name is None and decode == "constrained":
        raise BundleError(
            "decode 'constrained' needs the scheme of the labels, and the bundle does not name it: export the model "
            "again"
        )
    try:
        scheme = WordLabelScheme.of_bundle(labels) if name is None else WordLabelScheme(labels, name)
    except UnknownSchemeError as error:
        raise BundleError(f"label_scheme of bundle.json: {error}: export the model again") from None
    return scheme, WordDecoder(labels, scheme, decode=decode or task.get("decode", "free"))
