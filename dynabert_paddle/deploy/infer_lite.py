"""Text in, labels out, with the Paddle Lite bundle that this file lies in: needs Python 3.7, paddlelite and numpy.

    python infer_lite.py "some text"
    python infer_lite.py -i FILE --json

All that depends on Unicode is in `lite_tokenizer.json`, so every Python gives the same ids. A port to another language
needs that file, `vocab.txt`, and the four steps of `Tokenizer.tokenize`.
"""

from __future__ import annotations

import argparse
import contextlib
import hashlib
import json
import os
import platform
import re
import sys
from bisect import bisect_right

import numpy as np

BUNDLE_FILE = "bundle.json"
FORMAT_VERSION = 1
TOKENIZER_FILE = "lite_tokenizer.json"
VOCABULARY_FILE = "vocab.txt"
# A model for the other kind of processor gives garbage and no error.
X86_MODEL, ARM_MODEL = "model_x86.nb", "model_arm.nb"

_BATCH = 16
_SURROGATES = re.compile("[\ud800-\udfff]")
_SPACES = "\t\n\x0b\x0c\r \x85\xa0\u1680" + "".join(map(chr, range(0x2000, 0x200B))) + "\u2028\u2029\u202f\u205f\u3000"
_AGAIN = "copy the bundle again, or export it again"


class BundleError(Exception):
    """A bundle that cannot be run, or texts that it cannot take; the message is one line."""


class Characters(dict):
    """What each character becomes, as `str.translate` asks for it; worked out when a character first turns up."""

    def __init__(self, ranges: dict, replaced: dict, *, hangul: bool = False) -> None:
        """Prepare the look-up.

        Args:
            ranges: by replacement, in which `{}` is the character itself, pairs of the first and last code point.
            replaced: replacements of single characters.
            hangul: Korean syllables become the letters that they are made of.
        """
        super().__init__((ord(character), text) for character, text in replaced.items())
        self._ranges = sorted((first, last, text) for text, pairs in ranges.items() for first, last in pairs)
        self._firsts = [first for first, _, _ in self._ranges]
        self._hangul = hangul

    def __missing__(self, code: int) -> str:
        """Work out one character's replacement.

        Args:
            code: its code point.

        Returns:
            The text that replaces it.
        """
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
    """BERT's tokenizer in plain Python: the ids of the one that the model was trained with."""

    def __init__(self, settings: dict, vocabulary: list[str]) -> None:
        """Prepare a tokenizer.

        Args:
            settings: the content of `lite_tokenizer.json`.
            vocabulary: the tokens in the order of their ids; the empty string where an id has none.
        """
        self._ids = {token: i for i, token in enumerate(vocabulary) if token}
        self._unknown = self._ids[settings["unk_token"]]
        self._prefix = settings["continuing_subword_prefix"]
        self._longest = settings["max_input_chars_per_word"]
        characters, words = settings["characters"], settings["words"]
        self._normalized = Characters(characters["ranges"], characters["replaced"], hangul=characters["hangul"])
        self._separated = Characters(words["ranges"], {})
        self._templates = [settings["templates"]["single"], settings["templates"]["pair"]]
        added = settings["added_tokens"]
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
            BundleError: its files are not what they should be.
        """
        try:
            with open(os.path.join(folder, TOKENIZER_FILE), encoding="utf-8") as file:
                settings = json.load(file)
            with open(os.path.join(folder, VOCABULARY_FILE), encoding="utf-8", newline="\n") as file:
                return cls(settings, file.read().split("\n"))
        except (ValueError, KeyError, TypeError, AttributeError):
            raise BundleError(f"{folder}: {TOKENIZER_FILE} or {VOCABULARY_FILE} is damaged: {_AGAIN}") from None

    def encode(self, texts, pairs=None, *, max_seq_length: int) -> tuple[list[list[int]], list[list[int]]]:
        """Turn texts, or pairs of texts, into ids with special tokens, without padding.

        Args:
            texts: one text a row.
            pairs: a second text for each row.
            max_seq_length: longest row in tokens; a longer one loses tokens from the end of its longer text.

        Returns:
            The ids and the token type ids, one list a row.
        """
        template = self._templates[pairs is not None]
        room = max_seq_length - sum(map(len, template["ids"]))
        all_ids, all_type_ids = [], []
        for row in zip(*([texts] if pairs is None else [texts, pairs])):  # noqa: B905 - Python 3.7 knows no strict
            ids, type_ids = list(template["ids"][0]), list(template["type_ids"][0])
            for i, text in enumerate(truncate([self.tokenize(text) for text in row], room)):
                ids += text + template["ids"][i + 1]
                type_ids += [template["text_type_ids"][i]] * len(text) + template["type_ids"][i + 1]
            all_ids.append(ids)
            all_type_ids.append(type_ids)
        return all_ids, all_type_ids

    def tokenize(self, text: str) -> list[int]:
        """Turn a text into ids without special tokens around it.

        Args:
            text: any text.

        Returns:
            The ids.
        """
        ids = []
        for found, piece in _split(safe_text(text), self._added):  # 1. tokens that are left whole
            if found is not None:
                ids.append(found)
                continue
            normalized = piece.translate(self._normalized)  # 2. every character by itself
            for found, part in _split(normalized, self._added_normalized):
                if found is not None:
                    ids.append(found)
                    continue
                for word in part.translate(self._separated).split("\n"):  # 3. words, and characters that stand alone
                    if word:
                        ids += self._pieces(word)  # 4. the longest pieces that the vocabulary has
        return ids

    def _pieces(self, word: str) -> list[int]:
        if len(word) > self._longest:
            return [self._unknown]
        ids, start = [], 0
        while start < len(word):
            for end in range(len(word), start, -1):
                found = self._ids.get((self._prefix if start else "") + word[start:end])
                if found is not None:
                    break
            else:
                return [self._unknown]
            ids.append(found)
            start = end
        return ids


def _split(text: str, tokens: dict):
    """Yield the id of each added token that is in a text, and what is between them, the leftmost and longest first."""
    if not tokens:
        yield None, text
        return
    pattern = "|".join(map(re.escape, sorted(tokens, key=len, reverse=True)))
    kept = 0
    for match in re.finditer(pattern, text):
        token, (start, end) = tokens[match.group()], match.span()
        if token["lstrip"]:
            start = max(kept, len(text[:start].rstrip(_SPACES)))
        if token["rstrip"]:
            end = len(text) - len(text[end:].lstrip(_SPACES))
        if kept < start:
            yield None, text[kept:start]
        yield token["id"], None
        kept = end
    if kept < len(text):
        yield None, text[kept:]


def truncate(texts: list[list[int]], room: int) -> list[list[int]]:
    """Cut from the end of the longer text, and of the second where they are equal: PaddleNLP's longest_first.

    Args:
        texts: token ids of one text or two, without special tokens.
        room: tokens to keep in all.

    Returns:
        The same texts, cut.
    """
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


def safe_text(text: str) -> str:
    """Join surrogate pairs and replace lone surrogates, as in training."""
    if not _SURROGATES.search(text):
        return text
    return text.encode("utf-16", "surrogatepass").decode("utf-16", "replace")


def collate(ids: list[list[int]], type_ids: list[list[int]], pad_token_id: int) -> dict[str, np.ndarray]:
    """Pad rows to one batch.

    Args:
        ids: token ids, one list a row.
        type_ids: token type ids, likewise.
        pad_token_id: fills the shorter rows.

    Returns:
        The model's inputs by name, int64 `[b, s]`.
    """
    shape = (len(ids), max(map(len, ids)))
    batch = {
        "input_ids": np.full(shape, pad_token_id, dtype=np.int64),
        "token_type_ids": np.zeros(shape, dtype=np.int64),
        "attention_mask": np.zeros(shape, dtype=np.int64),
    }
    for i, row in enumerate(ids):
        batch["input_ids"][i, : len(row)] = row
        batch["token_type_ids"][i, : len(row)] = type_ids[i]
        batch["attention_mask"][i, : len(row)] = 1
    return batch


def open_model(path: str):
    """Load a model into Paddle Lite.

    Args:
        path: a `.nb` file for this machine's kind of processor.

    Returns:
        A function from inputs by name, int64 `[b, s]` of any size, to `[b, c]` logits.

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
        return np.array(predictor.get_output(0).numpy())  # a copy: the runtime writes to the same memory again

    return run


def read_bundle(folder: str, names: list[str]) -> dict:
    """Read `bundle.json` and check against it the files that are about to be used.

    Args:
        folder: the bundle.
        names: of the files.

    Returns:
        What `bundle.json` says.

    Raises:
        BundleError: no bundle, or one with a file that is missing, cut off or altered.
    """
    path = os.path.join(folder, BUNDLE_FILE)
    if not os.path.isfile(path):
        raise BundleError(f"{folder}: no {BUNDLE_FILE} in it: run the file that lies in the bundle")
    try:
        with open(path, encoding="utf-8") as file:
            description = json.load(file)
        checksum = description.pop("checksum")
        expected = {name: description["files"][name] for name in names}
    except (OSError, ValueError, KeyError, TypeError, AttributeError, RecursionError):
        raise BundleError(f"{path}: damaged, or not of a Paddle Lite bundle: {_AGAIN}") from None
    if description.get("format_version") != FORMAT_VERSION:
        raise BundleError(f"{path}: not format version {FORMAT_VERSION}: it comes from another dynabert_paddle")
    content = json.dumps(description, sort_keys=True, ensure_ascii=True).encode()
    if checksum != hashlib.sha256(content).hexdigest():
        raise BundleError(f"{path}: altered since the export: {_AGAIN}")
    for name in names:
        path = os.path.join(folder, name)
        if not os.path.isfile(path):
            raise BundleError(f"{path}: missing: {_AGAIN}")
        hashed = hashlib.sha256()
        with open(path, "rb") as file:
            for block in iter(lambda: file.read(1 << 20), b""):
                hashed.update(block)
        if os.path.getsize(path) != expected[name]["bytes"] or hashed.hexdigest() != expected[name]["sha256"]:
            raise BundleError(f"{path}: cut off or altered since the export: {_AGAIN}")
    return description


class Bundle:
    """A bundle, ready to run: its files are checked, its tokenizer and its model loaded."""

    def __init__(self, folder: str) -> None:
        """Check and load a bundle.

        Args:
            folder: the bundle.
        """
        model = X86_MODEL if platform.machine().lower() in ("x86_64", "amd64", "i386", "i686") else ARM_MODEL
        description = read_bundle(folder, [model, VOCABULARY_FILE, TOKENIZER_FILE])
        self.labels, self.takes_pairs = description["labels"], description["pair"]
        self._max_seq_length, self._pad_token_id = description["max_seq_length"], description["pad_token_id"]
        self._tokenizer = Tokenizer.from_folder(folder)
        self._run = open_model(os.path.join(folder, model))

    def predict(self, rows):
        """Predict for texts, or pairs of texts.

        Args:
            rows: any number of lists of one text, or of two.

        Yields:
            For each row its label, None for regression; the label's probability, or the predicted value; and every
            label's probability.

        Raises:
            BundleError: a row that is not one text, or not two where the model takes pairs.
        """
        batch = []
        for number, row in enumerate(rows, start=1):
            if len(row) != 1 + self.takes_pairs:
                wanted = "two texts" if self.takes_pairs else "one text"
                raise BundleError(f"row {number} is {ascii(row)[:60]}: this bundle takes {wanted} a row")
            batch.append(row)
            if len(batch) == _BATCH:
                yield from self._predict_batch(batch)
                batch = []
        if batch:
            yield from self._predict_batch(batch)

    def _predict_batch(self, rows):
        columns = [[row[i] for row in rows] for i in range(1 + self.takes_pairs)]
        ids, type_ids = self._tokenizer.encode(*columns, max_seq_length=self._max_seq_length)
        logits = self._run(collate(ids, type_ids, self._pad_token_id)).astype(np.float64)  # [b, c]
        if not np.isfinite(logits).all():
            raise BundleError("the model computes values that are not finite: export it again")
        for values in logits:
            if not self.labels:
                yield None, float(values[0]), {}
                continue
            weights = np.exp(values - values.max())
            weights /= weights.sum()
            scores = {label: float(weights[i]) for i, label in enumerate(self.labels)}
            label = self.labels[int(values.argmax())]
            yield label, scores[label], scores


def main(arguments=None) -> int:
    """Run the command line of a bundle.

    Args:
        arguments: in place of `sys.argv`.

    Returns:
        The exit code.
    """
    parser = argparse.ArgumentParser(description="Predict labels with the Paddle Lite bundle that this file lies in.")
    parser.add_argument("text", nargs="*", help="a text; for a task of pairs two of them")
    parser.add_argument("-i", "--input_file", help="one text a line; for pairs two, with a TAB between them")
    parser.add_argument("--json", action="store_true", help="print JSON lines with every class's probability")
    options = parser.parse_args(arguments)
    if bool(options.text) == bool(options.input_file):
        parser.error("give a text, or a file with -i")
    try:
        bundle = Bundle(os.path.dirname(os.path.abspath(__file__)))
        with contextlib.ExitStack() as stack:
            rows = [options.text]
            if options.input_file:
                file = stack.enter_context(open(options.input_file, encoding="utf-8-sig", newline="\n"))
                lines = (line.rstrip("\r\n") for line in file)
                rows = (line.split("\t") if bundle.takes_pairs else [line] for line in lines)
            for label, score, scores in bundle.predict(rows):
                if options.json:
                    print(json.dumps({"label": label, "score": score, "scores": scores}, ensure_ascii=False))
                elif label is None:
                    print(f"{score:.4f}")
                else:
                    print(f"{label}\t{score:.4f}")
    except (BundleError, OSError, UnicodeError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
