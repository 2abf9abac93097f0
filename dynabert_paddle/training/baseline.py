"""Baselines: models of one fixed size, trained by other methods, to compare a supernet's sub-networks with."""

from __future__ import annotations

import functools
from collections.abc import Mapping
from dataclasses import asdict, replace
from pathlib import Path
from typing import NamedTuple

from dynabert_paddle.config.loading import resolve_config
from dynabert_paddle.config.names import setting
from dynabert_paddle.config.settings import BaselineConfig
from dynabert_paddle.data.tasks import Task
from dynabert_paddle.distill.attention import block_ends
from dynabert_paddle.errors import ModelError, UsageError
from dynabert_paddle.files.atomic import handle_write_errors, write_json
from dynabert_paddle.files.metadata import Metadata, check_expected, read_metadata
from dynabert_paddle.runtime.home import user_path
from dynabert_paddle.runtime.ranks import is_rank_zero
from dynabert_paddle.runtime.seeds import set_seed
from dynabert_paddle.subnet import Subnet
from dynabert_paddle.supernet.extract import extract
from dynabert_paddle.supernet.supernet import Supernet
from dynabert_paddle.training.baseline_steps import distilbert_step, tinybert_step
from dynabert_paddle.training.batches import count_steps, global_batch_size, steps_per_epoch
from dynabert_paddle.training.checkpoint import TrainState
from dynabert_paddle.training.evaluate import evaluate_named
from dynabert_paddle.training.inputs import check_apart, match_task, split_task
from dynabert_paddle.training.logging import logger
from dynabert_paddle.training.loop import train
from dynabert_paddle.training.made_of import load_and_hash
from dynabert_paddle.training.stage import Stage, describe_task
from dynabert_paddle.training.steps import Step, full_model_step

BASELINE_FILE = "baseline.json"

# Method -> the stages whose models it can start from; 'finetuned' starts from a backbone.
_SOURCES = {"distilbert": ("finetune", "rewire"), "tinybert": ("finetune", "rewire"), "pruned": ("rewire",)}


class Spent(NamedTuple):
    """The cost of training.

    Args:
        examples: examples read, repetitions counted; once for all sub-networks of a step.
        seconds: duration, evaluations included.
    """

    examples: int
    seconds: float


def baseline(
    model_name_or_path: str | Path,
    task: Task,
    *,
    output_dir: str | Path,
    config: BaselineConfig | None = None,
    max_seq_length: int | None = None,
    special_tokens_in_text: bool | None = None,
    overwrite: bool = False,
    expected: Metadata | None = None,
) -> Supernet:
    """Train a small model of a fixed size, and score it on the task's dev set.

    - `distilbert`: the layers of the fine-tuned model that `config.subnet` keeps, distilled as by DistilBERT's authors.
    - `tinybert`: the same start, distilled layer by layer as by TinyBERT's authors, without their general
      distillation: its layers already are the teacher's.
    - `pruned`: the sub-network of a rewired model, which keeps the most important heads and neurons, fine-tuned on
      the labels.
    - `finetuned`: the same shape cut out of the pretrained backbone, fine-tuned on the labels.

    The examples and seconds in `baseline.json`, and the limit `config.num_examples`, include the cost of the model that
    the method starts from: its fine-tuning, and for `pruned` the computation of the importance.

    Args:
        model_name_or_path: a model folder that `finetune` or `rewire` has made, for `pruned` one of `rewire`; for
            `finetuned` the backbone, or either of these folders, whose backbone is taken.
        task: its task.
        output_dir: where the model and `baseline.json` go; an interrupted run in it is resumed.
        config: the method, the shape, and how to train.
        max_seq_length: longer inputs are cut to this number of tokens; by default the model's own setting.
        special_tokens_in_text: as for `finetune`; by default the model's own setting.
        overwrite: replace what is in `output_dir`.
        expected: the metadata of the model, if the settings were made from them.

    Returns:
        The small model, with the best weights.

    Raises:
        DynabertError: with the reason in one line.
    """
    config = resolve_config(BaselineConfig, asdict(config or BaselineConfig()))
    check_apart(model_name_or_path, output_dir)
    if task.kind == "embedding":
        raise UsageError("baselines are trained on labels, which an embedding task does not have: leave them out")
    set_seed(config.seed)
    parent = parent_hash = None
    if config.method == "finetuned":
        metadata = read_metadata(model_name_or_path)
        check_expected(model_name_or_path, expected, metadata)
        parent = _backbone_of(model_name_or_path, metadata)
        load, before = functools.partial(_load_backbone, parent, model_name_or_path, task), Spent(0, 0.0)
        supernet, parent_hash = load_and_hash(parent, load)
    else:
        supernet = Supernet.from_pretrained(model_name_or_path)
        metadata = supernet.metadata
        check_expected(model_name_or_path, expected, metadata)
        task = match_task(supernet, task, model_name_or_path)
        _check_source(metadata.stage, config.method, model_name_or_path)
        before = total_spent(metadata, model_name_or_path)
    subnet = supernet.search_space().parse(config.subnet)
    student = extract(supernet, subnet)
    in_text = metadata.special_tokens_in_text if special_tokens_in_text is None else special_tokens_in_text
    student.read_special_tokens(in_text)
    described = describe_task(task, max_seq_length or metadata.max_seq_length, special_tokens_in_text=in_text)
    student.metadata = student.metadata.replace(task=described)
    if config.num_examples:
        config = replace(
            config, max_steps=_affordable_steps(config, before, len(split_task(task, student, config).train))
        )

    def write_results(state: TrainState) -> None:
        (row,) = evaluate_named(student, task, ["w1.00d1.00"], batch_size=config.per_device_eval_batch_size)
        result = {
            "method": config.method,
            "subnet": student.metadata.subnet["name"],
            "seed": config.seed,
            "split": "dev",
            "metrics": {metric: row[metric] for metric in task.metrics},
            "params": row["params"],
            "macs": row["macs"],
            "examples_seen": before.examples + state.examples,
            "seconds": round(before.seconds + state.seconds, 3),
        }
        if not is_rank_zero():
            return
        with handle_write_errors(user_path(output_dir)):
            write_json(user_path(output_dir) / BASELINE_FILE, result)

    _warn_without_labels(config)
    layer_steps = 0
    if config.method == "tinybert":
        _check_heads(subnet, supernet.full, config.subnet)
        steps = config.max_steps or count_steps(len(split_task(task, student, config).train), config)
        layer_steps = int(config.layer_share * steps)
    stage = Stage(
        name="baseline",
        model=student,
        task=task,
        step=_make_step(supernet, subnet, config, layer_steps=layer_steps, kind=task.kind),
        subnets={student.metadata.subnet["name"]: student.full},
        config=config,
        output_dir=user_path(output_dir),
        teacher=supernet if config.method in ("distilbert", "tinybert") else None,
        parent=parent,
        parent_hash=parent_hash,
        write_results=write_results,
        scored_from_step=layer_steps,
    )
    return train(stage, overwrite=overwrite)


def total_spent(metadata: Metadata, source: str | Path) -> Spent:
    """Add up the cost of a model since its backbone, over all stages up to its own.

    Args:
        metadata: the model's.
        source: the model's folder, for the message.

    Returns:
        Examples and seconds.

    Raises:
        UsageError: a stage has not recorded its cost.
    """
    examples, seconds, provenance = 0, 0.0, metadata.provenance
    while isinstance(provenance, Mapping):
        if "spent" not in provenance:
            raise UsageError(
                f"{source} was made by an older version that did not record how many examples its training has seen: "
                f"begin with 'dynabert finetune' again"
            )
        examples += provenance["spent"]["examples"]
        seconds += provenance["spent"]["seconds"]
        provenance = provenance["parent"]
    return Spent(examples, seconds)


def _make_step(teacher: Supernet, subnet: Subnet, config: BaselineConfig, *, layer_steps: int, kind: str) -> Step:
    if config.method == "distilbert":
        return distilbert_step(teacher, subnet, config, kind=kind)
    if config.method == "tinybert":
        return tinybert_step(teacher, subnet, layer_steps=layer_steps, kind=kind)
    return functools.partial(full_model_step, config=config)


def _warn_without_labels(config: BaselineConfig) -> None:
    """Tell of settings of the hard-label loss where a method has none."""
    names = [name for name in ("class_weights", "focal_gamma", "label_smoothing") if getattr(config, name)]
    if names and (config.method == "tinybert" or (config.method == "distilbert" and not config.lambda_label)):
        logger.warning(
            "baseline: %s learns from the teacher alone, and %s changes nothing",
            *(config.method, ", ".join(setting(f"baseline.{name}") for name in names)),
        )


def _affordable_steps(config: BaselineConfig, before: Spent, num_rows: int) -> int:
    """The steps that `num_examples` leaves: whole epochs, then full steps."""
    per_step = global_batch_size(config) * config.gradient_accumulation_steps
    epochs, rest = divmod(max(0, (config.num_examples or 0) - before.examples), num_rows)
    steps = epochs * steps_per_epoch(num_rows, config) + rest // per_step
    if steps < 1:
        raise UsageError(
            f"{setting('baseline.num_examples')} is {config.num_examples}: the model that {config.method} starts "
            f"from has seen {before.examples}, and one step sees {per_step}: pass at least {before.examples + per_step}"
        )
    return steps


def _check_source(stage: str, method: str, source: str | Path) -> None:
    if stage in _SOURCES[method]:
        return
    if method == "pruned":
        raise UsageError(
            f"{source} was made by the stage {stage}, and pruned starts from a rewired model, which knows its most "
            f"important heads and neurons: run 'dynabert rewire' on the fine-tuned model, and name its output_dir"
        )
    raise UsageError(
        f"{source} was made by the stage {stage}, and {method} learns from a fine-tuned model: name a folder that "
        f"'dynabert finetune' or 'dynabert rewire' has made"
    )


def _check_heads(subnet: Subnet, full: Subnet, name: str) -> None:
    ends = block_ends(subnet, len(full.layers))
    for (layer, heads, _), end in zip(subnet.parts, ends, strict=True):
        if heads != full.heads[end]:
            raise UsageError(
                f"tinybert learns attention scores head by head: '{name}' keeps {heads} heads of layer {layer}, and "
                f"layer {end} of its teacher has {full.heads[end]}: keep all heads, as w1.00d0.50 does, or take "
                f"another method"
            )


def _backbone_of(source: str | Path, metadata: Metadata) -> str | Path:
    """The backbone that a model was fine-tuned from; a backbone is its own."""
    parent = metadata.provenance or source
    while isinstance(parent, Mapping):
        parent = parent["parent"]
    return parent


def _load_backbone(backbone: str | Path, source: str | Path, task: Task) -> Supernet:
    try:
        return Supernet.from_pretrained(backbone, labels=task.labels, num_labels=task.num_outputs, head=task.head)
    except ModelError as error:
        if backbone == source:
            raise
        raise ModelError(
            f"{source} was fine-tuned from a backbone that is gone ({error}): name one in its place"
        ) from None
