"""Texts to token ids, in training and in a bundle alike: special tokens, truncation, words, windows.

This file is a part of every bundle's `infer.py` and `infer_lite.py`; Python 3.7 runs it.
"""

from __future__ import annotations

import json
import re
import unicodedata
from bisect import bisect_right
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from itertools import accumulate
from typing import TYPE_CHECKING, Any, NamedTuple

if TYPE_CHECKING:
    import tokenizers

_SURROGATES = re.compile("[\ud800-\udfff]")
_HAN = "\u3400-\u4dbf\u4e00-\u9fff\uf900-\ufaff\U00020000-\U0003ffff"
# A Chinese character; letters and digits, with what joins them in U.S., Al-Ain, it's, a@b.de or 1,233; or a symbol.
_LETTERS = f"[^\\W{_HAN}]+"
_WORDS = re.compile(f"[{_HAN}]|{_LETTERS}(?:(?:[.'\u2019&/@+-]|(?<=\\d)[,:](?=\\d)){_LETTERS})*|[^\\w\\s]")
_JOINERS = "\u200c\u200d"
_UNKNOWN = "\U00010600"  # a letter of Linear A: in no vocabulary, and no normalizer drops it
_MAX_GROWTH = 2**10  # of a text's length: the growth of successive replacements multiplies


class Template(NamedTuple):
    """The special tokens around one text or two: before the first, after it, and after the second."""

    ids: tuple[list[int], ...]
    type_ids: tuple[list[int], ...]
    text_type_ids: tuple[int, ...]

    @classmethod
    def of(cls, encoding: tokenizers.Encoding) -> Template:
        """Read the special tokens off an encoded example.

        Args:
            encoding: of one text or two, with special tokens.

        Returns:
            Its template.
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
        """How many tokens it adds."""
        return sum(map(len, self.ids))

    def wrap(self, *texts: list[int]) -> tuple[list[int], list[int]]:
        """Put the special tokens around one text's tokens, or two's.

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
def explained(explain: Callable[[BaseException], Exception]) -> Iterator[None]:
    """Turn whatever a call of the tokenizers library raises into one error.

    Args:
        explain: makes the error to raise.

    Yields:
        Nothing.

    Raises:
        Exception: from `explain`.
    """
    try:
        yield
    except BaseException as error:
        # Rust's panics are not Exceptions, and their class is known by its name alone.
        if isinstance(error, Exception) or type(error).__name__ == "PanicException":
            raise explain(error) from None
        raise


def find_templates(backend: tokenizers.Tokenizer) -> tuple[Template, Template] | None:
    """Read a tokenizer's templates from encoded probes, and check that it can encode an unknown character.

    Args:
        backend: a tokenizer without padding and truncation.

    Returns:
        The template for one text and the one for two; None if the tokenizer knows no character.

    Raises:
        ValueError: its normalizer makes texts far longer, or its template names a token that it does not define.
        BaseException: the library fails, such as at an unknown character; see `explained`.
    """
    growth = _growth(_described(backend.normalizer))
    if growth > _MAX_GROWTH:
        raise ValueError(f"its normalizer makes a text {growth:.3g} times as long")
    _check_template(_described(backend.post_processor))
    backend.encode(_UNKNOWN)
    probe = next((p for p in "a1.的" if backend.encode(p, add_special_tokens=False).ids), None)
    if probe is None:
        return None
    return Template.of(backend.encode(probe)), Template.of(backend.encode(probe, probe))


def _described(part: Any) -> dict[str, Any]:
    """A tokenizer's normalizer or post-processor as tokenizer.json has it; without the vocabulary, unlike `to_str`."""
    return {} if part is None else json.loads(part.__getstate__())


def _growth(normalizer: dict[str, Any]) -> float:
    """How many times as long a text can become."""
    growth = 1.0
    if normalizer.get("type") == "Replace":
        pattern, content = normalizer["pattern"].get("String", ""), normalizer["content"]
        # An expression, or an empty string, may match before every character.
        return max(growth, len(content) / len(pattern) if pattern else len(content) + 1.0)
    for part in normalizer.get("normalizers", ()):
        growth *= _growth(part)
    return growth


def _check_template(processor: dict[str, Any]) -> None:
    """The library would panic, and print where."""
    for part in processor.get("processors", ()):
        _check_template(part)
    if processor.get("type") == "TemplateProcessing":
        for piece in processor["single"] + processor["pair"]:
            name = piece.get("SpecialToken", {}).get("id")
            if name is not None and name not in processor["special_tokens"]:
                raise ValueError(f"its template names {name}, which is not among its special_tokens")


def truncate(texts: Sequence[list[int]], room: int) -> list[list[int]]:
    """Cut from the end of the longer text, and of the second where they are equal: PaddleNLP's longest_first.

    Args:
        texts: token ids of one text or two, without special tokens.
        room: tokens to keep in all.

    Returns:
        The same texts, cut.
    """
    if len(texts) == 1:
        return [texts[0][:room]]
    first, second = map(len, texts)
    excess = max(first + second - room, 0)
    levelled = min(excess, abs(first - second))
    if first > second:
        first -= levelled
    else:
        second -= levelled
    excess -= levelled
    return [texts[0][: first - excess // 2], texts[1][: second - (excess + 1) // 2]]


def safe_text(text: str) -> str:
    """Join surrogate pairs and replace lone surrogates, which cannot be encoded and make the Rust library raise."""
    if not _SURROGATES.search(text):
        return text
    return text.encode("utf-16", "surrogatepass").decode("utf-16", "replace")


def split_words(text: str) -> list[tuple[int, int]]:
    """Split a text into the words that token classification labels.

    Args:
        text: any text.

    Returns:
        Where each word begins and ends; a Chinese character is a word, and so is a symbol that joins no letters.
    """
    spans: list[tuple[int, int]] = []
    for match in _WORDS.finditer(text):
        start, end = match.span()
        # An accent or a vowel sign that stands by itself belongs to the letter before it, and the next letter to it.
        if spans and spans[-1][1] == start and (_is_mark(text[start]) or _is_mark(text[start - 1])):
            start = spans.pop()[0]
        spans.append((start, end))
    return spans


def _is_mark(character: str) -> bool:
    return unicodedata.category(character)[0] == "M" or character in _JOINERS


def join_words(words: Sequence[str]) -> tuple[str, list[tuple[int, int]]]:
    """Make a text of words.

    Args:
        words: the words.

    Returns:
        The words with blanks between them, and where each begins and ends.
    """
    ends = list(accumulate(len(word) + 1 for word in words))
    spans = [(end - 1 - len(word), end - 1) for word, end in zip(words, ends)]  # noqa: B905 - Python 3.7 knows no strict
    return " ".join(words), spans


def first_tokens(offsets: Sequence[tuple[int, int]], words: Sequence[tuple[int, int]], *, before: int = 0) -> list[int]:
    """Find the token that stands for each word: its first.

    Args:
        offsets: where each token begins and ends in the text.
        words: where each word does, in order.
        before: special tokens that come before them in a row.

    Returns:
        For each word the index of its token in the row; -1 where the tokenizer drops the word, or it was cut off.
    """
    starts = [start for start, _ in words]
    found = [-1] * len(words)
    for token, (start, end) in enumerate(offsets):
        # A byte-level token may begin with the blank before its word: its end says where it belongs.
        word = bisect_right(starts, max(start, end - 1)) - 1
        if end > start and word >= 0 and start < words[word][1] and found[word] < 0:
            found[word] = before + token
    return found


def windows(num_tokens: int, room: int, stride: int) -> Iterator[tuple[int, int]]:
    """Cut a long text into overlapping windows.

    Args:
        num_tokens: tokens of the text.
        room: tokens of a window, at most.
        stride: tokens from the beginning of one window to that of the next.

    Yields:
        Beginning and end of each window; the last one ends with the text.
    """
    start = 0
    while True:
        end = min(start + room, num_tokens)
        yield start, end
        if end == num_tokens:
            return
        start += min(stride, room)


class Window(NamedTuple):
    """A question with a part of its context.

    Args:
        ids: the row's tokens.
        type_ids: the row's token type ids.
        first: the row's first token of the context.
        start: that token's place in the whole context.
        end: where the part ends in it.
    """

    ids: list[int]
    type_ids: list[int]
    first: int
    start: int
    end: int


def question_windows(
    template: Template, question: Sequence[int], context: Sequence[int], *, max_seq_length: int, doc_stride: int
) -> list[Window]:
    """Put a question before every window of its context.

    Args:
        template: of a pair.
        question: token ids; it is cut to half of the room.
        context: token ids.
        max_seq_length: tokens of a row, at most.
        doc_stride: tokens from one window to the next, at most as many as a window has.

    Returns:
        The rows.
    """
    room = max_seq_length - template.num_special_tokens
    question = list(question[: room // 2])
    first = len(template.ids[0]) + len(question) + len(template.ids[1])
    return [
        Window(*template.wrap(question, list(context[start:end])), first, start, end)
        for start, end in windows(len(context), room - len(question), doc_stride)
    ]
