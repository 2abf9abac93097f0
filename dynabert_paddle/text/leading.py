"""Encodes the beginning of long texts only, where the rest cannot change the tokens that a row keeps.

A prefix of a text is *settled* if its tokens are the first tokens of the whole text. `CutRules` says why a prefix is
settled; tokenizers without rules read whole texts.

This file is part of every bundle's `infer.py` and `infer_lite.py`, so it stays Python 3.7 syntax.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterable, Iterator, Sequence
from itertools import takewhile
from typing import TYPE_CHECKING, Any, NamedTuple

if TYPE_CHECKING:
    import tokenizers

_CHARACTERS_PER_TOKEN = 8  # a first guess; where too few tokens are settled, more characters are read
_MIN_SIZE = 512  # characters; shorter texts are never cut
_BATCH_CHARACTERS, _BATCH_TEXTS = 2**20, 1024  # per call: the library needs some 150 bytes a character

# Letters and digits, in every version of Unicode, that no normalizer drops, splits from a word or joins to a space.
_PLAIN_LETTERS = (
    "0-9A-Za-z\u00c0-\u00d6\u00d9-\u00f6\u00f8-\u014a\u014c-\u017f\u0391-\u03a1\u03a3-\u03a9\u03b1-\u03c9\u0410-\u044f"
    "\u05d0-\u05ea\u0621-\u063a\u0641-\u064a\u3041-\u3096\u30a1-\u30fa\uac00-\ud7a3"
)
_PLAIN_HAN = "\u4e00-\u9fff"
_BLANKS = " \t\n\r\u00a0\u2000-\u200a\u3000"
# BERT removes these, and with strip_accents the marks, too.
_REMOVED = "\x00-\x08\x0b\x0c\x0e-\x1f\x7f-\x9f\u00ad\u200b-\u200f\u202a-\u202e\u2060-\u2064\ufeff\ufffd"
_MARKS = "\u0300-\u036f"
# Steps of tokenizer.json that treat characters one by one or never look across the space between two letters.
_NORMALIZERS = ("BertNormalizer", "NFC", "NFD", "NFKC", "NFKD", "Lowercase", "StripAccents", "Nmt", "Precompiled")
_SPLITTERS = ("BertPreTokenizer", "Whitespace", "WhitespaceSplit", "Metaspace", "ByteLevel")  # they end words at spaces
_PRE_TOKENIZERS = (*_SPLITTERS, "Punctuation", "Digits")
_CONTRACTION = 8  # characters; byte-level tokenizers split at 's, 're and the like
# PaddleNLP's BERT also splits at symbols, and at a few letters that it treats as symbols.
SYMBOLS = "[\\p{S}\u00b2\u00b5\u00ba\u00d8\u014b\u01b1\u3007]"
# Characters of a word, a token and an added token; rules for longer ones would save little.
_MAX_WORD, _MAX_TOKEN, _MAX_ADDED = 2**16, 2**8, 2**7


class Tokens(NamedTuple):
    """The first tokens of a text.

    Args:
        ids: token ids.
        offsets: start and end of each token in the text.
        rest: where the text begins that was not read; None if all of it was.
    """

    ids: list[int]
    offsets: list[tuple[int, int]]
    rest: int | None = None


class CutRules(NamedTuple):
    """Where a tokenizer's texts can be cut.

    Args:
        ends: matches after a settled prefix: a word ends there, whatever follows.
        inside: matches a long stretch within a word of BPE or Unigram. A token ends at one of the last `longest_token`
            + 1 characters of the stretch, and up to there the tokens are those of the prefix alone: no merge, and no
            best path, crosses the end of a token. So the tokens that the prefixes to all these characters have in
            common are settled.
        longest_token: the most characters of such a stretch that one token covers.
        shorter: patterns to replace and replacements that change the tokens' positions but not the tokens: runs of
            removed characters, of blanks, and the rest of words that are too long for WordPiece.
    """

    ends: re.Pattern[str]
    inside: re.Pattern[str] | None = None
    longest_token: int = 0
    shorter: tuple[tuple[re.Pattern[str], str], ...] = ()


def encode_leading(
    texts: Sequence[str],
    max_tokens: int | None,
    encode: Callable[[list[str]], Sequence[Any]],
    rules: CutRules | None,
    *,
    with_offsets: bool = True,
) -> list[Tokens]:
    """Encode texts as far as their first tokens need.

    Args:
        texts: the texts.
        max_tokens: tokens to return of each text, at least where it has as many; None for all.
        encode: returns encodings with `ids` and `offsets`.
        rules: of the tokenizer; None reads whole texts.
        with_offsets: return the positions of tokens.

    Returns:
        The first tokens of each text, as of the whole text.
    """
    results: list[Any] = [None] * len(texts)
    pending: Iterable[int] = range(len(texts))
    size = _MIN_SIZE + _CHARACTERS_PER_TOKEN * (max_tokens or 0)
    while pending:
        unsettled = []
        for batch in _batches(texts, pending, size, rules if max_tokens is not None else None, with_offsets):
            encodings = iter(encode([prefix for _, prefixes, _ in batch for prefix in prefixes]))
            for i, prefixes, is_whole in batch:
                tokens = _settled([next(encodings) for _ in prefixes], max_tokens, prefixes[0], with_offsets)
                if is_whole:
                    results[i] = tokens._replace(rest=None)
                elif max_tokens is not None and len(tokens.ids) >= max_tokens:
                    results[i] = tokens
                else:
                    unsettled.append(i)
        pending, size = unsettled, 4 * size
    return results


def _batches(
    texts: Sequence[str], pending: Iterable[int], size: int, rules: CutRules | None, with_offsets: bool
) -> Iterator[list[tuple[int, list[str], bool]]]:
    """Yield batches of texts: index, prefixes to encode, and whether the prefix is the whole text."""
    batch: list[tuple[int, list[str], bool]] = []
    num_characters = num_prefixes = 0
    for i in pending:
        prefixes, is_whole = _prefixes(texts[i], size, rules, with_offsets)
        length = sum(map(len, prefixes))
        if batch and (num_characters + length > _BATCH_CHARACTERS or num_prefixes >= _BATCH_TEXTS):
            yield batch
            batch, num_characters, num_prefixes = [], 0, 0
        batch.append((i, prefixes, is_whole))
        num_characters, num_prefixes = num_characters + length, num_prefixes + len(prefixes)
    if batch:
        yield batch


def _prefixes(text: str, size: int, rules: CutRules | None, with_offsets: bool) -> tuple[list[str], bool]:
    """Return prefixes, the longest first, at least one of them settled; and whether the first is the whole text."""
    while rules is not None and len(text) > 2 * size:
        short, is_whole = text, False
        if rules.shorter and not with_offsets:
            short, is_whole = _shorten(text, 2 * size, rules)
        if is_whole and len(short) <= 2 * size:
            return [short], True
        end = rules.ends.search(short, size, 2 * size)
        if end:
            return [short[: end.start()]], False
        stretch = rules.inside and rules.inside.search(short, size, 2 * size)
        if stretch:
            return [short[: stretch.end() - i] for i in range(rules.longest_token + 1)], False
        size *= 4
    return [text], True


def _shorten(text: str, length: int, rules: CutRules) -> tuple[str, bool]:
    """Shorten a text from its beginning until a length is reached; returns whether all of it was read."""
    short, start = "", 0
    while start < len(text) and len(short) < length:
        end = start + max(length, 2**16)
        short, start = short + text[start:end], end
        for pattern, replacement in rules.shorter:
            short = pattern.sub(replacement, short)
    return short, start >= len(text)


def _settled(encodings: list[Any], max_tokens: int | None, longest: str, with_offsets: bool) -> Tokens:
    """Return the tokens on which the encodings of all prefixes agree."""
    ids = encodings[0].ids
    if len(encodings) > 1:
        agree = takewhile(lambda column: len(set(column)) == 1, zip(*(encoding.ids for encoding in encodings)))  # noqa: B905
        ids = ids[: max(0, sum(1 for _ in agree) - 1)]  # the library joins unknown characters, so the last may grow
    if not with_offsets:
        return Tokens(ids[:max_tokens], [])
    offsets = encodings[0].offsets[: len(ids)]
    return Tokens(ids, offsets, offsets[-1][1] if len(encodings) > 1 and offsets else len(longest))


def find_rules(backend: tokenizers.Tokenizer) -> CutRules | None:
    """Find the rules by which a tokenizer's texts can be cut.

    Args:
        backend: the tokenizer.

    Returns:
        The rules; None if a part of it may look further than they allow.
    """
    normalizers = _steps(backend.normalizer, "normalizers")
    pre_tokenizers = _steps(backend.pre_tokenizer, "pretokenizers")
    added = list(backend.get_added_tokens_decoder().values())
    model, model_type = backend.model, type(backend.model).__name__
    if (
        not all(map(_is_local_normalizer, normalizers))
        or not all(_is_local_pre_tokenizer(step, special_token_pattern(backend)) for step in pre_tokenizers)
        or not any(step["type"] in _SPLITTERS for step in pre_tokenizers)
        or not _splits_at_spaces(backend)
        or not are_plain([token.content for token in added])
        or any(token.single_word for token in added)
        or getattr(model, "dropout", None)
    ):
        return None
    if model_type == "WordPiece" and [step["type"] for step in normalizers] == ["BertNormalizer"]:
        step = normalizers[0]
        if step["clean_text"] and pre_tokenizers[0]["type"] == "BertPreTokenizer":
            strips = step["lowercase"] if step["strip_accents"] is None else step["strip_accents"]
            return bert_rules(model.max_input_chars_per_word, strips, step["handle_chinese_chars"])
    letters = f"[{_PLAIN_LETTERS}{_PLAIN_HAN}]"
    rules = CutRules(re.compile(f"(?<={letters})(?= {letters})"))
    is_plain_bpe = model_type == "BPE" and not (
        model.continuing_subword_prefix or model.end_of_word_suffix or getattr(model, "ignore_merges", False)
    )
    if not is_plain_bpe and model_type != "Unigram":
        return rules
    has_bytes = any(step["type"] == "ByteLevel" for step in (*normalizers, *pre_tokenizers))
    stretch = "[0-9A-Za-z]" if has_bytes or getattr(model, "byte_fallback", False) else f"[0-9A-Za-z{_PLAIN_HAN}]"
    find_stretches = re.compile(f"{stretch}+").findall
    longest = max((len(part) for token in backend.get_vocab() for part in find_stretches(token)), default=1)
    if longest > _MAX_TOKEN:
        return rules
    least = longest + 1 + max([_CONTRACTION, *(len(token.content) for token in added)])
    return rules._replace(inside=re.compile(f"{stretch}{{{least}}}"), longest_token=longest)


def _splits_at_spaces(backend: tokenizers.Tokenizer) -> bool:
    """Whether all steps together end a word at a space, which a normalizer could replace."""
    text = "a b" if backend.normalizer is None else backend.normalizer.normalize_str("a b")
    return len(backend.pre_tokenizer.pre_tokenize_str(text)) > 1


def bert_rules(max_word: int, strips_accents: bool, splits_han: bool) -> CutRules:
    """Return the rules of BERT's tokenizer.

    Args:
        max_word: a word of more characters is unknown as a whole.
        strips_accents: accents are removed.
        splits_han: Chinese characters are words.

    Returns:
        The rules.
    """
    ends = f"(?=[{_BLANKS}])" + (f"|(?<=[{_PLAIN_HAN}])(?=[{_PLAIN_HAN}])" if splits_han else "")
    if max_word > _MAX_WORD:
        return CutRules(re.compile(ends))
    removed = _REMOVED + (_MARKS if strips_accents else "")
    letters = _PLAIN_LETTERS + ("" if strips_accents else _MARKS)
    # Once of the removed characters in a row one is left, every second character of the other runs counts.
    least = 2 * max(max_word + 1, _MAX_ADDED)
    shorter = (
        (re.compile(f"(?<=[{removed}])[{removed}]+"), ""),
        (re.compile(f"([{_BLANKS}{removed}]{{2}})[{_BLANKS}{removed}]+"), r"\1"),
        (re.compile(f"([{letters}{removed}]{{{least}}})[{letters}{removed}]+"), r"\1"),
    )
    return CutRules(re.compile(ends), shorter=shorter)


def special_token_pattern(backend: tokenizers.Tokenizer) -> str:
    """Return a pattern that splits the texts of special tokens: their first character, where the others follow.

    Args:
        backend: the tokenizer.

    Returns:
        The regular expression; empty if there is no special token of several characters.
    """
    tokens = sorted(token.content for token in backend.get_added_tokens_decoder().values() if token.special)
    return "|".join(f"{re.escape(token[0])}(?={re.escape(token[1:])})" for token in tokens if token[1:])


def are_plain(added_tokens: Iterable[str]) -> bool:
    """Whether no added token, such as [MASK], can match across the ends of words or within one.

    Args:
        added_tokens: their texts.

    Returns:
        Whether all are short, of ASCII characters without blanks, and not of letters and digits alone.
    """
    return all(
        re.fullmatch("[!-~]+", token) and not token.isalnum() and len(token) <= _MAX_ADDED for token in added_tokens
    )


def _steps(part: Any, key: str) -> list[dict[str, Any]]:
    """Return the steps of a normalizer or pre-tokenizer."""
    step = {} if part is None else json.loads(part.__getstate__())
    return list(_flatten(step, key)) if step else []


def _flatten(step: dict[str, Any], key: str) -> Iterator[dict[str, Any]]:
    if step["type"] != "Sequence":
        yield step
        return
    for inner in step[key]:
        yield from _flatten(inner, key)


def _is_local_normalizer(step: dict[str, Any]) -> bool:
    if step["type"] == "Replace":  # a match without letters lies before or after a place between letters
        pattern = step["pattern"]
        text = pattern.get("String")
        return pattern.get("Regex") == " {2,}" or (text is not None and not any(map(str.isalnum, text)))
    return step["type"] in (*_NORMALIZERS, "Strip", "Prepend")


def _is_local_pre_tokenizer(step: dict[str, Any], special_tokens: str) -> bool:
    if step["type"] == "Split":  # at special tokens; or a class of single characters, without letters but a few
        if step["pattern"].get("Regex") == special_tokens:  # which are plain, see `are_plain`
            return True
        return step["pattern"].get("Regex") == SYMBOLS and step["behavior"] == "Isolated"
    splits = step.get("split", True) and step.get("use_regex", True)
    return step["type"] in _PRE_TOKENIZERS and bool(splits)
