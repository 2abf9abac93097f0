"""Rewrites a tokenizer of the Rust library, and the files beside it, for a part of its pieces with new ids."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from typing import Any

import tokenizers
from tokenizers import normalizers, pre_tokenizers

from dynabert_paddle.errors import ModelError
from dynabert_paddle.text.coverage import Characters, PieceRules, bpe_rules, wordpiece_rules
from dynabert_paddle.text.rust_tokenizers import bert_pre_tokenizer
from dynabert_paddle.text.tokenizer_files import CONFIG, dump_config, parse_json, serialize

# No character beyond these is normalized to another one.
_CODES = [code for code in range(0x30000) if not 0xD800 <= code < 0xE000]
_BLOCK_SIZE = 64  # characters that are normalized together


def piece_rules(backend: tokenizers.Tokenizer, *, always: Iterable[int]) -> PieceRules:
    """Find which pieces a smaller vocabulary of a tokenizer needs.

    Args:
        backend: the tokenizer.
        always: ids to keep in any case; added tokens and those of the template are kept without being named.

    Returns:
        The rules.

    Raises:
        ModelError: a tokenizer whose vocabulary cannot be made smaller.
    """
    parts = json.loads(serialize(backend))
    model, vocab = parts["model"], backend.get_vocab(with_added_tokens=False)
    kept = {*always, *(token["id"] for token in parts["added_tokens"]), *_template_ids(parts["post_processor"])}
    if model.get("unk_token") in vocab:
        kept.add(vocab[model["unk_token"]])
    kept &= set(backend.get_vocab().values())
    if model["type"] == "WordPiece":
        prefix = model["continuing_subword_prefix"]
        return wordpiece_rules(vocab, prefix, always=kept, characters=find_characters(backend))
    if model["type"] != "BPE":
        kind = {"Unigram": "a sentencepiece unigram model, in which any piece's removal changes how other text is cut"}
        raise _refusal(kind.get(model["type"], f"{model['type']}, which has whole words or characters only"))
    if "ByteLevel" not in _types(parts["pre_tokenizer"]):
        raise _refusal("BPE of characters, for which no bytes stand in where a piece is missing")
    if model["dropout"] or model["continuing_subword_prefix"] or model["end_of_word_suffix"]:
        raise _refusal("BPE with dropout, or with marks of a word's inside or end")
    merges = [merge.split(" ") if isinstance(merge, str) else merge for merge in model["merges"]]
    return bpe_rules(vocab, merges, always=kept)


def find_characters(backend: tokenizers.Tokenizer) -> Characters | None:
    """Find the characters that words can have, by normalizing and splitting every character.

    Args:
        backend: the tokenizer.

    Returns:
        The characters; None for another tokenizer than BERT's, whose words may depend on more than single characters.
    """
    bert = [str(splitter) for splitter in (pre_tokenizers.BertPreTokenizer(), bert_pre_tokenizer())]
    if not isinstance(backend.normalizer, normalizers.BertNormalizer) or str(backend.pre_tokenizer) not in bert:
        return None
    starting: set[str] = set()
    continuing: set[str] = set()
    characters = sorted({*map(chr, _CODES), *"".join(backend.get_vocab())})
    for start in range(0, len(characters), _BLOCK_SIZE):
        for letter in ("", "a"):
            block = (letter + character for character in characters[start : start + _BLOCK_SIZE])
            text = backend.normalizer.normalize_str(" ".join(block))
            for word, _ in backend.pre_tokenizer.pre_tokenize_str(text):
                starting.add(word[0])
                continuing.update(word[1:])
    return Characters(frozenset(starting), frozenset(continuing))


def new_ids(backend: tokenizers.Tokenizer, kept: Iterable[int], pad_token_id: int) -> dict[int, int]:
    """Number pieces anew, without gaps: in their old order, the padding token at its old place.

    Args:
        backend: the tokenizer; tokens that its vocabulary lacks come last, as PaddleNLP numbers them.
        kept: the old ids.
        pad_token_id: the old id of the padding token, from which RoBERTa counts positions.

    Returns:
        New ids by old ones.
    """
    own = set(backend.get_vocab(with_added_tokens=False).values())
    ids = sorted(set(kept) - {pad_token_id}, key=lambda index: (index not in own, index))
    ids.insert(pad_token_id, pad_token_id)
    return {old: new for new, old in enumerate(ids)}


def renumber(backend: tokenizers.Tokenizer, ids: Mapping[int, int]) -> tokenizers.Tokenizer:
    """Make the same tokenizer with a part of its pieces.

    Args:
        backend: the tokenizer.
        ids: from `new_ids`.

    Returns:
        The smaller tokenizer.

    Raises:
        ModelError: a template of a kind that is not known.
    """
    parts = json.loads(serialize(backend))
    model = parts["model"]
    model["vocab"] = {piece: ids[old] for piece, old in model["vocab"].items() if old in ids}
    if "merges" in model:
        pairs = [merge.split(" ") if isinstance(merge, str) else merge for merge in model["merges"]]
        model["merges"] = [pair for pair in pairs if "".join(pair) in model["vocab"]]
    parts["added_tokens"] = sorted(
        ({**token, "id": ids[token["id"]]} for token in parts["added_tokens"]), key=lambda token: token["id"]
    )
    parts["post_processor"] = _renumber_template(parts["post_processor"], ids)
    return tokenizers.Tokenizer.from_str(json.dumps(parts, ensure_ascii=False))


def renumber_files(
    files: Mapping[str, bytes], backend: tokenizers.Tokenizer, ids: Mapping[int, int], *, max_length: int | None
) -> dict[str, bytes]:
    """Rewrite the files beside tokenizer.json.

    Args:
        files: contents by name.
        backend: from `renumber`.
        ids: from `new_ids`.
        max_length: the model's positions, if they have become fewer.

    Returns:
        Contents by name.
    """
    parts = json.loads(serialize(backend))["model"]
    vocab = dict(sorted(parts["vocab"].items(), key=lambda item: item[1]))
    merges = ["#version: 0.2", *(" ".join(pair) for pair in parts.get("merges", ()))]
    written = {
        "vocab.txt": "".join(f"{piece}\n" for piece in vocab),
        "vocab.json": json.dumps(vocab, ensure_ascii=False),
        "merges.txt": "".join(f"{line}\n" for line in merges),
    }
    renewed = {name: written[name].encode() if name in written else content for name, content in files.items()}
    if "added_tokens.json" in files:
        added = {token: ids[old] for token, old in parse_json(dict(files), "added_tokens.json").items() if old in ids}
        renewed["added_tokens.json"] = json.dumps(added, ensure_ascii=False).encode()
    config = parse_json(dict(files), CONFIG)
    if "added_tokens_decoder" in config:
        by_id = {int(old): token for old, token in config["added_tokens_decoder"].items()}
        config["added_tokens_decoder"] = {str(ids[old]): token for old, token in by_id.items() if old in ids}
    if max_length is not None and config.get("model_max_length", 0) > max_length:
        config["model_max_length"] = max_length
    if config:
        renewed[CONFIG] = dump_config(config)
    return renewed


def _refusal(kind: str) -> ModelError:
    return ModelError(
        f"the tokenizer is {kind}: its vocabulary is not made smaller; WordPiece and byte-level BPE can be"
    )


def _types(part: Any) -> set[str]:
    """The types of a part of tokenizer.json and of all parts inside it."""
    if isinstance(part, list):
        return set().union(*map(_types, part))
    if not isinstance(part, dict):
        return set()
    return {part.get("type", "")}.union(*map(_types, part.values()))


def _template_ids(processor: dict[str, Any] | None) -> set[int]:
    """The ids that a template adds."""
    if processor is None:
        return set()
    ids = {index for part in processor.get("processors", ()) for index in _template_ids(part)}
    ids |= {index for token in (processor.get("special_tokens") or {}).values() for index in token["ids"]}
    return ids | {processor[end][1] for end in ("sep", "cls") if end in processor}


def _renumber_template(processor: dict[str, Any] | None, ids: Mapping[int, int]) -> dict[str, Any] | None:
    if processor is None or processor["type"] == "ByteLevel":
        return processor
    if processor["type"] == "Sequence":
        return {**processor, "processors": [_renumber_template(part, ids) for part in processor["processors"]]}
    if processor["type"] == "TemplateProcessing":
        tokens = processor["special_tokens"]
        renewed = {name: {**token, "ids": [ids[old] for old in token["ids"]]} for name, token in tokens.items()}
        return {**processor, "special_tokens": renewed}
    if processor["type"] in ("BertProcessing", "RobertaProcessing"):
        return {**processor, **{end: [processor[end][0], ids[processor[end][1]]] for end in ("sep", "cls")}}
    raise _refusal(f"one whose template is {processor['type']}, which is not known")
