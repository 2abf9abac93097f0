"""The verb `search`: the best accuracy/cost trade-offs, and the best sub-network for a budget."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from dynabert_paddle.cli.options import with_sections
from dynabert_paddle.cli.output import show_json, show_next
from dynabert_paddle.cli.resume import from_scores
from dynabert_paddle.cli.run import Json, OverwriteOutputDir
from dynabert_paddle.cli.stages import check_encoding, read_model_metadata
from dynabert_paddle.cli.table import show_table
from dynabert_paddle.config.command_settings import SearchConfig
from dynabert_paddle.config.settings import TaskConfig
from dynabert_paddle.errors import DynabertError
from dynabert_paddle.runtime.interruption import resumable

if TYPE_CHECKING:
    from dynabert_paddle.files.search_result import SearchResult

_COLUMNS = {
    "latency_ms": ("ms", 1, 2),
    "measured_latency_ms": ("ms measured", 1, 2),
    "params": ("params", 1e6, 2),
    "macs": ("MACs", 1e9, 3),
    "size_mb": ("MB", 1, 1),
}
_ERRORS = {"standard_error": "± error", "divergence": "divergence", "divergence_error": "± error"}


@with_sections(("search", SearchConfig), ("task", TaskConfig), from_dir=["task"])
def search(
    model_dir: Annotated[str, typer.Argument(metavar="DIR", help="Supernet's folder.")],
    *,
    output_dir: Annotated[
        str | None,
        typer.Option(
            "--output_dir", help="Folder for the result; an interrupted search resumes.", show_default="DIR/search"
        ),
    ] = None,
    force: Annotated[bool, typer.Option("--force", help="Also search untrained widths or depths.")] = False,
    overwrite_output_dir: OverwriteOutputDir = False,
    json: Json = False,
    flags: dict[str, Any],
) -> None:
    """Find the best accuracy/cost trade-offs (Pareto front), and the best sub-network for a budget."""
    from dynabert_paddle.config.loading import load_config, resolve_config

    own = {key.removeprefix("search."): value for key, value in flags.items() if key.startswith("search.")}
    config = resolve_config(SearchConfig, {key: value for key, value in own.items() if value is not None})
    expected = read_model_metadata(model_dir)
    data = {key: value for key, value in flags.items() if key.startswith("task.")}
    task_config = load_config(None, (), data, base={"task": expected.task}).task
    check_encoding(model_dir, expected, task_config)
    from dynabert_paddle.files.search_result import SEARCH_FOLDER

    folder = Path(output_dir or Path(model_dir) / SEARCH_FOLDER)
    with resumable("search", resume_point=partial(from_scores, folder)):
        from dynabert_paddle.runtime.device import set_device
        from dynabert_paddle.runtime.environment import import_paddle

        import_paddle(models_only=True)
        set_device(config.device)
        from dynabert_paddle.data.described_tasks import load_task_config
        from dynabert_paddle.searching.run import search

        result = search(
            model_dir,
            load_task_config(task_config),
            output_dir=output_dir,
            config=config,
            force=force,
            overwrite=overwrite_output_dir,
            expected=expected,
        )
    show_json(result.to_dict()) if json else _show(result)
    _show_end(result, folder)


def _show(result: SearchResult) -> None:
    from dynabert_paddle.searching.latency_setting import LatencySetting

    shown = [row for row in (result.best or result.nearest,) if row]
    rows = {row["subnet"]: row for row in (*result.pareto, *shown)}.values()
    kept = [key for key in _COLUMNS if any(row.get(key) is not None for row in rows)]
    mark = {row["subnet"] for row in shown}
    errors = [key for key in _ERRORS if any(row.get(key) is not None for row in rows)]
    lines = [
        [
            f"{row['subnet']}{' *' if row['subnet'] in mark else ''}",
            f"{row['score']:.4f}",
            *("" if row.get(key) is None else f"{row[key]:.4f}" for key in errors),
            *_cells(row, kept),
        ]
        for row in rows
    ]
    what = "agreement" if result.score == "agreement" else result.metric
    title = (
        f"Pareto front: {len(result.pareto)} of {result.num_evaluated} sub-networks; {what} on {result.split}, "
        f"{result.num_examples} examples (* {'best' if result.best else 'nearest'}); MACs of one sequence of "
        f"{result.macs_length} tokens"
    )
    if result.score == "divergence":
        title += f"; chosen by divergence from the full model on {result.num_chosen_on} texts"
    if "latency_ms" in kept:
        title += f"; ms of {LatencySetting(**result.setting)}"
    show_table(
        ["sub-network", what, *(_ERRORS[key] for key in errors), *(_heading(key) for key in kept)], lines, title=title
    )


def _heading(key: str) -> str:
    name, unit, _ = _COLUMNS[key]
    return name + {1e6: " M", 1e9: " G"}.get(unit, "")


def _cells(row: Mapping[str, Any], keys: Sequence[str]) -> list[str]:
    return ["" if row.get(key) is None else f"{row[key] / _COLUMNS[key][1]:.{_COLUMNS[key][2]}f}" for key in keys]


def _show_end(result: SearchResult, folder: Path) -> None:
    """Name the next command, or raise if no sub-network is within the budget."""
    from dynabert_paddle.files.search_result import RESULT_FILE, TABLE_FILE

    wrote = [folder / RESULT_FILE, folder / TABLE_FILE]
    if result.best is None:
        raise DynabertError(_over_budget(result, folder))
    if result.finetuned:
        end = result.finetuned
        show_next("export", end["output_dir"], "--output_dir", "NEW_DIR", wrote=[*wrote, end["output_dir"]])
    else:
        show_next("extract", result.model, result.best["subnet"], "--output_dir", "NEW_DIR", wrote=wrote)


def _over_budget(result: SearchResult, folder: Path) -> str:
    """The message that no sub-network is within the budget, with the nearest one."""
    from dynabert_paddle.searching.cost import format_cost

    assert result.nearest is not None  # there is one where there is no best
    row = result.nearest
    costs: dict[str, float] = {**row, "latency_ms": row.get("measured_latency_ms", row["latency_ms"])}
    misses = [
        f"{name} {format_cost(costs[name])} where {format_cost(limit)} is allowed ({costs[name] / limit - 1:.1%} more)"
        for name, limit in result.budget.items()
        if costs[name] > limit
    ]
    limit = result.budget.get("latency_ms")
    advice = "allow more"
    if limit and row["latency_ms"] <= limit:  # estimated from a table that was measured earlier
        estimate = format_cost(row["latency_ms"])
        advice = f"its estimate of {estimate} ms fits, so run it again on an idle machine, or {advice}"
    return (
        f"no sub-network is within the budget; the nearest, {row['subnet']}, has {' and '.join(misses)}: {advice}; "
        f"the sub-networks found are in {folder}"
    )


COMMANDS = (search,)
