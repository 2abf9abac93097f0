"""The verbs of single stages, each from a model folder to a model folder."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING, Annotated, Any

import typer

from dynabert_paddle.cli.options import with_sections
from dynabert_paddle.cli.output import show_next
from dynabert_paddle.cli.resume import from_checkpoint
from dynabert_paddle.cli.run import Device, Overrides, OverwriteOutputDir
from dynabert_paddle.config.names import setting
from dynabert_paddle.config.settings import (
    ENCODING_SETTINGS,
    RANK_HELP,
    Config,
    DepthConfig,
    FinalConfig,
    FinetuneConfig,
    GeneralConfig,
    RewireConfig,
    SpaceConfig,
    TaskConfig,
    WidthConfig,
)
from dynabert_paddle.errors import UsageError
from dynabert_paddle.runtime.interruption import resumable

if TYPE_CHECKING:
    from dynabert_paddle.files.metadata import Metadata

ConfigFile = Annotated[
    str | None,
    typer.Option("--config", help="YAML file, or the name of a built-in config; its values replace the defaults."),
]


def _named(folder: str) -> str:
    if not folder:
        raise UsageError("--output_dir is empty: name a folder")
    return folder


OutputDir = Annotated[
    str, typer.Option("--output_dir", help="Folder for the result; an interrupted run resumes.", callback=_named)
]
ModelDir = Annotated[str, typer.Argument(metavar="DIR", help="Model folder of the stage before.")]


@with_sections(("task", TaskConfig), ("finetune", FinetuneConfig))
def finetune(
    *,
    output_dir: OutputDir,
    model_name_or_path: Annotated[
        str | None,
        typer.Option(
            "--model_name_or_path", help="Built-in backbone, PaddleNLP name or model folder.", show_default="minilm-l6"
        ),
    ] = None,
    config: ConfigFile = None,
    override: Overrides = None,
    device: Device = None,
    overwrite_output_dir: OverwriteOutputDir = False,
    flags: dict[str, Any],
) -> None:
    """Stage 0: fine-tune a backbone on a task's labels."""
    flags = {**flags, "model_name_or_path": model_name_or_path, "device": device}
    _run_stage("finetune", None, output_dir, config, override, flags, overwrite_output_dir)
    show_next("rewire", output_dir, "--output_dir", "NEW_DIR", wrote=[output_dir])


@with_sections(("task", TaskConfig), ("rewire", RewireConfig), from_dir=["task"])
def rewire(
    model_dir: ModelDir,
    *,
    output_dir: OutputDir,
    embedding_rank_mult_list: Annotated[
        str | None,
        typer.Option("--embedding_rank_mult_list", metavar="'A B'", help=RANK_HELP, show_default="1.0"),
    ] = None,
    config: ConfigFile = None,
    override: Overrides = None,
    device: Device = None,
    overwrite_output_dir: OverwriteOutputDir = False,
    flags: dict[str, Any],
) -> None:
    """Stage 1: sort heads and neurons by importance; the full model's logits stay the same."""
    flags = {**flags, "device": device, "space.embedding_rank_mult_list": embedding_rank_mult_list}
    done = _run_stage("rewire", model_dir, output_dir, config, override, flags, overwrite_output_dir)
    is_general = done.rewire.text_file is not None
    then = ["--text_file", done.rewire.text_file or ""] if is_general else []
    verb = "train_general" if is_general else "train_width"
    show_next(verb, output_dir, *then, "--output_dir", "NEW_DIR", wrote=[output_dir])


@with_sections(("task", TaskConfig), ("space", SpaceConfig), ("width", WidthConfig), from_dir=["task", "space"])
def train_width(
    model_dir: ModelDir,
    *,
    output_dir: OutputDir,
    teacher_name_or_path: Annotated[
        str | None,
        typer.Option(
            "--teacher_name_or_path",
            help="Another fine-tuned model to distil from; its hidden states are compared only where both have the "
            "same sizes.",
            show_default="DIR itself",
        ),
    ] = None,
    config: ConfigFile = None,
    override: Overrides = None,
    device: Device = None,
    overwrite_output_dir: OverwriteOutputDir = False,
    flags: dict[str, Any],
) -> None:
    """Stage 2: distil the rewired model into every width."""
    flags = {**flags, "device": device}
    _run_stage("width", model_dir, output_dir, config, override, flags, overwrite_output_dir, teacher_name_or_path)
    show_next("train_depth", output_dir, "--output_dir", "NEW_DIR", wrote=[output_dir])


@with_sections(("task", TaskConfig), ("space", SpaceConfig), ("depth", DepthConfig), from_dir=["task", "space"])
def train_depth(
    model_dir: ModelDir,
    *,
    output_dir: OutputDir,
    config: ConfigFile = None,
    override: Overrides = None,
    device: Device = None,
    overwrite_output_dir: OverwriteOutputDir = False,
    flags: dict[str, Any],
) -> None:
    """Stage 3: distil the width-adaptive model into every width and depth."""
    _run_stage("depth", model_dir, output_dir, config, override, {**flags, "device": device}, overwrite_output_dir)
    show_next("evaluate", output_dir, "--grid", wrote=[output_dir])


@with_sections(("task", TaskConfig), ("space", SpaceConfig), ("general", GeneralConfig), from_dir=["task", "space"])
def train_general(
    model_dir: Annotated[
        str, typer.Argument(metavar="DIR", help="Built-in backbone, model folder, or folder of 'dynabert rewire'.")
    ],
    *,
    output_dir: OutputDir,
    config: ConfigFile = None,
    override: Overrides = None,
    device: Device = None,
    overwrite_output_dir: OverwriteOutputDir = False,
    flags: dict[str, Any],
) -> None:
    """Without labels: distil a pretrained backbone into every width and depth, from raw text."""
    _run_stage("general", model_dir, output_dir, config, override, {**flags, "device": device}, overwrite_output_dir)
    show_next("train_final", output_dir, "--output_dir", "NEW_DIR", wrote=[output_dir])


@with_sections(("task", TaskConfig), ("space", SpaceConfig), ("final", FinalConfig), from_dir=["task", "space"])
def train_final(
    model_dir: ModelDir,
    *,
    output_dir: OutputDir,
    config: ConfigFile = None,
    override: Overrides = None,
    device: Device = None,
    overwrite_output_dir: OverwriteOutputDir = False,
    flags: dict[str, Any],
) -> None:
    """Stage 4, optional: train every sub-network on the labels, without a teacher."""
    _run_stage("final", model_dir, output_dir, config, override, {**flags, "device": device}, overwrite_output_dir)
    show_next("evaluate", output_dir, "--grid", wrote=[output_dir])


def _run_stage(
    name: str,
    model_dir: str | None,
    output_dir: str,
    config_file: str | None,
    overrides: list[str] | None,
    flags: dict[str, Any],
    overwrite: bool,
    teacher: str | None = None,
) -> Config:
    from dynabert_paddle.runtime.home import user_path

    begins_with_backbone = name == "general" or flags.get("rewire.text_file") is not None
    is_name = begins_with_backbone and not user_path(model_dir or "").exists()
    expected = None
    if model_dir is not None and not is_name:
        expected = read_model_metadata(model_dir, needs_task=not begins_with_backbone and name != "final")
    config = load_settings(expected, config_file, overrides, flags)
    with resumable(name, resume_point=partial(from_checkpoint, output_dir)):
        start_paddle(config.device)
        from dynabert_paddle.data.described_tasks import load_task_config
        from dynabert_paddle.training.general_start import is_without_labels
        from dynabert_paddle.training.run import run_stage

        source = model_dir or config.model_name_or_path
        task = None if is_without_labels(name, config) else load_task_config(config.task)
        run_stage(
            name,
            config,
            task,
            source=source,
            output_dir=output_dir,
            teacher=teacher,
            overwrite=overwrite,
            expected=expected,
        )
    return config


def load_settings(
    model: Metadata | None, config_file: str | None, overrides: list[str] | None, flags: dict[str, Any]
) -> Config:
    """Resolve a verb's settings; task and grid default to those that the model was trained for.

    Args:
        model: the model's metadata; None for a verb that starts from a backbone.
        config_file: a YAML file, or the name of a built-in config.
        overrides: `section.key=value` strings.
        flags: values by dotted key; None for flags that were not passed.

    Returns:
        The settings.
    """
    from dynabert_paddle.config.loading import find_config, load_config

    path = find_config(config_file) if config_file else None
    return load_config(path, overrides or (), flags, base=_trained_for(model) if model else None)


def read_model_metadata(model_dir: str, *, needs_task: bool = True) -> Metadata:
    """Read a model's metadata before anything else, to refuse another model if that is there once it is loaded.

    Args:
        model_dir: the model's folder.
        needs_task: refuse one that has learned from raw text alone, too.

    Returns:
        The metadata.
    """
    from dynabert_paddle.files.metadata import check_has_task, read_metadata
    from dynabert_paddle.files.model_folder import check_model_folder

    check_model_folder(model_dir)
    metadata = read_metadata(model_dir)
    if needs_task:
        check_has_task(model_dir, metadata)
    return metadata


def check_encoding(model_dir: str, model: Metadata, task: TaskConfig) -> None:
    """Refuse flags that would let a verb read texts otherwise than the model was trained to, where it does not.

    Args:
        model_dir: the model's folder.
        model: its metadata.
        task: the user's settings.

    Raises:
        UsageError: a setting differs from the model's.
    """
    for name in ENCODING_SETTINGS:
        if getattr(task, name) != (trained := getattr(model, name)):
            raise UsageError(
                f"{model_dir} was trained with {name} = {trained}, and is read so here: leave out "
                f"{setting(f'task.{name}')}"
            )


def _trained_for(model: Metadata) -> dict[str, dict[str, Any]]:
    names = {"width_mults": "width_mult_list", "rank_mults": "embedding_rank_mult_list"}
    if model.stage != "width":  # whose depths are trained by the stage after it
        names["depth_mults"] = "depth_mult_list"
    space = {names[key]: mults for key, mults in model.space.items() if key in names}
    task = {key: value for key, value in model.task.items() if key in ENCODING_SETTINGS or not model.is_general}
    return {"task": task, "space": space}


def start_paddle(device: str) -> None:
    """Import Paddle, and choose its device."""
    from dynabert_paddle.runtime.device import set_device
    from dynabert_paddle.runtime.environment import import_paddle

    import_paddle(models_only=True)
    set_device(device)


COMMANDS = (finetune, rewire, train_width, train_depth, train_general, train_final)
