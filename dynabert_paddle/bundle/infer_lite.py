"""Predicts with the Paddle Lite bundle that this file is in; needs Python 3.7, paddlelite and numpy.

    python infer_lite.py "some text"
    python infer_lite.py -i FILE --json

Everything that depends on the Unicode version is in `lite_tokenizer.json`, so every Python gives the same ids. A port
to another language needs that file, `vocab.txt`, and the four steps of `Tokenizer.tokenize`.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import re
import sys
from bisect import bisect_right
from collections.abc import Callable, Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from dynabert_paddle.bundle.command import Opened, add_arguments, run_script
from dynabert_paddle.bundle.label_choice import parse_threshold
from dynabert_paddle.bundle.manifest import BundleError, check_inputs, read_bundle
from dynabert_paddle.bundle.rows import Encoded, Row, RowEncoder
from dynabert_paddle.files.unchanged import load_unchanged
from dynabert_paddle.text.decode import AnyPrediction, cut_padding
from dynabert_paddle.text.encode import Template, safe_text
from dynabert_paddle.text.leading import Tokens, are_plain, bert_rules

TOKENIZER_FILE = "lite_tokenizer.json"
VOCABULARY_FILE = "vocab.txt"
# A model for the wrong kind of processor gives wrong results without an error.
X86_MODEL, ARM_MODEL = "model_x86.nb", "model_arm.nb"

_BATCH_SIZE = 16
_SPACES = "\t\n\x0b\x0c\r \x85\xa0\u1680" + "".join(map(chr, range(0x2000, 0x200B))) + "\u2028\u2029\u202f\u205f\u3000"


class Characters(dict):
    """Replacements of characters, in the form of `str.translate`; computed when a character first occurs."""

    def __init__(self, ranges: dict, replaced: dict, *, hangul: bool = False) -> None:
        """Prepare the lookup.

        Args:
            ranges: for each replacement, where `{}` stands for the character, pairs of first and last code point.
            replaced: replacements of single characters.
            hangul: decompose Korean syllables into their letters.
        """
        super().__init__((ord(character), text) for character, text in replaced.items())
        self._ranges = sorted((first, last, text) for text, pairs in ranges.items() for first, last in pairs)
        self._firsts = [first for first, _, _ in self._ranges]
        self._hangul = hangul

    def __missing__(self, code: int) -> str:
        """Return the replacement of a character, given its code point."""
        character = text = chr(code)
        index = bisect_right(self._firsts, code) - 1
        if self._hangul and 0xAC00 <= code <= 0xD7A3:
            lead, rest = divmod(code - 0xAC00, 588)
            vowel, tail = divmod(rest, 28)
            text = chr(0x1100 + lead) + chr(0x1161 + vowel) + (chr(0x11A7 + tail) if tail else "")
        elif index >= 0 and code <= self._ranges[index][1]:
            text = self._ranges[index][2].replace("{}", character)
        self[code] = text
        return text


class Tokenizer:
    """BERT's tokenizer in plain Python, with the same ids as in training."""

    def __init__(self, settings: dict, vocabulary: list[str]) -> None:
        """Create a tokenizer.

        Args:
            settings: the content of `lite_tokenizer.json`.
            vocabulary: the tokens in the order of their ids; an empty string for an id without a token.
        """
        self._ids = {token: i for i, token in enumerate(vocabulary) if token}
        self._unknown = self._ids[settings["unk_token"]]
        self._prefix = settings["continuing_subword_prefix"]
        self._longest = settings["max_input_chars_per_word"]
        characters, words = settings["characters"], settings["words"]
        self._normalized = Characters(characters["ranges"], characters["replaced"], hangul=characters["hangul"])
        self._separated = Characters(words["ranges"], {})
        names = ("ids", "type_ids", "text_type_ids")
        templates = [settings["templates"][kind] for kind in ("single", "pair")]
        self.templates = [Template(*(template[name] for name in names)) for template in templates]
        added = settings["added_tokens"]
        self.rules = None
        if settings.get("clean_text") and are_plain(token["content"] for token in added):
            self.rules = bert_rules(self._longest, settings["strip_accents"], settings["tokenize_chinese_chars"])
        self._added, self._added_normalized = (
            {token["content"]: token for token in added if token["normalized"] == normalized}
            for normalized in (False, True)
        )

    @classmethod
    def from_folder(cls, folder: str) -> Tokenizer:
        """Load a bundle's tokenizer.

        Args:
            folder: the bundle.

        Returns:
            The tokenizer.

        Raises:
            BundleError: its files are damaged.
        """
        try:
            with open(os.path.join(folder, TOKENIZER_FILE), encoding="utf-8") as file:
                settings = json.load(file)
            with open(os.path.join(folder, VOCABULARY_FILE), encoding="utf-8", newline="\n") as file:
                return cls(settings, file.read().split("\n"))
        except (ValueError, KeyError, TypeError, AttributeError, RecursionError):
            raise BundleError(
                f"{folder}: {TOKENIZER_FILE} or {VOCABULARY_FILE} is damaged: export the model again"
            ) from None

    def tokenize(self, text: str) -> Tokens:
        """Encode a text without special tokens around it.

        Args:
            text: any text.

        Returns:
            The ids, and start and end of each token in the text.
        """
        text = safe_text(text)
        ids, offsets = [], []
        for added, start, end in _split(text, self._added):  # 1. added tokens, which are not split
            if added is not None:
                ids.append(added)
                offsets.append((start, end))
                continue
            parts = [self._normalized[ord(character)] for character in text[start:end]]  # 2. normalize each character
            owners = [start + i for i, part in enumerate(parts) for _ in part]
            normalized = "".join(parts)
            for added, begin, stop in _split(normalized, self._added_normalized):
                pieces: list[tuple[Any, int, int]] = [(added, begin, stop)]
                if added is None:  # 3. split into words and single characters; 4. split words into pieces
                    words = self._words(normalized, begin, stop)
                    pieces = [piece for word in words for piece in self._pieces(normalized, *word)]
                for piece, first, last in pieces:
                    ids.append(piece)
                    offsets.append((owners[first], owners[last - 1] + 1))
        return Tokens(ids, offsets)

    def _words(self, text: str, start: int, end: int) -> Iterator[tuple[int, int]]:
        """Yield start and end of each word between two positions of a text."""
        begin = start
        for i in range(start, end):
            separated = self._separated[ord(text[i])]
            if separated == text[i] != "\n":
                continue
            if begin < i:
                yield begin, i
            begin = i + 1
            if separated.strip("\n"):
                yield i, i + 1
        if begin < end:
            yield begin, end

    def _pieces(self, text: str, start: int, end: int) -> list[tuple[int, int, int]]:
        """Split a word greedily into the longest pieces in the vocabulary; return their ids, starts and ends."""
        if end - start > self._longest:
            return [(self._unknown, start, end)]
        pieces, begin = [], start
        while begin < end:
            for stop in range(end, begin, -1):
                piece = self._ids.get((self._prefix if begin > start else "") + text[begin:stop])
                if piece is not None:
                    break
            else:
                return [(self._unknown, start, end)]
            pieces.append((piece, begin, stop))
            begin = stop
        return pieces


def _split(text: str, tokens: dict[str, Any]) -> Iterator[tuple[int | None, int, int]]:
    """Split a text at added tokens; yield the token's id, or None for the text between, with start and end."""
    kept = 0
    if tokens:
        pattern = "|".join(map(re.escape, sorted(tokens, key=len, reverse=True)))
        for match in re.finditer(pattern, text):
            token, (start, end) = tokens[match.group()], match.span()
            if token["lstrip"]:
                start = max(kept, len(text[:start].rstrip(_SPACES)))
            if token["rstrip"]:
                end = len(text) - len(text[end:].lstrip(_SPACES))
            if kept < start:
                yield None, kept, start
            yield token["id"], start, end
            kept = end
    if kept < len(text):
        yield None, kept, len(text)


def collate(rows: list[tuple[list[int], list[int]]], pad_token_id: int) -> dict[str, np.ndarray]:
    """Pad rows and join them to a batch.

    Args:
        rows: token ids and token type ids.
        pad_token_id: id of the padding token.

    Returns:
        The model's inputs by name, int64 `[b, s]`.
    """
    shape = (len(rows), max(len(ids) for ids, _ in rows))
    batch = {
        "input_ids": np.full(shape, pad_token_id, dtype=np.int64),
        "token_type_ids": np.zeros(shape, dtype=np.int64),
        "attention_mask": np.zeros(shape, dtype=np.int64),
    }
    for i, (ids, type_ids) in enumerate(rows):
        batch["input_ids"][i, : len(ids)] = ids
        batch["token_type_ids"][i, : len(ids)] = type_ids
        batch["attention_mask"][i, : len(ids)] = 1
    return batch


def open_model(path: str) -> Callable[[dict[str, np.ndarray]], np.ndarray]:
    """Load a model into Paddle Lite.

    Args:
        path: a `.nb` file for this kind of processor.

    Returns:
        A function from inputs by name, int64 `[b, s]` of any size, to logits.

    Raises:
        BundleError: paddlelite is not installed.
    """
    try:
        from paddlelite import lite
    except ImportError as error:
        raise BundleError(
            f"paddlelite does not import ({error}): on Linux x86-64 with Python 3.7 to 3.10 run "
            "'pip install paddlelite==2.13rc0 \"numpy<2\"'"
        ) from None
    config = lite.MobileConfig()
    config.set_model_from_file(path)
    predictor = lite.create_paddle_predictor(config)
    names = predictor.get_input_names()

    def run(batch: dict[str, np.ndarray]) -> np.ndarray:
        for name in names:
            predictor.get_input_by_name(name).from_numpy(np.ascontiguousarray(batch[name], dtype=np.int64))
        predictor.run()
        return np.array(predictor.get_output(0).numpy())  # a copy, because the runtime reuses the memory

    return run


class Bundle:
    """A bundle, ready to run: its files are verified, its tokenizer and model loaded."""

    def __init__(
        self,
        folder: str,
        *,
        decode: str | None = None,
        threshold: float | Mapping[str, float] | None = None,
        top_k: int | None = None,
        role: str | None = None,
        output_dim: int | None = None,
    ) -> None:
        """Verify and load the bundle in a folder.

        Args:
            folder: the bundle.
            decode: `free` or `constrained`, for labels of words; by default as exported.
            threshold: for several labels a text, as `LabelChoice` takes it.
            top_k: likewise.
            role: what texts to embed are, `document` or `query`; by default documents.
            output_dim: the size that vectors are cut to; by default whole.
        """
        self._choice: dict[str, Any] = {"decode": decode, "threshold": threshold, "top_k": top_k}
        self._choice.update(role=role, output_dim=output_dim)
        load_unchanged(Path(folder), lambda: self._open(folder), BundleError)

    def _open(self, folder: str) -> None:
        """Read all files that a prediction needs."""
        model = X86_MODEL if platform.machine().lower() in ("x86_64", "amd64", "i386", "i686") else ARM_MODEL
        self.description = description = read_bundle(Path(folder), [model, VOCABULARY_FILE, TOKENIZER_FILE])
        self.takes_pairs, self._pad_token_id = description["pair"], description["pad_token_id"]
        self._tokenizer = Tokenizer.from_folder(folder)
        self._rows = RowEncoder(description, self._tokenizer.templates[self.takes_pairs], **self._choice)
        self._run = open_model(os.path.join(folder, model))

    def input_warnings(self) -> list[str]:
        """Return warnings of one line about the texts read so far: too long, unknown tokens, special tokens."""
        return self._rows.counts.messages()

    def predict(self, rows: Iterable[list[str]]) -> Iterator[AnyPrediction]:
        """Predict for texts, pairs of texts, or questions and their contexts.

        Args:
            rows: any number of lists of one text or of two.

        Yields:
            One prediction per row.

        Raises:
            BundleError: a row is not one text, or not two if the model takes pairs.
        """
        batch = []
        for number, row in enumerate(rows, start=1):
            batch.append(self._rows.read(row, number))
            if len(batch) == _BATCH_SIZE:
                yield from self._predict_batch(batch)
                batch = []
        if batch:
            yield from self._predict_batch(batch)

    def _predict_batch(self, batch: list[Row]) -> Iterator[AnyPrediction]:
        rows: list[Encoded] = self._rows.encode_all(
            batch, lambda texts: list(map(self._tokenizer.tokenize, texts)), self._tokenizer.rules
        )
        windows = [window for row in rows for window in row.windows]
        cut = []
        for start in range(0, len(windows), _BATCH_SIZE):
            part = windows[start : start + _BATCH_SIZE]
            inputs = collate(part, self._pad_token_id)
            check_inputs(inputs, self.description)
            logits = self._run(inputs).astype(np.float64)
            if not np.isfinite(logits).all():
                raise BundleError("the model computes values that are not finite: export it again")
            cut += [cut_padding(values, len(ids), self._rows.kind) for values, (ids, _) in zip(logits, part)]  # noqa: B905
        remaining = iter(cut)
        for row in rows:
            yield row.decode([next(remaining) for _ in row.windows], self.description["subnet"])


def main(arguments: list[str] | None = None) -> int:
    """Run the command line of a bundle.

    Args:
        arguments: in place of `sys.argv`.

    Returns:
        The exit code.
    """
    parser = argparse.ArgumentParser(description="Predict with the Paddle Lite bundle that this file is in.")
    add_arguments(parser)
    return run_script(parser, arguments, _open_own)


def _open_own(options: argparse.Namespace) -> Opened:
    folder, threshold = os.path.dirname(os.path.abspath(__file__)), parse_threshold(options.threshold)
    bundle = Bundle(
        folder,
        decode=options.decode,
        threshold=threshold,
        top_k=options.top_k,
        role=options.role,
        output_dim=options.output_dim,
    )
    return Opened(bundle.description, bundle.predict, bundle.input_warnings)


if __name__ == "__main__":
    sys.exit(main())
