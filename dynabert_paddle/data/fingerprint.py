"""A hash of a task's rows, by which a later command recognizes the data that a stage was made of."""

import hashlib
from collections.abc import Iterable

import numpy as np

from dynabert_paddle.data.label_set_metrics import are_label_sets
from dynabert_paddle.data.labels import label_key
from dynabert_paddle.data.question_answering import Questions
from dynabert_paddle.data.stored_texts import StoredTexts
from dynabert_paddle.data.tasks import TaskExamples
from dynabert_paddle.data.token_classification import Sentences


def hash_examples(examples: TaskExamples, labels: tuple[str, ...]) -> str:
    """Hash the texts and the labels of a data file's rows, in their order.

    Args:
        examples: the rows.
        labels: the task's classes in the order of the logits; the hash does not depend on this order, nor on the names.

    Returns:
        The hash in hexadecimal.
    """
    hashed = hashlib.blake2b(digest_size=8)
    if isinstance(examples, Questions):
        _update(hashed, map(repr, examples.rows))
    elif isinstance(examples, Sentences):
        _update(hashed, map(repr, zip(examples.words, examples.labels, strict=True)))
    else:
        for column in (examples.texts, examples.pairs):
            if isinstance(column, StoredTexts):
                hashed.update(column.fingerprint.tobytes())
            elif column is not None:
                _update(hashed, column)
        if examples.labels is not None:
            hashed.update(_ranked(examples.labels, labels).tobytes())
    return hashed.hexdigest()


def _update(hashed: "hashlib.blake2b", values: Iterable[str]) -> None:
    for value in values:
        encoded = value.encode("utf-8", "surrogatepass")
        # The length before each value makes the hash depend on the boundaries between values.
        hashed.update(b"%d:%b" % (len(encoded), encoded))
    hashed.update(b";")


def _ranked(values: np.ndarray, labels: tuple[str, ...]) -> np.ndarray:
    """Replace indices of classes by their ranks among the sorted names, and sort columns of labels; scores stay."""
    if not labels:
        return values
    order = sorted(range(len(labels)), key=lambda index: label_key(labels[index]))
    return values[:, order] if are_label_sets(values) else np.argsort(order).astype(np.int64)[values]
