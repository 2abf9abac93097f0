"""The stages of DynaBERT: finetune, rewire, width, depth and final."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import asdict
from functools import partial
from pathlib import Path

import numpy as np

from dynabert_paddle.backbone.loading import to_arrays
from dynabert_paddle.backbone.text_embedding import BackboneForTextEmbedding
from dynabert_paddle.config.loading import resolve_config
from dynabert_paddle.config.names import setting
from dynabert_paddle.config.settings import (
    DepthConfig,
    FinalConfig,
    FinetuneConfig,
    RewireConfig,
    TaskConfig,
    WidthConfig,
)
from dynabert_paddle.data.batches import sequential_batches
from dynabert_paddle.data.tasks import Task
from dynabert_paddle.errors import UsageError
from dynabert_paddle.files.array_hash import hash_model
from dynabert_paddle.rewiring.components import sort_embedding
from dynabert_paddle.rewiring.importance import compute_importance
from dynabert_paddle.rewiring.permute import sort_by_importance
from dynabert_paddle.rewiring.rotation import principal_rotation
from dynabert_paddle.runtime.home import user_path
from dynabert_paddle.runtime.seeds import set_seed
from dynabert_paddle.search_space import SearchSpace
from dynabert_paddle.supernet.extract import extract
from dynabert_paddle.supernet.quantized import find_bits
from dynabert_paddle.supernet.supernet import Supernet
from dynabert_paddle.training.batches import weighted_batches
from dynabert_paddle.training.checkpoint import unfinished_settings
from dynabert_paddle.training.data_warnings import warn_about_task
from dynabert_paddle.training.inputs import check_same_pieces, hold_out, match_labels, tokenize_examples
from dynabert_paddle.training.label_loss import loss_for_gradients
from dynabert_paddle.training.logging import logger
from dynabert_paddle.training.loop import train
from dynabert_paddle.training.made_of import hash_data, load_and_hash
from dynabert_paddle.training.predict import predict_logits
from dynabert_paddle.training.stage import Stage, describe_task, provenance_of
from dynabert_paddle.training.steps import distillation_step, full_model_step, label_step

_MAX_ROTATION_TEXTS = 20_000


def finetune(
    model_name_or_path: str | Path,
    task: Task,
    *,
    output_dir: str | Path,
    config: FinetuneConfig | None = None,
    max_seq_length: int = TaskConfig.max_seq_length,
    special_tokens_in_text: bool = TaskConfig.special_tokens_in_text,
    overwrite: bool = False,
) -> Supernet:
    """Stage 0: fine-tune a backbone on a task's labels.

    Args:
        model_name_or_path: a built-in name, a model folder, or a name on PaddleNLP's hub.
        task: the task.
        output_dir: where the fine-tuned model goes; an interrupted run in it is resumed.
        config: how to train.
        max_seq_length: longer inputs are cut to this number of tokens.
        special_tokens_in_text: the text of a special token in a text, such as `[SEP]`, is that token; False: it is text
            like any other.
        overwrite: replace what is in `output_dir`.

    Returns:
        The fine-tuned model.

    Raises:
        DynabertError: with the reason in one line.
    """
    config = config or FinetuneConfig()
    if task.kind == "embedding":
        raise UsageError(
            "an embedding task has no labels to fine-tune on: begin with rewire, whose teacher is the model itself"
        )
    set_seed(config.seed)
    before = None if overwrite else unfinished_settings(user_path(output_dir))
    if before is not None and "decode" not in before:  # an earlier version has begun it
        task = task.with_settings_of(before)
    load = partial(
        Supernet.from_pretrained,
        model_name_or_path,
        labels=task.labels,
        num_labels=task.num_outputs,
        head=task.head,
        trust_order=task.labels_given,
    )
    supernet, parent_hash = load_and_hash(model_name_or_path, load)
    if supernet.metadata.task.get("kind") == "embedding":
        logger.info("%s embeds texts: its encoder is kept, and the classifier is new", model_name_or_path)
    if supernet.metadata.is_general:
        logger.info("%s has learned from raw text: the classifier for task %r is new", model_name_or_path, task.name)
    supernet.read_special_tokens(special_tokens_in_text)
    described = describe_task(task, max_seq_length, special_tokens_in_text=special_tokens_in_text)
    supernet.metadata = supernet.metadata.replace(task=described)
    stage = Stage(
        name="finetune",
        model=supernet,
        task=task,
        step=partial(full_model_step, config=config),
        subnets={"w1.00d1.00": supernet.full},
        config=config,
        output_dir=user_path(output_dir),
        parent=model_name_or_path,
        parent_hash=parent_hash,
    )
    return train(stage, overwrite=overwrite)


def rewire(
    supernet: Supernet,
    task: Task,
    *,
    config: RewireConfig | None = None,
    rank_mults: Sequence[float] = (1.0,),
    parent: str | Path | None = None,
    parent_hash: str | None = None,
) -> Supernet:
    """Stage 1: sort heads and neurons by importance, in place; the full model's logits stay the same.

    Args:
        supernet: a fine-tuned model.
        task: its task.
        config: which examples to compute the importance on, and how.
        rank_mults: shares of the word embedding's components that later stages are to train; with one below 1 the
            embedding becomes elastic, and its components are sorted.
        parent: name of a pretrained model that embeds texts, whose own metadata say nothing; the stages after this one
            measure their vectors against its.
        parent_hash: hash of its weights, if it has a folder.

    Returns:
        The same supernet, with the importance in its metadata.

    Raises:
        DynabertError: the importance cannot be computed.
        UsageError: embedding ranks of a quantized model.
    """
    config = resolve_config(RewireConfig, asdict(config or RewireConfig()))
    space = supernet.search_space(rank_mults=(1.0,)).with_ranks(rank_mults)  # refuses what leaves no component
    if space.has_ranks and find_bits(supernet.model):
        raise UsageError(
            "the embedding of a quantized model has no ranks: rewire and train the model before with them, extract a "
            "sub-network with the rank that you want, and apply quantize_aware to that"
        )
    task = match_labels(supernet, task, "the model")
    warn_about_task(task, supernet)
    per_batch = config.accumulation == "per_batch"
    examples = task.dev
    if per_batch:
        on_dev = f"set {setting('rewire.accumulation')} to huawei"
        _, held_out = hold_out(task.train, config.holdout_size, seed=config.seed, on_dev=on_dev)
        examples = task.train.select(held_out)
    features = tokenize_examples(examples, supernet)
    batches = weighted_batches(features, config.per_device_eval_batch_size, supernet.pad_token_id)
    logger.info("rewire: computing the importance of heads and neurons on %d examples", len(features))
    hashes = {**hash_data(task, config), "model": parent_hash or hash_model(to_arrays(supernet.model))}
    begin = time.perf_counter()
    loss = loss_for_gradients(task.kind, config.seed)
    importance = compute_importance(supernet, batches, loss, clear_gradients=per_batch)
    importance = sort_by_importance(supernet, importance)
    if task.kind == "embedding":
        _rotate_vectors(supernet, task, config)
    if space.has_ranks:
        text = tokenize_examples(task.train, supernet)
        rows = sequential_batches(text.lengths, config.per_device_eval_batch_size)
        sort_embedding(supernet, (text.collate(part, supernet.pad_token_id) for part in rows))
        trained = {**supernet.metadata.space, "rank_mults": list(rank_mults)}
        supernet.metadata = supernet.metadata.replace(space=trained)
    supernet.metadata = supernet.metadata.replace(
        stage="rewire",
        importance=importance.to_dict(),
        # Scores stay valid; step counts belong to the stage before.
        metrics={split: scores for split, scores in supernet.metadata.metrics.items() if isinstance(scores, dict)},
        provenance=provenance_of(
            config,
            parent=supernet.metadata.provenance if parent is None else str(parent),
            examples=len(features),
            seconds=time.perf_counter() - begin,
            hashes=hashes,
        ),
    )
    return supernet


def _rotate_vectors(supernet: Supernet, task: Task, config: RewireConfig) -> None:
    """Rotate a model's vectors to the principal components of training texts, if they are to be cut."""
    model = supernet.model
    assert isinstance(model, BackboneForTextEmbedding)
    if not model.settings.output_dims or model.dense is not None:
        return
    chosen = np.random.default_rng(config.seed).permutation(len(task.train))[:_MAX_ROTATION_TEXTS]
    features = tokenize_examples(task.train.select(np.sort(chosen)), supernet)
    batch_size = config.per_device_eval_batch_size
    (vectors,) = predict_logits(supernet, features, [supernet.full], batch_size=batch_size)
    rotation, shares = principal_rotation([np.asarray(vectors)])
    model.rotate(rotation)
    kept = ", ".join(f"{size}: {shares[:size].sum():.1%}" for size in model.settings.output_dims)
    logger.info("rewire: the first dimensions of vectors keep of their squared length %s", kept)


def train_width(
    supernet: Supernet,
    teacher: Supernet,
    task: Task,
    space: SearchSpace,
    *,
    output_dir: str | Path,
    config: WidthConfig | None = None,
    overwrite: bool = False,
) -> Supernet:
    """Stage 2: distil the fine-tuned model into every width at full depth (DynaBERT_W, section 2.1).

    Args:
        supernet: the rewired model, trained in place.
        teacher: the fine-tuned model.
        task: the task.
        space: its width multipliers are trained.
        output_dir: where the model goes; an interrupted run in it is resumed.
        config: how to train.
        overwrite: replace what is in `output_dir`.

    Returns:
        The same supernet, with the best weights.

    Raises:
        DynabertError: with the reason in one line.
    """
    check_same_pieces(supernet, teacher)
    _warn_about_ranks(supernet, space)
    widths = {name: subnet for name, subnet in space.grid().items() if len(subnet.layers) == space.num_layers}
    config = config or WidthConfig()
    stage = Stage(
        name="width",
        model=supernet,
        task=task,
        step=distillation_step(teacher, widths, config, kind=task.kind, space=space),
        subnets=widths,
        config=config,
        output_dir=user_path(output_dir),
        space=space,
        teacher=teacher,
    )
    return train(stage, overwrite=overwrite)


def train_depth(
    supernet: Supernet,
    task: Task,
    space: SearchSpace,
    *,
    output_dir: str | Path,
    teacher: Supernet | None = None,
    config: DepthConfig | None = None,
    overwrite: bool = False,
) -> Supernet:
    """Stage 3: distil the width-adaptive model into every width and depth (DynaBERT, section 2.2).

    For all widths the teacher is by default the full-width model of the stage's start, as in the authors' code.

    Args:
        supernet: the model from stage 2, trained in place.
        task: the task.
        space: its width and depth multipliers are trained.
        output_dir: where the model goes; an interrupted run in it is resumed.
        teacher: another model to distil from.
        config: how to train.
        overwrite: replace what is in `output_dir`.

    Returns:
        The same supernet, with the best weights.

    Raises:
        DynabertError: with the reason in one line.
    """
    if teacher:
        check_same_pieces(supernet, teacher)
    _warn_about_ranks(supernet, space)
    own = teacher or extract(supernet, supernet.full)
    config = config or DepthConfig()
    stage = Stage(
        name="depth",
        model=supernet,
        task=task,
        step=distillation_step(own, space.grid(), config, kind=task.kind, space=space),
        subnets=space.grid(),
        config=config,
        output_dir=user_path(output_dir),
        space=space,
        teacher=teacher,
    )
    return train(stage, overwrite=overwrite)


def train_final(
    supernet: Supernet,
    task: Task,
    space: SearchSpace,
    *,
    output_dir: str | Path,
    config: FinalConfig | None = None,
    overwrite: bool = False,
) -> Supernet:
    """Stage 4, optional: train every sub-network on the labels, without a teacher.

    Args:
        supernet: the model from stage 3, trained in place.
        task: the task.
        space: its width and depth multipliers are trained.
        output_dir: where the model goes; an interrupted run in it is resumed.
        config: how to train.
        overwrite: replace what is in `output_dir`.

    Returns:
        The same supernet, with the best weights.

    Raises:
        DynabertError: with the reason in one line.
    """
    _warn_about_ranks(supernet, space)
    config = config or FinalConfig()
    stage = Stage(
        name="final",
        model=supernet,
        task=task,
        step=label_step(space.grid(), config, space=space),
        subnets=space.grid(),
        config=config,
        output_dir=user_path(output_dir),
        space=space,
    )
    return train(stage, overwrite=overwrite)


def _warn_about_ranks(supernet: Supernet, space: SearchSpace) -> None:
    """Tell of ranks that the stages before have prepared or trained, and that this one leaves out."""
    left_out = [mult for mult in supernet.metadata.space.get("rank_mults", ()) if mult not in space.rank_mults]
    if left_out:
        logger.warning(
            "embedding ranks %s of the stages before are not trained here: sub-networks that have them are left out of "
            "the model's grid, and may score lower than before",
            ", ".join(map(str, left_out)),
        )
