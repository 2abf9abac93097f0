"""`Supernet`: a PaddleNLP model that can run any of its sub-networks."""

from __future__ import annotations

import inspect
import logging
from collections.abc import Iterable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import NamedTuple

import numpy as np
import paddle
from paddle import Tensor, nn

from dynabert_paddle.backbone.labels import model_labels
from dynabert_paddle.backbone.loading import find_backbone, load_from_hub
from dynabert_paddle.backbone.structure import check_vocabulary, find_encoder, join_logits, owner_of
from dynabert_paddle.backbone.text_embedding import BackboneForTextEmbedding
from dynabert_paddle.config.names import argument_named
from dynabert_paddle.errors import ModelError
from dynabert_paddle.files.claim import Claim, claim
from dynabert_paddle.files.folder import maker_of_metadata
from dynabert_paddle.files.metadata import METADATA_FILE, Metadata
from dynabert_paddle.files.unchanged import load_unchanged
from dynabert_paddle.files.weights import OWN_WEIGHTS_FILE, STOCK_WEIGHTS_FILE
from dynabert_paddle.multipliers import DEPTH_MULTS, RANK_MULTS, WIDTH_MULTS
from dynabert_paddle.runtime.home import user_path
from dynabert_paddle.search_space import SearchSpace
from dynabert_paddle.subnet import Subnet
from dynabert_paddle.supernet.calls import NO_STATE, EncoderCall, PassState, SharedEmbedding, encoder_call
from dynabert_paddle.supernet.elastic import ElasticEncoder, make_encoder_elastic, replace_dropouts
from dynabert_paddle.supernet.elastic_embedding import elastic_embedding
from dynabert_paddle.supernet.folder import read_model, write_model
from dynabert_paddle.supernet.low_rank_linear import find_ranks
from dynabert_paddle.supernet.quantized import find_bits
from dynabert_paddle.supernet.shape import shape_of
from dynabert_paddle.supernet.shared_layers import find_groups
from dynabert_paddle.text.tokenizer import AnyTokenizer, Tokenizer

logger = logging.getLogger(__name__)

MULTI_LABEL = "multi_label_classification"  # a config's problem_type


class SupernetOutput(NamedTuple):
    """The output of a sub-network.

    Attributes:
        logits: `[b, c]` for c classes of a sequence, `[b, s, c]` for those of its tokens, `[b, 2, s]` for starts and
            ends of answers.
        hidden_states: the input of each kept layer and the final output, `[b, s, d]` each.
    """

    logits: Tensor
    hidden_states: tuple[Tensor, ...]


class Supernet(nn.Layer):
    """A PaddleNLP model for sequences, tokens or answers, whose encoder runs any sub-network.

    The model keeps its own parameters under its own names: its full-size weights load in plain PaddleNLP.

    Args:
        model: a PaddleNLP model; its encoder is replaced by an elastic one that owns the same layers.
        tokenizer: the model's tokenizer, which is saved with it.
        metadata: the model's provenance and the task that it was trained for.

    Raises:
        ModelError: a model without an encoder that can be made elastic, without logits for a text, or with fewer
            tokens than its tokenizer.
    """

    def __init__(
        self, model: nn.Layer, tokenizer: AnyTokenizer | None = None, metadata: Metadata | None = None
    ) -> None:
        super().__init__()
        if tokenizer is not None:
            check_vocabulary(model.config, tokenizer.vocab_size)
        make_encoder_elastic(model)
        self._encoder_path = find_encoder(model)
        replace_dropouts(model)
        self.model = model
        self.tokenizer = tokenizer
        self.metadata = metadata or Metadata()
        # RoBERTa has one type of token, whatever a tokenizer calls the second text.
        unused = {"token_type_ids"} if getattr(model.config, "type_vocab_size", 2) < 2 else set()
        inputs = model.base_inputs if isinstance(model, BackboneForTextEmbedding) else None
        self.input_names = frozenset(inputs or inspect.signature(model.forward).parameters) - unused

    @property
    def encoder(self) -> ElasticEncoder:
        """The model's elastic encoder."""
        return getattr(*owner_of(self.model, self._encoder_path))

    @property
    def full(self) -> Subnet:
        """The sub-network that is the whole model."""
        return self.encoder.full

    @property
    def max_rank(self) -> int | None:
        """Components of the word embedding; None if it is not elastic."""
        embedding = elastic_embedding(self.model)
        return None if embedding is None else embedding.max_rank

    def check_subnet(self, subnet: Subnet) -> None:
        """Refuse a sub-network that this model does not have.

        Args:
            subnet: the sub-network.

        Raises:
            UsageError: it has more layers, heads, neurons or components than the model.
        """
        subnet.check_part_of(self.full, max_rank=self.max_rank if subnet.embedding_rank else None)

    @property
    def reads_first_token(self) -> bool:
        """Whether the logits depend on the encoder's first token alone, as in PaddleNLP's sequence classifiers."""
        if isinstance(self.model, BackboneForTextEmbedding):
            return self.model.settings.pooling == "cls"
        kind = type(self.model)
        return kind.__module__.startswith("paddlenlp.") and kind.__name__.endswith("ForSequenceClassification")

    @property
    def output_dims(self) -> tuple[int, ...]:
        """The sizes to which vectors can be cut, besides their own; none for other kinds of tasks."""
        is_embedding = isinstance(self.model, BackboneForTextEmbedding)
        return (self.model.settings.output_dims or ()) if is_embedding else ()

    @property
    def pad_token_id(self) -> int:
        """The token that pads a batch."""
        return self.model.config.pad_token_id

    @property
    def labels(self) -> tuple[str, ...] | None:
        """The classes in the order of the logits; None if the model does not name them."""
        return model_labels({"id2label": getattr(self.model.config, "id2label", None)}, self.metadata.task)

    def forward(
        self,
        subnet: Subnet | None = None,
        *,
        embedding: Tensor | None = None,
        head_gates: Sequence[Tensor] | None = None,
        logits_only: bool = False,
        state: PassState = NO_STATE,
        **inputs: Tensor,
    ) -> SupernetOutput:
        """Run one sub-network.

        Args:
            subnet: which one; by default the full model.
            embedding: `[b, s, d]` from `embed`, so that the sub-networks of a step that have an embedding in common
                compute it and its gradient once.
            head_gates: one `[h]` tensor per layer, multiplies each head's output.
            logits_only: skip computations that do not affect the logits, and return no hidden states.
            state: shared by the passes of a step or an evaluation.
            inputs: `input_ids`, `token_type_ids`, `attention_mask`, int64 `[b, s]`; those that the model does not take
                are ignored.

        Returns:
            Logits and hidden states.

        Raises:
            UsageError: a sub-network that this model does not have.
        """
        if subnet is None:
            subnet = self.full
        else:
            self.check_subnet(subnet)
        first_token = logits_only and self.reads_first_token
        rank = subnet.embedding_rank if embedding is None else None  # the model's own is computed and then replaced
        call = EncoderCall(self.encoder, subnet, embedding, head_gates, first_token, state, rank)
        logits = self._call_model(call, inputs)
        return SupernetOutput(logits, () if logits_only else tuple(call.hidden_states))

    def embed(self, *, state: PassState = NO_STATE, **inputs: Tensor) -> Tensor:
        """Compute the encoder's input, which all sub-networks with the whole embedding have in common.

        Args:
            state: as for `forward`.
            inputs: as for `forward`.

        Returns:
            `[b, s, d]`, after the embeddings' norm and dropout.
        """
        return self.embed_ranks([self.full], state=state, **inputs)[None]

    def embed_ranks(
        self, subnets: Iterable[Subnet], *, state: PassState = NO_STATE, **inputs: Tensor
    ) -> dict[int | None, Tensor]:
        """Compute the encoder's input of sub-networks, once for each of their ranks, all with the same dropout.

        Args:
            subnets: the sub-networks.
            state: as for `forward`.
            inputs: as for `forward`.

        Returns:
            `[b, s, d]` for each `embedding_rank`.
        """
        ranks = dict.fromkeys(subnet.embedding_rank for subnet in subnets)
        shared = SharedEmbedding() if len(ranks) > 1 else None
        calls = {rank: EncoderCall(self.encoder, None, state=state, rank=rank, shared=shared) for rank in ranks}
        for call in calls.values():
            self._call_model(call, inputs)
        return {rank: call.hidden_states[0] for rank, call in calls.items()}

    def _call_model(self, call: EncoderCall, inputs: dict[str, Tensor]) -> Tensor:
        with encoder_call(call):
            return join_logits(
                self.model(**{name: value for name, value in inputs.items() if name in self.input_names})
            )

    def search_space(
        self,
        *,
        width_mults: Sequence[float] | None = None,
        depth_mults: Sequence[float] = DEPTH_MULTS,
        rank_mults: Sequence[float] | None = None,
    ) -> SearchSpace:
        """Describe which sub-networks this model has.

        Args:
            width_mults: shares of heads and neurons that make the grid; by default the paper's, as far as every layer
                has the heads for them.
            depth_mults: shares of layers that make the grid.
            rank_mults: shares of the word embedding's components that make the grid; by default those that were
                trained, else a quarter, a half, three quarters and all, if the embedding is elastic.

        Returns:
            The search space, which also counts parameters and MACs.
        """
        shape = shape_of(self.model, self.encoder)
        if rank_mults is None:
            rank_mults = self.metadata.space.get("rank_mults")
        if rank_mults is None:
            rank_mults = [mult for mult in RANK_MULTS if mult * shape.max_rank >= 0.5] if shape.max_rank else [1.0]
        if width_mults is None:
            width_mults = [mult for mult in WIDTH_MULTS if mult * min(shape.heads) >= 0.5]
        return SearchSpace(
            **vars(shape),
            width_mults=tuple(width_mults),
            depth_mults=tuple(depth_mults),
            rank_mults=tuple(rank_mults),
        )

    @classmethod
    def from_pretrained(
        cls,
        name_or_path: str | Path,
        *,
        labels: tuple[str, ...] | None = None,
        num_labels: int | None = None,
        head: str | None = None,
        trust_order: bool = False,
    ) -> Supernet:
        """Load any model folder of this project's, PaddleNLP's or Hugging Face's, or a name on PaddleNLP's hub.

        Args:
            name_or_path: a built-in name such as `minilm-l6`, a folder, or a hub name.
            labels: the task's labels, for a model to train. A classifier of the same labels is kept, its rows in the
                order of `labels`; one of other labels, or of labels without names (`LABEL_0`), is not.
            num_labels: outputs of the classifier; by default the folder's own.
            head: `ForSequenceClassification`, `ForTokenClassification`, `ForQuestionAnswering`, or `ForTextEmbedding`,
                with which the logits are one vector a text, `[b, d]`; by default the folder's own, or the first if it
                has none of them.
            trust_order: keep a classifier of labels without names: `labels` are in its order.

        Returns:
            The supernet, in training mode. What the folder lacks of a head has new weights.

        Raises:
            ModelError: a folder that cannot be loaded, or a model that cannot be made elastic.
            UsageError: there is no such head.
        """
        folder = find_backbone(name_or_path)
        if folder is None:
            model = load_from_hub(
                str(name_or_path), labels=labels, num_labels=num_labels, head=head, trust_order=trust_order
            )
            return cls(model, Tokenizer.from_pretrained(name_or_path))
        load = partial(read_model, folder, labels=labels, num_labels=num_labels, head=head, trust_order=trust_order)
        return cls(*load_unchanged(folder, load, ModelError))

    def read_special_tokens(self, in_text: bool) -> None:
        """Choose how the tokenizer reads the text of a special token, such as `[SEP]`, in a text.

        Args:
            in_text: as that token; else as text like any other.

        Raises:
            ModelError: the tokenizer cannot read it as text.
        """
        if self.tokenizer is None or self.tokenizer.special_tokens_in_text == in_text:
            return
        logger.info(
            "special tokens in texts: %s, as special_tokens_in_text says", "read as such" if in_text else "read as text"
        )
        self.tokenizer = self.tokenizer.with_special_tokens(in_text)

    def save_pretrained(self, folder: str | Path) -> Path:
        """Write the model folder: config, weights, tokenizer and `dynabert.json`.

        Args:
            folder: where to; files of the same names are replaced.

        Returns:
            The folder.

        Raises:
            UsageError: another run writes to the folder.
            DynabertError: the folder cannot be written to; nothing is left half-written.
        """
        with argument_named("output_dir", "folder"), claim(folder, maker_of_metadata(self.metadata)) as claimed:
            self.save_claimed(claimed)
        return user_path(folder)

    def save_claimed(self, claimed: Claim, *, replace: bool = False) -> None:
        """Write the model to a folder that is claimed already; see `save_pretrained`.

        Args:
            claimed: the folder.
            replace: remove the old files of the folder, once the new files are written.

        Raises:
            DynabertError: the folder cannot be written to; nothing is left half-written.
        """
        full = self.full
        metadata = self.metadata.replace(
            heads=full.heads,
            neurons=full.neurons,
            embedding_rank=self.max_rank,
            layer_ranks=find_ranks(self.encoder.layers),
            layer_groups=find_groups(self.encoder.layers),
            weight_bits=find_bits(self.model),
        )
        is_embedding = isinstance(self.model, BackboneForTextEmbedding)
        self.model.config.architectures = [self.model.architecture if is_embedding else type(self.model).__name__]
        if metadata.task.get("kind") == "multi_label":  # for PaddleNLP and Hugging Face, which do not read ours
            self.model.config.problem_type = MULTI_LABEL
        claimed.write(
            lambda partial: write_model(partial, self.model, self.tokenizer, metadata),
            last=METADATA_FILE,
            replace=replace,
            outdated=(STOCK_WEIGHTS_FILE, OWN_WEIGHTS_FILE),  # of a model that has weights in another of them
        )


def load_model(name_or_path: str | Path) -> Supernet:
    """Load a model to use it: a supernet, an extracted sub-network, a fine-tuned model or a backbone.

    Args:
        name_or_path: a model folder, or a name, as for `Supernet.from_pretrained`.

    Returns:
        The model, in evaluation mode; `model(**inputs).logits` are its predictions.

    Raises:
        ModelError: a folder that cannot be loaded, or a model that cannot be made elastic.
    """
    model = Supernet.from_pretrained(name_or_path)
    model.eval()
    return model


def to_tensors(batch: Mapping[str, np.ndarray]) -> dict[str, Tensor]:
    """Move a collated batch to the current device."""
    return {name: paddle.to_tensor(value) for name, value in batch.items()}
