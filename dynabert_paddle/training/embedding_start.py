"""How an embedding task begins: with a pretrained model, which is its own teacher."""

from __future__ import annotations

import logging
from functools import partial
from pathlib import Path

from dynabert_paddle.backbone.loading import find_backbone
from dynabert_paddle.backbone.text_embedding import FOR_EMBEDDING, BackboneForTextEmbedding
from dynabert_paddle.config.names import setting
from dynabert_paddle.config.settings import Stage as StageName
from dynabert_paddle.data.embedding_settings import EmbeddingSettings
from dynabert_paddle.data.tasks import Task
from dynabert_paddle.errors import UsageError
from dynabert_paddle.runtime.home import user_path
from dynabert_paddle.supernet.supernet import Supernet
from dynabert_paddle.training.made_of import load_and_hash

logger = logging.getLogger(__name__)


def load_to_embed(source: str | Path, task: Task) -> tuple[Supernet, str | None]:
    """Load a model that embeds texts, or a pretrained one that is to.

    Args:
        source: a model folder or a name.
        task: an embedding task, with the user's settings.

    Returns:
        The model, which embeds as its folder says and, where that says nothing, as the task does; and the hash of its
        weights, if it has a folder.

    Raises:
        UsageError: the task's settings contradict the folder's.
        ModelError: it cannot be loaded.
    """
    supernet, weights = load_and_hash(source, partial(Supernet.from_pretrained, source, head=FOR_EMBEDDING))
    model = supernet.model
    assert isinstance(model, BackboneForTextEmbedding)
    given, own = task.embedding or EmbeddingSettings(), model.settings
    model.settings = given.completed(own, source)
    too_large = [size for size in model.settings.output_dims or () if size > model.vector_size]
    if too_large:
        raise UsageError(
            f"{setting('task.output_dims')} has {too_large[0]}, and the vectors of {source} have {model.vector_size} "
            "values: name smaller sizes"
        )
    if supernet.metadata.stage and model.settings.output_dims != own.output_dims:
        raise UsageError(
            f"{source} was rewired with {setting('task.output_dims')} {_sizes(own)}, and this is {_sizes(given)}: "
            "leave it out, or begin again with rewire"
        )
    if own.pooling is None and given.pooling is None and not supernet.metadata.stage:
        logger.info(
            "%s does not say how it pools: %s pooling, %s; %s and %s choose others",
            source,
            model.settings.pooling,
            "normalised" if model.settings.normalize else "not normalised",
            setting("task.pooling"),
            setting("task.normalize"),
        )
    return supernet, weights


def _sizes(settings: EmbeddingSettings) -> str:
    return "none" if settings.output_dims is None else str(list(settings.output_dims))


def name_of_start(source: str | Path) -> str:
    """Return the name by which later stages find a pretrained model: its folder's path, or its name on a hub."""
    folder = find_backbone(source)
    return str(user_path(source).absolute()) if folder is not None and folder == user_path(source) else str(source)


def stages_of(task: Task, stages: tuple[StageName, ...]) -> tuple[StageName, ...]:
    """Return the stages of a run that its task has: without labels, all but fine-tuning.

    Args:
        task: the task.
        stages: those of the config.

    Returns:
        The stages.

    Raises:
        UsageError: none is left, or one needs labels.
    """
    if task.kind != "embedding":
        return stages
    if "final" in stages:
        raise UsageError(f"an embedding task has no labels for the stage final: leave it out of {setting('stages')}")
    left = tuple(name for name in stages if name != "finetune")
    if not left:
        raise UsageError(f"{setting('stages')}: an embedding task has no stage finetune: begin with rewire")
    if left != stages:
        logger.info("an embedding task has no labels to fine-tune on: the pretrained model is the teacher")
    return left
