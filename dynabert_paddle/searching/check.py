"""Refuses to search a model whose sub-networks were not trained."""

from __future__ import annotations

from pathlib import Path

from dynabert_paddle.config.names import setting
from dynabert_paddle.errors import UsageError
from dynabert_paddle.files.metadata import Metadata


def check_searchable(metadata: Metadata, source: str | Path, *, force: bool) -> None:
    """Refuse a model whose sub-networks were not trained.

    Args:
        metadata: the model's.
        source: the model's folder, or another description for messages.
        force: accept a supernet whose width or depth was not trained.

    Raises:
        UsageError: an extracted model, or one that lacks a training stage; the message names the stage's command.
    """
    if metadata.subnet:
        raise UsageError(
            f"{source} is the extracted sub-network {metadata.subnet['name']} and has no sub-networks: search the "
            f"supernet that it was extracted from"
        )
    width, depth = (set(metadata.space.get(key, (1.0,))) != {1.0} for key in ("width_mults", "depth_mults"))
    if force or not metadata.stage or (width and depth):
        return
    if width:
        missing, command = "depths", f"dynabert train_depth {source} --output_dir NEW_DIR"
    elif metadata.importance:
        missing, command = "widths", f"dynabert train_width {source} --output_dir NEW_DIR"
    else:
        missing, command = "widths", f"dynabert rewire {source} --output_dir NEW_DIR', then 'dynabert train_width"
    raise UsageError(
        f"{source}: stage {metadata.stage} has trained no smaller {missing}: run '{command}', or pass "
        f"{setting('force')} to search it anyway"
    )
