"""Masks words of texts for a masked language model, as BERT's authors do (Devlin et al., 2019, section 3.1)."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from dynabert_paddle.data.word_features import IGNORED
from dynabert_paddle.errors import ModelError
from dynabert_paddle.text.tokenizer import AnyTokenizer

_MASK_TOKENS = ("[MASK]", "<mask>")
_MASKED, _RANDOM = 0.8, 0.1  # shares of the chosen tokens; the rest stays as it is


@dataclass(frozen=True, eq=False)
class Masking:
    """How words are masked.

    Args:
        mask_id: the token that stands for a masked one.
        ordinary: `[v]` booleans: the tokens that are masked, and put in the place of others: all but special ones.
        probability: share of the tokens that are to be predicted.
    """

    mask_id: int
    ordinary: np.ndarray
    probability: float

    @classmethod
    def of(cls, tokenizer: AnyTokenizer, vocab_size: int, probability: float) -> Masking:
        """Find the special tokens of a tokenizer.

        Args:
            tokenizer: the tokenizer.
            vocab_size: tokens that the model can predict.
            probability: share of the tokens that are to be predicted.

        Returns:
            How words are masked.

        Raises:
            ModelError: it has no token for masked words.
        """
        special = tokenizer.special_tokens
        mask_id = next((index for index, token in special.items() if token in _MASK_TOKENS), None)
        if mask_id is None:
            raise ModelError(
                f"the tokenizer has none of {', '.join(_MASK_TOKENS)}, which a masked language model needs"
            )
        ordinary = np.arange(vocab_size) < tokenizer.vocab_size
        ordinary[list(special)] = False
        return cls(mask_id, ordinary, probability)

    def apply(self, arrays: dict[str, np.ndarray], random: np.random.Generator) -> dict[str, np.ndarray]:
        """Mask words of a batch.

        Args:
            arrays: from `FeatureSet.collate`.
            random: chooses them.

        Returns:
            The batch with other `input_ids`, and as `labels` `[b, s]` the tokens that were there; `IGNORED` elsewhere.
        """
        ids = arrays["input_ids"]
        is_word = self.ordinary[ids] & (arrays["attention_mask"] == 1)
        chosen = is_word & (random.random(ids.shape) < self.probability)
        share = random.random(ids.shape)
        others = random.choice(np.flatnonzero(self.ordinary), size=ids.shape)
        masked = np.where(share < _MASKED, self.mask_id, np.where(share < _MASKED + _RANDOM, others, ids))
        return {
            **arrays,
            "input_ids": np.where(chosen, masked, ids),
            "labels": np.where(chosen, ids, IGNORED),
        }
