"""Predicts with the bundle that this file is in; needs numpy, tokenizers, and paddle or onnxruntime.

    python infer.py "some text"
    python infer.py -i FILE --json

Shapes: n texts, b batch, s sequence, c classes.
"""

from __future__ import annotations

import argparse
import os
import sys
import threading
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor, wait
from functools import partial
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
import tokenizers

from dynabert_paddle.bundle.command import Opened, add_arguments, positive, run_script
from dynabert_paddle.bundle.engines import Engine, collate
from dynabert_paddle.bundle.gate import Gate
from dynabert_paddle.bundle.label_choice import parse_threshold
from dynabert_paddle.bundle.manifest import BundleError, check_inputs, read_bundle
from dynabert_paddle.bundle.members import choose_subnet, open_subnet
from dynabert_paddle.bundle.processor import processor_warnings
from dynabert_paddle.bundle.rows import Encoded, RowEncoder, short_repr
from dynabert_paddle.files.unchanged import folder_version, load_unchanged
from dynabert_paddle.text.decode import AnyPrediction, cut_padding
from dynabert_paddle.text.encode import convert_errors, find_templates
from dynabert_paddle.text.leading import find_rules

_CHUNK, _CHUNK_CHARACTERS = 4096, 2**22  # rows that are in memory and sorted by length at a time
_WINDOWED_CHARACTERS = 2**18  # where every token of a text has logits, most of them twice
# Full batches are padded to a multiple of _LENGTH_STEP tokens, others to a power of two of at least _MIN_LENGTH.
_LENGTH_STEP, _MIN_LENGTH = 8, 16


class Bundle:
    """A bundle, ready to run: its files are verified, its tokenizer and graph loaded.

    Args:
        folder: the bundle.
        subnet: name of a sub-network, if the bundle has several; the best by default.
        device: `cpu`, `gpu` or `gpu:N`.
        num_threads: CPU threads; by default all cores that the process may use.
        decode: for labels of words, `constrained` to those that their scheme allows, or `free`; by default as exported.
        threshold: for several labels a text, as `LabelChoice` takes it.
        top_k: likewise.
        role: what texts to embed are, `document` or `query`, where a call does not say; by default documents.
        output_dim: the size that vectors are cut to; by default whole.

    Raises:
        BundleError: a file is missing or altered, or the runtime is missing or cannot run the graph.
    """

    def __init__(
        self,
        folder: str | os.PathLike,
        *,
        subnet: str | None = None,
        device: str = "cpu",
        num_threads: int | None = None,
        decode: str | None = None,
        threshold: float | Mapping[str, float] | None = None,
        top_k: int | None = None,
        role: str | None = None,
        output_dim: int | None = None,
    ) -> None:
        self.folder = Path(folder)
        self._choice: dict[str, Any] = {"decode": decode, "threshold": threshold, "top_k": top_k}
        self._choice |= {"role": role, "output_dim": output_dim}
        self._device, self._num_threads = device, num_threads
        self._lock = threading.Lock()  # a runtime has one set of input and output buffers per model
        self._threads, self._process = _make_threads(), os.getpid()
        load_unchanged(self.folder, partial(self._open, subnet), BundleError)
        self._gate = Gate()

    def _open(self, subnet: str | None) -> None:
        """Read all files that a prediction needs."""
        self._version = folder_version(self.folder)
        self.description = read_bundle(self.folder)
        self._engines: dict[str, Engine] = {}
        self.subnet = choose_subnet(self.folder, self.description, subnet)
        self.takes_pairs: bool = self.description["pair"]
        self.max_seq_length: int = self.description["max_seq_length"]
        with convert_errors(self._tokenizer_error):
            self._tokenizer = tokenizers.Tokenizer.from_file(str(self.folder / "tokenizer.json"))
            self._tokenizer.no_padding()
            self._tokenizer.no_truncation()
            if not self.description.get("special_tokens_in_text", True):
                self._tokenizer.encode_special_tokens = True
            templates = find_templates(self._tokenizer)
            self._rules = find_rules(self._tokenizer)
        if templates is None:
            raise self._tokenizer_error(ValueError("the vocabulary has no letter, digit or full stop"))
        self._rows = RowEncoder(self.description, templates[self.takes_pairs], **self._choice)
        self.kind, self.labels = self._rows.kind, self._rows.labels
        self.load(self.subnet)

    @property
    def warnings(self) -> list[str]:
        """A line each of what the bundle's user should know about this processor; see `processor_warnings`."""
        return processor_warnings(self.description) if self._device == "cpu" else []

    @property
    def column_names(self) -> list[str]:
        """The names of the `cells` of a prediction."""
        return self._rows.column_names

    def input_warnings(self) -> list[str]:
        """Return warnings of one line about the texts read so far: too long, unknown tokens, special tokens."""
        return self._rows.counts.messages()

    def load(self, subnet: str) -> None:
        """Load another sub-network into the runtime.

        Args:
            subnet: its name.

        Raises:
            BundleError: the runtime cannot run it, or the bundle was replaced since it was opened.
        """
        if subnet not in self._engines:
            engine = open_subnet(
                self.folder, self.description, subnet, device=self._device, num_threads=self._num_threads
            )
            if folder_version(self.folder) != self._version:
                raise BundleError(f"{self.folder}: was replaced since it was opened: open it again")
            self._engines[subnet] = engine

    def predict(
        self,
        texts: Sequence[str],
        pairs: Sequence[str] | None = None,
        *,
        batch_size: int = 32,
        role: str | None = None,
    ) -> list[AnyPrediction]:
        """Predict for texts or pairs of texts.

        Args:
            texts: one text per row; rows longer than `max_seq_length` tokens are truncated or read in windows, as the
                bundle says.
            pairs: a second text for each row.
            batch_size: rows per batch.
            role: what texts to embed are; by default as the bundle was opened.

        Returns:
            One prediction per row, in order.

        Raises:
            BundleError: a row is not text, or pairs are given for a model of single texts or the reverse.
        """
        return list(self.stream(self.rows(texts, pairs), batch_size=batch_size, role=role))

    def rows(self, texts: Sequence[str], pairs: Sequence[str] | None = None) -> Iterator[tuple[str, ...]]:
        """Combine texts, or pairs of texts, to rows.

        Args:
            texts: one text per row.
            pairs: a second text for each row.

        Returns:
            Tuples of one text or of two.

        Raises:
            BundleError: not lists of texts, or pairs are given for a model of single texts or the reverse.
        """
        if (pairs is not None) != self.takes_pairs:
            raise BundleError(
                "this bundle's task has pairs of texts: give a second text for each"
                if self.takes_pairs
                else "this bundle's task has single texts: give no second ones"
            )
        columns = [texts] if pairs is None else [texts, pairs]
        for column in columns:
            if isinstance(column, (str, bytes)) or not isinstance(column, Iterable):
                raise BundleError(f"texts are a list of str, not {short_repr(column)}")
        if pairs is not None and len(pairs) != len(texts):
            raise BundleError(f"{len(texts)} texts and {len(pairs)} second texts: give one for each")
        return zip(*columns, strict=True)

    def stream(
        self, rows: Iterable[Sequence[str]], *, batch_size: int = 32, role: str | None = None
    ) -> Iterator[AnyPrediction]:
        """Predict for any number of rows in constant memory; the next chunk is encoded while one runs.

        Args:
            rows: tuples of one text or of two.
            batch_size: rows per batch.
            role: what texts to embed are; by default as the bundle was opened.

        Yields:
            One prediction per row, in order.

        Raises:
            BundleError: a row is not one text, or not two if the model takes pairs.
        """
        if batch_size < 1:
            raise BundleError(f"batch_size is at least 1, not {batch_size}")
        rows, num_encoded = iter(rows), 0
        encoded = self.encode(_take_chunk(rows, self._rows.has_word_windows), role=role)
        while encoded:
            num_encoded += len(encoded)
            following = self._encode_ahead(rows, num_encoded, role)
            try:
                logits = iter(self._logits([window for row in encoded for window in row.windows], batch_size))
            finally:
                wait([following])  # no work may be pending at a yield: the caller may stop or fork there
            yield from [row.decode([next(logits) for _ in row.windows], self.subnet) for row in encoded]
            encoded = following.result()

    def _encode_ahead(self, rows: Iterator[Sequence[str]], num_encoded: int, role: str | None) -> Future:
        """Start to encode the next chunk; an error waits in the future, as the earlier predictions come first."""
        following: Future = Future()
        try:
            chunk = _take_chunk(rows, self._rows.has_word_windows)
            if chunk:
                return self._submit("encoder", partial(self.encode, first=num_encoded, role=role), chunk)
            following.set_result([])
        except Exception as error:
            following.set_exception(error)
        return following

    def encode(self, rows: Sequence[Sequence[str]], *, first: int = 0, role: str | None = None) -> list[Encoded]:
        """Encode rows as in training.

        Args:
            rows: tuples of one text or of two; for token classification a text can be a list of words.
            first: number of rows before these, for messages.
            role: what texts to embed are; by default as the bundle was opened.

        Returns:
            Each row's windows; several only of a long text.

        Raises:
            BundleError: a row is not one text, or not two if the model takes pairs.
        """
        read = [self._rows.read(row, number, role) for number, row in enumerate(rows, start=first + 1)]
        with self._gate:
            return self._rows.encode_all(read, self._encode_batch, self._rules)

    def _encode_batch(self, texts: Sequence[str]) -> list[tokenizers.Encoding]:
        with convert_errors(self._tokenizer_error):
            return self._tokenizer.encode_batch(texts, add_special_tokens=False)

    def _tokenizer_error(self, error: BaseException) -> BundleError:
        path, reason = self.folder / "tokenizer.json", " ".join(str(error).split())[:200]
        return BundleError(f"{path}: tokenizers {tokenizers.__version__} cannot use it: {reason}")

    def _logits(self, encoded: Sequence[tuple[list[int], list[int]]], batch_size: int) -> list[np.ndarray]:
        """Return the logits of each row, without padding."""
        lengths = np.array([len(ids) for ids, _ in encoded])
        order = np.argsort(-lengths, kind="stable")
        unsorted: list[np.ndarray] = [np.empty(0)] * len(encoded)
        for start in range(0, len(order), batch_size):
            rows = order[start : start + batch_size]
            batch = [encoded[i] for i in rows]
            size, length = _padded_shape(len(batch), len(batch[0][0]), batch_size)
            batch += [batch[-1]] * (size - len(batch))
            values = self.submit(self.run, batch, min(length, self.max_seq_length)).result()
            for i, logits in zip(rows, values, strict=False):
                unsorted[i] = logits
        return unsorted

    def submit(self, function: Callable, *arguments: object) -> Future:
        """Call a function, such as `run`, in the bundle's thread.

        Args:
            function: the function.
            arguments: its arguments.

        Returns:
            The future result.

        Raises:
            BundleError: Python is about to exit.
        """
        return self._submit("bundle", function, *arguments)

    def _submit(self, thread: str, function: Callable, *arguments: object) -> Future:
        if self._process != os.getpid():  # threads do not survive a fork
            self._threads, self._process = _make_threads(), os.getpid()
        try:
            return self._threads[thread].submit(function, *arguments)
        except RuntimeError:  # the executor refuses work once the main thread has ended
            raise BundleError("Python is about to exit: let the main thread wait for those that predict") from None

    def run(
        self, windows: Sequence[tuple[list[int], list[int]]], seq_length: int, *, subnet: str | None = None
    ) -> list[np.ndarray]:
        """Run the graph on one batch in the calling thread, which should be the bundle's; see `submit`.

        Args:
            windows: ids and token type ids, from `encode`.
            seq_length: tokens to pad to.
            subnet: name of a loaded sub-network; by default the one that the bundle was opened with.

        Returns:
            The logits of each window, without padding.

        Raises:
            BundleError: the graph cannot be run, or its logits are not finite or of the wrong shape.
        """
        batch = collate(windows, seq_length, self.description)
        with self._gate, self._lock:
            try:
                check_inputs(batch, self.description)
                logits = self._engines[subnet or self.subnet](batch)
            except BundleError as error:
                raise BundleError(f"{self.folder}: {error}") from None
        rows, classes = len(windows), self.description.get("vector_size") or len(self.labels) or 1
        shape = {
            "token_classification": (rows, seq_length, classes),
            "question_answering": (rows, 2, seq_length),
        }.get(self.kind, (rows, classes))
        if logits.shape != shape:
            raise BundleError(f"{self.folder}: the model's logits are {logits.shape}, not {shape}: export it again")
        if not np.isfinite(logits).all():
            raise BundleError(f"{self.folder}: the model computes values that are not finite: export it again")
        return [
            cut_padding(values, len(ids), self.kind)
            for values, (ids, _) in zip(logits.astype(np.float64), windows, strict=True)
        ]


def _make_threads() -> dict[str, ThreadPoolExecutor]:
    """One thread runs all graphs, because oneDNN caches what it compiled per thread; another encodes."""
    return {name: ThreadPoolExecutor(1, f"dynabert-{name}") for name in ("bundle", "encoder")}


def _take_chunk(rows: Iterator[Sequence[str]], has_word_windows: bool) -> list[Sequence[str]]:
    """Take rows until there are many, or many characters: the tokens of a context take some 200 bytes each."""
    most = _WINDOWED_CHARACTERS if has_word_windows else _CHUNK_CHARACTERS
    chunk, num_characters = [], 0
    for row in islice(rows, _CHUNK):
        chunk.append(row)
        num_characters += sum(map(_num_characters, row)) if isinstance(row, (list, tuple)) else 0
        if num_characters >= most:
            break
    return chunk


def _num_characters(text: object) -> int:
    words = [text] if isinstance(text, str) else text if isinstance(text, (list, tuple)) else []
    return sum(len(word) for word in words if isinstance(word, str))


def _padded_shape(num_rows: int, longest: int, batch_size: int) -> tuple[int, int]:
    """Return rows and tokens to pad a batch to; few shapes, as a runtime compiles and caches each one."""
    if num_rows == batch_size:
        return num_rows, -(-longest // _LENGTH_STEP) * _LENGTH_STEP
    return min(power_of_two(num_rows), batch_size), max(_MIN_LENGTH, power_of_two(longest))


def power_of_two(least: int) -> int:
    """Return the smallest power of two that is at least a number."""
    return 1 << (least - 1).bit_length()


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line of a bundle.

    Args:
        arguments: in place of `sys.argv`.

    Returns:
        The exit code.
    """
    parser = argparse.ArgumentParser(description="Predict with the bundle that this file is in.")
    add_arguments(parser)
    parser.add_argument("--subnet", help="name of a sub-network, if the bundle has several; the best by default")
    parser.add_argument("--device", default="cpu", help="cpu, gpu or gpu:N")
    parser.add_argument("--num_threads", type=positive, metavar="N", help="CPU threads; all cores by default")
    return run_script(parser, arguments, _open_own)


def _open_own(options: argparse.Namespace) -> Opened:
    folder = Path(__file__).parent
    bundle = Bundle(
        folder,
        subnet=options.subnet,
        device=options.device,
        num_threads=options.num_threads,
        decode=options.decode,
        threshold=parse_threshold(options.threshold),
        top_k=options.top_k,
        role=options.role,
        output_dim=options.output_dim,
    )
    return Opened(bundle.description, bundle.stream, bundle.input_warnings, bundle.warnings)


if __name__ == "__main__":
    sys.exit(main())
