"""Text in, labels out, with the bundle that this file lies in: needs numpy, tokenizers, and paddle or onnxruntime.

    python infer.py "some text"
    python infer.py -i FILE --json

Shapes: n texts, b batch, s sequence, c classes.
"""

from __future__ import annotations

import argparse
import contextlib
import hashlib
import json
import os
import re
import sys
import threading
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from itertools import islice
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import tokenizers

BUNDLE_FILE = "bundle.json"
FORMAT_VERSION = 1
INPUTS = ("input_ids", "token_type_ids", "attention_mask")

_CHUNK = 4096  # texts that are held in memory and sorted by length at a time
_LENGTH_STEP = 8  # batches are padded to multiples of it: every new shape costs the runtime some set-up
_SURROGATES = re.compile("[\ud800-\udfff]")

Engine = Callable[[dict[str, np.ndarray]], np.ndarray]


class BundleError(Exception):
    """A bundle that cannot be run, or texts that it cannot take; the message is one line."""


@dataclass(frozen=True)
class Prediction:
    """What a model says of one text, or of one pair.

    Args:
        label: the most probable class; None for regression.
        score: its probability; for regression the predicted value.
        scores: every class's probability.
    """

    label: str | None
    score: float
    scores: dict[str, float] = field(repr=False)


class Template(NamedTuple):
    """The special tokens around one text or two: what comes before the first, after it, and after the second."""

    ids: tuple[list[int], ...]
    type_ids: tuple[list[int], ...]
    text_type_ids: tuple[int, ...]

    @classmethod
    def of(cls, encoding: tokenizers.Encoding) -> Template:
        """Read the special tokens off an encoded example.

        Args:
            encoding: of one text or two, with special tokens.

        Returns:
            Its template.
        """
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

    @property
    def num_special_tokens(self) -> int:
        """How many tokens it adds."""
        return sum(map(len, self.ids))

    def wrap(self, *texts: list[int]) -> tuple[list[int], list[int]]:
        """Put the special tokens around one text's tokens, or two's.

        Args:
            texts: token ids without special tokens.

        Returns:
            Ids and token type ids.
        """
        ids, type_ids = list(self.ids[0]), list(self.type_ids[0])
        for i, text in enumerate(texts):
            ids += text + self.ids[i + 1]
            type_ids += [self.text_type_ids[i]] * len(text) + self.type_ids[i + 1]
        return ids, type_ids


def find_templates(backend: tokenizers.Tokenizer) -> tuple[Template, Template] | None:
    """Find a tokenizer's templates by encoding something.

    Args:
        backend: a tokenizer without padding and truncation.

    Returns:
        The template for one text and the one for two; None where the tokenizer knows no character.
    """
    probe = next((p for p in "a1.的" if backend.encode(p, add_special_tokens=False).ids), None)
    return probe and (Template.of(backend.encode(probe)), Template.of(backend.encode(probe, probe)))


def truncate(texts: Sequence[list[int]], room: int) -> list[list[int]]:
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
    """Join surrogate pairs and replace lone surrogates, which cannot be encoded and make the Rust library raise."""
    if not _SURROGATES.search(text):
        return text
    return text.encode("utf-16", "surrogatepass").decode("utf-16", "replace")


class Bundle:
    """A bundle, ready to run: its files are checked, its tokenizer and its graph loaded.

    Args:
        folder: the bundle.
        device: `cpu`, `gpu` or `gpu:N`.
        num_threads: CPU threads; all cores that the process may use where not given.

    Raises:
        BundleError: a file that is missing or altered, or a runtime that is missing or cannot run it.
    """

    def __init__(self, folder: str | os.PathLike, *, device: str = "cpu", num_threads: int | None = None) -> None:
        self.folder = Path(folder)
        self.description = read_bundle(self.folder)
        self.labels: list[str] = self.description["labels"]
        self.takes_pairs: bool = self.description["pair"]
        self.max_seq_length: int = self.description["max_seq_length"]
        try:
            self._tokenizer = tokenizers.Tokenizer.from_file(str(self.folder / "tokenizer.json"))
        except Exception as error:  # the library raises plain Exception
            reason = " ".join(str(error).split())[:200]
            raise BundleError(
                f"{self.folder / 'tokenizer.json'}: tokenizers {tokenizers.__version__} cannot load it: {reason}"
            ) from None
        self._tokenizer.no_padding()
        self._tokenizer.no_truncation()
        self._template = find_templates(self._tokenizer)[self.takes_pairs]
        self._run = open_engine(self.folder, self.description, device=device, num_threads=num_threads)
        self._lock = threading.Lock()  # a runtime's input and output buffers are one per model

    def predict(
        self, texts: Sequence[str], pairs: Sequence[str] | None = None, *, batch_size: int = 32
    ) -> list[Prediction]:
        """Predict for texts, or pairs of texts.

        Args:
            texts: one text a row; longer ones than `max_seq_length` tokens are cut.
            pairs: a second text for each row.
            batch_size: rows at a time.

        Returns:
            One prediction a row, in the order of the rows.

        Raises:
            BundleError: rows that are not texts, or pairs where the model was trained on single texts or the reverse.
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
                raise BundleError(f"texts are a list of str, not {_shown(column)}")
        if pairs is not None and len(pairs) != len(texts):
            raise BundleError(f"{len(texts)} texts and {len(pairs)} second texts: give one for each")
        return list(self.stream(zip(*columns, strict=True), batch_size=batch_size))

    def stream(self, rows: Iterable[Sequence[str]], *, batch_size: int = 32) -> Iterator[Prediction]:
        """Predict for any number of rows in constant memory.

        Args:
            rows: tuples of one text, or of two.
            batch_size: rows at a time.

        Yields:
            One prediction a row, in the order of the rows.

        Raises:
            BundleError: a row that is not one text, or not two where the model takes pairs.
        """
        if batch_size < 1:
            raise BundleError(f"batch_size is at least 1, not {batch_size}")
        rows, seen = iter(rows), 0
        while chunk := list(islice(rows, _CHUNK)):
            yield from map(self._prediction, self._logits(self.encode(chunk, first=seen), batch_size))
            seen += len(chunk)

    def encode(self, rows: Sequence[Sequence[str]], *, first: int = 0) -> list[tuple[list[int], list[int]]]:
        """Turn rows into token ids, as in training.

        Args:
            rows: tuples of one text, or of two.
            first: number of the first row, for messages.

        Returns:
            Ids and token type ids of each row, with special tokens.

        Raises:
            BundleError: a row that is not one text, or not two where the model takes pairs.
        """
        for number, row in enumerate(rows, start=first + 1):
            # A str is a sequence, too: its characters are no texts.
            is_row = isinstance(row, Sequence) and not isinstance(row, (str, bytes))
            if not is_row or len(row) != 1 + self.takes_pairs or not all(isinstance(text, str) for text in row):
                wanted = "tuples of two texts" if self.takes_pairs else "tuples of one text"
                raise BundleError(f"row {number} is {_shown(row)}: this bundle takes {wanted}")
        columns = [
            [encoding.ids for encoding in self._tokenizer.encode_batch(texts, add_special_tokens=False)]
            for texts in (list(map(safe_text, column)) for column in zip(*rows, strict=True))
        ]
        room = self.max_seq_length - self._template.num_special_tokens
        return [self._template.wrap(*truncate(texts, room)) for texts in zip(*columns, strict=True)]

    def _logits(self, encoded: Sequence[tuple[list[int], list[int]]], batch_size: int) -> np.ndarray:
        lengths = np.array([len(ids) for ids, _ in encoded])
        order = np.argsort(-lengths, kind="stable")
        parts = []
        for start in range(0, len(order), batch_size):
            batch = [encoded[i] for i in order[start : start + batch_size]]
            padded = -(-len(batch[0][0]) // _LENGTH_STEP) * _LENGTH_STEP
            with self._lock:
                parts.append(self._run(collate(batch, min(padded, self.max_seq_length), self.description)))
        logits = np.concatenate(parts).astype(np.float64)  # [n, c]
        if not np.isfinite(logits).all():
            raise BundleError(f"{self.folder}: the model computes values that are not finite: export it again")
        return logits[np.argsort(order)]

    def _prediction(self, logits: np.ndarray) -> Prediction:
        if not self.labels:
            return Prediction(None, float(logits[0]), {})
        weights = np.exp(logits - logits.max())
        scores = dict(zip(self.labels, (weights / weights.sum()).tolist(), strict=True))
        label = self.labels[int(logits.argmax())]
        return Prediction(label, scores[label], scores)


def _shown(value: object) -> str:
    """A value in a message: one line, cut to 60 characters."""
    shown = " ".join(repr(value).split())
    return shown if len(shown) <= 60 else shown[:57] + "..."


def collate(
    rows: Sequence[tuple[list[int], list[int]]], seq_length: int, description: dict[str, Any]
) -> dict[str, np.ndarray]:
    """Pad rows to one batch.

    Args:
        rows: ids and token type ids.
        seq_length: tokens to pad to.
        description: the bundle's, which knows the padding token.

    Returns:
        The graph's inputs, int64 `[b, s]`.
    """
    shape = (len(rows), seq_length)
    input_ids = np.full(shape, description["pad_token_id"], dtype=np.int64)
    token_type_ids, mask = np.zeros(shape, dtype=np.int64), np.zeros(shape, dtype=np.int64)
    for i, (ids, type_ids) in enumerate(rows):
        input_ids[i, : len(ids)] = ids
        token_type_ids[i, : len(ids)] = type_ids
        mask[i, : len(ids)] = 1
    return dict(zip(INPUTS, (input_ids, token_type_ids, mask), strict=True))


def read_bundle(folder: Path) -> dict[str, Any]:
    """Read `bundle.json` and check every file of the bundle against it.

    Args:
        folder: the bundle.

    Returns:
        What `bundle.json` says.

    Raises:
        BundleError: no bundle, or one with a file that is missing, cut off or altered.
    """
    path = folder / BUNDLE_FILE
    again = "copy the bundle again, or export it again"
    if not path.is_file():
        raise BundleError(f"{folder}: no {BUNDLE_FILE} in it: name a folder that 'dynabert export' has made")
    try:
        description = json.loads(path.read_bytes())
        checksum = description.pop("checksum")
    except (OSError, ValueError, KeyError, AttributeError, TypeError, RecursionError):
        raise BundleError(f"{path}: damaged: {again}") from None
    if description.get("format_version") != FORMAT_VERSION:
        raise BundleError(f"{path}: not format version {FORMAT_VERSION}: it comes from another dynabert_paddle")
    if checksum != digest(description):
        raise BundleError(f"{path}: altered since the export: {again}")
    files = description.get("files")
    if not isinstance(files, dict) or not all(isinstance(entry, dict) for entry in files.values()):
        raise BundleError(f"{path}: damaged: {again}")
    for name, expected in files.items():
        if os.path.basename(name) != name:
            raise BundleError(f"{path}: names '{name}', which is outside the bundle: {again}")
        try:
            if not (folder / name).is_file():
                raise BundleError(f"{folder / name}: missing: {again}")
            if (folder / name).stat().st_size != expected.get("bytes"):
                raise BundleError(f"{folder / name}: cut off or altered since the export: {again}")
            if file_digest(folder / name) != expected.get("sha256"):
                raise BundleError(f"{folder / name}: altered since the export: {again}")
        except OSError as error:
            raise BundleError(f"{folder / name}: cannot be read: {error.strerror}") from None
    return description


def digest(description: dict[str, Any]) -> str:
    """Hash what `bundle.json` says, apart from this hash.

    Args:
        description: its content.

    Returns:
        SHA-256 in hexadecimal.
    """
    return hashlib.sha256(json.dumps(description, sort_keys=True, ensure_ascii=True).encode()).hexdigest()


def file_digest(path: Path) -> str:
    """Hash a file.

    Args:
        path: the file.

    Returns:
        SHA-256 in hexadecimal.
    """
    hashed = hashlib.sha256()
    with open(path, "rb") as file:
        while block := file.read(1 << 20):
            hashed.update(block)
    return hashed.hexdigest()


def open_engine(
    folder: Path, description: dict[str, Any], *, device: str = "cpu", num_threads: int | None = None
) -> Engine:
    """Load a bundle's graph into its runtime.

    Args:
        folder: the bundle.
        description: what its `bundle.json` says: the format and the precision count.
        device: `cpu`, `gpu` or `gpu:N`.
        num_threads: CPU threads; all cores that the process may use where not given.

    Returns:
        A function from a batch, arrays by input name, to `[b, c]` logits.

    Raises:
        BundleError: the runtime is not installed, or cannot run this format, or there is no such device.
    """
    if not re.fullmatch(r"cpu|gpu(:\d+)?", device):
        raise BundleError(f"device '{device}' is not one of cpu, gpu, gpu:N")
    if num_threads is not None and num_threads < 1:
        raise BundleError(f"num_threads is at least 1, not {num_threads}")
    if num_threads is None:
        num_threads = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    kind = description["format"]
    if kind == "lite":
        raise BundleError(f"{folder}: a Paddle Lite bundle: run it with 'python {folder / 'infer_lite.py'}'")
    module = "onnxruntime" if kind == "onnx" else "paddle"
    try:
        open_graph = _open_onnx if kind == "onnx" else _open_paddle
        return open_graph(folder, description, device, num_threads)
    except ImportError as error:
        if error.name and error.name.partition(".")[0] == module:
            package = "paddlepaddle" if module == "paddle" else module
            raise BundleError(f"{folder}: format {kind} needs {module}: run 'pip install {package}'") from None
        raise


def _open_paddle(folder: Path, description: dict[str, Any], device: str, num_threads: int) -> Engine:
    # Paddle reads it once, when it is imported, and takes a single thread where it is not set.
    os.environ.setdefault("OMP_NUM_THREADS", str(num_threads))
    with quiet():
        import paddle
        from paddle import inference

    if description["format"] == "pir" and paddle.__version__.startswith("2."):
        raise BundleError(f"{folder}: format pir needs Paddle 3, this is {paddle.__version__}: export with paddle")
    graph = "model.json" if description["format"] == "pir" else "model.pdmodel"
    config = inference.Config(str(folder / graph), str(folder / "model.pdiparams"))
    config.disable_glog_info()
    if graph == "model.pdmodel":  # Paddle 3.1 cannot load a PIR graph with it
        config.enable_memory_optim()
    name, _, index = device.partition(":")
    if name == "gpu":
        if not paddle.is_compiled_with_cuda():
            raise BundleError(f"device '{device}': the installed Paddle is a CPU build: use cpu")
        if description["precision"] in ("int8", "bf16"):
            raise BundleError(f"{folder}: {description['precision']} runs through oneDNN, on CPUs alone: use cpu")
        config.enable_use_gpu(256, int(index or 0))
    else:
        config.disable_gpu()
        config.set_cpu_math_library_num_threads(num_threads)
        config.enable_mkldnn()
        config.set_mkldnn_cache_capacity(16)  # shapes; without a bound every new shape stays in memory
        if description["precision"] == "bf16":
            with quiet():
                config.enable_mkldnn_bfloat16()
        elif description["precision"] == "int8":
            config.enable_mkldnn_int8()
    try:
        with quiet():
            predictor = inference.create_predictor(config)
    except Exception as error:  # Paddle's errors are C++ traces of many lines
        lines = [line for line in str(error).splitlines() if "Error" in line] or [type(error).__name__]
        raise BundleError(f"{folder}: Paddle {paddle.__version__} cannot load it: {lines[-1].strip()[:200]}") from None
    names = predictor.get_input_names()
    output = predictor.get_output_names()[0]
    process_threads = int(os.environ["OMP_NUM_THREADS"].partition(",")[0])

    def run(batch: dict[str, np.ndarray]) -> np.ndarray:
        for name in names:
            predictor.get_input_handle(name).copy_from_cpu(batch[name])
        predictor.run()
        # A predictor sets it for the whole process, where a training would go on with other sums in another order.
        paddle.base.core.set_num_threads(process_threads)
        return predictor.get_output_handle(output).copy_to_cpu()

    return run


def _open_onnx(folder: Path, description: dict[str, Any], device: str, num_threads: int) -> Engine:
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = num_threads
    options.log_severity_level = 3
    name, _, index = device.partition(":")
    if name == "cpu":
        providers = ["CPUExecutionProvider"]
    elif "CUDAExecutionProvider" in onnxruntime.get_available_providers():
        providers = [("CUDAExecutionProvider", {"device_id": int(index or 0)})]
    else:  # it would take the CPU and say nothing
        raise BundleError(f"device '{device}': the installed ONNX Runtime is a CPU build: use cpu")
    try:
        session = onnxruntime.InferenceSession(str(folder / "model.onnx"), options, providers=providers)
    except Exception as error:  # whatever the runtime meets
        reason = " ".join(str(error).split())[:200]
        raise BundleError(f"{folder}: ONNX Runtime {onnxruntime.__version__} cannot load it: {reason}") from None
    names = [graph_input.name for graph_input in session.get_inputs()]
    return lambda batch: session.run(None, {name: batch[name] for name in names})[0]


@contextlib.contextmanager
def quiet() -> Iterator[None]:
    """Keep what C++ code prints out of the results and off the terminal; Python cannot catch that by itself."""
    sys.stdout.flush()
    sys.stderr.flush()
    kept = os.dup(1), os.dup(2)
    null = os.open(os.devnull, os.O_WRONLY)
    try:
        os.dup2(null, 1)
        os.dup2(null, 2)
        yield
    finally:
        for descriptor, copy in zip((1, 2), kept, strict=True):
            os.dup2(copy, descriptor)
            os.close(copy)
        os.close(null)


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line of a bundle.

    Args:
        arguments: in place of `sys.argv`.

    Returns:
        The exit code.
    """
    parser = argparse.ArgumentParser(description="Predict labels with the bundle that this file lies in.")
    parser.add_argument("text", nargs="*", help="a text; for a task of pairs two of them")
    parser.add_argument("-i", "--input_file", help="one text a line; for pairs two, with a TAB between them")
    parser.add_argument("--json", action="store_true", help="print JSON lines with every class's probability")
    parser.add_argument("--device", default="cpu", help="cpu, gpu or gpu:N")
    parser.add_argument("--num_threads", type=int, help="CPU threads; all cores by default")
    options = parser.parse_args(arguments)
    if bool(options.text) == bool(options.input_file):
        parser.error("give a text, or a file with -i")
    try:
        sys.stdout.reconfigure(encoding="utf-8")  # as the input is, whatever the terminal's language
        bundle = Bundle(Path(__file__).parent, device=options.device, num_threads=options.num_threads)
        with contextlib.ExitStack() as stack:
            if options.input_file:
                file = stack.enter_context(open(options.input_file, encoding="utf-8-sig", newline="\n"))
                lines = (line.rstrip("\r\n") for line in file)
                rows = (line.split("\t") if bundle.takes_pairs else [line] for line in lines)
            else:
                rows = [options.text]
            for prediction in bundle.stream(rows):
                if options.json:
                    print(json.dumps(vars(prediction), ensure_ascii=False))
                elif prediction.label is None:
                    print(f"{prediction.score:.4f}")
                else:
                    print(f"{prediction.label}\t{prediction.score:.4f}")
        sys.stdout.flush()
    except BrokenPipeError:  # `| head` has read enough; Python would complain once more when it closes stdout
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 1
    except UnicodeDecodeError as error:
        print(f"error: {options.input_file}: not UTF-8 ({error.reason}): convert it", file=sys.stderr)
        return 1
    except OSError as error:
        print(f"error: {error.filename or 'stdout'}: {error.strerror}", file=sys.stderr)
        return 1
    except BundleError as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
