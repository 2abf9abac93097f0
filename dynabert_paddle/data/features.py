"""Tokenized examples, cached on disk. Shapes: n examples, b batch, s sequence."""

from __future__ import annotations

import hashlib
import logging
import os
import tempfile
from abc import ABC, abstractmethod
from collections.abc import Iterable, Sequence
from contextlib import suppress
from dataclasses import dataclass, field, replace
from itertools import chain
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

import numpy as np

from dynabert_paddle.data.metrics import compute_metrics
from dynabert_paddle.files.npz import write_npz
from dynabert_paddle.runtime.home import cache_home, user_path
from dynabert_paddle.text.decode import cut_padding
from dynabert_paddle.text.encode import Template
from dynabert_paddle.text.leading import Tokens

if TYPE_CHECKING:
    from dynabert_paddle.data.readers import Examples

logger = logging.getLogger(__name__)

_CACHE_FORMAT = b"features-2"
_ROWS_PER_CALL = 4096


class TextEncoder(Protocol):
    """A tokenizer that returns token ids and which rows it truncated, with a hash of its content."""

    fingerprint: str

    def num_special_tokens(self, texts: int) -> int: ...

    def encode_whole(self, texts: Sequence[str]) -> list[list[int]]: ...

    def wrap(self, *texts: list[int]) -> tuple[list[int], list[int]]: ...

    def encode_rows(
        self, texts: Sequence[str], pairs: Sequence[str] | None, *, max_seq_length: int
    ) -> tuple[list[list[int]], list[list[int]], list[bool]]: ...


class OffsetEncoder(Protocol):
    """A tokenizer that also returns each token's position, for token classification and question answering."""

    def template(self, texts: int) -> Template: ...

    def encode_offsets(self, texts: Sequence[str], max_tokens: int | None = None) -> list[Tokens]: ...


class FeatureSet(ABC):
    """Tokenized examples: collates batches and scores a model's logits."""

    kind = "classification"  # also of regression: `restore` treats both alike
    labels: np.ndarray | None
    positive: int  # the class whose F1 the metric `f1` is

    @abstractmethod
    def __len__(self) -> int: ...

    @property
    @abstractmethod
    def lengths(self) -> np.ndarray:
        """`[n]`, the lengths by which batches are grouped."""

    @property
    @abstractmethod
    def content(self) -> tuple[np.ndarray, ...]:
        """The arrays that identify these examples."""

    @property
    def num_scored(self) -> int:
        """The number of examples that a metric is averaged over."""
        return len(self)

    @property
    def targets(self) -> np.ndarray | None:
        """The labels that training uses."""
        return self.labels

    @property
    def row_weights(self) -> np.ndarray | None:
        """`[n]` float32, what each example counts in the losses of labels and logits; None for 1."""
        return None

    @abstractmethod
    def select(self, indices: np.ndarray) -> FeatureSet: ...

    @abstractmethod
    def collate(self, indices: np.ndarray, pad_token_id: int) -> dict[str, np.ndarray]:
        """Make one batch, padded at the end to its longest example.

        Args:
            indices: `[b]`, the examples of the batch.
            pad_token_id: id of the padding token.

        Returns:
            `input_ids`, `token_type_ids`, `attention_mask`, each `[b, s]` int64; `labels`, if there are any: int64
            classes, or float32 values; for several labels an example `[b, c]` float32, 1 for those that it has.
        """
        ...

    @abstractmethod
    def with_labels(self, labels: np.ndarray) -> FeatureSet: ...

    def restore(self, batches: Sequence[np.ndarray], logits: Sequence[np.ndarray]) -> Sequence[np.ndarray]:
        """Put batches of logits back into the examples' order.

        Args:
            batches: indices of each batch's examples; every example is in one.
            logits: logits of each batch: `[b, c]`; `[b, s, c]` for token classification; `[b, 2, s]` for answers.

        Returns:
            `[n, c]`; for logits of tokens one array per example, without padding.
        """
        if logits[0].ndim == 2:
            return np.concatenate(logits)[np.argsort(np.concatenate(batches))]
        restored: list[np.ndarray] = [np.empty(0)] * len(self)
        lengths = self.lengths
        for rows, values in zip(batches, logits, strict=True):
            for i, row in zip(rows, values, strict=True):
                restored[i] = cut_padding(row, lengths[i], self.kind)
        return restored

    def score(
        self, metrics: Sequence[str], logits: Sequence[np.ndarray], thresholds: np.ndarray | None = None
    ) -> dict[str, float]:
        """Score logits against the labels.

        Args:
            metrics: names of metrics.
            logits: from `restore`.
            thresholds: for several labels an example, `[c]`: the probability from which a label is predicted; None:
                those that are best for these examples.

        Returns:
            Each metric as a fraction: 1.0 is perfect.
        """
        assert self.labels is not None  # augmented texts have no labels and are never scored
        labels, positive = self.labels, self.positive
        return compute_metrics(metrics, np.asarray(logits), labels, positive=positive, thresholds=thresholds)

    def score_without(self, metric: str, logits: Sequence[np.ndarray], groups: Iterable[np.ndarray]) -> np.ndarray:
        """Score logits again and again, each time without one group of examples, as a jackknife needs it.

        Args:
            metric: name of a metric.
            logits: from `restore`.
            groups: indices of the examples to leave out, below `num_scored`.

        Returns:
            One score a group.
        """
        assert self.labels is not None
        rows, labels, scores = np.asarray(logits), self.labels, []
        for group in groups:
            others, expected = np.delete(rows, group, axis=0), np.delete(labels, group, axis=0)
            scores.append(compute_metrics((metric,), others, expected, positive=self.positive)[metric])
        return np.array(scores)


@dataclass(frozen=True, eq=False)
class Features(FeatureSet):
    """Tokenized examples in flat arrays; example i has the tokens `offsets[i]:offsets[i + 1]`.

    Args:
        input_ids: `[tokens]` int32, the concatenated tokens of all examples.
        token_type_ids: `[tokens]` uint8, 1 in the second text of a pair.
        offsets: `[n + 1]` int64, from 0 to the number of tokens.
        labels: `[n]`, class indices or float32 scores; `[n, c]` booleans for several labels an example; None if there
            are none.
        positive: the class whose F1 the metric `f1` is.
        is_cut: `[n]`, whether each example was longer and lost tokens; None if that is not known.
    """

    input_ids: np.ndarray
    token_type_ids: np.ndarray
    offsets: np.ndarray
    labels: np.ndarray | None
    positive: int = field(default=1, kw_only=True)
    is_cut: np.ndarray | None = field(default=None, kw_only=True)

    def __len__(self) -> int:
        return len(self.offsets) - 1

    @property
    def lengths(self) -> np.ndarray:
        """Tokens of each example, `[n]`."""
        return np.diff(self.offsets)

    @property
    def content(self) -> tuple[np.ndarray, ...]:
        """The arrays that identify these examples."""
        return (self.input_ids, self.offsets, *(() if self.targets is None else (self.targets,)))

    def select(self, indices: np.ndarray) -> Features:
        """Copy some of the examples.

        Args:
            indices: `[b]` integers in any order, repeats allowed, or an `[n]` mask.

        Returns:
            The examples in the order of `indices`.
        """
        return self._take(np.arange(len(self))[indices])

    def _take(self, indices: np.ndarray) -> Features:
        """Copy some of the rows, with their labels as batches have them."""
        tokens, offsets = self._tokens_of(indices)
        return Features(
            self.input_ids[tokens],
            self.token_type_ids[tokens],
            offsets,
            self._labels_of(indices),
            positive=self.positive,
            is_cut=None if self.is_cut is None else self.is_cut[indices],
        )

    def _labels_of(self, indices: np.ndarray) -> np.ndarray | None:
        return None if self.labels is None else self.labels[indices]

    def _tokens_of(self, indices: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Return the indices of some examples' tokens in the flat arrays, and the offsets of the selection."""
        lengths = self.lengths[indices]
        offsets = np.concatenate([[0], np.cumsum(lengths)])
        # All tokens of an example are shifted by the shift of its start.
        return np.arange(offsets[-1]) + np.repeat(self.offsets[indices] - offsets[:-1], lengths), offsets

    def collate(self, indices: np.ndarray, pad_token_id: int) -> dict[str, np.ndarray]:
        """As `FeatureSet.collate`."""
        batch = self._take(np.arange(len(self))[indices])
        mask = np.arange(batch.lengths.max()) < batch.lengths[:, None]  # [b, s]
        input_ids = np.full(mask.shape, pad_token_id, dtype=np.int64)
        token_type_ids = np.zeros(mask.shape, dtype=np.int64)
        input_ids[mask] = batch.input_ids
        token_type_ids[mask] = batch.token_type_ids
        arrays = {"input_ids": input_ids, "token_type_ids": token_type_ids, "attention_mask": mask.astype(np.int64)}
        if batch.labels is None:
            return arrays
        is_class = np.issubdtype(batch.labels.dtype, np.integer)
        return arrays | {"labels": batch.labels.astype(np.int64 if is_class else np.float32, copy=False)}

    def with_labels(self, labels: np.ndarray) -> Features:
        """Return the same examples with other labels, `[n]`."""
        return replace(self, labels=labels)


def flatten(rows: Iterable[tuple[list[int], list[int]]]) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Convert tokenized rows to the flat arrays of `Features`.

    Args:
        rows: ids and token type ids of each example.

    Returns:
        `input_ids`, `token_type_ids` and `offsets`.
    """
    ids, type_ids = zip(*rows, strict=True)
    return (
        np.fromiter(chain.from_iterable(ids), dtype=np.int32),
        np.fromiter(chain.from_iterable(type_ids), dtype=np.uint8),
        np.concatenate([[0], np.cumsum([len(row) for row in ids], dtype=np.int64)]),
    )


def tokenize(
    examples: Examples, tokenizer: TextEncoder, *, max_seq_length: int, cache_dir: str | os.PathLike | None = None
) -> Features:
    """Tokenize examples, or load them from the cache if the same texts were tokenized before.

    Args:
        examples: the texts.
        tokenizer: the tokenizer; its `fingerprint` is part of the cache key.
        max_seq_length: longer inputs are truncated to this number of tokens, including special tokens.
        cache_dir: folder of the cache, created if absent; by default `default_cache_dir()`. If it is not writable,
            nothing is cached.

    Returns:
        The tokenized examples, in the order of `examples`.
    """
    folder = default_cache_dir() if cache_dir is None else user_path(cache_dir)
    path = folder / f"{_cache_key(examples, tokenizer.fingerprint, max_seq_length)}.npz"
    features = _load(path, examples)
    if features is None:
        features = encode_examples(examples, tokenizer, max_seq_length)
        _save(path, features)
    return features


def default_cache_dir() -> Path:
    """Return `$DYNABERT_CACHE_DIR`, else `dynabert_paddle` in `$XDG_CACHE_HOME`, else in `~/.cache`."""
    if folder := os.environ.get("DYNABERT_CACHE_DIR"):
        return user_path(folder)
    return (cache_home() or Path(os.devnull)) / "dynabert_paddle"  # in /dev/null nothing can be written


def encode_examples(examples: Examples, tokenizer: TextEncoder, max_seq_length: int) -> Features:
    """Tokenize examples.

    Args:
        examples: the texts.
        tokenizer: the tokenizer.
        max_seq_length: longer inputs are truncated to this number of tokens, including special tokens.

    Returns:
        The tokenized examples, in their order.
    """
    input_ids: list[np.ndarray] = []
    token_type_ids: list[np.ndarray] = []
    lengths: list[int] = []
    is_cut: list[bool] = []
    for start in range(0, len(examples), _ROWS_PER_CALL):
        rows = slice(start, start + _ROWS_PER_CALL)
        pairs = None if examples.pairs is None else examples.pairs[rows]
        ids, type_ids, cut = tokenizer.encode_rows(examples.texts[rows], pairs, max_seq_length=max_seq_length)
        lengths.extend(map(len, ids))
        is_cut.extend(cut)
        input_ids.append(np.fromiter(chain.from_iterable(ids), dtype=np.int32))
        token_type_ids.append(np.fromiter(chain.from_iterable(type_ids), dtype=np.uint8))
    offsets = np.concatenate([[0], np.cumsum(lengths, dtype=np.int64)])
    return Features(
        np.concatenate(input_ids),
        np.concatenate(token_type_ids),
        offsets,
        examples.labels,
        positive=examples.positive,
        is_cut=np.array(is_cut, dtype=bool),
    )


def _cache_key(examples: Examples, fingerprint: str, max_seq_length: int) -> str:
    """Hash everything that the token ids depend on; labels are neither hashed nor cached."""
    content_hash = hashlib.sha256()
    columns = [examples.texts] if examples.pairs is None else [examples.texts, examples.pairs]
    content_hash.update(repr((_CACHE_FORMAT, fingerprint, max_seq_length, len(examples), len(columns))).encode())
    for text in chain.from_iterable(columns):
        encoded = text.encode()
        # The length before each text makes the hash depend on the boundaries between texts.
        content_hash.update(b"%d:%b" % (len(encoded), encoded))
    return content_hash.hexdigest()


def _load(path: Path, examples: Examples) -> Features | None:
    """Read a cache file; None if it is absent or damaged."""
    if not os.path.isfile(path):  # Path.is_file raises in a folder that may not be looked into
        return None
    try:
        with open(path, "rb") as file, np.load(file, allow_pickle=False) as arrays:
            is_cut = arrays["is_cut"]
            features = Features(
                arrays["input_ids"],
                arrays["token_type_ids"],
                arrays["offsets"],
                examples.labels,
                positive=examples.positive,
                is_cut=is_cut,
            )
            if str(arrays["checksum"]) != _checksum(features, path.stem):
                raise ValueError("changed since it was written")
        if not len(features) == len(is_cut) == len(examples):
            raise ValueError(f"{len(features)} examples, not {len(examples)}")
        if not len(features.input_ids) == len(features.token_type_ids) == features.offsets[-1]:
            raise ValueError("arrays of different lengths")
    except Exception as error:  # a damaged zip file raises almost any type
        logger.debug("%s cannot be read and is rebuilt: %s", path, error)
        return None
    return features


def _checksum(features: Features, key: str) -> str:
    """Hash the arrays of a cache file and its key: an archive's own checksums fit altered or renamed files, too."""
    hashed = hashlib.blake2b(key.encode(), digest_size=16)
    for array in (features.input_ids, features.token_type_ids, features.offsets, np.asarray(features.is_cut)):
        hashed.update(f"{array.dtype.str}{array.shape}".encode())
        hashed.update(np.ascontiguousarray(array).data)
    return hashed.hexdigest()


def _save(path: Path, features: Features) -> None:
    """Write a cache file atomically; several processes may share the cache."""
    temporary = None
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.NamedTemporaryFile(dir=path.parent, suffix=".tmp", delete=False) as file:
            temporary = Path(file.name)
            arrays = {
                "input_ids": features.input_ids,
                "token_type_ids": features.token_type_ids,
                "offsets": features.offsets,
                "is_cut": np.asarray(features.is_cut),
                "checksum": np.array(_checksum(features, path.stem)),
            }
            write_npz(file, arrays)
        temporary.replace(path)
    except OSError as error:
        logger.warning("tokenized data is not cached: %s", error)
    finally:
        if temporary is not None:
            with suppress(OSError):
                temporary.unlink(missing_ok=True)
