"""The model of an export, and what is known of its bundle before a graph is written."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

from dynabert_paddle.backbone.structure import num_positions
from dynabert_paddle.backbone.text_embedding import FOR_EMBEDDING, BackboneForTextEmbedding
from dynabert_paddle.config.names import setting
from dynabert_paddle.data.embedding_settings import EmbeddingSettings
from dynabert_paddle.errors import ModelError, UsageError
from dynabert_paddle.exporting.bundle import describe, kind_of_model
from dynabert_paddle.exporting.described_task import describe_task
from dynabert_paddle.exporting.job import ExportJob
from dynabert_paddle.exporting.manifest import BundleManifest
from dynabert_paddle.exporting.selection import select_members
from dynabert_paddle.exporting.thresholds import add_thresholds
from dynabert_paddle.files.search_result import hash_weights
from dynabert_paddle.files.unchanged import load_unchanged
from dynabert_paddle.supernet.extract import extract
from dynabert_paddle.supernet.supernet import Supernet


def load_source(job: ExportJob) -> tuple[Supernet, str]:
    """Load the model of an export, or the sub-network of it that is exported.

    Args:
        job: the checked arguments of `run.export`.

    Returns:
        The model, with the task of its bundle; and the hash of the weights.

    Raises:
        DynabertError: the model or its task cannot be exported.
    """
    load = partial(_load_with_hash, job.model_dir, job.task)
    supernet, weights = load_unchanged(job.model_dir, load, ModelError)
    if dict(supernet.metadata.task) != dict(job.trained_task):
        raise ModelError(f"{job.model_dir} was replaced while this command read it: run the command again")
    if job.subnet:
        supernet = extract(supernet, supernet.search_space().parse(job.subnet))
    if job.task.get("special_tokens_in_text") is not None:
        supernet.read_special_tokens(job.task["special_tokens_in_text"])
    task = describe_task(supernet.metadata.task, job.task, kind=kind_of_model(supernet))
    if isinstance(supernet.model, BackboneForTextEmbedding):
        task |= supernet.model.settings.to_dict()
    supernet.metadata = supernet.metadata.replace(task=task)
    return supernet, weights


def describe_source(supernet: Supernet, job: ExportJob, weights: str) -> BundleManifest:
    """Describe the bundle of a model, before a graph is written.

    Args:
        supernet: from `load_source`.
        job: the same.
        weights: their hash.

    Returns:
        The manifest without a check.

    Raises:
        DynabertError: the model cannot be exported, or its sub-networks cannot be ranked.
    """
    manifest = describe(
        supernet,
        format=job.format,
        precision=job.precision,
        max_seq_length=_max_seq_length(supernet, job.max_seq_length),
        given_labels=job.task.get("labels"),
    )
    if job.subnets is not None:
        manifest = _add_members(manifest, supernet, job, job.subnets, weights)
    if manifest.task["kind"] == "multi_label":
        manifest = add_thresholds(manifest, supernet, job)
    return manifest


def _load_with_hash(folder: Path, task: Mapping[str, Any]) -> tuple[Supernet, str]:
    """Load a model, and hash its weights, by which a search's result knows them; no other weights' file has such."""
    weights = hash_weights(folder)
    if task.get("kind") != "embedding":
        return Supernet.from_pretrained(folder), weights
    supernet = Supernet.from_pretrained(folder, head=FOR_EMBEDDING)  # of another library, too
    assert isinstance(supernet.model, BackboneForTextEmbedding)
    supernet.model.settings = EmbeddingSettings.of(task).completed(supernet.model.settings, folder)
    return supernet, weights


def _max_seq_length(supernet: Supernet, requested: int | None) -> int:
    length = supernet.metadata.max_seq_length if requested is None else requested
    positions = num_positions(supernet.model.config)
    task = supernet.metadata.task
    texts = 2 if task.get("text_pair_column") and task.get("kind") != "embedding" else 1
    minimum = supernet.tokenizer.num_special_tokens(texts) + texts if supernet.tokenizer else 1
    if requested is not None and not minimum <= requested <= positions:
        raise UsageError(
            f"{setting('task.max_seq_length')} is {requested}: allowed are {minimum} to {positions}, the model's "
            "positions"
        )
    return min(length, positions)


def _add_members(
    manifest: BundleManifest, supernet: Supernet, job: ExportJob, subnets: str | Sequence[str], weights: str
) -> BundleManifest:
    """Return the manifest with the selected sub-networks as members, instead of the whole model."""
    members, ranking = select_members(
        supernet,
        job.model_dir,
        subnets,
        task=job.task,
        task_is_given=job.task_is_given,
        max_seq_length=manifest.max_seq_length,
        weights=weights,
    )
    return replace(manifest, subnet=None, num_params=None, members=members, ranked_by=ranking)
