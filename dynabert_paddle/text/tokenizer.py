"""Tokenizers in the Rust tokenizers library, from any tokenizer that PaddleNLP or Hugging Face saved.

PaddleNLP's tokenizers are slower and take seconds to import, so they are used only without a Rust equivalent.
"""

from __future__ import annotations

import json
import logging
import os
from collections.abc import Iterable, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import tokenizers
from tokenizers import decoders, models, normalizers, processors

from dynabert_paddle.errors import ModelError
from dynabert_paddle.text.coverage import PieceRules
from dynabert_paddle.text.encode import Template, convert_errors, find_templates, safe_text
from dynabert_paddle.text.leading import Tokens, encode_leading, find_rules
from dynabert_paddle.text.longest_first import LongestFirst
from dynabert_paddle.text.paddlenlp_tokenizer import PaddleNlpTokenizer, load_from_paddlenlp
from dynabert_paddle.text.renumbering import new_ids, piece_rules, renumber, renumber_files
from dynabert_paddle.text.rust_tokenizers import bert_backend, is_plain_bert, is_roberta, roberta_backend
from dynabert_paddle.text.special_tokens import read_as_text
from dynabert_paddle.text.tokenizer_files import (
    CONFIG,
    VOCABULARIES,
    damaged_error,
    dump_config,
    hash_content,
    is_inside,
    one_line,
    parse_settings,
    serialize,
    set_special_tokens_in_text,
    special_tokens_in_text,
    token_text,
    write_files,
)

_FILES = ("tokenizer.json", CONFIG, "special_tokens_map.json", "added_tokens.json", *VOCABULARIES)
# Hugging Face's class names -> PaddleNLP's.
_PADDLENLP_CLASSES = {"RobertaTokenizer": "RobertaBPETokenizer", "AlbertTokenizer": "AlbertEnglishTokenizer"}
MAX_TOKENS = 2**22
_MAX_CASED = 0.05  # of the tokens of an uncased vocabulary; BERT's cased ones have a third

logger = logging.getLogger(__name__)


class Tokenizer(LongestFirst):
    """A tokenizer in the Rust library: `tokenizer.json`, and files from which PaddleNLP loads the same tokenizer."""

    def __init__(self, backend: tokenizers.Tokenizer, files: dict[str, bytes]) -> None:
        """Wrap a Rust tokenizer.

        Args:
            backend: the tokenizer; its padding and truncation are disabled.
            files: contents of its other files by name, to be saved with it.

        Raises:
            ModelError: the tokenizer has no padding token, too large ids, or cannot encode.
        """
        self._backend, self._files, self._config = backend, files, parse_settings(files)
        tokens = [self._config.get("pad_token"), (backend.padding or {}).get("pad_token"), "[PAD]", "<pad>"]
        pad_ids = [backend.token_to_id(token_text(token)) for token in tokens if token]
        pad_token_id = next((i for i in pad_ids if i is not None), None)
        if pad_token_id is None:
            raise ModelError(f"the tokenizer has no padding token: set pad_token in {CONFIG}")
        self.pad_token_id: int = pad_token_id
        backend.no_padding()
        backend.no_truncation()
        self._apply_config()
        self._warn_of_case()
        self._class_name = self._paddlenlp_class()
        # An empty line of vocab.txt is no token.
        self.vocab_size = max(index for token, index in backend.get_vocab().items() if token) + 1
        if self.vocab_size > MAX_TOKENS:  # the library allocates memory up to the largest id
            raise ModelError(f"a token has the id {self.vocab_size - 1:,}: ids must be below {MAX_TOKENS:,}")
        content = json.loads(serialize(backend))
        self._unk_token_id = _find_unknown(content["model"], backend)
        with convert_errors(_encoding_error):
            templates = find_templates(backend)
        if templates is None:
            raise ModelError("the vocabulary has no letter, digit or full stop: it is empty or damaged")
        self._templates = templates
        # Of tokens that no text is cut into: special ones and added ones.
        ends = {index for template in templates for ids in template.ids for index in ids}
        self.special_ids = frozenset({*backend.get_added_tokens_decoder(), *ends})
        special = {token["id"] for token in content["added_tokens"] if token["special"]} | ends | {self.pad_token_id}
        names = {number: backend.id_to_token(number) for number in special - {self._unk_token_id}}
        self._special_tokens = {number: name for number, name in names.items() if name}
        self.special_tokens_in_text = special_tokens_in_text(files)
        identity = {"tokenizer": content, "pad_token_id": self.pad_token_id}
        if not self.special_tokens_in_text:
            read_as_text(backend, list(self._special_tokens.values()))
            identity = {**identity, "tokenizer": json.loads(serialize(backend)), "special_tokens_in_text": False}
        self._rules = find_rules(backend)
        self.fingerprint = hash_content(identity)

    @classmethod
    def from_pretrained(cls, name_or_path: str | os.PathLike) -> Tokenizer | PaddleNlpTokenizer:
        """Load a tokenizer from a folder, or by a name that PaddleNLP knows.

        Args:
            name_or_path: a folder with `tokenizer.json`, with BERT's `vocab.txt`, with RoBERTa's `vocab.json` and
                `merges.txt`, or with another PaddleNLP tokenizer's files; or a name such as `bert-base-uncased`.

        Returns:
            The tokenizer, in the Rust library if possible.

        Raises:
            ModelError: the folder or name does not exist, has no tokenizer, or a file is damaged.
        """
        name = str(name_or_path)
        folder = Path(os.path.expanduser(name))
        if not folder.is_dir():
            # Do not look up a path on the hub. Same rule as `backbone.find_backbone`, whose import would load Paddle.
            is_path = folder.exists() or folder.is_absolute() or name.startswith((".", "~"))
            if is_path or ("/" in name and folder.parent.is_dir()):
                raise ModelError(f"{name} is not a folder: name the folder that holds the tokenizer's files")
            return load_from_paddlenlp(name, cls)
        found = [folder / file for file in _FILES if (folder / file).is_file()]
        for path in found:
            if not is_inside(path, folder):
                raise ModelError(f"{path} is a link to {path.resolve()}, outside of its folder: copy the file instead")
        files = {path.name: path.read_bytes() for path in found}
        content = files.pop("tokenizer.json", None)
        if content is None and not any(file in files for file in (CONFIG, *VOCABULARIES)):
            raise ModelError(f"{folder} holds no tokenizer: looked for tokenizer.json, {', '.join(VOCABULARIES)}")
        try:
            if content is not None:
                return cls(_load(content), files)
            if is_plain_bert(files, folder):
                return cls(bert_backend(files), files)
            if is_roberta(files):
                return cls(roberta_backend(files), files)
        except ModelError as error:
            raise ModelError(f"{folder}: {error}") from error
        except (AttributeError, TypeError) as error:
            raise ModelError(
                f"{folder}: {CONFIG} has a setting of the wrong type ({one_line(error)}): correct it"
            ) from error
        return load_from_paddlenlp(str(folder), cls).with_special_tokens(special_tokens_in_text(files))

    def with_special_tokens(self, in_text: bool) -> Tokenizer:
        """Return the same tokenizer, which reads the text of a special token in a text in one way or the other.

        Args:
            in_text: as that token; else as text like any other.

        Returns:
            The tokenizer.

        Raises:
            ModelError: it cannot read them as text.
        """
        if in_text == self.special_tokens_in_text:
            return self
        return Tokenizer(_load(serialize(self._backend).encode()), set_special_tokens_in_text(self._files, in_text))

    def save_pretrained(self, folder: str | os.PathLike) -> None:
        """Write the tokenizer to a new or existing folder, also in the form that PaddleNLP's AutoTokenizer loads."""
        write_files(folder, {**self._files, "tokenizer.json": serialize(self._backend, pretty=True).encode("utf-8")})
        if not any(file in self._files for file in VOCABULARIES):
            self._backend.model.save(str(folder))
        config = {**self._config, "tokenizer_class": self._class_name}
        config.setdefault("pad_token", self._backend.id_to_token(self.pad_token_id))
        normalizer = self._backend.normalizer
        if isinstance(normalizer, normalizers.BertNormalizer):
            config["do_lower_case"] = normalizer.lowercase
            config["tokenize_chinese_chars"] = normalizer.handle_chinese_chars
            config["strip_accents"] = normalizer.strip_accents
        write_files(folder, {CONFIG: dump_config(config)})

    def _apply_config(self) -> None:
        """Let tokenizer_config.json override case and accents in tokenizer.json, as Hugging Face and PaddleNLP do."""
        normalizer, config = self._backend.normalizer, self._config
        if isinstance(normalizer, normalizers.BertNormalizer):
            self._backend.normalizer = normalizers.BertNormalizer(
                clean_text=normalizer.clean_text,
                handle_chinese_chars=config.get("tokenize_chinese_chars", normalizer.handle_chinese_chars),
                strip_accents=config.get("strip_accents", normalizer.strip_accents),
                lowercase=config.get("do_lower_case", normalizer.lowercase),
            )

    def _warn_of_case(self) -> None:
        """Log that a cased vocabulary is used in lower case, as it is by default where no file says otherwise."""
        normalizer, model = self._backend.normalizer, self._backend.model
        if not (isinstance(model, models.WordPiece) and isinstance(normalizer, normalizers.BertNormalizer)):
            return
        vocab = self._backend.get_vocab(with_added_tokens=False)
        cased = [token for token in vocab if token != token.lower() and not token.startswith("[")]
        if normalizer.lowercase and len(cased) > _MAX_CASED * len(vocab):
            logger.warning(
                "%d of the %d tokens have capitals, such as %r, and are never used, because texts are put in lower "
                "case: if the model is cased, set do_lower_case to false in %s",
                *(len(cased), len(vocab), min(cased), CONFIG),
            )

    def _paddlenlp_class(self) -> str:
        name = (self._config.get("tokenizer_class") or "").removesuffix("Fast")
        if name in ("", "PreTrainedTokenizer", "PretrainedTokenizer"):
            if isinstance(self._backend.post_processor, processors.RobertaProcessing):
                return "RobertaBPETokenizer"
            return "BertTokenizer" if isinstance(self._backend.model, models.WordPiece) else "PretrainedTokenizerFast"
        return _PADDLENLP_CLASSES.get(name, name)

    @property
    def unk_token_id(self) -> int | None:
        """Id of the unknown token; None if the vocabulary has none."""
        return self._unk_token_id

    @property
    def special_tokens(self) -> dict[int, str]:
        """The special tokens by id, without that of unknown ones."""
        return self._special_tokens

    @property
    def vocabulary(self) -> dict[str, int]:
        """The ids by piece, added tokens included."""
        return self._backend.get_vocab()

    def join_pieces(self, ids: Sequence[int]) -> str:
        """Return a text that is cut into these pieces, if there is one.

        Args:
            ids: pieces of WordPiece or byte-level BPE, without special tokens.

        Returns:
            The text, as the tokenizer normalizes it.
        """
        pieces = [self._backend.id_to_token(index) for index in ids]
        if not isinstance(self._backend.model, models.WordPiece):
            return decoders.ByteLevel().decode(pieces)
        prefix = self._backend.model.continuing_subword_prefix
        return "".join(
            piece.removeprefix(prefix) if piece.startswith(prefix) else f" {piece}" for piece in pieces
        ).lstrip(" ")

    def piece_rules(self, *, always: Iterable[int] = ()) -> PieceRules:
        """Find which pieces a smaller vocabulary needs.

        Args:
            always: ids to keep in any case, beyond the special tokens.

        Returns:
            The rules.

        Raises:
            ModelError: a tokenizer whose vocabulary cannot be made smaller.
        """
        return piece_rules(self._backend, always={self.pad_token_id, *always})

    def keep_pieces(self, kept: Iterable[int], *, max_length: int | None = None) -> tuple[Tokenizer, dict[int, int]]:
        """Make a tokenizer of a part of the pieces; it cuts a text whose pieces are all kept into the same ones.

        Args:
            kept: ids, chosen by `piece_rules`.
            max_length: the model's positions, if they have become fewer.

        Returns:
            The tokenizer, and its ids by the old ones, in ascending order of the new ones.
        """
        ids = new_ids(self._backend, kept, self.pad_token_id)
        backend = renumber(self._backend, ids)
        return Tokenizer(backend, renumber_files(self._files, backend, ids, max_length=max_length)), ids

    def num_special_tokens(self, texts: int) -> int:
        """Return the number of special tokens added to one text (`texts` is 1) or a pair (2)."""
        return self._templates[texts - 1].num_special_tokens

    def template(self, texts: int) -> Template:
        """Return the special tokens around one text (`texts` is 1) or a pair (2)."""
        return self._templates[texts - 1]

    def encode_offsets(self, texts: Sequence[str], max_tokens: int | None = None) -> list[Tokens]:
        """Encode texts without special tokens, and return the position of each token.

        Args:
            texts: any texts.
            max_tokens: tokens that are needed of each; None for all.

        Returns:
            The first tokens of each text.
        """
        return encode_leading(list(map(safe_text, texts)), max_tokens, self._encode_batch, self._rules)

    def _tokenize(self, texts: Sequence[str], max_tokens: int) -> list[list[int]]:
        encoded = encode_leading(texts, max_tokens, self._encode_batch, self._rules, with_offsets=False)
        return [tokens.ids for tokens in encoded]

    def _encode_batch(self, texts: Sequence[str]) -> list[tokenizers.Encoding]:
        with convert_errors(_encoding_error):
            return self._backend.encode_batch(texts, add_special_tokens=False)

    def wrap(self, *texts: list[int]) -> tuple[list[int], list[int]]:
        """Add the special tokens to the token ids of one text or a pair; returns ids and token type ids."""
        return self._templates[len(texts) - 1].wrap(*texts)


def _find_unknown(model: dict[str, Any], backend: tokenizers.Tokenizer) -> int | None:
    """Return the id of the unknown token, from the model's part of tokenizer.json; Unigram names an id."""
    token = model.get("unk_token")
    return model.get("unk_id") if token is None else backend.token_to_id(token)


def _load(content: bytes) -> tokenizers.Tokenizer:
    with convert_errors(partial(damaged_error, "tokenizer.json")):
        return tokenizers.Tokenizer.from_str(content.decode("utf-8"))


def _encoding_error(error: BaseException) -> ModelError:
    return ModelError(f"the tokenizer cannot encode ({one_line(error)}): correct its files, or download them again")


AnyTokenizer = Tokenizer | PaddleNlpTokenizer
