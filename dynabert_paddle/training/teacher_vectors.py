"""The vectors of an embedding model's teacher, which its sub-networks are scored against."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import numpy as np

from dynabert_paddle.backbone.text_embedding import FOR_EMBEDDING, BackboneForTextEmbedding
from dynabert_paddle.config.names import setting
from dynabert_paddle.config.settings import WidthConfig
from dynabert_paddle.data.embedding_examples import EmbeddingFeatures
from dynabert_paddle.data.embedding_files import GROUP_COLUMNS
from dynabert_paddle.data.embedding_groups import GroupedFeatures
from dynabert_paddle.data.embedding_metrics import TEACHER_METRIC, needs_teacher
from dynabert_paddle.data.features import FeatureSet
from dynabert_paddle.data.tasks import TaskExamples
from dynabert_paddle.errors import DynabertError, UsageError
from dynabert_paddle.files.metadata import Metadata
from dynabert_paddle.supernet.supernet import Supernet
from dynabert_paddle.training.inputs import Split, tokenize_examples
from dynabert_paddle.training.predict import predict_logits
from dynabert_paddle.training.stage import Stage

logger = logging.getLogger(__name__)


def find_teacher(metadata: Metadata) -> str | None:
    """Return the pretrained model that the first stage of a model began with; None if it is not recorded."""
    provenance: Mapping[str, Any] | str = metadata.provenance
    while isinstance(provenance, Mapping):
        provenance = provenance.get("parent", "") if provenance else ""
    return provenance or None


def load_teacher(supernet: Supernet) -> Supernet:
    """Load the teacher of an embedding model.

    Args:
        supernet: a model of any stage; a pretrained one is its own teacher.

    Returns:
        The teacher, which embeds texts as the model does.

    Raises:
        UsageError: it is not recorded, or not there any more.
    """
    if not supernet.metadata.stage:
        return supernet
    name = find_teacher(supernet.metadata)
    hint = f"put it back, or name other metrics with {setting('task.metrics')}"
    if name is None:
        raise UsageError(f"the metric {TEACHER_METRIC} needs the teacher, which the model does not record: {hint}")
    try:
        teacher = Supernet.from_pretrained(name, head=FOR_EMBEDDING)
    except DynabertError as error:
        raise UsageError(f"the metric {TEACHER_METRIC} needs the teacher, {name}: {error}: {hint}") from None
    assert isinstance(teacher.model, BackboneForTextEmbedding) and isinstance(supernet.model, BackboneForTextEmbedding)
    teacher.model.settings = supernet.model.settings
    if supernet.model.dense is not None and teacher.model.dense is None:
        teacher.model.rotate(supernet.model.dense.weight.numpy())
    teacher.metadata = teacher.metadata.replace(task=supernet.metadata.task)  # has the longest input
    teacher.read_special_tokens(supernet.metadata.special_tokens_in_text)
    return teacher


def add_targets(
    features: FeatureSet,
    examples: TaskExamples,
    teacher: Supernet,
    *,
    max_seq_length: int | None = None,
    batch_size: int = 64,
) -> FeatureSet:
    """Give tokenized texts their teacher's vectors as labels.

    Args:
        features: the texts, as the student reads them.
        examples: the same texts; the teacher may have another vocabulary.
        teacher: the teacher.
        max_seq_length: longer inputs are cut to this number of tokens; by default the teacher's own setting.
        batch_size: texts at a time.

    Returns:
        The features with labels, `[n, d]`.
    """
    read = tokenize_examples(examples, teacher, max_seq_length=max_seq_length)
    (vectors,) = predict_logits(teacher, read, [teacher.full], batch_size=batch_size)
    return features.with_labels(np.asarray(vectors))


def prepare_selection(stage: Stage, split: Split) -> tuple[Stage, Split]:
    """Let a stage of an embedding task select its weights by what its selection data can tell.

    Args:
        stage: the stage.
        split: its tokenized texts.

    Returns:
        The stage, whose metric is the cosine to the teacher where it selects on held-out training texts; and the texts,
        with the teacher's vectors if the metrics need them.

    Raises:
        UsageError: texts are to be contrasted, and do not belong together.
    """
    if isinstance(stage.config, WidthConfig) and stage.config.lambda_contrastive:
        texts = split.train
        if not isinstance(texts, EmbeddingFeatures) or texts.group_size == 1:
            columns = f"{' and '.join(GROUP_COLUMNS[:2])}, and maybe {GROUP_COLUMNS[2]}"
            raise UsageError(
                f"{setting(f'{stage.name}.lambda_contrastive')} needs training texts that belong together: a table "
                f"with the columns {columns}; leave it out for others"
            )
        split = replace(split, train=GroupedFeatures(texts))
    metrics = stage.task.metrics if split.select_name == "dev" else (TEACHER_METRIC,)
    stage = replace(stage, task=replace(stage.task, metrics=metrics))
    if not needs_teacher(metrics):
        return stage, split
    teacher = stage.teacher
    if teacher is None:
        try:
            teacher = load_teacher(stage.model)
        except UsageError as error:
            logger.warning("%s; cosines are to the model that the stage begins with", error)
            teacher = stage.model
    batch_size = stage.config.per_device_eval_batch_size
    return stage, replace(
        split, select=add_targets(split.select, split.select_examples, teacher, batch_size=batch_size)
    )
