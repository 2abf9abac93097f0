"""Predictions as typed columns of Arrow, by the kind of task."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, Any

from dynabert_paddle.text.decode import AnyPrediction, LabelSet

if TYPE_CHECKING:
    import pyarrow

_PREFIX = "predicted_"  # of a prediction's column whose name the input has, too


def prediction_schema(kind: str, *, has_marks: bool = False, vector_size: int | None = None) -> pyarrow.Schema:
    """Return the columns of a kind's predictions.

    Args:
        kind: the kind of task.
        has_marks: whether the labels of words are punctuation marks, so that a prediction has a text with them.
        vector_size: of an embedding.

    Returns:
        Names and types; of several labels a text, `scores` are those of the predicted ones.
    """
    import pyarrow as pa

    text, number, index = pa.string(), pa.float64(), pa.int64()
    fields = {
        "classification": {"label": text, "score": number},
        "regression": {"score": number},
        "multi_label": {"labels": pa.list_(text), "scores": pa.list_(number)},
        "token_classification": {
            "words": pa.list_(text),
            "labels": pa.list_(text),
            "entities": pa.list_(
                pa.struct({"label": text, "text": text, "start": index, "end": index, "score": number})
            ),
            "num_cut": index,
            **({"text": text} if has_marks else {}),
        },
        "question_answering": {"answer": text, "score": number, "start": index, "end": index},
        "embedding": {"vector": pa.list_(pa.float32(), vector_size or -1)},
    }
    return pa.schema(fields[kind])


def prediction_arrays(predictions: Sequence[AnyPrediction | None], schema: pyarrow.Schema) -> list[pyarrow.Array]:
    """Convert predictions to columns.

    Args:
        predictions: one a row; None for a row without one.
        schema: from `prediction_schema`.

    Returns:
        One array for each column.
    """
    import pyarrow as pa

    return [
        pa.array([None if one is None else _value(one, field.name) for one in predictions], field.type)
        for field in schema
    ]


def _value(prediction: AnyPrediction, name: str) -> Any:
    if name == "scores" and isinstance(prediction, LabelSet):
        return [prediction.scores[label] for label in prediction.labels]
    value = getattr(prediction, name)
    return [vars(entity) for entity in value] if name == "entities" else value


def rename_taken(names: Iterable[str], taken: Iterable[str]) -> list[str]:
    """Put a prefix before names that the input has, too.

    Args:
        names: those of a prediction.
        taken: the columns of the input.

    Returns:
        The names, none of them taken.
    """
    taken = set(taken)
    renamed = []
    for name in names:
        while name in taken:
            name = _PREFIX + name
        renamed.append(name)
    return renamed
