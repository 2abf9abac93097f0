"""PaddleNLP's tokenizers: rebuilt in the Rust library where that gives the same ids, and wrapped where it does not."""

import hashlib
import json
import os
import pickle
import tempfile
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from types import SimpleNamespace
from typing import Any, TypeVar

import tokenizers

from dynabert_paddle.errors import ModelError
from dynabert_paddle.text.longest_first import LongestFirst
from dynabert_paddle.text.rust_tokenizers import bert_backend
from dynabert_paddle.text.tokenizer_files import (
    CONFIG,
    dump_config,
    hash_content,
    is_inside,
    one_line,
    parse_json,
    write_files,
)

# A template is for chats, and computes when it is read; PaddleNLP calls what the others name, with any file.
_HARMFUL = ("chat_template", "init_class", "init_args")
_WEIGHTS = (".safetensors", ".pdparams", ".bin", ".npz")
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

RustTokenizer = TypeVar("RustTokenizer", bound=LongestFirst)


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
        self.fingerprint = hash_content({name: hashlib.sha256(content).hexdigest() for name, content in files.items()})

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


def load_from_paddlenlp(
    name: str, rust_tokenizer: Callable[[tokenizers.Tokenizer, dict[str, bytes]], RustTokenizer]
) -> RustTokenizer | PaddleNlpTokenizer:
    """Load through PaddleNLP, and keep its tokenizer only where no Rust form gives the same ids.

    Args:
        name: a folder, or a name on PaddleNLP's hub.
        rust_tokenizer: makes the tokenizer from a Rust one and its files.

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
    # Not compared: PaddleNLP itself splits added tokens once it has saved and loaded them.
    added = [tokenizers.AddedToken(token, normalized=False) for token in original.added_tokens_encoder]
    for build in builders:
        try:
            backend = build()
            backend.add_tokens(added)
            tokenizer = rust_tokenizer(backend, files)
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
