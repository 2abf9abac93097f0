"""The HTML page: facts about the folder, charts with their tables, settings and provenance."""

from __future__ import annotations

import json
from collections.abc import Iterable
from dataclasses import dataclass

from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup

from dynabert_paddle.files.metadata import Metadata
from dynabert_paddle.reporting.chart import Chart, Table
from dynabert_paddle.reporting.content import Run, Search
from dynabert_paddle.reporting.labels import Text, say, split_name

LANGUAGES = ("auto", "en", "zh")


@dataclass(frozen=True)
class Section:
    """One part of the page.

    Args:
        title: its heading.
        charts: its charts.
        note: remarks on all of its charts, and missing parts with the command that makes them.
    """

    title: Text
    charts: tuple[Chart, ...]
    note: Text | None = None


def render(run: Run, sections: Iterable[Section], *, language: str) -> str:
    """Write the page.

    Args:
        run: the content of the folder.
        sections: the charts.
        language: the language shown first: `en`, `zh`, or `auto` for the browser's.

    Returns:
        HTML that needs no other file and no network.
    """
    environment = Environment(
        loader=PackageLoader("dynabert_paddle.reporting"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.globals |= {"say": say, "svg": lambda chart: Markup(chart.svg())}
    return environment.get_template("report.html").render(
        run=run,
        sections=list(sections),
        language=language,
        facts=_facts(run),
        stages=_stages(run),
        versions=run.model.metadata.provenance.get("versions", {}) if run.model else {},
        provenance=json.dumps(run.model.metadata.provenance, ensure_ascii=False, indent=2) if run.model else "",
    )


def _facts(run: Run) -> list[tuple[Text, Text | str]]:
    """The summary under the page's title."""
    metadata = run.model.metadata if run.model else Metadata()
    task = dict(metadata.task) or ({"name": run.config.task.name} if run.config else {})
    is_stage = [stage.folder for stage in run.stages] == [run.folder]
    what = say("{folder} (one stage)" if is_stage else "{folder} (a run)", folder=str(run.folder))
    facts: list[tuple[Text, Text | str]] = [(say("folder"), what)]
    if "name" in task:
        labels = task.get("labels") or ()
        many = say("{name} ({count} labels)", name=task["name"], count=len(labels))
        facts.append((say("task"), many if labels else str(task["name"])))
    backbone = run.config.model_name_or_path if run.config else _root(metadata)
    if backbone:
        facts.append((say("backbone"), backbone))
    if metadata.heads:
        size = say(
            "{layers} layers, {heads} heads and {neurons} neurons in each",
            layers=len(metadata.heads),
            heads="-".join(map(str, sorted(set(metadata.heads)))),
            neurons="-".join(map(str, sorted(set(metadata.neurons)))),
        )
        facts.append((say("model"), size))
    if run.stages:
        facts.append((say("stages"), ", ".join(stage.name for stage in run.stages)))
    if run.search:
        facts.append((say("search"), _searched(run.search)))
    return facts


def _searched(search: Search) -> Text:
    values: dict[str, Text | int] = {
        "count": search.num_evaluated,
        "examples": search.num_examples,
        "split": split_name(search.split),
    }
    if search.score == "divergence":
        return say(
            "{count} sub-networks compared by their divergence from the full model; scores on {examples} examples of "
            "{split}",
            **values,
        )
    return say("{count} sub-networks scored on {examples} examples of {split}", **values)


def _root(metadata: Metadata) -> str:
    """The name that the first stage started from, at the end of the chain of parents."""
    parent = metadata.provenance.get("parent", "")
    while isinstance(parent, dict):
        parent = parent.get("parent", "")
    return str(parent)


def _stages(run: Run) -> Table:
    """One row a stage: its state, seed, steps and folder."""
    rows: list[tuple[Text | str, ...]] = []
    for stage in run.stages:
        metadata = stage.metadata
        settings = metadata.provenance.get("settings", {})
        facts = (settings.get("seed"), metadata.metrics.get("steps"), metadata.metrics.get("best_step"))
        done = say("finished") if metadata.stage else say("in progress")
        rows.append((stage.name, done, *("" if fact is None else str(fact) for fact in facts), str(stage.folder)))
    columns = (say("stage"), say("state"), say("seed"), say("steps"), say("best step"), say("folder"))
    return Table(columns, tuple(rows))
