"""A teacher that reads texts with its own vocabulary, and answers for the pieces of a student with a smaller one."""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Sequence
from itertools import groupby

import numpy as np
import paddle
from paddle import Tensor

from dynabert_paddle.backbone.structure import num_positions
from dynabert_paddle.supernet.supernet import Supernet, SupernetOutput
from dynabert_paddle.text.tokenizer import Tokenizer

_IMPOSSIBLE = -1e4  # the logit of an answer that starts or ends inside of a piece

# Of a piece of the student: the teacher's pieces with its first and with its last character, and whether it starts
# where the former does, and ends where the latter does.
_Span = tuple[int, int, bool, bool]


class AlignedTeacher:
    """A teacher for a student with a part of its vocabulary; it is called with the student's batches.

    The text of each row is cut anew with the teacher's vocabulary. A piece of the student learns from the teacher's
    piece with its first character.

    Args:
        teacher: the model to learn from.
        student: the model that learns, whose pieces are all among the teacher's.
        kind: the kind of the task.
    """

    def __init__(self, teacher: Supernet, student: Supernet, *, kind: str) -> None:
        assert isinstance(teacher.tokenizer, Tokenizer) and isinstance(student.tokenizer, Tokenizer)
        self._teacher, self._kind = teacher, kind
        self._own, self._theirs = teacher.tokenizer, student.tokenizer
        vocabulary = self._own.vocabulary
        self._old_ids = {index: vocabulary[piece] for piece, index in self._theirs.vocabulary.items()}
        self._max_length = num_positions(teacher.model.config)

    @property
    def output_dims(self) -> tuple[int, ...]:
        """The sizes to which the teacher's vectors can be cut."""
        return self._teacher.output_dims

    def eval(self) -> None:
        """Turn the teacher's dropout off."""
        self._teacher.eval()

    def __call__(self, **inputs: Tensor) -> SupernetOutput:
        """Compute the teacher's output for a batch.

        Args:
            inputs: the student's, int64 `[b, s]`.

        Returns:
            Logits and hidden states at the student's pieces.
        """
        mask = inputs["attention_mask"].numpy().astype(bool)
        columns = (inputs[name].numpy() for name in ("input_ids", "token_type_ids"))
        rows = [
            self._cut_row(ids[kept].tolist(), type_ids[kept].tolist())
            for ids, type_ids, kept in zip(*columns, mask, strict=True)
        ]
        output = self._teacher(
            input_ids=_pad([ids for ids, _, _ in rows], value=self._own.pad_token_id),
            token_type_ids=_pad([type_ids for _, type_ids, _ in rows]),
            attention_mask=_pad([[1] * len(ids) for ids, _, _ in rows]),
        )
        first, last, starts, ends = (
            _pad([[span[i] for span in spans] for _, _, spans in rows], mask.shape[1]) for i in range(4)
        )  # [b, s] each
        logits = output.logits
        if self._kind == "token_classification":
            logits = _gather(logits, first)
        elif self._kind == "question_answering":  # [b, 2, s]
            taken = paddle.take_along_axis(logits, paddle.stack([first, last], axis=1), axis=2)
            possible = paddle.stack([starts, ends], axis=1).astype("bool")
            logits = paddle.where(possible, taken, paddle.full_like(taken, _IMPOSSIBLE))
        return SupernetOutput(logits, tuple(_gather(hidden, first) for hidden in output.hidden_states))

    def _cut_row(self, ids: list[int], type_ids: list[int]) -> tuple[list[int], list[int], list[_Span]]:
        """The teacher's ids and type ids of a row, and the span of each of the student's pieces among them."""
        own: list[int] = []
        own_types: list[int] = []
        spans: list[_Span] = []
        for is_special, group in groupby(ids, key=self._theirs.special_ids.__contains__):
            pieces = list(group)
            type_id = type_ids[len(spans)]
            found, found_spans = self._same(pieces) if is_special else self._cut(pieces)
            place = len(own)
            spans += [(place + first, place + last, starts, ends) for first, last, starts, ends in found_spans]
            own_types += [type_id] * len(found)
            own += found
        if len(own) > self._max_length:  # the student's pieces can be fewer, if they are longer
            return self._same(ids)[0], type_ids, self._same(ids)[1]
        return own, own_types, spans

    def _cut(self, pieces: list[int]) -> tuple[list[int], list[_Span]]:
        """Cut the text of some pieces anew; the same pieces where their text cannot be had back."""
        text = self._theirs.join_pieces(pieces)
        (again,) = self._theirs.encode_offsets([text])
        if again.ids != pieces:
            return self._same(pieces)
        (own,) = self._own.encode_offsets([text])
        begins, ends = zip(*own.offsets, strict=True)
        aligned = []
        for start, end in again.offsets:
            first, last = (bisect_right(begins, place) - 1 for place in (start, max(start, end - 1)))
            aligned.append((first, last, begins[first] == start, ends[last] == end))
        return own.ids, aligned

    def _same(self, pieces: list[int]) -> tuple[list[int], list[_Span]]:
        return [self._old_ids[piece] for piece in pieces], [(i, i, True, True) for i in range(len(pieces))]


def _pad(rows: Sequence[Sequence[int]], width: int = 0, *, value: int = 0) -> Tensor:
    """Rows of integers as a tensor, `[b, s]`."""
    width = max(width, *map(len, rows))
    return paddle.to_tensor(np.array([[*row, *[value] * (width - len(row))] for row in rows], dtype=np.int64))


def _gather(hidden: Tensor, places: Tensor) -> Tensor:
    """Of `[b, t, d]` the tokens at `places`, `[b, s]`, as `[b, s, d]`."""
    b, t, d = hidden.shape
    rows = places + (paddle.arange(b, dtype="int64") * t).reshape([b, 1])
    return paddle.gather(hidden.reshape([-1, d]), rows.reshape([-1])).reshape([b, places.shape[1], d])
