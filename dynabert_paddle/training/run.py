"""The whole chain: every stage in its folder, finished ones skipped, then the grid on the dev set."""

from __future__ import annotations

import json
from dataclasses import asdict
from pathlib import Path
from typing import Any

from dynabert_paddle.config import Config, TaskConfig, lasting_settings
from dynabert_paddle.data.tasks import Task, load_task
from dynabert_paddle.errors import UsageError
from dynabert_paddle.folder import METADATA_FILE, make_folder, read_metadata, write_json
from dynabert_paddle.supernet.extract import extract
from dynabert_paddle.supernet.supernet import Supernet
from dynabert_paddle.training import stages
from dynabert_paddle.training.evaluate import evaluate_grid
from dynabert_paddle.training.logging import logger

GRID_FILE = "grid.json"
CONFIG_FILE = "run.yaml"


def run(config: Config) -> list[dict[str, Any]]:
    """Run the stages of a config; what is finished is skipped, what was interrupted is resumed.

    Args:
        config: the run.

    Returns:
        The grid on the dev set, one row a sub-network, as it stands in `grid.json`.

    Raises:
        DynabertError: with the reason in one line.
    """
    if not config.stages:
        raise UsageError("stages: name at least one, for example [finetune, rewire, width, depth]")
    output_dir = make_folder(config.output_dir)
    _keep_config(output_dir, config)
    task = load_task_config(config.task)
    source: str | Path = config.model_name_or_path
    for name in config.stages:
        folder = output_dir / name
        if (folder / METADATA_FILE).exists():
            _check_finished(folder, getattr(config, name))
            logger.info("%s: finished before, in %s", name, folder)
        else:
            run_stage(name, config, task, source=source, output_dir=folder)
        source = folder
    supernet = Supernet.from_pretrained(source)
    rows = evaluate_grid(supernet, task, batch_size=config.finetune.per_device_eval_batch_size)
    write_json(output_dir / GRID_FILE, {"split": "dev", "model": str(source), "rows": rows})
    return rows


def run_stage(
    name: str,
    config: Config,
    task: Task,
    *,
    source: str | Path,
    output_dir: str | Path,
    teacher: str | Path | None = None,
    overwrite: bool = False,
) -> Supernet:
    """Run one stage from a folder to a folder.

    Args:
        name: finetune, rewire, width, depth or final.
        config: holds the stage's settings and the search space.
        task: the task.
        source: the model that the stage starts from.
        output_dir: where the result goes.
        teacher: the model that the width stage distils from. By default the one that it starts from, which computes
            what the fine-tuned model computes, its heads and neurons in another order.
        overwrite: replace what is in `output_dir`.

    Returns:
        The model that the stage made, as it was saved.

    Raises:
        DynabertError: with the reason in one line.
    """
    output = {"output_dir": output_dir, "overwrite": overwrite}
    settings = getattr(config, name)
    if name == "finetune":
        return stages.finetune(source, task, config=settings, max_seq_length=config.task.max_seq_length, **output)

    supernet = Supernet.from_pretrained(source)
    _check_start(name, supernet, task, source)
    if name == "rewire":
        stages.prepare_output(output_dir, overwrite=overwrite)
        stages.rewire(supernet, task, config=settings).save_pretrained(output_dir)
        return supernet
    space = supernet.search_space(width_mults=config.space.width_mult_list, depth_mults=config.space.depth_mult_list)
    if name == "width":
        teaching = Supernet.from_pretrained(teacher) if teacher else extract(supernet, supernet.full)
        return stages.train_width(supernet, teaching, task, space, config=settings, **output)
    train = stages.train_depth if name == "depth" else stages.train_final
    return train(supernet, task, space, config=settings, **output)


def load_task_config(config: TaskConfig) -> Task:
    """Load the task that a config's `task` section describes.

    Args:
        config: the section.

    Returns:
        The task.

    Raises:
        DynabertError: with the reason in one line.
    """
    arguments = asdict(config)
    arguments.pop("max_seq_length")
    return load_task(**arguments)


def _check_start(name: str, supernet: Supernet, task: Task, source: str | Path) -> None:
    """A stage after the first starts from a model that was fine-tuned for the task."""
    if not supernet.metadata.stage:
        raise UsageError(f"{source} is not a model that 'dynabert finetune' has made: {name} needs one")
    num_outputs = len(task.labels) or 1
    if supernet.model.config.num_labels != num_outputs:
        raise UsageError(
            f"{source} has {supernet.model.config.num_labels} outputs and task {task.name!r} needs {num_outputs}: "
            f"name the task and the data that it was fine-tuned on"
        )


def _check_finished(folder: Path, settings: Any) -> None:
    before = read_metadata(folder).provenance.get("settings", {})
    now = lasting_settings(settings)
    for key, value in now.items():
        if before.get(key, value) != value:
            raise UsageError(
                f"{folder} was made with {key} = {before[key]}, this run has {value}: name another output_dir, "
                f"or remove {folder} and the stages after it"
            )


def _keep_config(output_dir: Path, config: Config) -> None:
    """Save the resolved config; refuse a folder that holds another model's or another task's run."""
    import yaml

    path = output_dir / CONFIG_FILE
    values = json.loads(json.dumps(asdict(config)))  # tuples become lists, as YAML has them
    if path.exists():
        before = yaml.safe_load(path.read_text(encoding="utf-8")) or {}
        for key in ("model_name_or_path", "task", "space"):
            if before.get(key, values[key]) != values[key]:
                raise UsageError(
                    f"{output_dir} holds a run with {key} = {before[key]}, this one has {values[key]}: "
                    f"name another output_dir, or pass --overwrite_output_dir"
                )
    path.write_text(yaml.safe_dump(values, sort_keys=False, allow_unicode=True), encoding="utf-8")
