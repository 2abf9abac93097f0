"""What differs between the stages: whom they start from, what a step does, which sub-networks they train.

A batch goes from here to the loss like this: `Supernet.embed` once, then for each sub-network `Supernet.forward`, the
loss, and the backward pass; then once more backward through the embedding.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import paddle
import paddle.nn.functional as F
from paddle import Tensor

from dynabert_paddle import runtime
from dynabert_paddle.config import (
    DepthConfig,
    FinalConfig,
    FinetuneConfig,
    RewireConfig,
    TrainConfig,
    WidthConfig,
    lasting_settings,
)
from dynabert_paddle.data.features import Features, sequential_batches, split_holdout, tokenize
from dynabert_paddle.data.tasks import Task
from dynabert_paddle.distill.losses import DistillationLoss, token_rows
from dynabert_paddle.errors import UsageError
from dynabert_paddle.folder import METADATA_FILE, check_absent, make_folder
from dynabert_paddle.rewiring.importance import compute_importance
from dynabert_paddle.rewiring.permute import sort_by_importance
from dynabert_paddle.subnet import SearchSpace, Subnet
from dynabert_paddle.supernet.extract import extract
from dynabert_paddle.supernet.supernet import Supernet, SupernetOutput
from dynabert_paddle.training.checkpoint import remove_checkpoints
from dynabert_paddle.training.evaluate import evaluate_subnets
from dynabert_paddle.training.loop import Stage, Step, train
from dynabert_paddle.training.logging import logger

MAX_SEQ_LENGTH = 128

# Computes one sub-network's loss and its parts from its output.
SubnetLoss = Callable[[Subnet, SupernetOutput], dict[str, Tensor]]


@dataclass(frozen=True)
class Split:
    """A task's examples, tokenized and divided.

    Args:
        train: to train on.
        select: to choose the best checkpoint on.
        select_name: what `select` is: holdout or dev.
    """

    train: Features
    select: Features
    select_name: str


def finetune(
    model_name_or_path: str | Path,
    task: Task,
    *,
    output_dir: str | Path,
    config: FinetuneConfig | None = None,
    max_seq_length: int = MAX_SEQ_LENGTH,
    overwrite: bool = False,
) -> Supernet:
    """Stage 0: fine-tune a backbone on a task's labels.

    Args:
        model_name_or_path: a built-in name, a model folder, or a name on PaddleNLP's hub.
        task: the task.
        output_dir: where the fine-tuned model goes; an interrupted run in it is resumed.
        config: how to train.
        max_seq_length: longer inputs are cut to so many tokens.
        overwrite: replace what is in `output_dir`.

    Returns:
        The fine-tuned model.

    Raises:
        DynabertError: with the reason in one line.
    """
    config = config or FinetuneConfig()
    runtime.set_seed(config.seed)
    supernet = Supernet.from_pretrained(
        model_name_or_path, labels=task.labels, num_labels=len(task.labels) if task.labels else 1
    )
    supernet.metadata = supernet.metadata.replace(task={**task.to_dict(), "max_seq_length": max_seq_length})
    full = {"w1.00d1.00": supernet.full}

    def step(index: int, batch: dict[str, Tensor], backward: Callable[[Tensor], None]) -> dict[str, Tensor]:
        labels = batch.pop("labels")
        loss = label_loss(supernet(**batch).logits, labels)
        backward(loss)
        return {"loss": loss}

    return _train_stage(
        supernet, task, "finetune", step, full,
        config=config, output_dir=output_dir, parent=model_name_or_path, overwrite=overwrite,
    )  # fmt: skip


def rewire(supernet: Supernet, task: Task, *, config: RewireConfig | None = None) -> Supernet:
    """Stage 1: sort heads and neurons by their importance, in place; the full model computes what it did.

    Args:
        supernet: a fine-tuned model.
        task: its task.
        config: which examples to read, and how.

    Returns:
        The same supernet, with the importance in its metadata.

    Raises:
        DynabertError: the importance cannot be computed.
    """
    config = config or RewireConfig()
    max_seq_length = supernet.metadata.task.get("max_seq_length", MAX_SEQ_LENGTH)
    per_batch = config.accumulation == "per_batch"
    examples = task.train if per_batch else task.dev
    features = tokenize(examples, supernet.tokenizer, max_seq_length=max_seq_length)
    if per_batch and config.num_examples < len(features):
        features = features.select(np.sort(_holdout(features, config.num_examples, config.seed)[1]))
    batches = (
        features.collate(rows, supernet.pad_token_id)
        for rows in sequential_batches(features.lengths, config.per_device_eval_batch_size)
    )
    importance = compute_importance(supernet, batches, label_loss, clear_gradients=per_batch)
    importance = sort_by_importance(supernet, importance)
    supernet.metadata = supernet.metadata.replace(
        stage="rewire",
        importance={
            "heads": [values.tolist() for values in importance.heads],
            "neurons": [values.tolist() for values in importance.neurons],
        },
        provenance=_provenance(config, parent=supernet.metadata.provenance),
    )
    return supernet


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
    """Stage 2: distil the fine-tuned model into every width at full depth (section 2.2, DynaBERT_W).

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
    widths = {name: subnet for name, subnet in space.grid().items() if len(subnet.layers) == space.num_layers}
    step = _distillation(supernet, teacher, widths, config := config or WidthConfig(), regression=not task.labels)
    return _train_stage(
        supernet, task, "width", step, widths,
        config=config, output_dir=output_dir, space=space, overwrite=overwrite,
    )  # fmt: skip


def train_depth(
    supernet: Supernet,
    task: Task,
    space: SearchSpace,
    *,
    output_dir: str | Path,
    config: DepthConfig | None = None,
    overwrite: bool = False,
) -> Supernet:
    """Stage 3: distil the width-adaptive model into every width and depth (section 2.3, DynaBERT).

    The teacher is the full-width model as it is when the stage begins, for all widths, as in the authors' code.

    Args:
        supernet: the model that stage 2 made, trained in place.
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
    teacher = extract(supernet, supernet.full)
    step = _distillation(supernet, teacher, space.grid(), config := config or DepthConfig(), regression=not task.labels)
    return _train_stage(
        supernet, task, "depth", step, space.grid(),
        config=config, output_dir=output_dir, space=space, overwrite=overwrite,
    )  # fmt: skip


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
        supernet: the model that stage 3 made, trained in place.
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
    config = config or FinalConfig()

    def prepare(batch: dict[str, Tensor], labels: Tensor) -> SubnetLoss:
        return lambda subnet, output: {"loss": label_loss(output.logits, labels)}

    step = _over_subnets(supernet, space.grid(), config, prepare)
    return _train_stage(
        supernet, task, "final", step, space.grid(),
        config=config, output_dir=output_dir, space=space, overwrite=overwrite,
    )  # fmt: skip


def label_loss(logits: Tensor, labels: Tensor) -> Tensor:
    """The hard-label loss: cross-entropy for classes, mean squared error for values.

    Args:
        logits: `[b, c]`.
        labels: `[b]`, int64 classes or float32 values.

    Returns:
        The mean over the batch.
    """
    if paddle.is_floating_point(labels):
        return F.mse_loss(logits.squeeze(-1), labels)
    return F.cross_entropy(logits, labels)


def choose_subnets(subnets: Mapping[str, Subnet], config: WidthConfig | FinalConfig, step: int) -> list[Subnet]:
    """Choose the sub-networks of one step.

    Args:
        subnets: those that the stage trains, the largest first and the smallest last.
        config: all of them, or a sandwich of the largest, the smallest and random others (Yu and Huang, 2019).
        step: the optimizer step, from which the random choice follows.

    Returns:
        The sub-networks, in the order of `subnets`.
    """
    every = list(subnets.values())
    if config.subnets_per_step == "all" or len(every) <= 2 + config.num_random_subnets:
        return every
    random = np.random.default_rng(runtime.step_seed(config.seed, step))
    chosen = random.choice(np.arange(1, len(every) - 1), size=config.num_random_subnets, replace=False)
    return [every[index] for index in [0, *sorted(chosen), len(every) - 1]]


def _distillation(
    supernet: Supernet, teacher: Supernet, subnets: Mapping[str, Subnet], config: WidthConfig, *, regression: bool
) -> Step:
    """A step that distils the teacher, run once per batch, into each sub-network."""
    loss = DistillationLoss(
        lambda_logit=config.lambda_logit,
        lambda_hidden=config.lambda_hidden,
        temperature=config.temperature,
        regression=regression,
    )
    teacher.eval()

    def prepare(batch: dict[str, Tensor], labels: Tensor | None) -> SubnetLoss:
        with paddle.no_grad():
            target = teacher(**batch)
        rows = token_rows(batch["attention_mask"]) if config.mask_padding else None
        return lambda subnet, output: loss(output, target, subnet, rows=rows)

    return _over_subnets(supernet, subnets, config, prepare)


def _over_subnets(
    supernet: Supernet,
    subnets: Mapping[str, Subnet],
    config: WidthConfig | FinalConfig,
    prepare: Callable[[dict[str, Tensor], Tensor | None], SubnetLoss],
) -> Step:
    """A step with one forward and backward pass per sub-network, the largest first, and one for the embedding."""

    def step(index: int, batch: dict[str, Tensor], backward: Callable[[Tensor], None]) -> dict[str, Tensor]:
        loss = prepare(batch, batch.pop("labels", None))
        chosen = choose_subnets(subnets, config, index)
        embedding = supernet.embed(**batch)
        shared = embedding.detach()
        shared.stop_gradient = False
        totals: dict[str, Tensor] = {}
        for subnet in chosen:
            parts = loss(subnet, supernet(subnet, embedding=shared, **batch))
            backward(parts["loss"])
            for name, value in parts.items():
                totals[name] = totals.get(name, 0) + value.detach() / len(chosen)
        # The vocabulary's gradient is dense: one pass for all sub-networks in place of one each.
        paddle.autograd.backward([embedding], [shared.grad])
        return totals

    return step


def _train_stage(
    supernet: Supernet,
    task: Task,
    name: str,
    step: Step,
    subnets: Mapping[str, Subnet],
    *,
    config: TrainConfig,
    output_dir: str | Path,
    space: SearchSpace | None = None,
    parent: str | Path | None = None,
    overwrite: bool = False,
) -> Supernet:
    output_dir = prepare_output(output_dir, overwrite=overwrite)
    split = _split(task, supernet, config)

    def evaluate() -> dict[str, dict[str, float]]:
        return evaluate_subnets(
            supernet, split.select, subnets, metrics=task.metrics, batch_size=config.per_device_eval_batch_size
        )

    stage = Stage(name, step, evaluate, subnets, task.metrics[0], split.select_name)
    settings = {**lasting_settings(config), "stage": name, "subnets": list(subnets), "data": _digest(split.train)}
    logger.info("%s: %d training examples, %d to select on", name, len(split.train), len(split.select))
    state = train(supernet, split.train, stage, config=config, output_dir=output_dir, settings=settings)
    metadata = supernet.metadata
    supernet.metadata = metadata.replace(
        stage=name,
        space={} if space is None else _trained_space(space, subnets),
        metrics={split.select_name: state.best_metrics, "best_step": state.best_step, "steps": state.step},
        provenance=_provenance(config, parent=metadata.provenance if parent is None else str(parent)),
    )
    supernet.save_pretrained(output_dir)
    remove_checkpoints(output_dir)
    return supernet


def prepare_output(output_dir: str | Path, *, overwrite: bool) -> Path:
    """Make a stage's output folder, unless it holds a finished model.

    Args:
        output_dir: the folder; one with an unfinished run is kept, so that the run is resumed.
        overwrite: remove what is there.

    Returns:
        The folder.

    Raises:
        UsageError: it is finished, or holds something else, and `overwrite` is false.
    """
    output_dir = Path(output_dir)
    unfinished = output_dir.is_dir() and not (output_dir / METADATA_FILE).exists() and (output_dir / "vdl").is_dir()
    if overwrite or not unfinished:
        check_absent(output_dir, overwrite=overwrite)
    return make_folder(output_dir)


def _split(task: Task, supernet: Supernet, config: TrainConfig) -> Split:
    if supernet.tokenizer is None:
        raise UsageError("a supernet needs its tokenizer to be trained: Supernet(model, tokenizer)")
    max_seq_length = supernet.metadata.task.get("max_seq_length", MAX_SEQ_LENGTH)
    features = tokenize(task.train, supernet.tokenizer, max_seq_length=max_seq_length)
    if config.select_on == "dev":
        return Split(features, tokenize(task.dev, supernet.tokenizer, max_seq_length=max_seq_length), "dev")
    kept, held_out = _holdout(features, min(config.holdout_size, max(1, len(features) // 10)), config.seed)
    return Split(features.select(kept), features.select(held_out), "holdout")


def _holdout(features: Features, num_examples: int, seed: int) -> tuple[np.ndarray, np.ndarray]:
    return split_holdout(features.labels, num_examples=num_examples, seed=seed)


def _trained_space(space: SearchSpace, subnets: Mapping[str, Subnet]) -> dict[str, list[float]]:
    """The part of the grid that a stage has trained, which is what an evaluation of the grid looks at."""
    deepest_only = all(len(subnet.layers) == space.num_layers for subnet in subnets.values())
    return {"width_mults": list(space.width_mults), "depth_mults": [1.0] if deepest_only else list(space.depth_mults)}


def _digest(features: Features) -> str:
    """Tells whether a resumed run reads the data that it began with."""
    digest = hashlib.sha256()
    for array in (features.input_ids, features.offsets, features.labels):
        digest.update(np.ascontiguousarray(array))
    return digest.hexdigest()[:16]


def _provenance(config: Any, *, parent: Any) -> dict[str, Any]:
    """What it takes to repeat a stage; a parent's provenance is kept inside its child's."""
    return {"versions": runtime.versions(), "settings": lasting_settings(config), "parent": parent}
