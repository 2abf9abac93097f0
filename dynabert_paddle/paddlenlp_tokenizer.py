"""PaddleNLP's tokenizers: rebuilt in the Rust library where that gives the same ids, and wrapped where it does not."""

import hashlib
import io
import json
import os
import pickle
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import tokenizers
from tokenizers import Regex, decoders, models, normalizers, pre_tokenizers, processors

from dynabert_paddle.errors import ModelError
from dynabert_paddle.tokenizer import (
    CONFIG,
    VOCABULARIES,
    LongestFirst,
    Tokenizer,
    damaged,
    digest,
    dump_config,
    is_inside,
    one_line,
    parse_json,
    token_text,
    write_files,
)

# PaddleNLP's BERT splits at symbols too, and at a few letters that it counts as such.
_SYMBOLS = "[\\p{S}\u00b2\u00b5\u00ba\u00d8\u014b\u01b1\u3007]"
# A template is for chats, and computes when it is read; PaddleNLP calls what the others name, with any file.
_HARMFUL = ("chat_template", "init_class", "init_args")
_WEIGHTS = (".safetensors", ".pdparams", ".bin", ".npz")
_BERT_LIKE = ("bert", "distilbert", "electra")  # models whose vocab.txt is read as BERT's is
_ROBERTA_TOKENS = {"cls": "<s>", "pad": "<pad>", "sep": "</s>", "unk": "<unk>", "mask": "<mask>"}
_BERT_TOKENS = ("unk", "sep", "pad", "cls", "mask")
# Texts on which tokenizers differ: case, accents, symbols, digits, Chinese words, special tokens, spaces, long words.
_PROBES = (
    "",
    "Hello,WORLD! It's a café naïve unaffable-test.",
    "5€ + 3°C = ™ № ½ a²b ÅØ $4.99 @user #tag",
    "今天天气很好。我们去北京大学公园散步。2024年iPhone手机",
    "日本語のテキスト 한국어 Ελληνικά Русский",
    "a [SEP] b[MASK] [sep]\tc\u00a0d\u3000e\x00f\u200bg 😀",
    "x" * 120 + " 1234567890",
)


class PaddleNlpTokenizer(LongestFirst):
    """A PaddleNLP tokenizer that has no Rust form, behind the same interface."""

    def __init__(self, backend: Any, files: dict[str, bytes]) -> None:
        """Wrap a PaddleNLP tokenizer.

        Args:
            backend: the tokenizer.
            files: the contents of the files that it saves, by name.
        """
        self._backend, self._files = backend, files
        self.pad_token_id = backend.pad_token_id
        self.vocab_size = len(backend)
        self.fingerprint = digest({name: hashlib.sha256(content).hexdigest() for name, content in files.items()})

    def save_pretrained(self, folder: str | os.PathLike) -> None:
        """Write the tokenizer's own files, which PaddleNLP's AutoTokenizer loads too.

        Args:
            folder: where to write; it is made where it is missing.
        """
        write_files(folder, self._files)

    def num_special_tokens(self, texts: int) -> int:
        """How many tokens are added to one text, or to a pair."""
        return self._backend.num_special_tokens_to_add(pair=texts == 2)

    def encode_offsets(self, texts: Sequence[str]) -> list[tuple[list[int], list[tuple[int, int]]]]:
        """Refuse to tell where tokens are, which PaddleNLP's tokenizers do not know.

        Args:
            texts: any texts.

        Raises:
            ModelError: always.
        """
        raise ModelError(
            "token classification and question answering need the tokenizer's Rust form, tokenizer.json: save it into "
            "the model folder, or take a model with BERT's vocab.txt"
        )

    def _tokenize(self, texts: Sequence[str]) -> list[list[int]]:
        return [self._backend.convert_tokens_to_ids(self._backend.tokenize(text)) for text in texts]

    def _wrap(self, *texts: list[int]) -> tuple[list[int], list[int]]:
        type_ids = self._backend.create_token_type_ids_from_sequences(*texts)
        return self._backend.build_inputs_with_special_tokens(*texts), type_ids


def load_from_paddlenlp(name: str) -> Tokenizer | PaddleNlpTokenizer:
    """Load through PaddleNLP, and keep its tokenizer only where no Rust form gives the same ids.

    Args:
        name: a folder, or a name on PaddleNLP's hub.

    Returns:
        The tokenizer.

    Raises:
        ModelError: PaddleNLP cannot load it.
    """
    try:
        from paddlenlp.transformers import AutoTokenizer

        with tempfile.TemporaryDirectory() as harmless, tempfile.TemporaryDirectory() as folder, _no_pickles():
            is_folder = os.path.isdir(name)
            original = AutoTokenizer.from_pretrained(_copy_harmless(Path(name), harmless) if is_folder else name)
            original.save_pretrained(folder)
            files = {path.name: path.read_bytes() for path in sorted(Path(folder).iterdir()) if path.is_file()}
    except Exception as error:  # PaddleNLP and its hubs fail as any type
        raise ModelError(f"PaddleNLP loads no tokenizer from {name} ({one_line(error)}): check the name") from error
    files[CONFIG] = dump_config(parse_json(files, CONFIG))
    reference = PaddleNlpTokenizer(original, files)
    builders = []
    if hasattr(original, "wordpiece_tokenizer") and "vocab.txt" in files:
        builders.append(lambda: bert_backend(files))
    with suppress(ImportError):  # before PaddleNLP 3.0 these make what another library reads
        from paddlenlp.transformers.convert_slow_tokenizer import SLOW_TO_FAST_CONVERTERS, convert_slow_tokenizer

        if type(original).__name__ in SLOW_TO_FAST_CONVERTERS:
            builders.append(lambda: convert_slow_tokenizer(original))
    # Not probed: PaddleNLP itself no longer keeps added tokens whole once it has saved and loaded them.
    added = [tokenizers.AddedToken(token, normalized=False) for token in original.added_tokens_encoder]
    for build in builders:
        try:
            backend = build()
            backend.add_tokens(added)
            tokenizer = Tokenizer(backend, files)
        except Exception:  # no Rust form this way
            continue
        if all(
            tokenizer.encode(_PROBES, pairs, max_seq_length=512) == reference.encode(_PROBES, pairs, max_seq_length=512)
            for pairs in (None, _PROBES[::-1])
        ):
            return tokenizer
    return reference


def _copy_harmless(folder: Path, target: str) -> str:
    """Give PaddleNLP what a tokenizer is made of, and nothing that it would execute or that lies elsewhere."""
    for path in folder.iterdir():
        is_harmless = path.stem not in _HARMFUL and path.suffix not in _WEIGHTS and is_inside(path, folder)
        if path.is_file() and is_harmless:
            os.symlink(path.absolute(), Path(target) / path.name)
    for name in (CONFIG, "config.json"):
        if (folder / name).is_file() and is_inside(folder / name, folder):
            config = parse_json({name: (folder / name).read_bytes()}, name)
            # A value that names a file goes before the folder's own.
            kept = {key: value for key, value in config.items() if key not in _HARMFUL and not _names_file(value)}
            (Path(target) / name).unlink()
            write_files(target, {name: json.dumps(kept).encode()})
    return target


def _names_file(value: Any) -> bool:
    if isinstance(value, dict | list):
        return any(map(_names_file, value.values() if isinstance(value, dict) else value))
    return isinstance(value, str) and (os.path.isfile(value) or (os.sep in value and os.path.exists(value)))


@contextmanager
def _no_pickles() -> Iterator[None]:
    """ErnieTinyTokenizer's vocabulary is a pickle, which could run code wherever it comes from."""
    from paddlenlp.transformers.ernie import tokenizer as module

    def refuse(*_: object) -> None:
        raise ModelError("its vocabulary is a pickle, which can run code")

    module.pickle = SimpleNamespace(load=refuse)
    try:
        yield
    finally:
        module.pickle = pickle


def is_plain_bert(files: dict[str, bytes], folder: Path) -> bool:
    """Whether vocab.txt is all there is to a folder's tokenizer: BERT's, with no tokens added or left whole.

    Args:
        files: the tokenizer's files' contents by name.
        folder: where they are; its `config.json` tells the model where no file tells the tokenizer.

    Returns:
        Whether `bert_backend` alone makes the folder's tokenizer.
    """
    config = parse_json(files, CONFIG)
    name = config.get("tokenizer_class")
    if not name and (folder / "config.json").is_file():
        model = parse_json({"config.json": (folder / "config.json").read_bytes()}, "config.json")
        # Configs of 2019 name no model.
        kinds = [model.get("model_type"), *(model.get("architectures") or [])]
        name = "BertTokenizer" if kinds[0] in _BERT_LIKE or not any(kinds) else "its model's"
    return (
        (name or "BertTokenizer").removesuffix("Fast") == "BertTokenizer"
        and [file for file in (*VOCABULARIES, "added_tokens.json") if file in files] == ["vocab.txt"]
        and config.get("do_basic_tokenize", True)
        and not any(config.get(key) for key in ("never_split", "additional_special_tokens", "added_tokens_decoder"))
    )


def bert_backend(files: dict[str, bytes]) -> tokenizers.Tokenizer:
    """Build PaddleNLP's BertTokenizer in the Rust library, from vocab.txt and the settings beside it.

    Args:
        files: the tokenizer's files' contents by name.

    Returns:
        The Rust tokenizer.

    Raises:
        ModelError: vocab.txt is damaged, or not BERT's.
    """
    config = parse_json(files, CONFIG) | parse_json(files, "special_tokens_map.json")
    special = {name: token_text(config.get(f"{name}_token", f"[{name.upper()}]")) for name in _BERT_TOKENS}
    try:
        lines = io.TextIOWrapper(io.BytesIO(files["vocab.txt"]), encoding="utf-8")
        vocab = {line.rstrip("\n"): i for i, line in enumerate(lines)}
    except UnicodeDecodeError as error:
        raise damaged("vocab.txt", error) from error
    missing = [token for name, token in special.items() if token not in vocab and name != "mask"]
    if missing:
        raise ModelError(f"vocab.txt lacks {missing[0]}: it is not BERT's, or cut short; download or copy it again")
    backend = tokenizers.Tokenizer(models.WordPiece(vocab, unk_token=special["unk"], max_input_chars_per_word=100))
    backend.normalizer = normalizers.BertNormalizer(
        handle_chinese_chars=config.get("tokenize_chinese_chars", True),
        strip_accents=config.get("strip_accents"),
        lowercase=config.get("do_lower_case", True),
    )
    symbols = pre_tokenizers.Split(Regex(_SYMBOLS), "isolated")
    backend.pre_tokenizer = pre_tokenizers.Sequence([pre_tokenizers.BertPreTokenizer(), symbols])
    cls, sep = special["cls"], special["sep"]
    backend.post_processor = processors.TemplateProcessing(
        single=f"{cls} $A {sep}",
        pair=f"{cls} $A {sep} $B:1 {sep}:1",
        special_tokens=[(token, vocab[token]) for token in (cls, sep)],
    )
    backend.decoder = decoders.WordPiece()
    backend.add_special_tokens([token for token in special.values() if token in vocab])
    return backend


def is_roberta(files: dict[str, bytes]) -> bool:
    """Whether vocab.json and merges.txt are all there is to a tokenizer, and RoBERTa's special tokens are in it.

    Args:
        files: the tokenizer's files' contents by name.

    Returns:
        Whether `roberta_backend` makes the tokenizer.
    """
    name = parse_json(files, CONFIG).get("tokenizer_class") or "RobertaTokenizer"
    return (
        name.removesuffix("Fast") in ("RobertaTokenizer", "RobertaBPETokenizer")
        and [file for file in (*VOCABULARIES, "added_tokens.json") if file in files] == ["vocab.json", "merges.txt"]
        and set(_ROBERTA_TOKENS.values()) <= set(parse_json(files, "vocab.json"))
    )


def roberta_backend(files: dict[str, bytes]) -> tokenizers.Tokenizer:
    """Build RoBERTa's byte-level BPE tokenizer in the Rust library, from vocab.json and merges.txt.

    Args:
        files: the tokenizer's files' contents by name.

    Returns:
        The Rust tokenizer.

    Raises:
        ModelError: a file is damaged.
    """
    config = parse_json(files, CONFIG) | parse_json(files, "special_tokens_map.json")
    special = {name: token_text(config.get(f"{name}_token", token)) for name, token in _ROBERTA_TOKENS.items()}
    vocab = parse_json(files, "vocab.json")
    try:
        lines = files["merges.txt"].decode("utf-8").split("\n")
        merges = [tuple(line.split()) for line in lines if line and not line.startswith("#version")]
        backend = tokenizers.Tokenizer(models.BPE(vocab, merges, unk_token=special["unk"]))
        ends = {name: (special[name], vocab[special[name]]) for name in ("sep", "cls")}
    except Exception as error:  # the library raises plain Exception
        raise damaged("merges.txt", error) from error
    space = config.get("add_prefix_space", False)
    backend.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=space)
    backend.post_processor = processors.RobertaProcessing(**ends, add_prefix_space=space)
    backend.decoder = decoders.ByteLevel()
    # A mask stands for a word with the space before it.
    mask = tokenizers.AddedToken(special["mask"], lstrip=True, normalized=False)
    backend.add_special_tokens([*(token for name, token in special.items() if name != "mask"), mask])
    return backend
