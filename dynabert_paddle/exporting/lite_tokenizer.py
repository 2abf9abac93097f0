"""Tokenizer tables for phones: a BERT tokenizer as plain data, for runtimes that lack the Rust library."""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from itertools import groupby
from pathlib import Path
from typing import TYPE_CHECKING, Any

from dynabert_paddle.errors import ModelError
from dynabert_paddle.text.tokenizer_files import serialize

if TYPE_CHECKING:
    import tokenizers

_FORMAT_VERSION = 1

_HANGUL = range(0xAC00, 0xD7A4)  # the precomposed syllables
_LETTER = "0"  # put around characters to see where the pre-tokenizer splits
_BLOCK_SIZE = 64  # characters that are pre-tokenized together


def write_lite_tokenizer(folder: Path, *, special_tokens_in_text: bool = True) -> None:
    """Write the tokenizer files of `infer_lite.py`: `vocab.txt` in the order of the ids, and `lite_tokenizer.json`.

    Args:
        folder: a bundle with `tokenizer.json`.
        special_tokens_in_text: whether the text of a special token in a text is that token.
    """
    settings, vocabulary = tokenizer_settings(folder, special_tokens_in_text=special_tokens_in_text)
    (folder / "vocab.txt").write_text("\n".join(vocabulary) + "\n", encoding="utf-8", newline="\n")
    text = json.dumps(settings, ensure_ascii=True, separators=(",", ":"))
    (folder / "lite_tokenizer.json").write_text(text + "\n", encoding="utf-8", newline="\n")


def tokenizer_settings(folder: Path, *, special_tokens_in_text: bool = True) -> tuple[dict[str, Any], list[str]]:
    """Derive the tables that a plain implementation needs to compute the same ids as a bundle's tokenizer.

    The Rust library is run on every Unicode character, because each language's own Unicode tables have another version.

    Args:
        folder: a bundle with `tokenizer.json`.
        special_tokens_in_text: whether the text of a special token in a text is that token; else the added tokens lack
            it.

    Returns:
        The content of `lite_tokenizer.json`, and the tokens by id; an id without a token has the empty string.

    Raises:
        ModelError: it is not BERT's WordPiece tokenizer.
    """
    import tokenizers

    from dynabert_paddle.text.encode import find_templates

    path = Path(folder) / "tokenizer.json"
    try:
        backend = tokenizers.Tokenizer.from_str(path.read_text(encoding="utf-8"))
    except Exception as error:  # the library raises plain Exception
        reason = " ".join(str(error).split())[:200]
        raise ModelError(f"{path}: cannot be read ({reason}): export the model again") from None
    backend.no_padding()
    backend.no_truncation()
    parts = json.loads(serialize(backend))
    _check_is_bert(path, parts)
    model, normalizer, pre_tokenizer = parts["model"], parts["normalizer"], parts["pre_tokenizer"]
    vocabulary = [""] * (max(model["vocab"].values()) + 1)
    for token, index in model["vocab"].items():
        vocabulary[index] = token
    templates = find_templates(backend)
    if templates is None or model["unk_token"] not in model["vocab"]:
        raise ModelError(f"{path}: damaged: its vocabulary has no letters, or lacks its unk_token: export again")
    strips_accents = normalizer["strip_accents"]
    if strips_accents is None:
        strips_accents = normalizer["lowercase"]
    characters = [chr(code) for code in range(0x110000) if not 0xD800 <= code < 0xE000]  # all but surrogates
    settings = {
        "format_version": _FORMAT_VERSION,
        "do_lower_case": normalizer["lowercase"],
        "strip_accents": strips_accents,
        "tokenize_chinese_chars": normalizer["handle_chinese_chars"],
        "clean_text": normalizer["clean_text"],
        "split_symbols": pre_tokenizer["type"] == "Sequence",
        "unk_token": model["unk_token"],
        "continuing_subword_prefix": model["continuing_subword_prefix"],
        "max_input_chars_per_word": model["max_input_chars_per_word"],
        "characters": _normalization_table(backend, characters),
        "words": {"ranges": _splitting_table(backend, characters)},
        "added_tokens": [
            _added_token(backend, token)
            for token in parts["added_tokens"]
            if special_tokens_in_text or not token["special"]
        ],
        "templates": {name: template._asdict() for name, template in zip(("single", "pair"), templates, strict=True)},
    }
    return settings, vocabulary


def _check_is_bert(path: Path, parts: dict[str, Any]) -> None:
    def refuse(reason: str) -> None:
        raise ModelError(
            f"{path}: {reason}, but infer_lite.py supports only BERT's WordPiece tokenizer: export in another format"
        )

    kinds = {part: (parts[part] or {}).get("type", "none") for part in ("model", "normalizer", "pre_tokenizer")}
    for part, expected in (("model", "WordPiece"), ("normalizer", "BertNormalizer")):
        if kinds[part] != expected:
            refuse(f"its {part} is {kinds[part]}")
    steps = [parts["pre_tokenizer"]]
    if kinds["pre_tokenizer"] == "Sequence":
        steps = parts["pre_tokenizer"]["pretokenizers"]
    if not steps[0] or steps[0]["type"] != "BertPreTokenizer" or not all(map(_isolates_characters, steps[1:])):
        refuse("its pre_tokenizer is " + "+".join(step["type"] if step else "none" for step in steps))
    for token in parts["added_tokens"]:
        if token["single_word"] or not token["content"].strip():
            refuse(f"its added token {token['content']!r} is blank or matches single words only")
    if any("\n" in token for token in parts["model"]["vocab"]):
        refuse("its vocabulary has a token with a line break")


def _isolates_characters(step: dict[str, Any]) -> bool:
    """Whether a pre-tokenizer only isolates single characters, so that a table of characters can describe it."""
    pattern = step.get("pattern", {}).get("Regex", "")
    return (
        (step["type"], step.get("behavior"), step.get("invert")) == ("Split", "Isolated", False)
        and pattern.startswith("[")
        and pattern.find("]") == len(pattern) - 1
    )


def _added_token(backend: tokenizers.Tokenizer, token: dict[str, Any]) -> dict[str, Any]:
    content = token["content"]
    if token["normalized"]:
        content = backend.normalizer.normalize_str(content)
    return {"content": content, **{key: token[key] for key in ("id", "normalized", "lstrip", "rstrip")}}


def _normalization_table(backend: tokenizers.Tokenizer, characters: Sequence[str]) -> dict[str, Any]:
    """Tabulate how the normalizer replaces each character.

    It treats characters one by one, except that it reorders combining marks. That has no effect here: it then removes
    the marks, and no vocabulary depends on the order of those that it keeps.
    """
    normalized = {character: backend.normalizer.normalize_str(character) for character in characters}
    splits_hangul = all(len(normalized[chr(code)]) > 1 for code in _HANGUL)
    kinds: list[str | None] = []
    replaced = {}
    for character, text in normalized.items():
        if text == f" {character} ":
            kinds.append(" {} ")
        elif text in ("", " ") and text != character:
            kinds.append(text)
        else:
            kinds.append(None)
            if text != character and not (splits_hangul and ord(character) in _HANGUL):
                replaced[character] = text
    return {"ranges": _ranges(characters, kinds), "replaced": replaced, "hangul": splits_hangul}


def _splitting_table(backend: tokenizers.Tokenizer, characters: Sequence[str]) -> dict[str, list[list[int]]]:
    """Tabulate how the pre-tokenizer splits at each character: white space ends a word, punctuation is isolated."""
    kinds: list[str | None] = []
    for start in range(0, len(characters), _BLOCK_SIZE):
        block = characters[start : start + _BLOCK_SIZE]
        if len(_split_words(backend, "".join(block))) == 1:  # no character of the block splits, the most common case
            kinds += [None] * len(block)
            continue
        for character in block:
            words = _split_words(backend, character)
            isolated = words == [_LETTER, character, _LETTER]
            kinds.append("\n{}\n" if isolated else "\n" if words == [_LETTER, _LETTER] else None)
    return _ranges(characters, kinds)


def _split_words(backend: tokenizers.Tokenizer, text: str) -> list[str]:
    return [word for word, _ in backend.pre_tokenizer.pre_tokenize_str(_LETTER + text + _LETTER)]


def _ranges(characters: Sequence[str], kinds: Iterable[str | None]) -> dict[str, list[list[int]]]:
    """Group characters by kind, as pairs of the first and the last code point."""
    ranges: dict[str, list[list[int]]] = {}
    numbered = enumerate(zip(map(ord, characters), kinds, strict=True))
    # In a run of consecutive code points, code point minus position is constant.
    for (kind, _), run in groupby(numbered, key=lambda item: (item[1][1], item[1][0] - item[0])):
        codes = [code for _, (code, _) in run]
        if kind is not None:
            ranges.setdefault(kind, []).append([codes[0], codes[-1]])
    return ranges
