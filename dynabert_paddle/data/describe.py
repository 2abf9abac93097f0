"""Describes the rows of a task as it reads them: labels with counts, lengths, and what a user should know."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np

from dynabert_paddle.data.embedding_examples import TextsToEmbed
from dynabert_paddle.data.question_answering import Questions
from dynabert_paddle.data.readers import Examples
from dynabert_paddle.data.row_checks import count_labels, describe_rows
from dynabert_paddle.data.tasks import Task, TaskExamples
from dynabert_paddle.data.token_checks import KnownTokens, count_tokens, describe_tokens
from dynabert_paddle.data.token_classification import Sentences

_MAX_ROWS = 20_000  # whose lengths are measured
_ROWS_PER_CALL = 1024
_UNLIMITED = 2**30  # tokens


class LengthEncoder(KnownTokens, Protocol):
    """A tokenizer that encodes rows of any length."""

    def encode_rows(
        self, texts: Sequence[str], pairs: Sequence[str] | None, *, max_seq_length: int
    ) -> tuple[list[list[int]], list[list[int]], list[bool]]: ...


@dataclass(frozen=True)
class Lengths:
    """Lengths of a file's rows in tokens, special tokens included.

    Args:
        rows: how many rows were measured; of a large file, some at random.
        median: of their lengths.
        p95: of every twenty rows, one is longer.
        longest: the longest one.
        cut: rows that are longer than `max_seq_length`.
    """

    rows: int
    median: int
    p95: int
    longest: int
    cut: int


def measure_lengths(examples: TaskExamples, tokenizer: LengthEncoder, max_seq_length: int) -> Lengths:
    """Measure the rows of a file.

    Args:
        examples: the rows.
        tokenizer: the model's tokenizer.
        max_seq_length: tokens of the longest row that is not cut or divided.

    Returns:
        Their lengths.
    """
    chosen = np.arange(len(examples))
    if len(chosen) > _MAX_ROWS:
        chosen = np.sort(np.random.default_rng(0).permutation(len(chosen))[:_MAX_ROWS])
    lengths: list[int] = []
    for start in range(0, len(chosen), _ROWS_PER_CALL):
        texts, pairs = _texts(examples.select(chosen[start : start + _ROWS_PER_CALL]))
        lengths += map(len, tokenizer.encode_rows(texts, pairs, max_seq_length=_UNLIMITED)[0])
    measured = np.array(lengths)
    median, p95 = np.percentile(measured, [50, 95], method="higher").tolist()
    return Lengths(len(measured), median, p95, int(measured.max()), int((measured > max_seq_length).sum()))


def _texts(examples: TaskExamples) -> tuple[Sequence[str], Sequence[str] | None]:
    if isinstance(examples, Sentences):
        return [" ".join(words) for words in examples.words], None
    if isinstance(examples, Questions):
        return [row.question for row in examples.rows], [row.context for row in examples.rows]
    pairs = examples.pairs
    return examples.texts[:], None if pairs is None else pairs[:]


def describe_target(examples: TaskExamples, labels: Sequence[str]) -> dict[str, Any]:
    """Describe what a model learns to predict.

    Args:
        examples: the rows of a file.
        labels: the task's labels.

    Returns:
        How many rows, or words, have each label; the scores' range and mean; how many questions have no answer; or how
        many texts, pairs, queries and documents there are.
    """
    if labels:
        return {name: count_labels(examples, labels)[name] for name in labels}
    if isinstance(examples, Questions):
        return {"questions": len(examples), "without an answer": sum(not row.answers for row in examples.rows)}
    if isinstance(examples, TextsToEmbed):
        return _describe_texts(examples)
    assert isinstance(examples, Examples) and examples.labels is not None  # the files of a task have labels
    scores = examples.labels.astype(np.float64)
    return {"lowest": float(scores.min()), "mean": float(scores.mean()), "highest": float(scores.max())}


def _describe_texts(examples: TextsToEmbed) -> dict[str, Any]:
    judged = examples.judged
    found: dict[str, Any] = {"texts": len(examples)}
    if judged and judged.pairs:
        found["pairs with a score"] = len(judged.pairs)
    if judged and judged.retrieval:
        found |= {"queries": len(judged.retrieval), "documents": len(judged.retrieval.documents)}
    return found


def find_warnings(
    task: Task, tokenizer: LengthEncoder | None, max_seq_length: int, *, is_one_file: bool
) -> Iterator[str]:
    """Give the warnings that stand in the log of a training, too.

    Args:
        task: the task.
        tokenizer: the model's; None: nothing is said about tokens.
        max_seq_length: longer rows are cut.
        is_one_file: the training file stands in for the dev file, which is not there.

    Yields:
        Messages of one line.
    """
    yield from describe_rows(task, is_one_file=is_one_file)
    if tokenizer is None:
        return
    for examples in (task.train,) if is_one_file else (task.train, task.dev):
        features = examples.tokenize(tokenizer, max_seq_length=max_seq_length)  # type: ignore[arg-type]  # a Tokenizer
        counts = count_tokens(features, tokenizer, takes_pairs=task.takes_pairs)
        yield from describe_tokens(
            [counts], tokenizer, examples.source, max_seq_length=max_seq_length, examples=examples
        )
