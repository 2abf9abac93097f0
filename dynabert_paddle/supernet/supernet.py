"""`Supernet`: a PaddleNLP model that can run any of its sub-networks."""

from __future__ import annotations

import inspect
import logging
from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import NamedTuple

import numpy as np
import paddle
from paddle import Tensor, nn

from dynabert_paddle.backbone.labels import model_labels
from dynabert_paddle.backbone.loading import build_model, find_backbone, load_from_hub, load_weights, to_arrays
from dynabert_paddle.backbone.structure import check_logits, check_vocabulary, find_encoder, join_logits
from dynabert_paddle.errors import ModelError, UsageError
from dynabert_paddle.files.atomic import check_complete, read_json
from dynabert_paddle.files.claim import Claim, claim
from dynabert_paddle.files.folder import maker_of_metadata
from dynabert_paddle.files.integrity import check_files
from dynabert_paddle.files.metadata import METADATA_FILE, Metadata, read_metadata, write_metadata
from dynabert_paddle.files.unchanged import load_unchanged
from dynabert_paddle.files.weights import write_safetensors
from dynabert_paddle.runtime.home import user_path
from dynabert_paddle.subnet import DEPTH_MULTS, WIDTH_MULTS, SearchSpace, Subnet
from dynabert_paddle.supernet.elastic import (
    NO_STATE,
    ElasticEncoder,
    EncoderCall,
    PassState,
    encoder_call,
    replace_dropouts,
)
from dynabert_paddle.supernet.slices import count_elastic, slice_parameter
from dynabert_paddle.text.tokenizer import AnyTokenizer, Tokenizer

logger = logging.getLogger(__name__)


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
        self._encoder_path = find_encoder(model)
        owner, name = _owner(model, self._encoder_path)
        if not isinstance(getattr(owner, name), ElasticEncoder):
            check_logits(model)
            setattr(owner, name, ElasticEncoder(getattr(owner, name)))
        replace_dropouts(model)
        self.model = model
        self.tokenizer = tokenizer
        self.metadata = metadata or Metadata()
        # RoBERTa has one type of token, whatever a tokenizer calls the second text.
        unused = {"token_type_ids"} if getattr(model.config, "type_vocab_size", 2) < 2 else set()
        self.input_names = frozenset(inspect.signature(model.forward).parameters) - unused

    @property
    def encoder(self) -> ElasticEncoder:
        """The model's elastic encoder."""
        return getattr(*_owner(self.model, self._encoder_path))

    @property
    def full(self) -> Subnet:
        """The sub-network that is the whole model."""
        return self.encoder.full

    @property
    def reads_first_token(self) -> bool:
        """Whether the logits depend on the encoder's first token alone, as in PaddleNLP's sequence classifiers."""
        kind = type(self.model)
        return kind.__module__.startswith("paddlenlp.") and kind.__name__.endswith("ForSequenceClassification")

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
            embedding: `[b, s, d]` from `embed`, so that the sub-networks of a step share one embedding and its
                gradient.
            head_gates: one `[h]` tensor per layer, multiplies each head's output.
            logits_only: compute only what the logits depend on, and return no hidden states.
            state: what the passes of a step or an evaluation share.
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
            subnet.check_part_of(self.full)
        first_token = logits_only and self.reads_first_token
        call = EncoderCall(self.encoder, subnet, embedding, head_gates, first_token, state)
        logits = self._call_model(call, inputs)
        return SupernetOutput(logits, () if logits_only else tuple(call.hidden_states))

    def embed(self, *, state: PassState = NO_STATE, **inputs: Tensor) -> Tensor:
        """Compute the encoder's input, which all sub-networks have in common.

        Args:
            state: as for `forward`.
            inputs: as for `forward`.

        Returns:
            `[b, s, d]`, after the embeddings' norm and dropout.
        """
        call = EncoderCall(self.encoder, None, state=state)
        self._call_model(call, inputs)
        return call.hidden_states[0]

    def _call_model(self, call: EncoderCall, inputs: dict[str, Tensor]) -> Tensor:
        with encoder_call(call):
            return join_logits(
                self.model(**{name: value for name, value in inputs.items() if name in self.input_names})
            )

    def search_space(
        self, *, width_mults: Sequence[float] | None = None, depth_mults: Sequence[float] = DEPTH_MULTS
    ) -> SearchSpace:
        """Describe which sub-networks this model has.

        Args:
            width_mults: shares of heads and neurons that make the grid; by default the paper's, as far as every layer
                has the heads for them.
            depth_mults: shares of layers that make the grid.

        Returns:
            The search space, which also counts parameters and MACs.
        """
        encoder, full = self.encoder, self.full
        if width_mults is None:
            width_mults = [mult for mult in WIDTH_MULTS if mult * min(full.heads) >= 0.5]
        in_layers = {id(parameter) for parameter in encoder.layers.parameters()}
        outside = [(name, p) for name, p in self.model.named_parameters() if id(p) not in in_layers]
        embedding_params = sum(p.size for name, p in outside if ".embeddings" in f".{name}")
        return SearchSpace(
            heads=full.heads,
            neurons=full.neurons,
            hidden_size=encoder.layers[0].linear1.weight.shape[0],
            head_dim=encoder.head_dim,
            embedding_params=int(embedding_params),
            other_params=int(sum(p.size for _, p in outside) - embedding_params),
            bias=encoder.layers[0].linear1.bias is not None,
            width_mults=tuple(width_mults),
            depth_mults=tuple(depth_mults),
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
            head: `ForSequenceClassification`, `ForTokenClassification` or `ForQuestionAnswering`; by
                default the folder's own, or the first if it has none of them.
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
        load = partial(cls._load, folder, labels=labels, num_labels=num_labels, head=head, trust_order=trust_order)
        return load_unchanged(folder, load, ModelError)

    @classmethod
    def _load(
        cls,
        folder: Path,
        *,
        labels: tuple[str, ...] | None,
        num_labels: int | None,
        head: str | None,
        trust_order: bool,
    ) -> Supernet:
        """Read all files of a model's folder."""
        check_complete(folder, METADATA_FILE)
        metadata = read_metadata(folder)
        path = folder / METADATA_FILE
        if path.is_file():  # one from before hashes were kept has none, and is believed
            check_files(path, read_json(path).get("files", {}))
        model, tokenizer = (
            build_model(folder, labels=labels, num_labels=num_labels, head=head),
            Tokenizer.from_pretrained(folder),
        )
        try:
            supernet = cls(model, tokenizer, metadata)
        except ModelError as error:
            raise ModelError(f"{folder}: {error}") from None
        if metadata.heads:
            try:
                shape = Subnet(tuple(range(len(metadata.heads))), metadata.heads, metadata.neurons)
                shape.check_part_of(supernet.full)
            except UsageError:
                raise ModelError(f"{folder}: config.json describes a smaller model than {METADATA_FILE}") from None
            resize_layers(supernet.encoder, shape)
        new_head = bool(labels or head) or num_labels is not None
        fresh = load_weights(supernet.model, folder, labels=labels, trust_order=trust_order, new_head=new_head)
        if fresh and metadata.stage and num_labels is None and head is None:
            raise ModelError(
                f"{folder}: '{fresh[0]}' is missing or of another shape: the folder is damaged, copy it again"
            )
        logger.debug("%s: new weights for %s", folder, fresh)
        return supernet

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
        with claim(folder, maker_of_metadata(self.metadata)) as claimed:
            self.save_claimed(claimed)
        return user_path(folder)

    def save_claimed(self, claimed: Claim, *, replace: bool = False) -> None:
        """Write the model to a folder that is claimed already; see `save_pretrained`.

        Args:
            claimed: the folder.
            replace: remove all that was in the folder, once the new files are written.

        Raises:
            DynabertError: the folder cannot be written to; nothing is left half-written.
        """
        full = self.full
        metadata = self.metadata.replace(heads=full.heads, neurons=full.neurons)
        self.model.config.architectures = [type(self.model).__name__]

        def write(partial: Path) -> None:
            self.model.config.to_json_file(str(partial / "config.json"))
            # "np" tells PaddleNLP that the weights need no transposing.
            arrays = to_arrays(self.model)
            write_safetensors(partial / "model.safetensors", arrays, metadata={"format": "np"})
            if self.tokenizer is not None:
                self.tokenizer.save_pretrained(partial)
            write_metadata(partial, metadata)

        claimed.write(write, last=METADATA_FILE, replace=replace)


def load_model(name_or_path: str | Path) -> Supernet:
    """Load a model to use it: a supernet, an extracted sub-network, a fine-tuned model or a backbone.

    Args:
        name_or_path: a model folder, or a name, as for `Supernet.from_pretrained`.

    Returns:
        The model, in evaluation mode; `model(**inputs).logits` is what it predicts.

    Raises:
        ModelError: a folder that cannot be loaded, or a model that cannot be made elastic.
    """
    model = Supernet.from_pretrained(name_or_path)
    model.eval()
    return model


def resize_layers(encoder: ElasticEncoder, subnet: Subnet) -> None:
    """Reduce an encoder in place to the layers, heads and neurons of a sub-network.

    Args:
        encoder: the full-size encoder.
        subnet: the layers, heads and neurons to keep; the same rows and columns as when it runs inside the supernet.
    """
    for index, heads, neurons in subnet.parts:
        layer = encoder.layers[index]
        if (heads, neurons) == count_elastic(layer, encoder.head_dim):
            continue
        for name, parameter in list(layer.named_parameters()):
            part = slice_parameter(parameter, name, heads=heads, neurons=neurons, head_dim=encoder.head_dim)
            if part is not parameter:
                owner, attribute = _owner(layer, name)
                # The usual initializer would draw random numbers, and so change what a run draws later.
                value = nn.initializer.Assign(part.numpy())
                setattr(owner, attribute, owner.create_parameter(part.shape, default_initializer=value))
        layer.self_attn.num_heads = heads
    encoder.layers = nn.LayerList([encoder.layers[index] for index in subnet.layers])


def _owner(root: nn.Layer, path: str) -> tuple[nn.Layer, str]:
    *parents, name = path.split(".")
    for parent in parents:
        root = getattr(root, parent)
    return root, name


def to_tensors(batch: Mapping[str, np.ndarray]) -> dict[str, Tensor]:
    """Move a collated batch to the current device."""
    return {name: paddle.to_tensor(value) for name, value in batch.items()}
