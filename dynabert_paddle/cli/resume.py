"""Where a command that was stopped resumes; each function returns the empty string if nothing is saved yet."""

from __future__ import annotations

from pathlib import Path

from dynabert_paddle.runtime.home import user_path


def from_checkpoint(output_dir: str | Path) -> str:
    """Describe where the training of one model resumes."""
    return "its last checkpoint" if any(user_path(output_dir).glob("checkpoint-*")) else ""


def from_stage(output_dir: str | Path) -> str:
    """Describe where a run resumes."""
    folder = user_path(output_dir)
    if any(folder.glob("*/checkpoint-*")):
        return "its last checkpoint"
    return "the first stage that has not finished" if any(folder.glob("*/dynabert.json")) else ""


def from_scores(output_dir: str | Path) -> str:
    """Describe where a search resumes."""
    return "the sub-networks that it has scored" if (user_path(output_dir) / "study.db").is_file() else ""


def from_rows(output_file: str | Path) -> str:
    """Describe where an augmentation resumes."""
    path = user_path(output_file)
    return "the rows that it has written" if path.with_name(f".{path.name}.state").is_file() else ""
