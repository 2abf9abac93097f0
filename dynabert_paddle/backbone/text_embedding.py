"""A PaddleNLP encoder whose output is one vector a text. Shapes: b batch, s sequence, d hidden size."""

from __future__ import annotations

import inspect
from typing import Any

import numpy as np
import paddle
from paddle import Tensor, nn

from dynabert_paddle.data.embedding_settings import EmbeddingSettings

FOR_EMBEDDING = "ForTextEmbedding"  # the head that `BackboneForTextEmbedding` has, as PaddleNLP's classes name theirs
_MASKED = -1e9


class BackboneForTextEmbedding(nn.Layer):
    """An encoder, the pooling of its last hidden states, and maybe a rotation and the normalisation of the vector.

    The encoder keeps its parameters under PaddleNLP's names, with the model's prefix; its pooler, which sentence
    embeddings do not use, is left out.

    Args:
        base: a PaddleNLP model without a head, such as `BertModel`.
        settings: pooling and normalisation.
    """

    def __init__(self, base: nn.Layer, settings: EmbeddingSettings) -> None:
        super().__init__()
        self.base_model_prefix: str = type(base).base_model_prefix  # type: ignore[attr-defined]
        self.architecture = type(base).__name__
        self.config: Any = base.config
        self.settings = settings
        self.base_inputs = frozenset(inspect.signature(base.forward).parameters)
        if isinstance(getattr(base, "pooler", None), nn.Layer):
            base.pooler = nn.Identity()
        self.add_sublayer(self.base_model_prefix, base)
        self.dense: nn.Linear | None = None
        if settings.output_dims:
            self.rotate(np.eye(self.vector_size, dtype=np.float32))

    def rotate(self, rotation: np.ndarray) -> None:
        """Rotate the vectors, which training leaves as it is: sub-networks and their teacher share it.

        Args:
            rotation: `[d, d]`; a vector of length d is multiplied by it from the right.
        """
        self.dense = nn.Linear(rotation.shape[0], rotation.shape[1], bias_attr=False)
        self.dense.weight.set_value(rotation.astype(np.float32))
        self.dense.weight.stop_gradient = True

    @property
    def vector_size(self) -> int:
        """The size of a text's vector."""
        return int(self.config.hidden_size)

    def forward(
        self, input_ids: Tensor, token_type_ids: Tensor | None = None, attention_mask: Tensor | None = None
    ) -> Tensor:
        """Embed texts.

        Args:
            input_ids: `[b, s]` int64.
            token_type_ids: likewise; ignored by models that have none.
            attention_mask: likewise, 1 for a token and 0 for padding; by default by the padding token.

        Returns:
            `[b, d]`.
        """
        if attention_mask is None:
            attention_mask = (input_ids != self.config.pad_token_id).astype("int64")
        inputs = {"input_ids": input_ids, "attention_mask": attention_mask}
        if token_type_ids is not None and "token_type_ids" in self.base_inputs:
            inputs["token_type_ids"] = token_type_ids
        states = getattr(self, self.base_model_prefix)(**inputs)
        hidden = states[0] if isinstance(states, (tuple, list)) else states
        vectors = pool(hidden, attention_mask, self.settings.pooling or "mean")
        if self.dense is not None:
            vectors = self.dense(vectors)
        return normalize(vectors) if self.settings.normalize else vectors


def pool(hidden: Tensor, attention_mask: Tensor, pooling: str) -> Tensor:
    """Make one vector of a text's hidden states.

    Args:
        hidden: `[b, s, d]`; for `cls`, the first token's suffice.
        attention_mask: `[b, s]` int64, 1 for a token and 0 for padding.
        pooling: one of `POOLINGS`.

    Returns:
        `[b, d]`.
    """
    if pooling == "cls":
        return hidden[:, 0]
    mask = attention_mask.astype(hidden.dtype).unsqueeze(-1)  # [b, s, 1]
    if pooling == "max":
        return (hidden * mask + (1.0 - mask) * _MASKED).max(axis=1)
    return (hidden * mask).sum(axis=1) / mask.sum(axis=1)


def normalize(vectors: Tensor) -> Tensor:
    """Divide vectors, `[b, d]`, by their length; zeros stay."""
    length = paddle.sqrt((vectors * vectors).sum(axis=-1, keepdim=True))
    return vectors / (length + 1e-12)  # which float32 does not add to the length of any other vector
