"""The dev rows that a small model gets wrong and its teacher right."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np

from dynabert_paddle.data.readers import Examples
from dynabert_paddle.data.tasks import Task
from dynabert_paddle.data.token_classification import Sentences
from dynabert_paddle.data.word_features import WordFeatures
from dynabert_paddle.text.decode import DEFAULT_THRESHOLD, sigmoid, softmax
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
        probability of the right label. Words that either has not read are left out. With several labels a text, labels
        and predictions are lists.
    """
    logits, teacher_logits = small.logits[subnet], teacher.logits[teacher_subnet]
    if isinstance(small.task.dev, Sentences):
        yield from _missed_words(small, logits, teacher, teacher_logits)
        return
    if small.task.kind == "multi_label":
        yield from _missed_label_sets(small, subnet, teacher, teacher_subnet)
        return
    examples, names = small.task.dev, small.task.labels
    assert isinstance(examples, Examples) and examples.labels is not None  # other tasks have no labels
    own, other = (softmax(np.asarray(values, dtype=np.float64)) for values in (logits, teacher_logits))
    right, right_of_teacher = examples.labels, teacher.features.labels
    is_missed = (own.argmax(axis=1) != right) & (other.argmax(axis=1) == right_of_teacher)
    for row in np.flatnonzero(is_missed):
        predicted = own[row].argmax()
        yield {
            **_text(examples, row),
            "label": names[right[row]],
            "prediction": names[predicted],
            **_scores(own[row, predicted], own[row, right[row]], other[row].max()),
        }


def _text(examples: Examples, row: int) -> dict[str, str]:
    return {"text": examples.texts[row], **({} if examples.pairs is None else {"text_pair": examples.pairs[row]})}


def _missed_label_sets(
    small: DevOutputs, subnet: str, teacher: DevOutputs, teacher_subnet: str
) -> Iterator[dict[str, Any]]:
    """The rows with several labels; the probability of a set is the product of those that its labels are right."""
    examples, names = small.task.dev, small.task.labels
    assert isinstance(examples, Examples) and examples.labels is not None
    right, right_of_teacher = examples.labels, teacher.features.labels
    assert right_of_teacher is not None
    own, predicted = _predict_sets(small, subnet)
    other, predicted_by_teacher = _predict_sets(teacher, teacher_subnet)
    is_missed = (predicted != right).any(axis=1) & (predicted_by_teacher == right_of_teacher).all(axis=1)
    for row in np.flatnonzero(is_missed):
        yield {
            **_text(examples, row),
            "label": [name for name, has in zip(names, right[row], strict=True) if has],
            "prediction": [name for name, has in zip(names, predicted[row], strict=True) if has],
            **_scores(
                _set_probability(own[row], predicted[row]),
                _set_probability(own[row], right[row]),
                _set_probability(other[row], right_of_teacher[row]),
            ),
        }


def _predict_sets(outputs: DevOutputs, subnet: str) -> tuple[np.ndarray, np.ndarray]:
    """The probability of each label, and whether it is predicted, `[n, c]` each."""
    probabilities = sigmoid(np.asarray(outputs.logits[subnet], dtype=np.float64))
    return probabilities, probabilities >= (outputs.thresholds or {}).get(subnet, DEFAULT_THRESHOLD)


def _set_probability(probabilities: np.ndarray, labels: np.ndarray) -> float:
    return float(np.where(labels, probabilities, 1 - probabilities).prod())


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
