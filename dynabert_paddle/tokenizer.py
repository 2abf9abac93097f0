"""Text to token ids through the Rust tokenizers library, from any tokenizer that PaddleNLP or Hugging Face saved.

PaddleNLP's own tokenizers are slower and their import takes seconds, so one is used only where it has no Rust form.
"""

import hashlib
import io
import json
import os
import re
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import tokenizers
from tokenizers import Regex, decoders, models, normalizers, pre_tokenizers, processors

from dynabert_paddle.errors import ModelError, UsageError

_CONFIG = "tokenizer_config.json"
_VOCABULARIES = ("vocab.txt", "vocab.json", "merges.txt", "sentencepiece.bpe.model", "spiece.model")
_FILES = ("tokenizer.json", _CONFIG, "special_tokens_map.json", "added_tokens.json", *_VOCABULARIES)
# Where a tokenizer came from is no part of it.
_ORIGIN = ("name_or_path", "from_slow", "tokenizer_file", "special_tokens_map_file", "vocab_file")
# Hugging Face's names for what PaddleNLP calls otherwise.
_PADDLENLP_CLASSES = {"RobertaTokenizer": "RobertaBPETokenizer", "AlbertTokenizer": "AlbertEnglishTokenizer"}
# PaddleNLP's BERT splits at symbols too, and at a few letters that it counts as such.
_SYMBOLS = "[\\p{S}\u00b2\u00b5\u00ba\u00d8\u014b\u01b1\u3007]"
_BERT_TOKENS = ("unk", "sep", "pad", "cls", "mask")
_SURROGATES = re.compile("[\ud800-\udfff]")
_BATCH = 1024  # rows per call: the library's encodings carry offsets and words, many times the size of their ids
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


class _Template(NamedTuple):
    """The special tokens around one text or two: what comes before the first, after it, and after the second."""

    ids: tuple[list[int], ...]
    type_ids: tuple[list[int], ...]
    text_type_ids: tuple[int, ...]

    @classmethod
    def of(cls, encoding: tokenizers.Encoding) -> "_Template":
        texts = encoding.n_sequences
        ids, type_ids, text_type_ids = [[] for _ in range(texts + 1)], [[] for _ in range(texts + 1)], [0] * texts
        seen = 0
        for token, type_id, text in zip(encoding.ids, encoding.type_ids, encoding.sequence_ids, strict=True):
            if text is None:
                ids[seen].append(token)
                type_ids[seen].append(type_id)
            else:
                seen = text + 1
                text_type_ids[text] = type_id
        return cls(tuple(ids), tuple(type_ids), tuple(text_type_ids))

    def wrap(self, *texts: list[int]) -> tuple[list[int], list[int]]:
        ids, type_ids = list(self.ids[0]), list(self.type_ids[0])
        for i, text in enumerate(texts):
            ids += text + self.ids[i + 1]
            type_ids += [self.text_type_ids[i]] * len(text) + self.type_ids[i + 1]
        return ids, type_ids


class _LongestFirst:
    """The encoding that both kinds of tokenizer share: safe texts, PaddleNLP's truncation, special tokens."""

    def encode(
        self, texts: Sequence[str], pairs: Sequence[str] | None = None, *, max_seq_length: int
    ) -> tuple[list[list[int]], list[list[int]]]:
        """Turn texts, or pairs of texts, into ids with special tokens, without padding.

        Args:
            texts: one text a row.
            pairs: a second text for each row.
            max_seq_length: longest row in tokens; a longer one loses tokens from the end of its longer text.

        Returns:
            The ids and the token type ids, one list a row.

        Raises:
            UsageError: the special tokens alone are more than `max_seq_length`.
        """
        needed = self._num_special_tokens(2 if pairs is not None else 1)
        if max_seq_length < needed:
            kind = "a text" if pairs is None else "a pair"
            raise UsageError(f"max_seq_length is {max_seq_length}, but {kind} has {needed} special tokens: allow more")
        ids, type_ids = [], []
        for start in range(0, len(texts), _BATCH):
            rows = [self._tokenize(texts[start : start + _BATCH])]
            if pairs is not None:
                rows.append(self._tokenize(pairs[start : start + _BATCH]))
            for row in zip(*rows, strict=True):
                row_ids, row_type_ids = self._wrap(*_truncate(row, max_seq_length - needed))
                ids.append(row_ids)
                type_ids.append(row_type_ids)
        return ids, type_ids


class Tokenizer(_LongestFirst):
    """A tokenizer in the Rust library: `tokenizer.json` with the files that let PaddleNLP load the same one."""

    def __init__(self, backend: tokenizers.Tokenizer, files: dict[str, bytes]) -> None:
        """Wrap a Rust tokenizer.

        Args:
            backend: the tokenizer; its padding and truncation are switched off.
            files: its other files' contents by name, to be saved with it.

        Raises:
            ModelError: the tokenizer has no padding token, or encodes nothing.
        """
        self._backend, self._files, self._config = backend, files, _parse(files, _CONFIG)
        tokens = [self._config.get("pad_token"), (backend.padding or {}).get("pad_token"), "[PAD]", "<pad>"]
        pad_ids = [backend.token_to_id(_text(token)) for token in tokens if token]
        self.pad_token_id = next((i for i in pad_ids if i is not None), None)
        if self.pad_token_id is None:
            raise ModelError(f"the tokenizer has no padding token: name one as pad_token in {_CONFIG}")
        backend.no_padding()
        backend.no_truncation()
        self._follow_config()
        self._class_name = self._paddlenlp_class()
        self.vocab_size = max(backend.get_vocab().values()) + 1
        self.fingerprint = _digest({"tokenizer": json.loads(backend.to_str()), "pad_token_id": self.pad_token_id})
        probe = next((p for p in "a1.的" if backend.encode(p, add_special_tokens=False).ids), None)
        if probe is None:
            raise ModelError("the tokenizer knows no letter, digit or stop: its vocabulary is empty or damaged")
        self._templates = (_Template.of(backend.encode(probe)), _Template.of(backend.encode(probe, probe)))

    @classmethod
    def from_pretrained(cls, name_or_path: str | os.PathLike) -> "Tokenizer | PaddleNlpTokenizer":
        """Load a tokenizer from a folder or by a name that PaddleNLP knows.

        Args:
            name_or_path: a folder with `tokenizer.json`, with BERT's `vocab.txt`, or with another PaddleNLP
                tokenizer's files; or a name such as `bert-base-uncased`.

        Returns:
            The tokenizer, in its Rust form wherever there is one.

        Raises:
            ModelError: there is no such folder or name, no tokenizer in it, or a damaged file.
        """
        folder = Path(name_or_path)
        name = str(name_or_path)
        if not folder.is_dir():
            if folder.is_file() or folder.is_absolute() or name.startswith((".", "~")):
                raise ModelError(f"{name} is not a folder: name the folder that holds the tokenizer's files")
            return _from_paddlenlp(name)
        files = {file: (folder / file).read_bytes() for file in _FILES if (folder / file).is_file()}
        content = files.pop("tokenizer.json", None)
        if content is None and not any(file in files for file in (_CONFIG, *_VOCABULARIES)):
            raise ModelError(f"{folder} holds no tokenizer: looked for tokenizer.json, {', '.join(_VOCABULARIES)}")
        try:
            if content is not None:
                return cls(_load(content), files)
            if _is_plain_bert(files, folder):
                return cls(_bert_backend(files), files)
        except ModelError as error:
            raise ModelError(f"{folder}: {error}") from error
        except (AttributeError, TypeError) as error:
            raise ModelError(
                f"{folder}: {_CONFIG} has a setting of a wrong type ({_reason(error)}): mend it"
            ) from error
        return _from_paddlenlp(name)

    def save_pretrained(self, folder: str | os.PathLike) -> None:
        """Write `tokenizer.json`, and the files from which PaddleNLP's AutoTokenizer loads the same tokenizer.

        Args:
            folder: where to write; it is made where it is missing.
        """
        _write(folder, {**self._files, "tokenizer.json": self._backend.to_str(pretty=True).encode("utf-8")})
        if not any(file in self._files for file in _VOCABULARIES):
            self._backend.model.save(str(folder))
        config = {key: value for key, value in self._config.items() if key not in _ORIGIN}
        config["tokenizer_class"] = self._class_name
        config.setdefault("pad_token", self._backend.id_to_token(self.pad_token_id))
        normalizer = self._backend.normalizer
        if isinstance(normalizer, normalizers.BertNormalizer):
            config["do_lower_case"] = normalizer.lowercase
            config["tokenize_chinese_chars"] = normalizer.handle_chinese_chars
            config["strip_accents"] = normalizer.strip_accents
        _write(folder, {_CONFIG: _dump(config)})

    def _follow_config(self) -> None:
        """Let tokenizer_config.json overrule tokenizer.json's case and accents, as Hugging Face and PaddleNLP do."""
        normalizer, config = self._backend.normalizer, self._config
        if isinstance(normalizer, normalizers.BertNormalizer):
            self._backend.normalizer = normalizers.BertNormalizer(
                clean_text=normalizer.clean_text,
                handle_chinese_chars=config.get("tokenize_chinese_chars", normalizer.handle_chinese_chars),
                strip_accents=config.get("strip_accents", normalizer.strip_accents),
                lowercase=config.get("do_lower_case", normalizer.lowercase),
            )

    def _paddlenlp_class(self) -> str:
        name = (self._config.get("tokenizer_class") or "").removesuffix("Fast")
        if name in ("", "PreTrainedTokenizer", "PretrainedTokenizer"):
            return "BertTokenizer" if isinstance(self._backend.model, models.WordPiece) else "PretrainedTokenizerFast"
        return _PADDLENLP_CLASSES.get(name, name)

    def _num_special_tokens(self, texts: int) -> int:
        return sum(map(len, self._templates[texts - 1].ids))

    def _tokenize(self, texts: Sequence[str]) -> list[list[int]]:
        encodings = self._backend.encode_batch([_safe(text) for text in texts], add_special_tokens=False)
        return [encoding.ids for encoding in encodings]

    def _wrap(self, *texts: list[int]) -> tuple[list[int], list[int]]:
        return self._templates[len(texts) - 1].wrap(*texts)


class PaddleNlpTokenizer(_LongestFirst):
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
        self.fingerprint = _digest({name: hashlib.sha256(content).hexdigest() for name, content in files.items()})

    def save_pretrained(self, folder: str | os.PathLike) -> None:
        """Write the tokenizer's own files, which PaddleNLP's AutoTokenizer loads too.

        Args:
            folder: where to write; it is made where it is missing.
        """
        _write(folder, self._files)

    def _num_special_tokens(self, texts: int) -> int:
        return self._backend.num_special_tokens_to_add(pair=texts == 2)

    def _tokenize(self, texts: Sequence[str]) -> list[list[int]]:
        return [self._backend.convert_tokens_to_ids(self._backend.tokenize(_safe(text))) for text in texts]

    def _wrap(self, *texts: list[int]) -> tuple[list[int], list[int]]:
        type_ids = self._backend.create_token_type_ids_from_sequences(*texts)
        return self._backend.build_inputs_with_special_tokens(*texts), type_ids


def _truncate(texts: tuple[list[int], ...], room: int) -> list[list[int]]:
    """Cut from the end of the longer text, and of the second where they are equal: PaddleNLP's longest_first."""
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


def _safe(text: str) -> str:
    """Join surrogate pairs and replace lone surrogates, which cannot be encoded and make the Rust library raise."""
    if not _SURROGATES.search(text):
        return text
    return text.encode("utf-16", "surrogatepass").decode("utf-16", "replace")


def _load(content: bytes) -> tokenizers.Tokenizer:
    try:
        return tokenizers.Tokenizer.from_str(content.decode("utf-8"))
    except Exception as error:  # the library raises plain Exception
        raise _damaged("tokenizer.json", error) from error


def _is_plain_bert(files: dict[str, bytes], folder: Path) -> bool:
    """Whether vocab.txt is all there is to a folder's tokenizer: BERT's, with no tokens added or left whole."""
    config = _parse(files, _CONFIG)
    name = config.get("tokenizer_class")
    if not name and (folder / "config.json").is_file():
        model = _parse({"config.json": (folder / "config.json").read_bytes()}, "config.json")
        name = "BertTokenizer" if model.get("model_type") == "bert" else "its model's"
    return (
        (name or "BertTokenizer").removesuffix("Fast") == "BertTokenizer"
        and [file for file in (*_VOCABULARIES, "added_tokens.json") if file in files] == ["vocab.txt"]
        and config.get("do_basic_tokenize", True)
        and not any(config.get(key) for key in ("never_split", "additional_special_tokens", "added_tokens_decoder"))
    )


def _bert_backend(files: dict[str, bytes]) -> tokenizers.Tokenizer:
    """Build PaddleNLP's BertTokenizer in the Rust library, from vocab.txt and the settings beside it."""
    config = _parse(files, _CONFIG) | _parse(files, "special_tokens_map.json")
    special = {name: _text(config.get(f"{name}_token", f"[{name.upper()}]")) for name in _BERT_TOKENS}
    try:
        lines = io.TextIOWrapper(io.BytesIO(files["vocab.txt"]), encoding="utf-8")
        vocab = {line.rstrip("\n"): i for i, line in enumerate(lines)}
    except UnicodeDecodeError as error:
        raise _damaged("vocab.txt", error) from error
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


def _from_paddlenlp(name: str) -> Tokenizer | PaddleNlpTokenizer:
    """Load through PaddleNLP, and keep its tokenizer only where no Rust form gives the same ids."""
    try:
        from paddlenlp.transformers import AutoTokenizer
        from paddlenlp.transformers.convert_slow_tokenizer import SLOW_TO_FAST_CONVERTERS, convert_slow_tokenizer

        original = AutoTokenizer.from_pretrained(name)
        with tempfile.TemporaryDirectory() as folder:
            original.save_pretrained(folder)
            files = {path.name: path.read_bytes() for path in sorted(Path(folder).iterdir()) if path.is_file()}
    except Exception as error:  # PaddleNLP and its hubs fail as any type
        raise ModelError(f"PaddleNLP loads no tokenizer from {name} ({_reason(error)}): check the name") from error
    files[_CONFIG] = _dump({key: value for key, value in _parse(files, _CONFIG).items() if key not in _ORIGIN})
    reference = PaddleNlpTokenizer(original, files)
    builders = []
    if hasattr(original, "wordpiece_tokenizer") and "vocab.txt" in files:
        builders.append(lambda: _bert_backend(files))
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


def _text(token: str | dict) -> str:
    """Return a special token's text; Hugging Face writes some as objects with settings."""
    return token["content"] if isinstance(token, dict) else token


def _parse(files: dict[str, bytes], name: str) -> dict[str, Any]:
    try:
        return dict(json.loads(files.get(name, b"{}")))
    except (ValueError, TypeError) as error:
        raise _damaged(name, error) from error


def _damaged(name: str, error: Exception) -> ModelError:
    return ModelError(f"{name} is truncated or corrupt ({_reason(error)}): download or copy it again")


def _reason(error: Exception) -> str:
    return " ".join(str(error).split())[:200]


def _dump(content: dict[str, Any]) -> bytes:
    return (json.dumps(content, ensure_ascii=False, indent=2, sort_keys=True) + "\n").encode("utf-8")


def _digest(content: dict[str, Any]) -> str:
    return hashlib.sha256(json.dumps(content, sort_keys=True).encode("utf-8")).hexdigest()


def _write(folder: str | os.PathLike, files: dict[str, bytes]) -> None:
    Path(folder).mkdir(parents=True, exist_ok=True)
    for name, content in files.items():
        (Path(folder) / name).write_bytes(content)
