"""Searches a trained supernet for its best sub-networks."""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from functools import cached_property
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from dynabert_paddle.config.command_settings import SearchConfig
from dynabert_paddle.config.loading import resolve_config
from dynabert_paddle.config.names import setting
from dynabert_paddle.data.described_tasks import load_described_task
from dynabert_paddle.data.embedding_metrics import TEACHER_METRIC
from dynabert_paddle.data.tasks import Task
from dynabert_paddle.errors import ModelError, UsageError
from dynabert_paddle.files.array_hash import hash_arrays
from dynabert_paddle.files.claim import Claim, claim
from dynabert_paddle.files.folder import SEARCH
from dynabert_paddle.files.metadata import Metadata, check_expected
from dynabert_paddle.files.model_folder import check_model_folder
from dynabert_paddle.files.ownership import check_maker, check_replaceable
from dynabert_paddle.files.search_result import SEARCH_FOLDER, SearchResult, hash_weights
from dynabert_paddle.files.unchanged import load_unchanged
from dynabert_paddle.genomes import GenomeSpace
from dynabert_paddle.runtime.home import user_path
from dynabert_paddle.runtime.interruption import resumable
from dynabert_paddle.runtime.ranks import is_rank_zero, num_processes
from dynabert_paddle.search_space import SearchSpace
from dynabert_paddle.searching.check import check_searchable
from dynabert_paddle.searching.cost import CostModel
from dynabert_paddle.searching.doubt import describe_doubt
from dynabert_paddle.searching.estimate import Estimate
from dynabert_paddle.searching.evolution import Evolution, evolve, read_rows
from dynabert_paddle.searching.examples import choose_examples
from dynabert_paddle.searching.finals import Finals, Outcome
from dynabert_paddle.searching.finetune import finetune_subnet
from dynabert_paddle.searching.guide import initial_genomes
from dynabert_paddle.searching.judge import Judge, make_judge
from dynabert_paddle.searching.latency import latency_table, measure_latency
from dynabert_paddle.searching.latency_setting import check_length
from dynabert_paddle.searching.objectives import Objectives
from dynabert_paddle.searching.ranks import DistributedScorer
from dynabert_paddle.searching.shared import SharedResults, SharedScorer
from dynabert_paddle.searching.study import METRIC_SETTINGS, STUDY_FILE, check_genomes, database_errors, open_study
from dynabert_paddle.subnet import Subnet
from dynabert_paddle.supernet.supernet import Supernet, load_model
from dynabert_paddle.training import processes
from dynabert_paddle.training.data_warnings import warn_about_task
from dynabert_paddle.training.evaluate import trained_space
from dynabert_paddle.training.inputs import match_task
from dynabert_paddle.training.progress import show_progress

logger = logging.getLogger(__name__)


def search(
    model: Supernet | str | Path,
    task: Task | None = None,
    *,
    output_dir: str | Path | None = None,
    config: SearchConfig | None = None,
    force: bool = False,
    overwrite: bool = False,
    expected: Metadata | None = None,
) -> SearchResult:
    """Search a supernet for sub-networks with high scores and low costs, or resume an interrupted search.

    Args:
        model: a trained supernet, or its folder.
        task: the task to score on; by default the one that the supernet was trained for.
        output_dir: folder for `study.db`, `search.json` and `pareto.csv`; by default `search` in the supernet's folder.
        config: budget, goals and settings of the search.
        force: accept a supernet whose width or depth was not trained.
        overwrite: discard an existing search and begin anew.
        expected: the supernet's metadata, if `task` was made from them.

    Returns:
        The Pareto front, and the best sub-network within the budget.

    Raises:
        DynabertError: the reason, in one line.
    """
    config = resolve_config(SearchConfig, asdict(config or SearchConfig()))
    objectives = Objectives.from_config(config)
    if config.finetune_steps and num_processes() > 1:
        raise UsageError(
            f"{setting('search.finetune_steps')} needs a single process: start it without paddle.distributed.launch"
        )
    folder = _output_folder(model, output_dir)
    supernet, weights = _load(model)
    source = "this model" if isinstance(model, Supernet) else str(model)
    check_expected(source, expected, supernet.metadata)
    check_searchable(supernet.metadata, source, force=force)
    if objectives.need_latency:
        check_length(supernet, objectives.setting)
    task = task or load_described_task(supernet.metadata.task)
    task = match_task(supernet, task, source)
    if task.kind == "embedding" and config.score_on == "holdout":  # where nobody has judged the texts
        task = replace(task, metrics=(TEACHER_METRIC,))
    warn_about_task(task, supernet, is_fixed=True)
    judge = make_judge(supernet, task, choose_examples(task, supernet.metadata, config), config)
    distributed = DistributedScorer(judge)
    if not is_rank_zero():
        return distributed.serve()
    with claim(folder, SEARCH) as claimed:
        check_maker(folder, SEARCH)
        if overwrite:
            check_replaceable(folder, SEARCH, overwrite=True, inputs=task.files.values())
        name = "" if isinstance(model, Supernet) else str(model)
        job = _Search(name, weights, supernet, task, judge, distributed, objectives, config, claimed)
        result = job.run(overwrite=overwrite)
    distributed.finish(result)
    return result


def _output_folder(model: Supernet | str | Path, output_dir: str | Path | None) -> Path:
    if isinstance(model, Supernet):
        if not output_dir:
            raise UsageError("the model has no folder, so the search needs one for its results: pass output_dir")
        return user_path(output_dir)
    check_model_folder(model)
    folder, own = user_path(output_dir or Path(model) / SEARCH_FOLDER), user_path(model).resolve()
    if folder.resolve() in (own, *own.parents):
        raise UsageError(f"{folder} holds the supernet: name another {setting('output_dir')}")
    return folder


def _load(model: Supernet | str | Path) -> tuple[Supernet, str]:
    """Load the model; returns it with the hash of its weights, which are the same in all processes."""
    if isinstance(model, Supernet):
        return model, _hash(model)
    folder = user_path(model)
    loaded = load_unchanged(folder, lambda: (load_model(folder), hash_weights(folder)), ModelError)
    processes.check_equal(loaded[1], f"{folder} was replaced while the processes loaded it: start again")
    return loaded


def _hash(model: Supernet) -> str:
    """Hash the weights of a model in memory; they are saved first, for the same hash as of its folder."""
    with TemporaryDirectory(prefix="dynabert-search-") as scratch:
        return hash_weights(model.save_pretrained(Path(scratch) / "model"))


@dataclass(frozen=True)
class _Search:
    """One search, as rank zero runs it."""

    model: str
    weights: str
    supernet: Supernet
    task: Task
    judge: Judge
    distributed: DistributedScorer
    objectives: Objectives
    config: SearchConfig
    claimed: Claim

    @property
    def folder(self) -> Path:
        """The search's folder."""
        return self.claimed.folder

    @cached_property
    def scorer(self) -> DistributedScorer | SharedScorer:
        """What measures: this process and its ranks alone, or together with other searches."""
        if self.config.storage is None:
            return self.distributed
        results = SharedResults(self.config.storage, self._settings(self.weights))
        return SharedScorer(self.distributed, results, trained_space(self.supernet).name)

    def run(self, *, overwrite: bool) -> SearchResult:
        """Search, choose the best sub-network, and save the result."""
        space, objectives = trained_space(self.supernet), self.objectives
        genomes = GenomeSpace.of(space)
        weights = self.weights
        if (self.folder / STUDY_FILE).exists() and not overwrite:  # fail early: the latency table takes minutes
            open_study(self.folder, self._settings(weights), goals=objectives.goals)
        _ = self.scorer  # likewise a storage that cannot be reached
        table = latency_table(self.supernet, objectives.setting) if objectives.need_latency else None
        costs = CostModel(space, table).costs
        objectives.budget.check_units(costs(genomes.decode(genomes.smallest)), costs(space.full))
        if overwrite:  # only after all checks, so that a refused search deletes nothing
            self.claimed.clear()
        found = self._evolve(genomes, costs, weights)
        complete = {row["subnet"]: row["score"] for row in found if not row["stopped"]}
        grid = space.grid()
        scores = {**self._score_cells(grid, complete), **complete}
        rows = [{"subnet": name, "score": score, **costs(space.parse(name))} for name, score in scores.items()]
        outcome = self._choose(space, rows, num_evaluated=len(found))
        result = SearchResult(
            model=self.model,
            weights=weights,
            task=self.task.name,
            metric=self.task.metrics[0],
            score=self.config.score,
            split=self.config.score_on,
            num_examples=self.judge.fresh.features.num_scored,
            num_chosen_on=self.judge.num_chosen_on,
            setting=objectives.setting.to_dict(),
            goals=objectives.goals,
            budget=objectives.budget.limits,
            num_evaluated=len(found),
            full=next(row for row in outcome.grid if row["subnet"] == space.name(space.full)),
            grid=outcome.grid,
            pareto=outcome.front,
            best=outcome.best,
            nearest=outcome.nearest,
            doubt=outcome.doubt,
        )
        self.claimed.check()
        result.save(self.folder)
        if doubt := describe_doubt(result):
            logger.warning("%s", doubt)
        if result.best and self.config.finetune_steps:
            best = space.parse(result.best["subnet"])
            result = replace(result, finetuned=self._finetune(best, result.best["score"]))
            result.save(self.folder)
        return result

    def _evolve(
        self, genomes: GenomeSpace, costs: Callable[[Subnet], Mapping[str, Any]], weights: str
    ) -> list[dict[str, Any]]:
        config, total = self.config, min(self.config.num_evaluations, genomes.count())
        study = open_study(self.folder, self._settings(weights), goals=self.objectives.goals)
        check_genomes(self.folder, study, genomes)
        initial = initial_genomes(genomes, self.supernet.metadata.importance)
        evolution = Evolution(genomes, self.objectives.goals, costs, initial, config.population_size, config.seed)
        with (
            database_errors(self.folder),
            resumable("search", lambda: f" after {len(read_rows(study))} of {total} sub-networks"),
            show_progress("search", total) as report,
        ):
            evolve(study, evolution, self.scorer.score, num_evaluations=total, report=report)
        return read_rows(study)

    def _settings(self, weights: str) -> dict[str, Any]:
        """What must be unchanged to resume an interrupted search."""
        config, described = self.config, self.task.to_dict()
        return {
            "weights": weights,
            "task": self.task.name,
            "metric": self.task.metrics[0],
            **{key: described.get(key) for key in METRIC_SETTINGS},
            **{key: getattr(config, key) for key in ("score", "score_on", "population_size", "seed")},
            "data": hash_arrays(self.judge.content),
            **self.objectives.resume_settings(),
        }

    def _score_cells(self, grid: Mapping[str, Subnet], known: Mapping[str, float]) -> dict[str, float]:
        """Return the scores of the grid's cells; only those that the search has not scored are scored here."""
        missing = [name for name in grid if name not in known]
        scores = self.scorer.score([grid[name] for name in missing], [float("-inf")] * len(missing))
        new = {name: score.value for name, score in zip(missing, scores, strict=True)}
        return {name: known[name] if name in known else new[name] for name in grid}

    def _choose(self, space: SearchSpace, rows: Sequence[dict[str, Any]], *, num_evaluated: int) -> Outcome:
        def measure(names: Sequence[str], sample: int | str) -> list[Mapping[str, Estimate]]:
            return self.scorer.measure([space.parse(name) for name in names], sample)

        def measure_latencies(names: Sequence[str]) -> dict[str, float]:
            return measure_latency(self.supernet, {name: space.parse(name) for name in names}, self.objectives.setting)

        goals, budget = self.objectives.goals, self.objectives.budget
        finals = Finals(tuple(space.grid()), goals, budget, self.judge, measure, measure_latencies)
        return finals.run(rows, num_evaluated=num_evaluated)

    def _finetune(self, subnet: Subnet, before: float) -> dict[str, Any]:
        output_dir, steps = self.folder / "best", self.config.finetune_steps
        small = finetune_subnet(self.supernet, subnet, self.task, steps=steps, output_dir=output_dir)
        (measured,) = replace(self.judge.fresh, supernet=small)([small.full])
        after = measured[self.judge.metric].value
        return {"output_dir": str(output_dir), "steps": steps, "before": before, "after": after}
