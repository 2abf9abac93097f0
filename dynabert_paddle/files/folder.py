"""The names in output folders, and the mark that says which verb has made a folder."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from dynabert_paddle.config.names import setting
from dynabert_paddle.config.run_file import CONFIG_FILE, MARKER_FILE
from dynabert_paddle.config.settings import STAGES
from dynabert_paddle.errors import UsageError
from dynabert_paddle.files.metadata import METADATA_FILE, Metadata
from dynabert_paddle.files.partial import is_partial

# Beside the folders of a run's stages and `CONFIG_FILE`, its settings: the grid's scores on the dev set, fixed-size
# models to compare with, and its report as HTML and for VisualDL.
GRID_FILE = "grid.json"
BASELINES_FOLDER = "baselines"
REPORT_FILE = "report.html"
RECORDS_FOLDER = "vdl_report"

# `MARKER_FILE` names what made an output folder: a stage, or one of these. It is empty in folders of earlier versions.
RUN, BASELINE, SEARCH, EXTRACT, EXPORT, SAVE = "run", "baseline", "search", "extract", "export", "save_pretrained"
COMPRESS = "compress"

# What made a folder -> the command that does.
_COMMANDS = {stage: f"dynabert {stage}" for stage in (*STAGES, RUN, BASELINE, SEARCH, EXTRACT, COMPRESS, EXPORT)} | {
    stage: f"dynabert train_{stage}" for stage in ("width", "depth", "general", "final")
}

_BUNDLE_FILE = "bundle.json"


def command_of(maker: str) -> str:
    """Return the command, or the Python function, that makes such folders."""
    return _COMMANDS.get(maker, maker)


def is_output_folder(folder: Path) -> bool:
    """Whether this package created a folder."""
    return any((folder / name).is_file() for name in (METADATA_FILE, MARKER_FILE)) or maker_of(folder) is not None


def check_ours(folder: Path) -> None:
    """Refuse to remove the content of a folder that this package has not made.

    Args:
        folder: the folder.

    Raises:
        UsageError: it is one of the user's.
    """
    if maker_of(folder) is None and not (folder / MARKER_FILE).is_file():
        raise UsageError(
            f"{folder} was not created by dynabert, and is not removed: name another {setting('output_dir')}"
        )


def is_free(folder: Path, *unused: str) -> bool:
    """Whether a folder holds nothing but our mark, files of these names, and half-written ones of a killed process."""
    if not folder.is_dir():
        return not folder.exists()
    names = {path.name for path in folder.iterdir()}
    return all(name in (MARKER_FILE, *unused) or is_partial(name) for name in names)


def maker_of(folder: Path) -> str | None:
    """Tell what has made a folder: by its mark, or for one of an earlier version by its content.

    Args:
        folder: any folder.

    Returns:
        A stage, `RUN`, `BASELINE`, `SEARCH`, `EXTRACT`, `COMPRESS`, `EXPORT` or `SAVE`; None if nothing tells.
    """
    marker = folder / MARKER_FILE
    if marker.is_file() and (name := marker.read_text(encoding="utf-8", errors="replace").strip()):
        return name
    values = read_object(folder / METADATA_FILE)
    if values is not None:
        return _maker_of_model(values.get("stage"), values.get("subnet"), values.get("metrics"))
    if read_object(folder / _BUNDLE_FILE, "format_version") is not None:
        return EXPORT
    if not marker.is_file():  # the names of a run and a search are those of other tools, too
        return None
    if (folder / "study.db").is_file():
        return SEARCH
    if (folder / CONFIG_FILE).is_file() or any((folder / stage).is_dir() for stage in STAGES):
        return RUN
    for state in sorted(folder.glob("checkpoint-*/state.json")):
        settings = (read_object(state) or {}).get("settings")
        return settings.get("stage") if isinstance(settings, dict) else None
    return None


def maker_of_metadata(metadata: Metadata) -> str:
    """Tell from a model's metadata what makes its folder: a stage, `BASELINE`, `EXTRACT` or `SAVE`."""
    return _maker_of_model(metadata.stage, metadata.subnet, metadata.metrics)


def _maker_of_model(stage: Any, subnet: Any, metrics: Any) -> str:
    if subnet and not metrics:  # a small model that a stage has trained has its scores
        return EXTRACT
    return stage if stage in (*STAGES, BASELINE) else SAVE


def read_object(path: Path, *keys: str) -> dict[str, Any] | None:
    """Read a JSON object without any check; None if it is none, or lacks a key."""
    try:
        values = json.loads(path.read_bytes()) if path.is_file() else None
    except (OSError, ValueError, RecursionError):
        return None
    return values if isinstance(values, dict) and all(key in values for key in keys) else None


def folder_bytes(folder: Path) -> int:
    """Return the size of all files in a folder."""
    return sum(path.stat().st_size for path in folder.iterdir() if path.is_file())
