"""`run.yaml`: the settings that a run keeps in its output folder, which stay right when the folder moves."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from dynabert_paddle.config.settings import STAGES

CONFIG_FILE, MARKER_FILE = "run.yaml", ".dynabert"
# The first line of the file, which tells it from a config of the user's that is in the output folder.
HEADER = "# Written by dynabert: the settings of the run in this folder.\n"
# One of them is in a stage's folder; a folder that is named as a stage, such as `final`, may be the user's.
_STAGE_FILES = (MARKER_FILE, "dynabert.json", "train.jsonl")
# Sections of the `run.yaml` of earlier versions, which had all of them.
_EARLIER_SECTIONS = ("task", "space", "finetune", "rewire", "width", "depth", "final")
# Settings that name a file or a folder. So does a model's, unless it is a name; a path begins with `/`, `~` or `.`.
PATH_SETTINGS = (
    *("data_dir", "train_file", "dev_file", "retrieval_dir", "augmented_file", "unlabelled_files", "text_file"),
)
MODEL_SETTINGS = ("model_name_or_path", "teacher_name_or_path")


def is_run_file(path: Path) -> bool:
    """Whether a config is the `run.yaml` of the run in its folder, which a copy of the folder may be, too."""
    folder = path.parent
    of_stages = (folder / stage / name for stage in STAGES for name in _STAGE_FILES)
    return path.name == CONFIG_FILE and ((folder / MARKER_FILE).is_file() or any(map(Path.is_file, of_stages)))


def is_written(text: str) -> bool:
    """Tell whether a run has written a file, so that another run may replace it.

    Args:
        text: the content of `run.yaml`.

    Returns:
        False for a config of the user's. Earlier versions wrote every section, and no first line of their own.
    """
    return text.startswith(HEADER) or all(f"\n{section}:\n" in text for section in _EARLIER_SECTIONS)


def locate(values: Mapping[str, Any], folder: Path) -> dict[str, Any]:
    """Set the output folder of a run's settings to the folder that they are in now, and paths inside of it likewise.

    Args:
        values: the content of `run.yaml`.
        folder: the folder that it is in.

    Returns:
        The settings. Paths inside of the folder are relative to it in the file; earlier versions wrote absolute ones.
    """
    before = values.get("output_dir")

    def move(path: str) -> str:
        if not Path(path).is_absolute() and not path.startswith("~"):
            return str(folder / path)
        if isinstance(before, str) and Path(before) in Path(path).parents:
            moved = folder / Path(path).relative_to(before)
            return str(moved) if moved.exists() else path
        return path

    return {**_change_paths(values, move), "output_dir": str(folder)}


def relative_inside(values: Mapping[str, Any], folder: Path) -> dict[str, Any]:
    """Make the absolute paths inside of a run's folder relative to it, for its `run.yaml`; others stay."""

    def shorten(path: str) -> str:
        return f"./{Path(path).relative_to(folder)}" if folder in Path(path).parents else path

    return _change_paths(values, shorten)


def _change_paths(values: Mapping[str, Any], change: Callable[[str], str]) -> dict[str, Any]:
    changed: dict[str, Any] = {}
    for key, value in values.items():
        if isinstance(value, dict):
            changed[key] = _change_paths(value, change)
        elif isinstance(value, str) and (
            key in PATH_SETTINGS or (key in MODEL_SETTINGS and value.startswith(("/", "./")))
        ):
            changed[key] = change(value)
        elif isinstance(value, list) and key in PATH_SETTINGS:
            changed[key] = [change(path) for path in value]
    return {**values, **changed}
