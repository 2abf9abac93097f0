"""Extractive question answering: an answer is a part of its context. SQuAD's format. q questions, n windows."""

from __future__ import annotations

import json
import logging
import os
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, fields, replace
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from dynabert_paddle.data.batches import split_holdout
from dynabert_paddle.data.features import Features, OffsetEncoder, flatten
from dynabert_paddle.data.metrics import ANSWER_METRICS
from dynabert_paddle.data.records import open_records, quote, read_lines
from dynabert_paddle.errors import DataError, UsageError
from dynabert_paddle.text.decode import best_answer
from dynabert_paddle.text.encode import Window, question_windows

logger = logging.getLogger(__name__)

QUESTION_ENDINGS = (".json", ".jsonl")


class Question(NamedTuple):
    """A question, its context, and its answers, each with the character of the context that it begins at."""

    id: str
    question: str
    context: str
    answers: list[tuple[str, int]]


@dataclass(frozen=True)
class AnswerSettings:
    """Settings of the search for an answer.

    Args:
        doc_stride: tokens from one window of a long context to the next.
        max_answer_length: in tokens.
        may_be_empty: whether there are questions without an answer.
    """

    doc_stride: int = 128
    max_answer_length: int = 30
    may_be_empty: bool = False

    @classmethod
    def of(cls, values: Mapping[str, Any]) -> AnswerSettings:
        """Take the settings out of a task's.

        Args:
            values: by name; what is missing or None has its default.

        Returns:
            The settings.

        Raises:
            UsageError: a length below 1.
        """
        settings = cls(**{name: values[name] for name in ANSWER_SETTINGS if values.get(name) is not None})
        for name in ("doc_stride", "max_answer_length"):
            if getattr(settings, name) < 1:
                raise UsageError(f"--{name} is {getattr(settings, name)}; it is at least 1.")
        return settings


ANSWER_SETTINGS = tuple(field.name for field in fields(AnswerSettings))


@dataclass(frozen=True, eq=False)
class Questions:
    """The questions of one data file.

    Args:
        rows: the questions.
        settings: of the search for answers.
        source: the file that was read, as an absolute path.
    """

    rows: list[Question]
    settings: AnswerSettings
    source: Path

    def __len__(self) -> int:
        return len(self.rows)

    def hold_out(self, num_examples: int, *, seed: int) -> tuple[np.ndarray, np.ndarray]:
        """Hold questions out, with all others of their contexts, so that none of these is trained on.

        Args:
            num_examples: how many; the last context may bring some more.
            seed: chooses the contexts.

        Returns:
            Ascending indices of the questions to train on, and of those held out.
        """
        _, contexts = np.unique([row.context for row in self.rows], return_inverse=True)
        order = np.random.default_rng(seed).permutation(contexts.max() + 1)
        if len(order) == 1:
            return split_holdout(np.zeros(len(self), dtype=np.float32), num_examples=num_examples, seed=seed)
        sizes = np.cumsum(np.bincount(contexts)[order])
        chosen = order[: min(int(np.searchsorted(sizes, max(num_examples, 1))) + 1, len(order) - 1)]
        held_out = np.isin(contexts, chosen)
        return np.flatnonzero(~held_out), np.flatnonzero(held_out)

    def select(self, indices: np.ndarray) -> Questions:
        """Select some of the questions.

        Args:
            indices: `[k]` integers, in any order.

        Returns:
            The questions in the order of `indices`.
        """
        return replace(self, rows=[self.rows[i] for i in indices])

    def tokenize(self, tokenizer: OffsetEncoder, *, max_seq_length: int) -> WindowFeatures:
        """Turn the questions into token ids, with one example for every window of their contexts.

        Args:
            tokenizer: returns each token's position in the text.
            max_seq_length: tokens of an example, at most.

        Returns:
            The windows; where the answer is not inside one, its label is the first token.

        Raises:
            UsageError: there is no room for a question and a context.
        """
        asked = tokenizer.encode_offsets([row.question for row in self.rows])
        template = tokenizer.template(2)
        if max_seq_length < template.num_special_tokens + 4:
            least = template.num_special_tokens + 4
            raise UsageError(f"max_seq_length is {max_seq_length}: a question and its context need at least {least}")
        contexts = list(dict.fromkeys(row.context for row in self.rows))  # many questions share one
        read = dict(zip(contexts, tokenizer.encode_offsets(contexts), strict=True))
        cut: list[Window] = []
        labels: list[tuple[int, int]] = []
        owners: list[int] = []
        spans: list[Sequence[tuple[int, int]]] = []
        for index, (row, (question, _)) in enumerate(zip(self.rows, asked, strict=True)):
            context, offsets = read[row.context]
            room = {"max_seq_length": max_seq_length, "doc_stride": self.settings.doc_stride}
            for window in question_windows(template, question, context, **room):
                cut.append(window)
                owners.append(index)
                spans.append(offsets[window.start : window.end])
                labels.append(_answer_tokens(row, window, spans[-1]))
        return WindowFeatures(
            *flatten((window.ids, window.type_ids) for window in cut),
            np.array(labels, dtype=np.int64),
            questions=self,
            owners=np.array(owners),
            first=np.array([window.first for window in cut]),
            spans=spans,
        )


@dataclass(frozen=True, eq=False)
class WindowFeatures(Features):
    """Tokenized windows of contexts; a label is the answer's first and last token, 0 and 0 where it is not inside.

    Args:
        questions: the questions.
        owners: `[n]`, which question each window is of.
        first: `[n]`, each window's first token of the context.
        spans: for each window, where its tokens of the context begin and end in it.
    """

    kind = "question_answering"

    questions: Questions
    owners: np.ndarray
    first: np.ndarray
    spans: list[Sequence[tuple[int, int]]]

    @property
    def num_scored(self) -> int:
        """How many examples a score is the mean over: the questions."""
        return len(self.questions)

    def score(self, metrics: Sequence[str], logits: Sequence[np.ndarray]) -> dict[str, float]:
        """Score answers as SQuAD does, through PaddleNLP.

        Args:
            metrics: names from `ANSWER_METRICS`.
            logits: `[2, s]` of each window.

        Returns:
            Each metric as a fraction: the mean over the questions of the best over a question's answers.
        """
        from paddlenlp.metrics.squad import compute_exact, compute_f1, normalize_answer

        parts: list[list[Any]] = [[] for _ in self.questions.rows]
        for owner, window, first, spans in zip(self.owners, logits, self.first, self.spans, strict=True):
            parts[owner].append((window.astype(np.float64), first, spans))
        settings = self.questions.settings
        totals = dict.fromkeys(ANSWER_METRICS, 0.0)
        for row, windows in zip(self.questions.rows, parts, strict=True):
            found = best_answer(
                row.context,
                windows,
                max_answer_length=settings.max_answer_length,
                may_be_empty=settings.may_be_empty,
            ).answer
            gold = [text for text, _ in row.answers if normalize_answer(text)] or [""]
            by_words = " " in row.context.strip()  # Chinese is compared by characters
            totals["exact_match"] += max(compute_exact(text, found) for text in gold)
            totals["f1"] += max(compute_f1(text, found, by_words) for text in gold)
        return {metric: totals[metric] / len(self.questions) for metric in metrics}


def read_questions(
    path: str | os.PathLike, *, settings: AnswerSettings | None = None, training: bool = False
) -> Questions:
    """Read a data file into memory.

    Args:
        path: SQuAD's `.json`; or `.jsonl`, an object with `id`, `question`, `context` and `answers` a line.
        settings: of the search for answers.
        training: leave out questions of whose answers none is where the file says, which are counted in the log.

    Returns:
        The file's questions, in its order.

    Raises:
        DataError: the file cannot be read, or a question is not as described.
    """
    path = Path(path)
    rows, lost, first = [], 0, ""
    for row in iterate_questions(path):
        answers = [(text, start) for text, start in row.answers if row.context[start : start + len(text)] == text]
        if len(answers) < len(row.answers):
            lost += len(row.answers) - len(answers)
            first = first or row.id
        if training:
            if row.answers and not answers:
                continue
            row = row._replace(answers=answers)
        rows.append(row)
    if lost:
        done = "left out" if training else "compared by their texts alone"
        logger.warning(
            "%s: %d answers are not in their context where answer_start says and are %s; the first is of question %s",
            *(path, lost, done, quote(first)),
        )
    if not rows:
        raise DataError(f"{path}: no question that can be used; add at least one whose answer is in its context.")
    return Questions(rows, settings or AnswerSettings(), path.absolute())


def iterate_questions(path: Path) -> Iterator[Question]:
    """Read a data file question by question.

    Args:
        path: SQuAD's `.json`, or `.jsonl`.

    Yields:
        The questions.

    Raises:
        DataError: at the first fault.
    """
    ending = path.suffix.lower()
    if ending not in QUESTION_ENDINGS:
        raise DataError(
            f"{path}: unknown file ending {ending!r}; question answering reads {', '.join(QUESTION_ENDINGS)}."
        )
    if ending == ".jsonl":
        for line, record in open_records(path):
            yield _question(f"{path}:{line}", record, record.get("context"))
        return
    try:
        articles = json.loads("\n".join(text for _, text in read_lines(path)))["data"]
        paragraphs = [(p["context"], p["qas"]) for article in articles for p in article["paragraphs"]]
        asked = [(record, context) for context, records in paragraphs for record in records]
    except (ValueError, KeyError, TypeError, RecursionError) as error:
        raise DataError(
            f"{path}: not in SQuAD's format ({type(error).__name__}: {error}); it is an object whose 'data' lists "
            f"articles with 'paragraphs', each with a 'context' and 'qas'."
        ) from None
    for record, context in asked:
        name = record.get("id") if isinstance(record, dict) else record
        yield _question(f"{path}: question {quote(name)}", record, context)


def _question(place: str, record: Any, context: Any) -> Question:
    answers = record.get("answers", [] if record.get("is_impossible") else None) if isinstance(record, dict) else None
    if isinstance(answers, dict):  # Hugging Face's lists side by side
        texts, starts = answers.get("text"), answers.get("answer_start")
        if not isinstance(texts, list) or not isinstance(starts, list) or len(texts) != len(starts):
            raise DataError(f"{place}: 'answers' needs as many 'text' as 'answer_start'.")
        answers = [{"text": text, "answer_start": start} for text, start in zip(texts, starts, strict=True)]
    good = isinstance(answers, list) and all(
        isinstance(answer, dict) and isinstance(answer.get("text"), str) and isinstance(answer.get("answer_start"), int)
        for answer in answers
    )
    if not good or not isinstance(record.get("question"), str) or not isinstance(context, str):
        raise DataError(
            f"{place}: needs the texts 'question' and 'context', and 'answers' with 'text' and 'answer_start'."
        )
    if answers is None or record.get("is_impossible"):
        answers = []
    found = [(answer["text"], answer["answer_start"]) for answer in answers if answer["text"]]
    return Question(str(record.get("id", "")), record["question"], context, found)


def _answer_tokens(row: Question, window: Window, spans: Sequence[tuple[int, int]]) -> tuple[int, int]:
    """The tokens of the first answer in a window's row, or twice the first token where the window does not hold it."""
    if not row.answers or not spans:
        return 0, 0
    text, start = row.answers[0]
    end = start + len(text)
    touched = [token for token, (begin, stop) in enumerate(spans) if begin < end and stop > start]
    if not touched or spans[0][0] > start or spans[-1][1] < end:
        return 0, 0
    return window.first + touched[0], window.first + touched[-1]
