"""Make the report of a folder."""

from __future__ import annotations

import warnings
from collections.abc import Iterable, Mapping
from pathlib import Path

import matplotlib

from dynabert_paddle.config.names import setting
from dynabert_paddle.data.class_scores import ClassScores
from dynabert_paddle.errors import UsageError, did_you_mean
from dynabert_paddle.files.atomic import handle_write_errors, write_text
from dynabert_paddle.files.folder import BASELINES_FOLDER, RECORDS_FOLDER, REPORT_FILE
from dynabert_paddle.files.metadata import Metadata
from dynabert_paddle.multipliers import FULL_NAME
from dynabert_paddle.reporting.chart import STYLE
from dynabert_paddle.reporting.class_charts import describe_positive, draw_classes
from dynabert_paddle.reporting.classes import score_model_classes
from dynabert_paddle.reporting.collect import collect
from dynabert_paddle.reporting.content import Run
from dynabert_paddle.reporting.curves import draw_training
from dynabert_paddle.reporting.heat_map import draw_grid
from dynabert_paddle.reporting.importance import draw_heads, draw_kept, draw_neurons
from dynabert_paddle.reporting.labels import Text, join, quantity, say
from dynabert_paddle.reporting.page import LANGUAGES, Section, render
from dynabert_paddle.reporting.records import write_records
from dynabert_paddle.reporting.tradeoff import draw_tradeoffs
from dynabert_paddle.searching.recommendation import cheapest_near

# Searched sub-networks in a chart, beside the chosen one; more would not fit on a printed page.
_MAX_SEARCHED = 12


def report(
    folder: str | Path,
    *,
    compare: Iterable[str | Path] = (),
    output_file: str | Path | None = None,
    language: str = "auto",
    visualdl: bool = True,
    per_class: bool = False,
) -> Path:
    """Write the report of a run as one HTML page that needs no other file and no network.

    Args:
        folder: the folder of a run, or of one of its stages.
        compare: folders that `compress` has written, to show beside the run's sub-networks.
        output_file: the page; by default `report.html` in the folder.
        language: the language shown first, `en`, `zh`, or `auto` for the browser's; the page has both.
        visualdl: also write the charts, histograms of importance and scores for VisualDL, to the folder's `vdl_report`.
        per_class: score each class with the full model and the recommended sub-network on the dev set, and show that.

    Returns:
        The page.

    Raises:
        ModelError: the folder holds no run and no stage, or one of its files is damaged; a folder of `compare` is no
            compressed model.
        UsageError: a compressed model of another task, an unknown language, or an output file in a missing folder;
            with `per_class`, a task without classes.
        DynabertError: a file that cannot be written.
    """
    run = collect(folder, compare)
    classes = score_classes_of(run) if per_class else {}
    return write_page(run, output_file=output_file, language=language, visualdl=visualdl, classes=classes)


def write_page(
    run: Run,
    *,
    output_file: str | Path | None,
    language: str,
    visualdl: bool,
    classes: Mapping[str, ClassScores] | None = None,
) -> Path:
    """Write the report of a folder that was read.

    Args:
        run: the content of the folder.
        output_file: as for `report`.
        language: as for `report`.
        visualdl: as for `report`.
        classes: the scores of each class, from `score_classes_of`.

    Returns:
        The page.

    Raises:
        DynabertError: as for `report`.
    """
    if language not in LANGUAGES:
        raise UsageError(f"language is {', '.join(LANGUAGES)}, not {language!r}.{did_you_mean(language, LANGUAGES)}")
    page = Path(output_file) if output_file else run.folder / REPORT_FILE
    if not page.parent.is_dir():
        raise UsageError(f"{page}: there is no folder {page.parent}: make it, or name another file")
    _check_page(page)
    with matplotlib.rc_context(STYLE), warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="Glyph .* missing from")  # the browser has what a label needs
        sections = _sections(run, classes or {})
        text = render(run, sections, language=language)
        with handle_write_errors(page):
            # A damaged file can hold half of a surrogate pair, which UTF-8 cannot.
            write_text(page, text.encode("utf-8", "replace").decode("utf-8"))
        if visualdl:
            write_records(run.folder / RECORDS_FOLDER, run, [chart for part in sections for chart in part.charts])
    return page


def score_classes_of(run: Run) -> dict[str, ClassScores]:
    """Score each class with a run's full model and the sub-network that the report recommends.

    Args:
        run: the content of the folder.

    Returns:
        The scores by the sub-network's name, those of the recommended one last.

    Raises:
        UsageError: no stage has finished, or the task has no classes.
        DynabertError: the model or the data cannot be loaded.
    """
    if run.model is None:
        raise UsageError(f"{run.folder}: no stage has finished yet: leave out {setting('per_class')}")
    return score_model_classes(run.model.folder, list(dict.fromkeys([FULL_NAME, recommend(run) or FULL_NAME])))


def recommend(run: Run) -> str | None:
    """Return the sub-network that the report recommends: the search's best, else the cheapest that is nearly as good.

    Args:
        run: the content of the folder.

    Returns:
        Its name; None if nothing was searched, and the grid has no costs or no full model.
    """
    if run.search and run.search.best:
        return run.search.best.subnet
    if run.grid is None:
        return None
    metric = run.grid.metrics[0]
    rows = {row.subnet: (row.metrics[metric], row.macs) for row in run.grid.rows}
    full_score, _ = rows.get(FULL_NAME, (0.0, None))
    return cheapest_near(((name, score, macs) for name, (score, macs) in rows.items() if macs), full_score)


def _check_page(page: Path) -> None:
    """Refuse to write over a file that is no page, such as one that the report reads."""
    if page.is_file():
        with page.open("rb") as file:
            is_page = file.read(200).lstrip().lower().startswith((b"<!doctype html", b"<html", b"<!--"))
        if not is_page and page.stat().st_size:
            raise UsageError(f"{page} exists and is no HTML page: name another {setting('output_file')}")


def _sections(run: Run, classes: Mapping[str, ClassScores]) -> list[Section]:
    training = tuple(chart for stage in run.stages if (chart := draw_training(stage)))
    return [
        Section(
            say("The grid"),
            (draw_grid(run.grid),) if run.grid else (),
            None if run.grid else say("No scores yet: 'dynabert run' computes them after its last stage."),
        ),
        _tradeoff(run),
        *([_classes(run, classes)] if classes else []),
        _importance(run),
        Section(
            say("Training"),
            training,
            None if training else say("No training was logged here: the stages of 'dynabert run' log theirs."),
        ),
    ]


def _tradeoff(run: Run) -> Section:
    notes: list[Text] = []
    charts = draw_tradeoffs(run)
    if charts:
        notes.append(say("Each chart compares models that were scored on the same data."))
    if run.search:
        if run.search.full.latency_ms is not None:
            notes.append(
                say(
                    "Latency: {batch_size} x {seq_length} tokens, {device}, {num_threads} threads, {precision}, "
                    "estimated from measured layers.",
                    **vars(run.search.setting),
                )
            )
        if run.search.full.standard_error is not None:
            notes.append(say("Scores of the search: bars and ± are standard errors, of examples that chose nobody."))
        best = run.search.best
        if best and best.measured_latency_ms is not None:
            latency = quantity(best.measured_latency_ms, "ms")
            notes.append(
                say("The chosen sub-network {name} was measured: {latency}.", name=best.subnet, latency=latency)
            )
        elif not best and run.search.budget:
            notes.append(say("No sub-network that was found fits the budget."))
    elif run.outdated_search:
        notes.append(
            say(
                "{file} is not shown: it belongs to other weights than the model has now. Run 'dynabert search "
                "{folder} --overwrite_output_dir' again.",
                file=str(run.outdated_search),
                folder=str(run.outdated_search.parents[1]),
            )
        )
    elif run.model:
        notes.append(
            say(
                "No search was made yet: 'dynabert search {folder} --max_latency_ms 12' adds sub-networks beyond the "
                "grid, and latency.",
                folder=str(run.model.folder),
            )
        )
    notes.append(
        say("Fixed-size models: the mean over seeds, with the standard deviation as a bar.")
        if run.baselines
        else say(
            "No fixed-size models are there to compare with: 'dynabert baseline' trains them, with an --output_dir in "
            "{folder}.",
            folder=str(run.folder / BASELINES_FOLDER),
        )
    )
    if run.compressed:
        notes.append(say("Compressed models: the scores that 'dynabert compress' has recorded on the dev set."))
    return Section(say("The trade-off"), tuple(charts), join(*notes))


def _classes(run: Run, classes: Mapping[str, ClassScores]) -> Section:
    task = run.model.metadata.task if run.model else {}
    notes = describe_positive(task.get("metrics") or (), task.get("positive_label"))
    return Section(say("Classes"), tuple(draw_classes(classes)), join(*notes) if notes else None)


def _importance(run: Run) -> Section:
    metadata = run.model.metadata if run.model else Metadata()
    charts = [draw_heads(metadata), draw_neurons(metadata)] if metadata.importance else []
    subnets = {row.subnet: row.subnet for row in run.grid.rows} if run.grid else {}
    if run.search:
        step = -(-len(run.search.pareto) // _MAX_SEARCHED) or 1
        best = run.search.best.subnet if run.search.best else None
        subnets |= {
            f"S{number}": row.subnet
            for number, row in enumerate(run.search.pareto, start=1)
            if (number - 1) % step == 0 or row.subnet == best
        }
    if metadata.heads and subnets:
        charts.insert(1, draw_kept(metadata, subnets))  # on a wide screen the others stand beside this tall one
    missing = None if metadata.importance else say("The importance is not known: 'dynabert rewire' computes it.")
    return Section(say("Importance, and the parts that sub-networks keep"), tuple(charts), missing)
