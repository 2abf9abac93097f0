"""PaddleNLP's BERT and RoBERTa tokenizers, rebuilt in the Rust tokenizers library from their vocabulary files."""

from __future__ import annotations

import io
import re
from pathlib import Path

import tokenizers
from tokenizers import Regex, decoders, models, normalizers, pre_tokenizers, processors

from dynabert_paddle.errors import ModelError
from dynabert_paddle.files.model_config import find_config, flatten_config
from dynabert_paddle.text.leading import SYMBOLS
from dynabert_paddle.text.tokenizer_files import VOCABULARIES, damaged_error, parse_json, parse_settings, token_text

_BERT_LIKE = ("bert", "distilbert", "electra")  # models whose vocab.txt is read like BERT's
_ROBERTA_TOKENS = {"cls": "<s>", "pad": "<pad>", "sep": "</s>", "unk": "<unk>", "mask": "<mask>"}
_BERT_TOKENS = ("unk", "sep", "pad", "cls", "mask")


def is_plain_bert(files: dict[str, bytes], folder: Path) -> bool:
    """Whether a folder has BERT's tokenizer with vocab.txt only: no added tokens and none that are never split.

    Args:
        files: contents of the tokenizer's files by name.
        folder: the folder; its model's config names the model if no file names the tokenizer.

    Returns:
        Whether `bert_backend` can rebuild the tokenizer.
    """
    config = parse_settings(files)
    name = config.get("tokenizer_class")
    if not name and (path := find_config(folder)).is_file():
        model = flatten_config(parse_json({path.name: path.read_bytes()}, path.name))
        # Old configs name the model only by its class, such as BertForMaskedLM, and those from 2019 not at all.
        kinds = [model.get("model_type"), *(model.get("architectures") or [])]
        kind = re.split("Model|For", str(next(filter(None, kinds), "bert")))[0].lower()
        name = "BertTokenizer" if kind in _BERT_LIKE else "its model's"
    return (
        (name or "BertTokenizer").removesuffix("Fast") == "BertTokenizer"
        and [file for file in (*VOCABULARIES, "added_tokens.json") if file in files] == ["vocab.txt"]
        and config.get("do_basic_tokenize", True)
        and not any(config.get(key) for key in ("never_split", "additional_special_tokens", "added_tokens_decoder"))
    )


def bert_backend(files: dict[str, bytes]) -> tokenizers.Tokenizer:
    """Build PaddleNLP's BertTokenizer in the Rust library, from vocab.txt and the settings beside it.

    Args:
        files: contents of the tokenizer's files by name.

    Returns:
        The Rust tokenizer.

    Raises:
        ModelError: vocab.txt is damaged or is not BERT's.
    """
    config = parse_settings(files) | parse_json(files, "special_tokens_map.json")
    special = {name: token_text(config.get(f"{name}_token", f"[{name.upper()}]")) for name in _BERT_TOKENS}
    try:
        lines = io.TextIOWrapper(io.BytesIO(files["vocab.txt"]), encoding="utf-8")
        vocab = {line.rstrip("\n"): i for i, line in enumerate(lines)}
    except UnicodeDecodeError as error:
        raise damaged_error("vocab.txt", error) from error
    missing = [token for name, token in special.items() if token not in vocab and name != "mask"]
    if missing:
        raise ModelError(f"vocab.txt lacks {missing[0]}: it is not BERT's or is truncated; download or copy it again")
    backend = tokenizers.Tokenizer(models.WordPiece(vocab, unk_token=special["unk"], max_input_chars_per_word=100))
    backend.normalizer = normalizers.BertNormalizer(
        handle_chinese_chars=config.get("tokenize_chinese_chars", True),
        strip_accents=config.get("strip_accents"),
        lowercase=config.get("do_lower_case", True),
    )
    backend.pre_tokenizer = bert_pre_tokenizer()
    cls, sep = special["cls"], special["sep"]
    backend.post_processor = processors.TemplateProcessing(
        single=f"{cls} $A {sep}",
        pair=f"{cls} $A {sep} $B:1 {sep}:1",
        special_tokens=[(token, vocab[token]) for token in (cls, sep)],
    )
    backend.decoder = decoders.WordPiece()
    backend.add_special_tokens([token for token in special.values() if token in vocab])
    return backend


def bert_pre_tokenizer() -> pre_tokenizers.PreTokenizer:
    """Return a pre-tokenizer that splits a text into words as PaddleNLP's BertTokenizer does."""
    symbols = pre_tokenizers.Split(Regex(SYMBOLS), "isolated")
    return pre_tokenizers.Sequence([pre_tokenizers.BertPreTokenizer(), symbols])


def is_roberta(files: dict[str, bytes]) -> bool:
    """Whether a tokenizer consists of RoBERTa's vocab.json and merges.txt only, with RoBERTa's special tokens.

    Args:
        files: contents of the tokenizer's files by name.

    Returns:
        Whether `roberta_backend` can rebuild the tokenizer.
    """
    name = parse_settings(files).get("tokenizer_class") or "RobertaTokenizer"
    return (
        name.removesuffix("Fast") in ("RobertaTokenizer", "RobertaBPETokenizer")
        and [file for file in (*VOCABULARIES, "added_tokens.json") if file in files] == ["vocab.json", "merges.txt"]
        and set(_ROBERTA_TOKENS.values()) <= set(parse_json(files, "vocab.json"))
    )


def roberta_backend(files: dict[str, bytes]) -> tokenizers.Tokenizer:
    """Build RoBERTa's byte-level BPE tokenizer in the Rust library, from vocab.json and merges.txt.

    Args:
        files: contents of the tokenizer's files by name.

    Returns:
        The Rust tokenizer.

    Raises:
        ModelError: a file is damaged.
    """
    config = parse_settings(files) | parse_json(files, "special_tokens_map.json")
    special = {name: token_text(config.get(f"{name}_token", token)) for name, token in _ROBERTA_TOKENS.items()}
    vocab = parse_json(files, "vocab.json")
    try:
        lines = files["merges.txt"].decode("utf-8").split("\n")
        merges = [tuple(line.split()) for line in lines if line and not line.startswith("#version")]
        backend = tokenizers.Tokenizer(models.BPE(vocab, merges, unk_token=special["unk"]))
        ends = {name: (special[name], vocab[special[name]]) for name in ("sep", "cls")}
    except Exception as error:  # the library raises plain Exception
        raise damaged_error("merges.txt", error) from error
    space = config.get("add_prefix_space", False)
    backend.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=space)
    backend.post_processor = processors.RobertaProcessing(**ends, add_prefix_space=space)
    backend.decoder = decoders.ByteLevel()
    # A mask replaces a word and the space before it.
    mask = tokenizers.AddedToken(special["mask"], lstrip=True, normalized=False)
    backend.add_special_tokens([*(token for name, token in special.items() if name != "mask"), mask])
    return backend
