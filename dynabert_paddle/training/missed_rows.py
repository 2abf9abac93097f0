"""The dev rows that a small model gets wrong and its teacher right."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np

from dynabert_paddle.data.readers import Examples
from dynabert_paddle.data.tasks import Task
from dynabert_paddle.data.token_classification import Sentences
from dynabert_paddle.data.word_features import WordFeatures
from dynabert_paddle.text.decode import softmax
from dynabert_paddle.training.evaluate import DevOutputs

_DIGITS = 6  # of a probability


def missed_columns(task: Task) -> list[str]:
    """Return the names of what `missed_rows` tells of a row."""
    words = ["word", "position"] if isinstance(task.dev, Sentences) else []
    pair = ["text_pair"] if task.columns.pair is not None else []
    return ["text", *pair, *words, "label", "prediction", "score", "label_score", "teacher_score"]


def missed_rows(small: DevOutputs, subnet: str, teacher: DevOutputs, teacher_subnet: str) -> Iterator[dict[str, Any]]:
    """Find the rows, or of sentences the words, that a small model gets wrong and its teacher right.

    Args:
        small: what the small model computes for the dev set.
        subnet: its name there.
        teacher: what its teacher computes for the same rows; its labels may have another order.
        teacher_subnet: its name there.

    Yields:
        Values by the names of `missed_columns`: the text; the second text of a pair, or the word and its number; the
        right label; the small model's prediction with its probability, and that of the right label; the teacher's
        probability of the right label. Words that either has not read are left out.
    """
    logits, teacher_logits = small.logits[subnet], teacher.logits[teacher_subnet]
    if isinstance(small.task.dev, Sentences):
        yield from _missed_words(small, logits, teacher, teacher_logits)
        return
    examples, names = small.task.dev, small.task.labels
    assert isinstance(examples, Examples) and examples.labels is not None  # other tasks have no labels
    own, other = (softmax(np.asarray(values, dtype=np.float64)) for values in (logits, teacher_logits))
    right, right_of_teacher = examples.labels, teacher.features.labels
    is_missed = (own.argmax(axis=1) != right) & (other.argmax(axis=1) == right_of_teacher)
    for row in np.flatnonzero(is_missed):
        text = {"text": examples.texts[row], **({} if examples.pairs is None else {"text_pair": examples.pairs[row]})}
        predicted = own[row].argmax()
        yield {
            **text,
            "label": names[right[row]],
            "prediction": names[predicted],
            **_scores(own[row, predicted], own[row, right[row]], other[row].max()),
        }


def _missed_words(
    small: DevOutputs, logits: Sequence[np.ndarray], teacher: DevOutputs, teacher_logits: Sequence[np.ndarray]
) -> Iterator[dict[str, Any]]:
    features, features_of_teacher = small.features, teacher.features
    assert isinstance(features, WordFeatures) and isinstance(features_of_teacher, WordFeatures)
    assert isinstance(small.task.dev, Sentences)
    predicted, predicted_by_teacher = features.predict(logits), features_of_teacher.predict(teacher_logits)
    own, other = _probabilities(features, logits), _probabilities(features_of_teacher, teacher_logits)
    for row, (words, labels) in enumerate(zip(small.task.dev.words, small.task.dev.labels, strict=True)):
        for index, (word, label) in enumerate(zip(words, labels, strict=True)):
            prediction = predicted[row][index]
            is_read = index in own[row] and index in other[row]
            if not is_read or prediction == label or predicted_by_teacher[row][index] != label:
                continue
            yield {
                "text": " ".join(words),
                "word": word,
                "position": index + 1,
                "label": label,
                "prediction": prediction,
                **_scores(own[row][index][prediction], own[row][index][label], other[row][index][label]),
            }


def _probabilities(features: WordFeatures, logits: Sequence[np.ndarray]) -> list[dict[int, dict[str, float]]]:
    """For each sentence, the probability of each label by the index of the word; without words that were not read."""
    return [
        {
            word: dict(zip(features.names, probabilities, strict=True))
            for word, probabilities in zip(words.tolist(), softmax(values.astype(np.float64)).tolist(), strict=True)
        }
        for words, values in features.read_words(logits)
    ]


def _scores(score: float, label_score: float, teacher_score: float) -> dict[str, float]:
    scores = {"score": score, "label_score": label_score, "teacher_score": teacher_score}
    return {name: round(float(value), _DIGITS) for name, value in scores.items()}
