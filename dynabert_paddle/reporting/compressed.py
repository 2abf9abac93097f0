"""Read a model that `dynabert compress` has made, to show it beside a run."""

from __future__ import annotations

from pathlib import Path

from dynabert_paddle.errors import ModelError, UsageError
from dynabert_paddle.files.array_hash import hash_model
from dynabert_paddle.files.metadata import METADATA_FILE, Metadata, read_metadata
from dynabert_paddle.files.model_folder import check_model_folder
from dynabert_paddle.files.weights import read_weights
from dynabert_paddle.reporting.content import Compressed, Run, validate
from dynabert_paddle.runtime.home import user_path

_REMEDY = "name a folder as 'dynabert compress' has written it"


def read_compressed(folder: str | Path, run: Run) -> Compressed:
    """Read a compressed model's scores and costs.

    Args:
        folder: its folder.
        run: the run to show it beside.

    Returns:
        The model.

    Raises:
        ModelError: no compressed model, one whose weights have changed since it was scored, or a damaged file.
        UsageError: it is of another task than the run.
    """
    path = user_path(folder)
    check_model_folder(path)
    metadata = read_metadata(path)
    if not metadata.compression:
        raise ModelError(f"{folder}: no compressed model: {_REMEDY}")
    _check_task(folder, metadata, run)
    after = metadata.compression[-1].get("after")
    values = {
        "folder": folder,
        "methods": [record.get("method") for record in metadata.compression],
        **(after if isinstance(after, dict) else {}),
    }
    compressed = validate(path / METADATA_FILE, Compressed, values)
    if compressed.weights != hash_model(read_weights(path)):
        raise ModelError(
            f"{folder}: its weights are not those that were scored when it was compressed: {_REMEDY}, or compress it "
            f"again"
        )
    return compressed


def _check_task(folder: str | Path, metadata: Metadata, run: Run) -> None:
    """Refuse a score that is of another kind than the run's; paths of data may differ."""
    of_run = run.model.metadata.task if run.model else {}
    for key in ("name", "kind", "labels", "metrics") if of_run else ():
        seen, wanted = (
            sorted(value) if isinstance(value := task.get(key), list) else value for task in (metadata.task, of_run)
        )
        if seen != wanted:
            raise UsageError(f"{folder}: the {key} of its task is {seen!r}, and in {run.folder} {wanted!r}: {_REMEDY}")
