"""Checks that a path is a model's folder; of another, says what it is and which folder to name."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

from dynabert_paddle.config.settings import STAGES
from dynabert_paddle.errors import ModelError, did_you_mean
from dynabert_paddle.files.folder import BASELINES_FOLDER, EXPORT, RUN, SEARCH, command_of, maker_of
from dynabert_paddle.files.metadata import METADATA_FILE
from dynabert_paddle.files.model_config import CONFIG_FILE, find_config
from dynabert_paddle.runtime.home import user_path


def check_folder(folder: str | Path, known: Iterable[str] = ()) -> None:
    """Check that a folder exists.

    Args:
        folder: the folder that the user named.
        known: further names to suggest.

    Raises:
        ModelError: it does not exist, or is no folder; the message suggests the nearest name.
    """
    path = user_path(folder)
    if path.is_dir():
        return
    if path.exists():
        parent = f", {Path(folder).parent}" if is_model(path.parent) else ""
        raise ModelError(f"{folder} is a file: name the folder of a model{parent}")
    if path.is_symlink():
        raise ModelError(f"{folder} is a link to {path.readlink()}, which does not exist: name the model's folder")
    siblings = [str(other) for other in path.parent.glob("*") if other.is_dir()]
    raise ModelError(f"{folder}: no such model folder.{did_you_mean(str(folder), [*siblings, *known])}")


def check_model_folder(folder: str | Path) -> None:
    """Check that a folder exists and can be a model's.

    Args:
        folder: the folder that the user named.

    Raises:
        ModelError: it is another folder; the message says what it is, and which folder to name.
    """
    check_folder(folder)
    if not is_model(user_path(folder)):
        kind, advice = describe_other(Path(folder))
        raise ModelError(f"{folder} {kind}: {advice}")


def is_model(folder: Path) -> bool:
    """Whether a folder is a model's, of this project, PaddleNLP or Hugging Face, although it may be damaged."""
    return (folder / METADATA_FILE).is_file() or find_config(folder).is_file()


def describe_other(folder: Path) -> tuple[str, str]:
    """Describe a folder that is no model's.

    Args:
        folder: as the user named it.

    Returns:
        What it is, to follow its name, and which folder to name instead.
    """
    path = user_path(folder)
    models = _models_in(folder)
    maker = maker_of(path)
    if maker == EXPORT:
        return "is an exported bundle", "name the folder of the model that it was exported from"
    if maker == SEARCH:
        searched = f", {folder.parent}" if is_model(path.parent) else ""
        return "is the result of a search", f"name the folder of the model that was searched{searched}"
    if models and (maker == RUN or Path(models[0]).name in STAGES):
        return "is the folder of a run", f"name the folder of one of its models: {', '.join(models)}"
    if maker == RUN:
        return "is the folder of a run, which has not finished a stage yet", "run it again, or name a model's folder"
    if models:
        return "is not the folder of a model, but holds some", f"name one of them: {', '.join(models)}"
    if maker is not None:
        return (
            f"is of a '{command_of(maker)}' that has not finished",
            "repeat the command to finish it, or name another folder",
        )
    if path.name.startswith("checkpoint-"):
        return (
            "is a checkpoint of a training that has not finished",
            f"repeat its command, which resumes it, and name {folder.parent}",
        )
    if not any(path.iterdir()):
        return "is empty", "name the folder of a model"
    return f"has no {CONFIG_FILE}", "name the folder of a model, of dynabert's, PaddleNLP's or Hugging Face's"


def _models_in(folder: Path) -> list[str]:
    """The folders of models inside a folder: a run's in the order of their stages, then others and the baselines."""
    path = user_path(folder)
    names = sorted(other.name for other in path.iterdir() if other.is_dir() and is_model(other))
    ordered = [*(stage for stage in STAGES if stage in names), *(name for name in names if name not in STAGES)]
    baselines = [other for other in sorted((path / BASELINES_FOLDER).glob("*")) if other.is_dir() and is_model(other)]
    return [str(folder / name) for name in ordered] + [str(folder / BASELINES_FOLDER / b.name) for b in baselines]
