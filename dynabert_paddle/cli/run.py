"""The verbs `quickstart` and `run`: all stages."""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import Annotated, Any

import click
import typer

from dynabert_paddle.cli.options import with_sections
from dynabert_paddle.cli.output import show_next
from dynabert_paddle.cli.resume import from_stage
from dynabert_paddle.cli.table import recommended, show_grid
from dynabert_paddle.config.settings import RECIPES, SECTIONS, STAGES, Config
from dynabert_paddle.runtime.interruption import resumable

# Of a folder that no run has begun in.
DEFAULT_RECIPE = Config.recipe
# The settings of the quick start by recipe.
_QUICKSTARTS = {"paper": "quickstart", "best": "quickstart-best"}

Overrides = Annotated[
    list[str] | None,
    typer.Option("-o", metavar="KEY=VALUE", help="Override one value of the config: section.key=value."),
]
OverwriteOutputDir = Annotated[bool, typer.Option("--overwrite_output_dir", help="Replace the content of output_dir.")]
Device = Annotated[str | None, typer.Option("--device", help="auto, cpu or gpu:N.", show_default="auto")]
RecipeName = Annotated[
    str | None,
    typer.Option(
        "--recipe",
        metavar="NAME",
        help=f"Built-in settings where nothing else is given ({', '.join(RECIPES)}); a folder keeps its own.",
        click_type=click.Choice(RECIPES),
        show_default=DEFAULT_RECIPE,
    ),
]
Json = Annotated[bool, typer.Option("--json", help="Print JSON.")]


def quickstart(
    *,
    output_dir: Annotated[str, typer.Option("--output_dir", help="Folder for the stages, one folder each.")] = (
        "out/quickstart"
    ),
    recipe: RecipeName = None,
    override: Overrides = None,
    device: Device = None,
    overwrite_output_dir: OverwriteOutputDir = False,
    json: Json = False,
) -> None:
    """Run all stages on the built-in data and backbone: minutes on a CPU."""
    from dynabert_paddle.config.loading import find_recipe

    chosen = recipe or (None if overwrite_output_dir else find_recipe(output_dir)) or DEFAULT_RECIPE
    config = _QUICKSTARTS.get(chosen, _QUICKSTARTS[DEFAULT_RECIPE])
    flags = {"output_dir": output_dir, "device": device, "recipe": recipe}
    _run(config, override, flags, overwrite_output_dir, json)


def _complete_config(incomplete: str) -> list[str]:
    from dynabert_paddle.config.loading import built_in_configs

    return [name for name in built_in_configs() if name.startswith(incomplete)]


_RUN_SECTIONS = ("task", "space", *STAGES)


@with_sections(*((key, SECTIONS[key]) for key in _RUN_SECTIONS), from_dir=_RUN_SECTIONS, given_by="CONFIG")
def run(
    config: Annotated[
        str,
        typer.Argument(
            metavar="CONFIG", help="YAML file, or the name of a built-in config.", autocompletion=_complete_config
        ),
    ],
    *,
    model_name_or_path: Annotated[
        str | None,
        typer.Option(
            "--model_name_or_path",
            help="Built-in backbone, PaddleNLP name or model folder.",
            show_default="CONFIG's, else minilm-l6",
        ),
    ] = None,
    output_dir: Annotated[
        str | None,
        typer.Option("--output_dir", help="Folder for the stages, one folder each.", show_default="CONFIG's, else out"),
    ] = None,
    recipe: RecipeName = None,
    override: Overrides = None,
    device: Annotated[
        str | None, typer.Option("--device", help="auto, cpu or gpu:N.", show_default="CONFIG's, else auto")
    ] = None,
    overwrite_output_dir: OverwriteOutputDir = False,
    json: Json = False,
    flags: dict[str, Any],
) -> None:
    """Run all stages; finished stages are skipped, an interrupted one resumes. A flag is that of all stages."""
    own = {"output_dir": output_dir, "device": device, "model_name_or_path": model_name_or_path, "recipe": recipe}
    flags = {**flags, **own}
    _run(config, override, flags, overwrite_output_dir, json)


def _run(name: str, overrides: list[str] | None, flags: dict[str, Any], overwrite: bool, json: bool) -> None:
    from dynabert_paddle.config.loading import find_config, load_config
    from dynabert_paddle.files.atomic import read_json

    # Before the slow import of Paddle, so that a misspelt key is reported at once.
    config = load_config(find_config(name), overrides or (), flags, resumes=not overwrite)
    with resumable("run", resume_point=partial(from_stage, config.output_dir)):
        from dynabert_paddle.runtime.device import set_device
        from dynabert_paddle.runtime.environment import import_paddle

        import_paddle(models_only=True)
        set_device(config.device)
        from dynabert_paddle.training.run import CONFIG_FILE, GRID_FILE, run

        rows = run(config, overwrite=overwrite)
    folder = Path(config.output_dir)
    grid = read_json(folder / GRID_FILE)
    show_grid(rows, split=grid["split"], as_json=json, positive_label=grid.get("positive_label"))
    last = folder / config.stages[-1]
    wrote = [*(folder / stage for stage in config.stages), folder / GRID_FILE, folder / CONFIG_FILE]
    has_task = grid["split"] == "dev"
    if has_task:
        show_next("evaluate", last, *recommended(rows), wrote=wrote)
    else:
        show_next("finetune", "--model_name_or_path", last, "--output_dir", "NEW_DIR", wrote=wrote)


COMMANDS = (quickstart, run)
