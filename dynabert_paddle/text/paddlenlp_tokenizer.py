"""PaddleNLP's tokenizers: rebuilt in the Rust library if the ids are the same there, else wrapped."""

from __future__ import annotations

import copy
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
from dynabert_paddle.files.model_config import CONFIG_FILE, find_config, flatten_config
from dynabert_paddle.runtime.memory import raise_memory_error
from dynabert_paddle.text.encode import Template
from dynabert_paddle.text.leading import Tokens
from dynabert_paddle.text.longest_first import LongestFirst
from dynabert_paddle.text.rust_tokenizers import bert_backend
from dynabert_paddle.text.special_tokens import cannot_read_as_text
from dynabert_paddle.text.tokenizer_files import (
    AS_TEXT,
    CONFIG,
    dump_config,
    hash_content,
    is_inside,
    one_line,
    parse_json,
    parse_settings,
    set_special_tokens_in_text,
    special_tokens_in_text,
    write_files,
)

# A chat template runs code when it is read, and PaddleNLP calls the class in init_class with init_args.
_UNSAFE_KEYS = ("chat_template", "init_class", "init_args")
_WEIGHTS = (".safetensors", ".pdparams", ".bin", ".npz")
# Tokenizers differ in case, accents, symbols, digits, Chinese words, special tokens, spaces and long words.
_PROBES = (
    "",
    "Hello,WORLD! It's a café naïve unaffable-test.",
    "5€ + 3°C = ™ № ½ a²b ÅØ $4.99 @user #tag",
    "今天天气很好。我们去北京大学公园散步。2024年iPhone手机",
    "日本語のテキスト 한국어 Ελληνικά Русский",
    "a [SEP] b[MASK] [sep]\tc\u00a0d\u3000e\x00f\u200bg 😀",
    "x" * 120 + " 1234567890",
)

_MAX_PROBE = 512  # tokens

RustTokenizer = TypeVar("RustTokenizer", bound=LongestFirst)


class PaddleNlpTokenizer(LongestFirst):
    """A PaddleNLP tokenizer that has no equivalent in the Rust library."""

    def __init__(self, backend: Any, files: dict[str, bytes]) -> None:
        """Wrap a PaddleNLP tokenizer.

        Args:
            backend: the tokenizer.
            files: contents of its files by name, to be saved with a model.
        """
        self._backend, self._files = backend, files
        self.pad_token_id = backend.pad_token_id
        self.vocab_size = len(backend)
        self.special_tokens_in_text = special_tokens_in_text(files)
        self.fingerprint = hash_content({name: hashlib.sha256(content).hexdigest() for name, content in files.items()})

    def with_special_tokens(self, in_text: bool) -> PaddleNlpTokenizer:
        """As `Tokenizer.with_special_tokens`."""
        if in_text == self.special_tokens_in_text:
            return self
        backend = copy.deepcopy(self._backend)
        backend.split_special_tokens = not in_text
        tokenizer = PaddleNlpTokenizer(backend, set_special_tokens_in_text(self._files, in_text))
        for number, token in tokenizer.special_tokens.items() if not in_text else ():
            probes = tokenizer._tokenize([token, f"a {token} a", f"a{token}a"], _MAX_PROBE)
            if any(number in ids for ids in probes):
                raise cannot_read_as_text(token)
        return tokenizer

    def save_pretrained(self, folder: str | os.PathLike) -> None:
        """Write the tokenizer's files, which PaddleNLP's AutoTokenizer also loads, to a new or existing folder."""
        write_files(folder, self._files)

    @property
    def unk_token_id(self) -> int | None:
        """Id of the unknown token; None if the vocabulary has none."""
        return self._backend.unk_token_id

    @property
    def special_tokens(self) -> dict[int, str]:
        """The special tokens by id, without that of unknown ones."""
        tokens = dict(zip(self._backend.all_special_ids, self._backend.all_special_tokens, strict=True))
        return {number: token for number, token in tokens.items() if number != self.unk_token_id}

    def num_special_tokens(self, texts: int) -> int:
        """Return the number of special tokens added to one text (`texts` is 1) or a pair (2)."""
        return self._backend.num_special_tokens_to_add(pair=texts == 2)

    def encode_offsets(self, texts: Sequence[str], max_tokens: int | None = None) -> list[Tokens]:
        """Raise an error: PaddleNLP's tokenizers do not know the positions of tokens in the text.

        Args:
            texts: any texts.
            max_tokens: tokens that are needed of each.

        Raises:
            ModelError: always.
        """
        raise _no_offsets()

    def template(self, texts: int) -> Template:
        """Raise an error, as `encode_offsets` does: only with it this is needed.

        Args:
            texts: 1, or 2 for a pair.

        Raises:
            ModelError: always.
        """
        raise _no_offsets()

    def _tokenize(self, texts: Sequence[str], max_tokens: int) -> list[list[int]]:
        # Whole texts: nothing tells where such a tokenizer could cut one and still give the same first tokens. It is
        # for training and evaluation alone, as bundles need the Rust library.
        return [self._backend.convert_tokens_to_ids(self._backend.tokenize(text)) for text in texts]

    def wrap(self, *texts: list[int]) -> tuple[list[int], list[int]]:
        """Add the special tokens to the token ids of one text or a pair; returns ids and token type ids."""
        type_ids = self._backend.create_token_type_ids_from_sequences(*texts)
        return self._backend.build_inputs_with_special_tokens(*texts), type_ids


def _no_offsets() -> ModelError:
    return ModelError(
        "token classification and question answering need a tokenizer.json of the Rust library: save it in the model "
        "folder, or use a model with BERT's vocab.txt"
    )


def load_from_paddlenlp(
    name: str, rust_tokenizer: Callable[[tokenizers.Tokenizer, dict[str, bytes]], RustTokenizer]
) -> RustTokenizer | PaddleNlpTokenizer:
    """Load a tokenizer with PaddleNLP, and rebuild it in the Rust library if the ids are the same there.

    Args:
        name: a folder, or a name on PaddleNLP's hub.
        rust_tokenizer: wraps a tokenizer of the Rust library, given its files.

    Returns:
        The tokenizer.

    Raises:
        ModelError: PaddleNLP cannot load it.
    """
    try:
        from paddlenlp.transformers import AutoTokenizer

        with tempfile.TemporaryDirectory() as safe_folder, tempfile.TemporaryDirectory() as folder, _no_pickles():
            is_folder = os.path.isdir(name)
            original = AutoTokenizer.from_pretrained(_copy_safe_files(Path(name), safe_folder) if is_folder else name)
            original.save_pretrained(folder)
            files = {path.name: path.read_bytes() for path in sorted(Path(folder).iterdir()) if path.is_file()}
    except Exception as error:  # PaddleNLP and its hubs raise errors of any type
        raise_memory_error(error)
        raise ModelError(f"PaddleNLP loads no tokenizer from {name} ({one_line(error)}): check the name") from error
    files[CONFIG] = dump_config(parse_settings(files))
    reference = PaddleNlpTokenizer(original, files)
    builders = []
    if hasattr(original, "wordpiece_tokenizer") and "vocab.txt" in files:
        builders.append(lambda: bert_backend(files))
    with suppress(ImportError):  # before PaddleNLP 3.0 the converters write for another library
        from paddlenlp.transformers.convert_slow_tokenizer import SLOW_TO_FAST_CONVERTERS, convert_slow_tokenizer

        if type(original).__name__ in SLOW_TO_FAST_CONVERTERS:
            builders.append(lambda: convert_slow_tokenizer(original))
    # Not part of the comparison: PaddleNLP splits added tokens after saving and loading them.
    added = [tokenizers.AddedToken(token, normalized=False) for token in original.added_tokens_encoder]
    for build in builders:
        try:
            backend = build()
            backend.add_tokens(added)
            tokenizer = rust_tokenizer(backend, files)
        except Exception:  # this way does not work for the tokenizer
            continue
        if all(
            tokenizer.encode(_PROBES, pairs, max_seq_length=_MAX_PROBE)
            == reference.encode(_PROBES, pairs, max_seq_length=_MAX_PROBE)
            for pairs in (None, _PROBES[::-1])
        ):
            return tokenizer
    return reference


def _copy_safe_files(folder: Path, target: str) -> str:
    """Link a tokenizer's files for PaddleNLP, without any that it would execute or that lie outside of the folder."""
    for path in folder.iterdir():
        is_safe = path.stem not in _UNSAFE_KEYS and path.suffix not in _WEIGHTS and is_inside(path, folder)
        if path.is_file() and is_safe:
            os.symlink(path.absolute(), Path(target) / path.name)
    for path in (folder / CONFIG, find_config(folder)):
        if path.is_file() and is_inside(path, folder):
            files = {path.name: path.read_bytes()}
            config = parse_settings(files) if path.name == CONFIG else flatten_config(parse_json(files, path.name))
            # PaddleNLP would load a file named in a value instead of the folder's.
            left_out = (*_UNSAFE_KEYS, AS_TEXT)  # the caller sets the last one, once the tokenizer is rebuilt
            kept = {key: value for key, value in config.items() if key not in left_out and not _names_file(value)}
            (Path(target) / path.name).unlink()
            write_files(target, {CONFIG if path.name == CONFIG else CONFIG_FILE: json.dumps(kept).encode()})
    return target


def _names_file(value: Any) -> bool:
    if isinstance(value, dict | list):
        return any(map(_names_file, value.values() if isinstance(value, dict) else value))
    return isinstance(value, str) and (os.path.isfile(value) or (os.sep in value and os.path.exists(value)))


@contextmanager
def _no_pickles() -> Iterator[None]:
    """Keep ErnieTinyTokenizer from loading its vocabulary, which is a pickle and could run code."""
    from paddlenlp.transformers.ernie import tokenizer as module

    def refuse(*_: object) -> None:
        raise ModelError("its vocabulary is a pickle, which can run code")

    module.pickle = SimpleNamespace(load=refuse)
    try:
        yield
    finally:
        module.pickle = pickle
