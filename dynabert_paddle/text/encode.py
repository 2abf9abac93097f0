"""Encoding of texts, in training and in bundles: special tokens, truncation, words, windows.

This file is part of every bundle's `infer.py` and `infer_lite.py`, so it stays Python 3.7 syntax.
"""

from __future__ import annotations

import json
import re
import unicodedata
from bisect import bisect_left, bisect_right
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from itertools import accumulate
from typing import TYPE_CHECKING, Any, NamedTuple

from dynabert_paddle.runtime.memory import raise_memory_error

if TYPE_CHECKING:
    import tokenizers

_SURROGATES = re.compile("[\ud800-\udfff]")
_HAN = "\u3400-\u4dbf\u4e00-\u9fff\uf900-\ufaff\U00020000-\U0003ffff"
# A word: a Chinese character; letters and digits, joined as in U.S., Al-Ain, it's, a@b.de or 1,233; or a symbol.
_LETTERS = f"[^\\W{_HAN}]+"
_WORDS = re.compile(f"[{_HAN}]|{_LETTERS}(?:(?:[.'\u2019&/@+-]|(?<=\\d)[,:](?=\\d)){_LETTERS})*|[^\\w\\s]")
_IN_WORD = re.compile(_LETTERS)
_CHARACTERS = re.compile(r"\S")
_PERHAPS_MARKS = re.compile(r"[^\w\s!-~]")
_MARK_CATEGORIES = ("Mn", "Mc", "Me", "Cf", "Cc")
_SKIN_TONES = "\U0001f3fb\U0001f3fc\U0001f3fd\U0001f3fe\U0001f3ff"
WORD_SPLITS = ("words", "characters")
# Chinese and Japanese characters and their punctuation, beside which no blank is written; no wide letters and digits.
_UNSPACED = re.compile(f"[{_HAN}\u3000-\u30ff\uff00-\uff0f\uff1a-\uff20\uff3b-\uff40\uff5b-\uffef]")
_ZERO_WIDTH_JOINERS = "\u200c\u200d"
_UNKNOWN = "\U00010600"  # a Linear A letter: in no vocabulary, and no normalizer removes it
_MAX_GROWTH = 2**10  # factor by which a normalizer may lengthen a text; successive replacements multiply


class Template(NamedTuple):
    """The special tokens around one text or a pair: before the first text, after it, and after the second."""

    ids: tuple[list[int], ...]
    type_ids: tuple[list[int], ...]
    text_type_ids: tuple[int, ...]

    @classmethod
    def of(cls, encoding: tokenizers.Encoding) -> Template:
        """Extract the template from an example.

        Args:
            encoding: the encoding of one text or a pair, with special tokens.

        Returns:
            The template.
        """
        texts = encoding.n_sequences
        ids: list[list[int]] = [[] for _ in range(texts + 1)]
        type_ids: list[list[int]] = [[] for _ in range(texts + 1)]
        text_type_ids = [0] * texts
        seen = 0
        for token, type_id, text in zip(encoding.ids, encoding.type_ids, encoding.sequence_ids, strict=True):
            if text is None:
                ids[seen].append(token)
                type_ids[seen].append(type_id)
            else:
                seen = text + 1
                text_type_ids[text] = type_id
        return cls(tuple(ids), tuple(type_ids), tuple(text_type_ids))

    @property
    def num_special_tokens(self) -> int:
        """The number of tokens that `wrap` adds."""
        return sum(map(len, self.ids))

    def wrap(self, *texts: list[int]) -> tuple[list[int], list[int]]:
        """Add the special tokens to one text or a pair.

        Args:
            texts: token ids without special tokens.

        Returns:
            Ids and token type ids.
        """
        ids, type_ids = list(self.ids[0]), list(self.type_ids[0])
        for i, text in enumerate(texts):
            ids += text + self.ids[i + 1]
            type_ids += [self.text_type_ids[i]] * len(text) + self.type_ids[i + 1]
        return ids, type_ids


@contextmanager
def convert_errors(make_error: Callable[[BaseException], Exception]) -> Iterator[None]:
    """Replace any error of the tokenizers library inside a `with` block.

    Args:
        make_error: returns the error to raise instead.

    Yields:
        Nothing.

    Raises:
        Exception: from `make_error`.
        MemoryError: an allocation failed.
    """
    try:
        yield
    except BaseException as error:
        # A panic in Rust is a BaseException whose class cannot be imported.
        if isinstance(error, Exception) or type(error).__name__ == "PanicException":
            raise_memory_error(error)
            raise make_error(error) from None
        raise


def find_templates(backend: tokenizers.Tokenizer) -> tuple[Template, Template] | None:
    """Find a tokenizer's templates with probe texts, and check that it can encode an unknown character.

    Args:
        backend: a tokenizer without padding and truncation.

    Returns:
        The templates for one text and for a pair; None if the vocabulary has no character.

    Raises:
        ValueError: its normalizer lengthens texts too much, or its template names an undefined token.
        BaseException: the library fails, for example at an unknown character; see `convert_errors`.
    """
    growth = _growth(_to_dict(backend.normalizer))
    if growth > _MAX_GROWTH:
        raise ValueError(f"its normalizer can make a text {growth:.3g} times as long, allowed are {_MAX_GROWTH} times")
    _check_template(_to_dict(backend.post_processor))
    backend.encode(_UNKNOWN)
    probe = next((p for p in "a1.的" if backend.encode(p, add_special_tokens=False).ids), None)
    if probe is None:
        return None
    return Template.of(backend.encode(probe)), Template.of(backend.encode(probe, probe))


def _to_dict(part: Any) -> dict[str, Any]:
    """Return a part of tokenizer.json, without serializing the whole vocabulary as `to_str` does."""
    return {} if part is None else json.loads(part.__getstate__())


def _growth(normalizer: dict[str, Any]) -> float:
    """Return the factor by which a normalizer can lengthen a text."""
    growth = 1.0
    if normalizer.get("type") == "Replace":
        pattern, content = normalizer["pattern"].get("String", ""), normalizer["content"]
        # A regular expression or an empty string may match before every character.
        return max(growth, len(content) / len(pattern) if pattern else len(content) + 1.0)
    for part in normalizer.get("normalizers", ()):
        growth *= _growth(part)
    return growth


def _check_template(processor: dict[str, Any]) -> None:
    """Raise an error for an undefined special token, where the library would panic."""
    for part in processor.get("processors", ()):
        _check_template(part)
    if processor.get("type") == "TemplateProcessing":
        for piece in processor["single"] + processor["pair"]:
            name = piece.get("SpecialToken", {}).get("id")
            if name is not None and name not in processor["special_tokens"]:
                raise ValueError(f"its template names {name}, which is not among its special_tokens")


def truncate(texts: Sequence[list[int]], max_tokens: int) -> list[list[int]]:
    """Remove tokens from the end of the longer text, of the second at a tie: PaddleNLP's `longest_first`.

    Args:
        texts: token ids of one text or a pair, without special tokens.
        max_tokens: tokens to keep in total.

    Returns:
        The truncated texts.
    """
    if len(texts) == 1:
        return [texts[0][:max_tokens]]
    first, second = map(len, texts)
    excess = max(first + second - max_tokens, 0)
    from_longer = min(excess, abs(first - second))  # until both are of equal length
    if first > second:
        first -= from_longer
    else:
        second -= from_longer
    excess -= from_longer
    return [texts[0][: first - excess // 2], texts[1][: second - (excess + 1) // 2]]


def safe_text(text: str) -> str:
    """Join surrogate pairs and replace lone surrogates, at which the Rust library raises an error."""
    if not _SURROGATES.search(text):
        return text
    return text.encode("utf-16", "surrogatepass").decode("utf-16", "replace")


def split_words(text: str, word_split: str = "words") -> list[tuple[int, int]]:
    """Split a text into the words that token classification labels.

    Args:
        text: any text.
        word_split: one of `WORD_SPLITS`; with `characters` every character is a word.

    Returns:
        Start and end of each word; a Chinese character is a word, and so is a symbol that does not join letters.
    """
    by_characters = word_split == "characters"
    spans: list[tuple[int, int]] = []
    for match in _CHARACTERS.finditer(text) if by_characters else _WORDS.finditer(_with_letters_for_marks(text)):
        start, end = match.span()
        # What is left of marks belongs to what it stands after, such as a variation selector to its emoji.
        if spans and spans[-1][1] == start and (_is_mark(text[start]) or text[start - 1] in _ZERO_WIDTH_JOINERS):
            start = spans.pop()[0]
        spans.append((start, end))
    return spans


def _with_letters_for_marks(text: str) -> str:
    """Replace the marks within words, such as accents, by the letters before them: they are parts of the words."""
    marks = [match.start() for match in _PERHAPS_MARKS.finditer(text) if _is_mark(match.group())]
    if not marks:
        return text
    characters = list(text)
    for index in marks:
        if index and _IN_WORD.match(characters[index - 1]):
            characters[index] = characters[index - 1]
    return "".join(characters)


def _is_mark(character: str) -> bool:
    """Whether a character changes the one before it, or is not seen: accents, vowel signs, joiners, controls."""
    return unicodedata.category(character) in _MARK_CATEGORIES or character in _SKIN_TONES


def join_words(words: Sequence[str]) -> tuple[str, list[tuple[int, int]]]:
    """Join words with spaces.

    Args:
        words: the words.

    Returns:
        The text, and start and end of each word in it.
    """
    ends = list(accumulate(len(word) + 1 for word in words))
    spans = [(end - 1 - len(word), end - 1) for word, end in zip(words, ends)]  # noqa: B905 - Python 3.7 has no strict
    return " ".join(words), spans


def is_unspaced(text: str) -> bool:
    """Whether a text begins with a Chinese or Japanese character, beside which no blank is written."""
    return _UNSPACED.match(text) is not None


def write_words(words: Sequence[str], word_split: str) -> tuple[str, list[tuple[int, int]]]:
    """Write words as a text for people, without blanks that such a text does not have.

    Args:
        words: the words.
        word_split: one of `WORD_SPLITS`; between words that are characters there is no blank.

    Returns:
        The text, and start and end of each word in it.
    """
    parts: list[str] = []
    spans: list[tuple[int, int]] = []
    length, last = 0, ""
    for word in words:
        has_blank = word_split == "words" and not (is_unspaced(last) or is_unspaced(word))
        if parts and has_blank:
            parts.append(" ")
            length += 1
        parts.append(word)
        spans.append((length, length + len(word)))
        length += len(word)
        last = word[-1:]
    return "".join(parts), spans


def first_tokens(
    offsets: Sequence[tuple[int, int]], words: Sequence[tuple[int, int]], *, before: int = 0, rest: int | None = None
) -> list[int]:
    """Find the first token of each word, which carries the word's label.

    Args:
        offsets: start and end of each token in the text.
        words: start and end of each word, in order.
        before: number of special tokens before the text in a row.
        rest: where the text begins that was not tokenized; None if all of it was.

    Returns:
        For each word the index of its first token in the row; -1 if the tokenizer drops the word, and the index after
        the last token if the word is in the rest.
    """
    starts = [start for start, _ in words]
    tokens = [-1] * len(words)
    for token, (start, end) in enumerate(offsets):
        # A byte-level token may begin with the space before its word, so its end decides.
        word = bisect_right(starts, max(start, end - 1)) - 1
        if end > start and word >= 0 and start < words[word][1] and tokens[word] < 0:
            tokens[word] = before + token
    if rest is not None:
        for word in range(bisect_left(starts, rest), len(words)):
            tokens[word] = before + len(offsets)
    return tokens


def windows(num_tokens: int, max_tokens: int, stride: int) -> Iterator[tuple[int, int]]:
    """Split a long text into overlapping windows.

    Args:
        num_tokens: tokens of the text.
        max_tokens: tokens of a window, at most.
        stride: tokens between the starts of successive windows.

    Yields:
        Start and end of each window; the last one ends with the text.
    """
    start = 0
    while True:
        end = min(start + max_tokens, num_tokens)
        yield start, end
        if end == num_tokens:
            return
        start += min(stride, max_tokens)


class Window(NamedTuple):
    """A row with a question and a window of its context.

    Args:
        ids: the row's token ids.
        type_ids: the row's token type ids.
        first: index in the row of its first context token.
        start: index of that token in the whole context.
        end: index in the whole context after the window's last token.
    """

    ids: list[int]
    type_ids: list[int]
    first: int
    start: int
    end: int


def question_windows(
    template: Template, question: Sequence[int], context: Sequence[int], *, max_seq_length: int, doc_stride: int
) -> list[Window]:
    """Combine a question with every window of its context.

    Args:
        template: the template of a pair.
        question: token ids; at most half of a row is kept.
        context: token ids.
        max_seq_length: tokens of a row, at most.
        doc_stride: tokens between the starts of successive windows; at most a window's length is used.

    Returns:
        The rows.
    """
    max_tokens = max_seq_length - template.num_special_tokens
    question = list(question[: max_tokens // 2])
    first = len(template.ids[0]) + len(question) + len(template.ids[1])
    return [
        Window(*template.wrap(question, list(context[start:end])), first, start, end)
        for start, end in windows(len(context), max_tokens - len(question), doc_stride)
    ]
