"""Extractive question answering in SQuAD's format: an answer is a span of its context.

Shapes: n windows, s sequence, k selected questions.
"""

from __future__ import annotations

import logging
import os
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, fields, replace
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from dynabert_paddle.config.names import setting
from dynabert_paddle.data.batches import split_holdout
from dynabert_paddle.data.data_file import AnyFile, ending_of
from dynabert_paddle.data.features import Features, OffsetEncoder, flatten
from dynabert_paddle.data.metrics import ANSWER_METRICS
from dynabert_paddle.data.records import open_records, quote, read_lines
from dynabert_paddle.errors import DataError, UsageError
from dynabert_paddle.files.json_text import parse_json
from dynabert_paddle.text.decode import best_answer
from dynabert_paddle.text.encode import Window, question_windows
from dynabert_paddle.text.squad import SquadError, split_squad

logger = logging.getLogger(__name__)

# Thai, Lao, Burmese, Khmer, Japanese syllables, and Chinese characters.
_UNSPACED_LETTERS = re.compile(
    "[\u0e01-\u0e30\u0e81-\u0eb0\u1000-\u102a\u1780-\u17b3\u3041-\u30ff\u3400-\u4dbf\u4e00-\u9fff\uf900-\ufaff\U00020000-\U0003ffff]"
)
_LETTERS = re.compile(r"[^\W\d_]+")
QUESTION_ENDINGS = (".json", ".jsonl", ".parquet")


class Question(NamedTuple):
    """A question, its context, and its answers, each with the index of its first character in the context."""

    id: str
    question: str
    context: str
    answers: list[tuple[str, int]]


@dataclass(frozen=True)
class AnswerSettings:
    """How answers are found.

    Args:
        doc_stride: tokens between the starts of successive windows of a long context.
        max_answer_length: in tokens.
        may_be_empty: whether questions may have no answer.
    """

    doc_stride: int = 128
    max_answer_length: int = 30
    may_be_empty: bool = False

    @classmethod
    def of(cls, values: Mapping[str, Any]) -> AnswerSettings:
        """Extract the settings from those of a task.

        Args:
            values: values by name; a missing value or None means the default.

        Returns:
            The settings.

        Raises:
            UsageError: a length below 1.
        """
        settings = cls(**{name: values[name] for name in ANSWER_SETTINGS if values.get(name) is not None})
        for name in ("doc_stride", "max_answer_length"):
            if getattr(settings, name) < 1:
                raise UsageError(f"{setting(f'task.{name}')} is at least 1, not {getattr(settings, name)}")
        return settings


ANSWER_SETTINGS = tuple(field.name for field in fields(AnswerSettings))


@dataclass(frozen=True, eq=False)
class Questions:
    """The questions of one data file.

    Args:
        rows: the questions.
        settings: how answers are found.
        source: the file that was read, as an absolute path.
    """

    rows: list[Question]
    settings: AnswerSettings
    source: Path

    def __len__(self) -> int:
        return len(self.rows)

    def hold_out(self, num_examples: int, *, seed: int) -> tuple[np.ndarray, np.ndarray]:
        """Hold out questions by context, so that no context is in both parts.

        Args:
            num_examples: minimum number of questions; all questions of the last context are added.
            seed: random seed of the choice of contexts.

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
        """Tokenize the questions, with one example for every window of their contexts.

        Args:
            tokenizer: returns each token's position in the text.
            max_seq_length: tokens of an example, at most.

        Returns:
            The windows; the label of a window without the answer is its first token.

        Raises:
            UsageError: `max_seq_length` is too small for a question and a context.
        """
        template = tokenizer.template(2)
        if max_seq_length < template.num_special_tokens + 4:
            least = template.num_special_tokens + 4
            raise UsageError(
                f"{setting('task.max_seq_length')} is {max_seq_length}: a question and its context need at least "
                f"{least}"
            )
        max_tokens = (max_seq_length - template.num_special_tokens) // 2 + 1  # one more tells that it is cut
        questions = tokenizer.encode_offsets([row.question for row in self.rows], max_tokens)
        contexts = list(dict.fromkeys(row.context for row in self.rows))  # many questions share one
        encoded_contexts = dict(zip(contexts, tokenizer.encode_offsets(contexts), strict=True))
        before = len(template.ids[0]) + len(template.ids[1])  # special tokens before the context
        windows: list[Window] = []
        labels: list[tuple[int, int]] = []
        owners: list[int] = []
        is_cut: list[bool] = []
        spans: list[Sequence[tuple[int, int]]] = []
        for index, (row, (question, *_)) in enumerate(zip(self.rows, questions, strict=True)):
            context, offsets, _ = encoded_contexts[row.context]
            lengths = {"max_seq_length": max_seq_length, "doc_stride": self.settings.doc_stride}
            for window in question_windows(template, question, context, **lengths):
                windows.append(window)
                owners.append(index)
                is_cut.append(window.first < before + len(question))
                spans.append(offsets[window.start : window.end])
                labels.append(_answer_tokens(row, window, spans[-1]))
        return WindowFeatures(
            *flatten((window.ids, window.type_ids) for window in windows),
            np.array(labels, dtype=np.int64),
            questions=self,
            owners=np.array(owners),
            first=np.array([window.first for window in windows]),
            spans=spans,
            is_cut=np.array(is_cut),
        )


@dataclass(frozen=True, eq=False)
class WindowFeatures(Features):
    """Tokenized windows of contexts; a label is the answer's first and last token, (0, 0) for a window without it.

    `is_cut` tells whether the question was cut: a long context has several windows.

    Args:
        questions: the questions.
        owners: `[n]`, index of each window's question.
        first: `[n]`, index of each window's first context token.
        spans: for each window, start and end of its context tokens in the context.
    """

    kind = "question_answering"

    questions: Questions
    owners: np.ndarray
    first: np.ndarray
    spans: list[Sequence[tuple[int, int]]]

    @property
    def num_scored(self) -> int:
        """The number of questions, which metrics are averaged over."""
        return len(self.questions)

    def score(
        self, metrics: Sequence[str], logits: Sequence[np.ndarray], thresholds: np.ndarray | None = None
    ) -> dict[str, float]:
        """Score answers with SQuAD's metrics, as PaddleNLP implements them.

        Args:
            metrics: names from `ANSWER_METRICS`.
            logits: `[2, s]` for each window.
            thresholds: unused; a question has no labels.

        Returns:
            Each metric as a fraction: the mean over questions of the best value over a question's answers.
        """
        values = self._score_questions(logits)
        return {metric: sum(values[metric]) / len(self.questions) for metric in metrics}

    def score_without(self, metric: str, logits: Sequence[np.ndarray], groups: Iterable[np.ndarray]) -> np.ndarray:
        """As `FeatureSet.score_without`, by question."""
        values = np.array(self._score_questions(logits)[metric])
        return np.array([np.delete(values, group).mean() for group in groups])

    def _score_questions(self, logits: Sequence[np.ndarray]) -> dict[str, list[float]]:
        """Each metric of each question."""
        from paddlenlp.metrics.squad import compute_exact, compute_f1, normalize_answer

        windows_of: list[list[Any]] = [[] for _ in self.questions.rows]
        for owner, window, first, spans in zip(self.owners, logits, self.first, self.spans, strict=True):
            windows_of[owner].append((window.astype(np.float64), first, spans))
        settings = self.questions.settings
        values: dict[str, list[float]] = {metric: [] for metric in ANSWER_METRICS}
        for row, windows in zip(self.questions.rows, windows_of, strict=True):
            answer = best_answer(
                row.context,
                windows,
                max_answer_length=settings.max_answer_length,
                may_be_empty=settings.may_be_empty,
            ).answer
            gold = [text for text, _ in row.answers if normalize_answer(text)] or [""]
            values["exact_match"].append(max(compute_exact(text, answer) for text in gold))
            if _has_no_blanks(row.context):  # compare by character; compute_f1 would take those before a blank alone
                gold, answer = [_without_blanks(text) for text in gold], _without_blanks(answer)
                values["f1"].append(max(compute_f1(text, answer, False) for text in gold))
            else:
                values["f1"].append(max(compute_f1(text, answer) for text in gold))
        return values


def _has_no_blanks(text: str) -> bool:
    """Whether a text is mostly of a script that writes no blanks between words, such as Chinese."""
    others, num_unspaced = _UNSPACED_LETTERS.subn(" ", text)
    return num_unspaced > len(_LETTERS.findall(others))


def _without_blanks(text: str) -> str:
    from paddlenlp.metrics.squad import normalize_answer

    return "".join(normalize_answer(text).split())


def read_questions(
    path: str | os.PathLike, *, settings: AnswerSettings | None = None, training: bool = False
) -> Questions:
    """Read a data file into memory.

    Args:
        path: SQuAD's `.json`; or `.jsonl` with one object of `id`, `question`, `context` and `answers` per line.
        settings: how answers are found.
        training: drop answers that are not at their position in the context, and questions left without an answer; the
            number of such answers is logged in any case.

    Returns:
        The file's questions in order.

    Raises:
        DataError: the file cannot be read, or a question has another format.
    """
    path = Path(path)
    rows, num_misplaced, first = [], 0, ""
    for row in iterate_questions(path):
        answers = [(text, start) for text, start in row.answers if row.context[start : start + len(text)] == text]
        if len(answers) < len(row.answers):
            num_misplaced += len(row.answers) - len(answers)
            first = first or row.id
        if training:
            if row.answers and not answers:
                continue
            row = row._replace(answers=answers)
        rows.append(row)
    if num_misplaced:
        effect = "left out" if training else "compared by their text only"
        logger.warning(
            "%s: %d answers are not in their context where answer_start says and are %s; the first is of question %s",
            *(path, num_misplaced, effect, quote(first)),
        )
    if not rows:
        raise DataError(f"{path}: no usable question; add at least one whose answer is in its context.")
    return Questions(rows, settings or AnswerSettings(), path.absolute())


def iterate_questions(path: AnyFile, *, answered: bool = True) -> Iterator[Question]:
    """Read a data file question by question.

    Args:
        path: SQuAD's `.json`, or an object a question in `.jsonl` or `.parquet`.
        answered: read the answers, too; else they may be missing.

    Yields:
        The questions.

    Raises:
        DataError: at the first error.
    """
    ending = ending_of(path)
    if ending not in QUESTION_ENDINGS:
        raise DataError(
            f"{path}: unknown file ending {ending!r}; question answering reads {', '.join(QUESTION_ENDINGS)}."
        )
    if ending != ".json":
        for line, record in open_records(path):
            yield _question(f"{path}:{line}", record, record.get("context"), answered=answered)
        return
    try:
        pairs = split_squad(parse_json("\n".join(text for _, text in read_lines(path))))
    except SquadError as error:
        raise DataError(f"{path}: {error}.") from None
    except (ValueError, RecursionError) as error:
        raise DataError(f"{path}: not in SQuAD's format: not JSON ({error}).") from None
    for record, context in pairs:
        name = record.get("id") if isinstance(record, dict) else record
        yield _question(f"{path}: question {quote(name)}", record, context, answered=answered)


def _question(place: str, record: Any, context: Any, *, answered: bool) -> Question:
    answers: Any = None
    if isinstance(record, dict):
        answers = record.get("answers", [] if record.get("is_impossible") else None) if answered else []
    if isinstance(answers, dict):  # Hugging Face's format: two parallel lists
        texts, starts = answers.get("text"), answers.get("answer_start")
        if not isinstance(texts, list) or not isinstance(starts, list) or len(texts) != len(starts):
            raise DataError(f"{place}: 'answers' must have equally many 'text' and 'answer_start'.")
        answers = [{"text": text, "answer_start": start} for text, start in zip(texts, starts, strict=True)]
    is_valid = isinstance(answers, list) and all(
        isinstance(answer, dict) and isinstance(answer.get("text"), str) and isinstance(answer.get("answer_start"), int)
        for answer in answers
    )
    if not is_valid or not isinstance(record.get("question"), str) or not isinstance(context, str):
        needed = ", and 'answers' with 'text' and 'answer_start'" if answered else ""
        raise DataError(f"{place}: needs the texts 'question' and 'context'{needed}.")
    if answers is None or record.get("is_impossible"):
        answers = []
    non_empty = [(answer["text"], answer["answer_start"]) for answer in answers if answer["text"]]
    return Question(str(record.get("id", "")), record["question"], context, non_empty)


def _answer_tokens(row: Question, window: Window, spans: Sequence[tuple[int, int]]) -> tuple[int, int]:
    """Return the first and last token of the first answer in a window's row; (0, 0) if it is not in the window."""
    if not row.answers or not spans:
        return 0, 0
    text, start = row.answers[0]
    end = start + len(text)
    overlapping = [token for token, (begin, stop) in enumerate(spans) if begin < end and stop > start]
    if not overlapping or spans[0][0] > start or spans[-1][1] < end:
        return 0, 0
    return window.first + overlapping[0], window.first + overlapping[-1]
