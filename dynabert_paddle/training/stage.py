"""One training stage: train, select the best checkpoint, and write the folder."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict
from functools import partial
from pathlib import Path
from typing import Any

from dynabert_paddle.backbone.loading import set_arrays, to_arrays
from dynabert_paddle.config.loading import resolve_config
from dynabert_paddle.config.settings import TrainConfig, lasting_settings
from dynabert_paddle.data.tasks import Task
from dynabert_paddle.errors import Interrupted
from dynabert_paddle.files.folder import claim
from dynabert_paddle.runtime.environment import package_versions, thread_settings
from dynabert_paddle.runtime.ranks import num_processes
from dynabert_paddle.subnet import SearchSpace, Subnet
from dynabert_paddle.supernet.supernet import Supernet
from dynabert_paddle.training import processes
from dynabert_paddle.training.checkpoint import TrainState, prepare_output, remove_checkpoints
from dynabert_paddle.training.evaluate import evaluate_subnets
from dynabert_paddle.training.logging import logger
from dynabert_paddle.training.loop import Stage, Step, train
from dynabert_paddle.training.split import digest, split_task


def train_stage(
    supernet: Supernet,
    task: Task,
    name: str,
    step: Step,
    subnets: Mapping[str, Subnet],
    *,
    config: TrainConfig,
    output_dir: str | Path,
    space: SearchSpace | None = None,
    teacher: Supernet | None = None,
    parent: str | Path | None = None,
    finish: Callable[[TrainState], None] | None = None,
    overwrite: bool = False,
) -> Supernet:
    """Train a model as a stage does, resume where a run was interrupted, and write its folder.

    Args:
        supernet: trained in place.
        task: the task.
        name: of the stage.
        step: the work of one batch.
        subnets: those to select the best checkpoint by.
        config: how to train.
        output_dir: where the model goes.
        space: the grid that `subnets` are of, where it shall be kept.
        teacher: the model that `step` distils, which a resumed run must have, too.
        parent: what the model was before; by default what its own metadata say.
        finish: called before the model is saved, in every process, to write what belongs beside it.
        overwrite: replace what is in `output_dir`.

    Returns:
        The same supernet, with the best weights.

    Raises:
        DynabertError: with the reason in one line.
    """
    config = resolve_config(type(config), asdict(config))  # a caller in Python may have passed anything
    split = split_task(task, supernet, config)
    output_dir = Path(output_dir)

    def evaluate() -> dict[str, dict[str, float]]:
        return evaluate_subnets(
            supernet, split.select, subnets, metrics=task.metrics, batch_size=config.per_device_eval_batch_size
        )

    stage = Stage(name, step, evaluate, subnets, task.metrics[0], split.select_name)
    start = to_arrays(supernet.model)
    settings = {
        **lasting_settings(config),
        "stage": name,
        "num_processes": num_processes(),
        "sub-networks": list(subnets),
        "metrics": list(task.metrics),
        "data": digest(split.train.content),
        "model": digest(start.values()),
        "teacher": digest(to_arrays(teacher.model).values()) if teacher else "none",
    }
    with claim_output(output_dir, overwrite=overwrite):
        logger.info("%s: %d training examples, %d to select on", name, len(split.train), len(split.select))
        try:
            state = train(supernet, split.train, stage, config=config, output_dir=output_dir, settings=settings)
        except Interrupted:
            set_arrays(supernet.model, start)  # so that the same call goes on from the checkpoint
            raise
        metadata = supernet.metadata
        supernet.metadata = metadata.replace(
            stage=name,
            space={} if space is None else _trained_space(space, subnets),
            metrics={split.select_name: state.best_metrics, "best_step": state.best_step, "steps": state.step},
            provenance=provenance_of(
                config,
                parent=metadata.provenance if parent is None else str(parent),
                examples=state.examples,
                seconds=state.seconds,
            ),
        )
        if finish:
            finish(state)
        processes.lead(partial(supernet.save_pretrained, output_dir))
        processes.lead(partial(remove_checkpoints, output_dir))
    return supernet


@contextmanager
def claim_output(output_dir: Path, *, overwrite: bool) -> Iterator[None]:
    """Prepare a stage's output folder, and keep other runs from it meanwhile.

    Args:
        output_dir: the folder.
        overwrite: remove what is there.

    Yields:
        Nothing.

    Raises:
        UsageError: it is finished, holds something else, or another run writes to it.
    """
    processes.lead(partial(prepare_output, output_dir, overwrite=overwrite))
    with claim(output_dir):
        # Another run may have finished it before this one claimed it.
        processes.lead(partial(prepare_output, output_dir, overwrite=False))
        yield


def describe_task(task: Task, max_seq_length: int) -> dict[str, Any]:
    """Describe what a model is trained for, as its folder keeps it.

    Args:
        task: the task.
        max_seq_length: longer inputs are cut to so many tokens.

    Returns:
        Values of a config's task section, in types that JSON knows.
    """
    return {**task.to_dict(), "max_seq_length": max_seq_length}


def _trained_space(space: SearchSpace, subnets: Mapping[str, Subnet]) -> dict[str, list[float]]:
    """The part of the grid that a stage has trained, which is what an evaluation of the grid looks at."""
    deepest_only = all(len(subnet.layers) == space.num_layers for subnet in subnets.values())
    return {"width_mults": list(space.width_mults), "depth_mults": [1.0] if deepest_only else list(space.depth_mults)}


def provenance_of(config: Any, *, parent: Any, examples: int, seconds: float) -> dict[str, Any]:
    """Describe what it takes to repeat a stage, and what it took; a parent's provenance is kept inside its child's.

    Args:
        config: the stage's settings.
        parent: provenance of the model that the stage started from, or that model's name.
        examples: that the stage has read, each as often as it came.
        seconds: that it took.

    Returns:
        What `Metadata.provenance` holds.
    """
    return {
        "versions": package_versions(),
        "num_processes": num_processes(),
        "environment": thread_settings(),
        "settings": lasting_settings(config),
        "spent": {"examples": examples, "seconds": round(seconds, 3)},
        "parent": parent,
    }
