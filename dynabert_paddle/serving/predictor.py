"""Prediction with a bundle in Python: texts in, labels and scores, or vectors, out. Never imports PaddleNLP."""

from __future__ import annotations

import logging
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from dynabert_paddle.bundle.errors import as_dynabert_error
from dynabert_paddle.bundle.infer import Bundle
from dynabert_paddle.bundle.tables import task_columns
from dynabert_paddle.files.hashing import hash_json
from dynabert_paddle.runtime.environment import set_cpu_environment
from dynabert_paddle.text.decode import AnyPrediction, Embedding

logger = logging.getLogger(__name__)


class Predictor:
    """Predicts with a bundle from `dynabert export`.

    While it loads, for a second or so, the standard streams of the process are silenced, because Paddle's C++ code
    prints to them: what other threads print then is lost.

    Args:
        bundle: its folder.
        subnet: which sub-network of a bundle of several; by default the best.
        device: `cpu`, `gpu` or `gpu:N`.
        num_threads: CPU threads; by default all cores that the process may use.
        decode: for labels of words, `constrained` to those that their scheme allows, or `free`; by default as exported.
        threshold: for a task of several labels a text, the probability from which a label is predicted, above 0 and
            below 1: one for all labels, or those of some by name; by default those in the bundle.
        top_k: likewise, how many labels are predicted at most; without `threshold` the most probable ones, whatever the
            bundle's thresholds are.
        role: for embeddings, what texts are where a call does not say: `document`, the default, or `query`.
        output_dim: for embeddings, the size that vectors are cut to, one of the `output_dims` of the model; by default
            they are whole.

    Raises:
        DynabertError: a file of the bundle is missing or altered, or a runtime is missing or cannot run it; or a
            threshold or `top_k` that is not allowed.
    """

    def __init__(
        self,
        bundle: str | Path,
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
        set_cpu_environment()
        options: dict[str, Any] = {"decode": decode, "threshold": threshold, "top_k": top_k}
        options |= {"role": role, "output_dim": output_dim}
        self._output_dim = output_dim
        with as_dynabert_error():
            self._bundle = Bundle(bundle, subnet=subnet, device=device, num_threads=num_threads, **options)
        for warning in self._bundle.warnings:
            logger.warning("%s: %s", bundle, warning)

    @property
    def labels(self) -> list[str]:
        """The classes, in the order of the model's outputs; empty for regression."""
        return self._bundle.labels

    @property
    def kind(self) -> str:
        """What is predicted: a kind of task, such as classification, regression or embedding."""
        return self._bundle.kind

    @property
    def task_name(self) -> str:
        """The task that the model was trained for; 'custom' if the bundle does not name it."""
        return self._bundle.description["task"].get("name", "custom")

    @property
    def vector_size(self) -> int | None:
        """The values of a text's vector, for embeddings; None for other kinds of tasks."""
        return self._output_dim or self._bundle.description.get("vector_size")

    @property
    def checksum(self) -> str:
        """The SHA-256 of the bundle's description, which has those of all its files."""
        return hash_json(self._bundle.description)

    @property
    def max_seq_length(self) -> int:
        """The length in tokens to which texts are cut."""
        return self._bundle.max_seq_length

    @property
    def columns(self) -> tuple[str | None, str | None]:
        """The columns of the texts in the task's files, as far as the bundle names them: the first and the second."""
        return task_columns(self._bundle.description)

    @property
    def column_names(self) -> list[str]:
        """The names of the `cells` of a prediction."""
        return self._bundle.column_names

    @property
    def takes_pairs(self) -> bool:
        """Whether the task has pairs of texts; a question and its context are a pair."""
        return self._bundle.takes_pairs

    def input_warnings(self) -> list[str]:
        """Return warnings of one line about the texts read so far: too long, unknown tokens, special tokens."""
        return self._bundle.input_warnings()

    def __call__(
        self,
        texts: str | Sequence[str],
        pairs: str | Sequence[str] | None = None,
        *,
        batch_size: int = 32,
        role: str | None = None,
    ) -> Any:
        """Predict for texts, pairs of texts, or questions and their contexts.

        Args:
            texts: one text a row, or a single text; texts longer than the bundle's maximum are truncated. For word
                labels they are read in windows, and a text can be a list of words.
            pairs: the second text of each row; for questions their contexts.
            batch_size: rows at a time.
            role: for embeddings, what the texts are: `document` or `query`; by default as the predictor was made for.

        Returns:
            A list with one prediction a row, in the order of the rows; for embeddings a float32 array `[n, d]`.

        Raises:
            DynabertError: rows that are not texts, or second texts that the task lacks or that are missing.
        """
        texts = [texts] if isinstance(texts, str) else texts
        pairs = [pairs] if isinstance(pairs, str) else pairs
        with as_dynabert_error():
            if self.kind != "embedding":
                return self._bundle.predict(texts, pairs, batch_size=batch_size, role=role)
            rows = self._bundle.rows(texts, pairs)
            vectors = [
                np.asarray(prediction.vector, dtype=np.float32)
                for prediction in self._bundle.stream(rows, batch_size=batch_size, role=role)
                if isinstance(prediction, Embedding)
            ]
        return np.stack(vectors) if vectors else np.empty((0, self.vector_size or 0), dtype=np.float32)

    def stream(
        self, rows: Iterable[Sequence[str]], *, batch_size: int = 32, role: str | None = None
    ) -> Iterator[AnyPrediction]:
        """Predict for any number of rows in constant memory.

        Args:
            rows: tuples of one text, or of two for a task of pairs.
            batch_size: rows at a time.
            role: as for a call.

        Yields:
            One prediction a row, in the order of the rows.

        Raises:
            DynabertError: a row that is not one text, or not two texts for a task of pairs.
        """
        with as_dynabert_error():
            yield from self._bundle.stream(rows, batch_size=batch_size, role=role)
