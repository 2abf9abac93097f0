"""The batches of a file of raw text: they follow from the seed and the step, so that a resumed run finds its place.

An epoch takes the file's blocks in a random order, and shuffles the texts of a few of them together.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

import numpy as np

from dynabert_paddle.data.features import Features, flatten
from dynabert_paddle.data.raw_texts import RawTexts
from dynabert_paddle.runtime.seeds import step_seed
from dynabert_paddle.text.tokenizer import MAX_TOKENS, AnyTokenizer, Tokenizer
from dynabert_paddle.training.batches import length_bucketed_batches
from dynabert_paddle.training.masking import Masking

_BLOCKS_TOGETHER = 8


@dataclass(frozen=True)
class TextBatch:
    """One batch of a stream, by its place.

    Args:
        seed: of the order.
        epoch: from 0.
        blocks: the blocks whose texts are shuffled together.
        start: the place of the first of them in the epoch.
        batch_size: texts in a whole batch.
        number: the batch's number among those of these blocks.
        size: texts in it.
    """

    seed: int
    epoch: int
    blocks: tuple[int, ...]
    start: int
    batch_size: int
    number: int
    size: int

    def __len__(self) -> int:
        return self.size


class TextStream:
    """Reads and tokenizes the batches of a file.

    Args:
        texts: the file.
        tokenizer: cuts them.
        max_seq_length: tokens of the longest input; of a longer text each epoch reads another part.
        masking: masks words of each batch, which are then its labels; None for texts as they are.
    """

    targets = None  # raw text has no labels
    row_weights: np.ndarray | None = None  # and every text counts alike

    def __init__(
        self, texts: RawTexts, tokenizer: AnyTokenizer, max_seq_length: int, masking: Masking | None = None
    ) -> None:
        self._texts, self._tokenizer, self._max_seq_length = texts, tokenizer, max_seq_length
        self._masking = masking
        self._place: TextBatch | None = None  # of what was read last
        self._loaded: list[str] = []
        self._rows: list[np.ndarray] = []

    def __len__(self) -> int:
        return self._texts.num_texts

    @property
    def content(self) -> tuple[np.ndarray, ...]:
        """The arrays that identify these texts."""
        tokenizer = f"{self._tokenizer.fingerprint} {self._max_seq_length}"
        return (self._texts.fingerprint, np.frombuffer(tokenizer.encode(), dtype=np.uint8))

    def batches(self, batch_size: int, *, seed: int, epoch: int) -> Iterator[TextBatch]:
        """Yield the batches of an epoch; nothing is read yet.

        Args:
            batch_size: texts in a batch; one batch of a few blocks may have fewer.
            seed: random seed of the order.
            epoch: counted from 0; each has a different order.

        Yields:
            The batches; every text is in exactly one.
        """
        order = np.random.default_rng([seed, epoch]).permutation(self._texts.num_blocks)
        for start in range(0, len(order), _BLOCKS_TOGETHER):
            blocks = tuple(order[start : start + _BLOCKS_TOGETHER].tolist())
            lengths = np.zeros(sum(map(self._texts.count, blocks)))  # do not decide how many texts a batch has
            for number, rows in enumerate(_shuffle(lengths, batch_size, seed, epoch, start)):
                yield TextBatch(seed, epoch, blocks, start, batch_size, number, len(rows))

    def collate(self, batch: TextBatch, pad_token_id: int) -> dict[str, np.ndarray]:
        """Read and tokenize one batch, padded at the end to its longest text.

        Args:
            batch: from `batches`.
            pad_token_id: id of the padding token.

        Returns:
            As `FeatureSet.collate`.
        """
        self._load(batch)
        texts = [self._loaded[row] for row in self._rows[batch.number]]
        random = np.random.default_rng([batch.seed, batch.epoch, batch.start, batch.number])
        features = tokenize_texts(texts, self._tokenizer, self._max_seq_length, random)
        arrays = features.collate(np.arange(len(features)), pad_token_id)
        return self._masking.apply(arrays, random) if self._masking else arrays

    def _load(self, batch: TextBatch) -> None:
        place = replace(batch, number=0, size=0)
        if place != self._place:
            self._loaded = [text for block in batch.blocks for text in self._texts.read(block)]
            lengths = np.fromiter(map(len, self._loaded), dtype=np.int64)
            self._rows = list(_shuffle(lengths, batch.batch_size, batch.seed, batch.epoch, batch.start))
            self._place = place


def _shuffle(lengths: np.ndarray, batch_size: int, seed: int, epoch: int, start: int) -> Iterator[np.ndarray]:
    return length_bucketed_batches(lengths, batch_size, seed=step_seed(seed, epoch), epoch=start)


def tokenize_texts(
    texts: Sequence[str], tokenizer: AnyTokenizer, max_seq_length: int, random: np.random.Generator | None = None
) -> Features:
    """Tokenize texts, and take a part of those that are too long.

    Args:
        texts: the texts.
        tokenizer: cuts them.
        max_seq_length: tokens of the longest input, special tokens included.
        random: chooses where the part begins; None for the beginning of the text.

    Returns:
        The tokenized texts.
    """
    if not isinstance(tokenizer, Tokenizer):  # PaddleNLP's own, which do not tell what their special tokens are
        ids, type_ids, _ = tokenizer.encode_rows(texts, None, max_seq_length=max_seq_length)
        return Features(*flatten(zip(ids, type_ids, strict=True)), None)
    template = tokenizer.template(1)
    room = max_seq_length - template.num_special_tokens
    before, after = map(len, template.ids)
    rows = []
    for row in tokenizer.encode_rows(texts, None, max_seq_length=MAX_TOKENS)[0]:
        tokens = row[before : len(row) - after]
        if len(tokens) > room:
            first = 0 if random is None else int(random.integers(len(tokens) - room + 1))
            tokens = tokens[first : first + room]
        rows.append(template.wrap(tokens))
    return Features(*flatten(rows), None)
