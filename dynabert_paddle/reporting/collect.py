"""Read the files of a run, or of one of its stages."""

from __future__ import annotations

import json
from collections.abc import Iterable
from contextlib import suppress
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

from dynabert_paddle.config.loading import load_config
from dynabert_paddle.config.settings import STAGES
from dynabert_paddle.errors import ModelError, UsageError, did_you_mean
from dynabert_paddle.files.atomic import read_json
from dynabert_paddle.files.folder import BASELINES_FOLDER, CONFIG_FILE, GRID_FILE
from dynabert_paddle.files.metadata import METADATA_FILE, Metadata, read_metadata
from dynabert_paddle.files.model_folder import check_folder, describe_other
from dynabert_paddle.files.search_result import RESULT_FILE, SEARCH_FOLDER, hash_weights
from dynabert_paddle.files.unchanged import load_unchanged
from dynabert_paddle.reporting.compressed import read_compressed
from dynabert_paddle.reporting.content import (
    Baseline,
    Grid,
    GridRow,
    Importance,
    Run,
    Search,
    SearchRow,
    Stage,
    T,
    last_finished,
    validate,
)
from dynabert_paddle.runtime.home import user_path
from dynabert_paddle.search_space import SearchSpace
from dynabert_paddle.subnet import Subnet

_LOG_FILE = "train.jsonl"


def collect(folder: str | Path, compare: Iterable[str | Path] = ()) -> Run:
    """Read a run's folder, or a stage's.

    Args:
        folder: the folder.
        compare: folders of models that `dynabert compress` has made, to show beside the run's.

    Returns:
        Its content.

    Raises:
        ModelError: the folder holds no run and no stage, or one of its files is damaged; a folder to compare with is
            no compressed model, or of another task.
    """
    folder = user_path(folder)
    check_folder(folder)
    run = load_unchanged(folder, partial(_collect, folder), ModelError, _version)
    return replace(run, compressed=tuple(read_compressed(path, run) for path in compare))


def _version(folder: Path) -> list[tuple[Any, ...]]:
    """What tells that a file has changed that belongs to others; the logs of a running stage grow all the time."""
    stats = []
    for pattern in ("*.yaml", "*.json", "*/*.json", f"*/{SEARCH_FOLDER}/*.json", f"{BASELINES_FOLDER}/*/*.json"):
        for path in sorted(folder.glob(pattern)):
            with suppress(OSError):
                stat = path.stat()
                stats.append((str(path), stat.st_ino, stat.st_size, stat.st_mtime_ns))
    return stats


def _collect(folder: Path) -> Run:
    if not _is_model(folder) and not _is_run(folder):
        inside = [str(path) for path in sorted(folder.iterdir()) if _is_model(path) or _is_run(path)]
        hint = f" Did you mean '{inside[0]}'?" if inside else did_you_mean(folder.name, STAGES)
        kind, _ = describe_other(folder)
        raise ModelError(
            f"{folder} {kind}: neither a run's folder ({CONFIG_FILE}, {GRID_FILE}, or stages such as depth/) nor a "
            f"model's ({METADATA_FILE}): name a folder that 'dynabert run' or one of its stages has written.{hint}"
        )
    folders = [folder] if _is_model(folder) else [folder / name for name in STAGES if _is_model(folder / name)]
    stages = tuple(_read_stage(path) for path in folders)
    config = folder / CONFIG_FILE
    return Run(
        folder,
        load_config(config) if config.is_file() else None,
        config.read_text(encoding="utf-8") if config.is_file() else "",
        stages,
        _read_grid(folder / GRID_FILE, stages) if (folder / GRID_FILE).is_file() else _trained_grid(stages),
        *_read_search(stages),
        tuple(_read(path, Baseline) for path in sorted(folder.glob(f"{BASELINES_FOLDER}/*/baseline.json"))),
    )


def _is_model(folder: Path) -> bool:
    return (folder / METADATA_FILE).is_file() or (folder / _LOG_FILE).is_file()


def _is_run(folder: Path) -> bool:
    found = (folder / name for name in (CONFIG_FILE, GRID_FILE))
    return any(path.is_file() for path in found) or any(_is_model(folder / name) for name in STAGES)


def _read_stage(folder: Path) -> Stage:
    log = folder / _LOG_FILE
    metadata = read_metadata(folder)
    if metadata.importance:
        validate(folder / METADATA_FILE, Importance, metadata.importance)
    return Stage(folder.resolve().name, folder, metadata, tuple(_read_log(log)) if log.is_file() else ())


def _read_log(path: Path) -> list[dict[str, Any]]:
    """Read a log's complete lines; the last one may be incomplete while a run goes on."""
    try:
        lines = path.read_text(encoding="utf-8").splitlines(keepends=True)
    except (OSError, UnicodeDecodeError) as error:
        raise ModelError(f"{path}: cannot be read: {getattr(error, 'strerror', None) or error}") from None
    records = []
    for number, line in enumerate(lines, start=1):
        if not line.endswith("\n"):
            break
        try:
            record = json.loads(line)
            {tag: float(value) for tag, value in record.items()}
            records.append({**record, "step": int(record["step"])})
        except (ValueError, TypeError, AttributeError, KeyError, RecursionError):
            raise ModelError(f"{path}: line {number} is damaged: remove it, or the file, to report the rest") from None
    return records


def _read_grid(path: Path, stages: tuple[Stage, ...]) -> Grid:
    values = read_json(path)
    try:
        rows = [_grid_row(row) for row in values["rows"]]
    except (KeyError, TypeError, AttributeError):
        raise ModelError(f"{path}: damaged at 'rows': 'dynabert run' makes it again once it is removed") from None
    grid = _check_grid(validate(path, Grid, {"split": values.get("split"), "rows": rows}), path)
    model = last_finished(stages)
    _check_names(path, grid.rows, model.metadata if model else Metadata())
    return grid


def _grid_row(row: dict[str, Any]) -> dict[str, Any]:
    costs = {key: row[key] for key in ("subnet", "params", "macs")}
    return {**costs, "metrics": {k: v for k, v in row.items() if k not in (*costs, "params_without_embeddings")}}


def _trained_grid(stages: tuple[Stage, ...]) -> Grid | None:
    """The scores that the last stage has recorded when it finished."""
    model = last_finished(stages)
    if model is None:
        return None
    for split, scores in model.metadata.metrics.items():
        if isinstance(scores, dict):  # other entries are numbers, such as the steps
            path = model.folder / METADATA_FILE
            rows = [{"subnet": name, "metrics": metrics} for name, metrics in scores.items()]
            return _check_grid(validate(path, Grid, {"split": split, "rows": rows}), path)
    return None


def _check_grid(grid: Grid, path: Path) -> Grid:
    if not grid.rows or not grid.metrics or any(list(row.metrics) != grid.metrics for row in grid.rows):
        raise ModelError(f"{path}: damaged: every sub-network of a grid has the same metrics, at least one")
    return grid


def _read_search(stages: tuple[Stage, ...]) -> tuple[Search | None, Path | None]:
    """Return the last stage's search; or its file, if it belongs to other weights."""
    for stage in reversed(stages):
        path = stage.folder / SEARCH_FOLDER / RESULT_FILE
        if path.is_file():
            search = _read(path, Search)
            if not _has_weights(stage.folder, search.weights):
                return None, path
            _check_names(path, (search.full, *search.grid, *search.pareto), stage.metadata)
            return search, None
    return None, None


def _has_weights(folder: Path, weights: str) -> bool:
    try:
        return hash_weights(folder) == weights
    except OSError:
        return False


def _read(path: Path, kind: type[T]) -> T:
    return validate(path, kind, read_json(path))


def subnet_of(metadata: Metadata, name: str) -> Subnet:
    """Return the sub-network of a model by its name."""
    # The sizes that costs depend on are not needed: the costs stand in the files.
    max_rank = metadata.embedding_rank
    space = SearchSpace(
        metadata.heads, metadata.neurons, hidden_size=0, head_dim=0, width_mults=(1.0,), max_rank=max_rank
    )
    return space.parse(name)


def _check_names(path: Path, rows: Iterable[GridRow | SearchRow], metadata: Metadata) -> None:
    for row in rows if metadata.heads else ():
        try:
            subnet_of(metadata, row.subnet)
        except UsageError as error:
            raise ModelError(f"{path}: belongs to another model, or is damaged: {error}") from None
