"""The whole chain: every stage in its folder, finished ones skipped, then the grid on the dev set."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from dataclasses import asdict, replace
from functools import partial
from pathlib import Path
from typing import Any

from dynabert_paddle.backbone.loading import BUILT_IN
from dynabert_paddle.config.loading import parse_yaml
from dynabert_paddle.config.names import setting
from dynabert_paddle.config.options import lasting_settings, later_defaults, recorded_settings
from dynabert_paddle.config.run_file import HEADER, MODEL_SETTINGS, PATH_SETTINGS, is_written, locate, relative_inside
from dynabert_paddle.config.settings import ENCODING_SETTINGS, STAGES, Config, RewireConfig
from dynabert_paddle.data.described_tasks import load_task_config
from dynabert_paddle.data.tasks import Task
from dynabert_paddle.errors import DataError, DynabertError, UsageError
from dynabert_paddle.files.atomic import handle_write_errors, write_json, write_text
from dynabert_paddle.files.claim import Claim, claim
from dynabert_paddle.files.folder import (
    BASELINE,
    BASELINES_FOLDER,
    CONFIG_FILE,
    GRID_FILE,
    RECORDS_FOLDER,
    REPORT_FILE,
    RUN,
    check_ours,
    is_free,
    is_output_folder,
    read_object,
)
from dynabert_paddle.files.metadata import METADATA_FILE, Metadata, check_expected, read_metadata
from dynabert_paddle.files.ownership import check_maker, check_removable
from dynabert_paddle.runtime.home import user_path
from dynabert_paddle.search_space import SearchSpace
from dynabert_paddle.supernet.extract import extract
from dynabert_paddle.supernet.supernet import Supernet
from dynabert_paddle.training import general_start, processes, stages
from dynabert_paddle.training.checkpoint import check_output, claim_output, tidy_finished
from dynabert_paddle.training.class_weights import check_label_loss
from dynabert_paddle.training.embedding_start import load_to_embed, name_of_start, stages_of
from dynabert_paddle.training.evaluate import evaluate_grid, recorded_grid
from dynabert_paddle.training.inputs import check_apart, match_task
from dynabert_paddle.training.logging import logger
from dynabert_paddle.training.made_of import check_data, check_hashes, hash_data, hash_source
from dynabert_paddle.training.stage import describe_task


def run(config: Config, *, overwrite: bool = False) -> list[dict[str, Any]]:
    """Run the stages of a config; finished ones are skipped, an interrupted one is resumed.

    Args:
        config: the run.
        overwrite: begin anew: remove the files of an earlier run from the output folder.

    Returns:
        The grid on the dev set, one row a sub-network, as it stands in `grid.json`; without labels, on held-out texts.

    Raises:
        DynabertError: with the reason in one line.
    """
    if not config.stages:
        raise UsageError(f"{setting('stages')}: name at least one, for example [finetune, rewire, width, depth]")
    config = general_start.prepare_config(config)
    needs_task = not all(general_start.is_without_labels(name, config) for name in config.stages)
    task = load_task_config(config.task) if needs_task else None
    if task:
        config = replace(config, stages=stages_of(task, config.stages))
    for name in config.stages:  # now, rather than after the stages before
        if task and not general_start.is_without_labels(name, config):
            check_label_loss(task, getattr(config, name), section=name)
    output_dir = user_path(config.output_dir)
    _check_maker(output_dir, overwrite=overwrite)
    _check_users_files(output_dir)
    if overwrite or not (output_dir / config.stages[0] / METADATA_FILE).exists():
        # Now, rather than after hours of fine-tuning: a model that loads and has the heads for every width.
        start = config.model_name_or_path
        loaded = load_to_embed(start, task)[0] if task and task.kind == "embedding" else Supernet.from_pretrained(start)
        _check_grid(loaded, config)
    with claim(output_dir, RUN, unused=(CONFIG_FILE,)) as claimed:
        source: str | Path = config.model_name_or_path
        processes.on_rank_zero(partial(_prepare, claimed, config, task, overwrite=overwrite))
        for name in config.stages:
            folder = output_dir / name
            claimed.check()
            if (folder / METADATA_FILE).exists():
                teacher = getattr(getattr(config, name), "teacher_name_or_path", None)
                processes.on_rank_zero(partial(_check_start, name, folder, source, teacher))
                logger.info("%s: finished before, in %s", name, folder)
                processes.on_rank_zero(partial(tidy_finished, folder, name))
            else:
                run_stage(name, config, task, source=source, output_dir=folder)
            source = folder
        supernet = Supernet.from_pretrained(source)
        if task is None or supernet.metadata.is_general:
            split, rows = recorded_grid(supernet)
        else:
            batch_size = config.finetune.per_device_eval_batch_size
            split, rows = "dev", evaluate_grid(supernet, task, batch_size=batch_size)
        grid = {"split": split, "model": str(source), "rows": rows}
        if task and task.positive_label is not None:
            grid["positive_label"] = task.positive_label
        claimed.check()
        processes.on_rank_zero(partial(_write_grid, output_dir / GRID_FILE, grid))
    return rows


def run_stage(
    name: str,
    config: Config,
    task: Task | None,
    *,
    source: str | Path,
    output_dir: str | Path,
    teacher: str | Path | None = None,
    overwrite: bool = False,
    expected: Metadata | None = None,
) -> Supernet:
    """Run one stage from a folder to a folder.

    Args:
        name: finetune, rewire, width, depth, general or final.
        config: holds the stage's settings and the search space.
        task: the task; None for a stage that reads raw text.
        source: the model that the stage starts from.
        output_dir: where the result goes.
        teacher: the model that the stage distils from; by default that of its settings, else the one that the stage
            starts from. In the stage width that one computes what the fine-tuned model computes, its heads and neurons
            in another order.
        overwrite: replace what is in `output_dir`.
        expected: the metadata of `source`, if the settings were made from them.

    Returns:
        The model that the stage made, as it was saved.

    Raises:
        DynabertError: with the reason in one line.
    """
    settings = getattr(config, name)
    check_apart(source, output_dir)
    teacher = teacher or getattr(settings, "teacher_name_or_path", None)
    if teacher:
        check_apart(teacher, output_dir)
    if general_start.is_without_labels(name, config):
        return general_start.run_without_labels(
            name, config, source=source, output_dir=output_dir, overwrite=overwrite, expected=expected
        )
    assert task is not None
    if name == "finetune":
        return stages.finetune(
            source,
            task,
            config=settings,
            max_seq_length=config.task.max_seq_length,
            special_tokens_in_text=config.task.special_tokens_in_text,
            output_dir=output_dir,
            overwrite=overwrite,
        )

    weights = None
    if task.kind == "embedding":
        supernet, weights = load_to_embed(source, task)
    else:
        supernet = Supernet.from_pretrained(source)
    check_expected(source, expected, supernet.metadata)
    if name == "final" and supernet.metadata.is_general:
        supernet = general_start.with_classifier(source, task, seed=config.final.seed)
    start = None if supernet.metadata.stage else name_of_start(source)
    task = match_task(supernet, task, source)
    encoding = {name: getattr(config.task, name) for name in ENCODING_SETTINGS}
    supernet.read_special_tokens(config.task.special_tokens_in_text)
    supernet.metadata = supernet.metadata.replace(task=describe_task(task, **encoding))
    if name == "rewire":
        ranks = config.space.embedding_rank_mult_list
        begin = partial(stages.rewire, parent=start, parent_hash=weights if start else None)
        return _rewire(supernet, task, settings, ranks, user_path(output_dir), begin=begin, overwrite=overwrite)
    space = _grid_space(supernet, config)
    if name == "width":
        teaching = Supernet.from_pretrained(teacher) if teacher else extract(supernet, supernet.full)
        return stages.train_width(
            supernet, teaching, task, space, config=settings, output_dir=output_dir, overwrite=overwrite
        )
    if name == "depth":
        other = Supernet.from_pretrained(teacher) if teacher else None
        return stages.train_depth(
            supernet, task, space, teacher=other, config=settings, output_dir=output_dir, overwrite=overwrite
        )
    return stages.train_final(supernet, task, space, config=settings, output_dir=output_dir, overwrite=overwrite)


def _rewire(
    supernet: Supernet,
    task: Task,
    config: RewireConfig,
    rank_mults: Sequence[float],
    output_dir: Path,
    *,
    begin: Callable[..., Supernet],
    overwrite: bool,
) -> Supernet:
    with claim_output(output_dir, "rewire", overwrite=overwrite, inputs=task.files.values()) as claimed:
        begin(supernet, task, config=config, rank_mults=rank_mults)
        processes.on_rank_zero(partial(supernet.save_claimed, claimed))
    return supernet


def _grid_space(supernet: Supernet, config: Config) -> SearchSpace:
    space = config.space
    return supernet.search_space(
        width_mults=space.width_mult_list,
        depth_mults=space.depth_mult_list,
        rank_mults=space.embedding_rank_mult_list,
    )


def _check_grid(supernet: Supernet, config: Config) -> None:
    """Refuse a grid that a backbone does not have, nor will have once it is rewired."""
    if "rewire" not in config.stages and config.stages != ("finetune",):
        _grid_space(supernet, config)
        return
    grid = config.space
    space = supernet.search_space(width_mults=grid.width_mult_list, depth_mults=grid.depth_mult_list, rank_mults=(1.0,))
    space.with_ranks(grid.embedding_rank_mult_list)


def _check_maker(output_dir: Path, *, overwrite: bool) -> None:
    """Refuse a folder that something else has made; without `overwrite`, one of the user's gets the run's files."""
    check_maker(output_dir, RUN)
    if overwrite and output_dir.is_dir() and not is_free(output_dir):
        check_ours(output_dir)


def _check_users_files(output_dir: Path) -> None:
    """Refuse to replace files of the user's that have the names of a run's."""
    path = output_dir / CONFIG_FILE
    with handle_write_errors(path):
        config = path.read_text(encoding="utf-8", errors="replace") if path.exists() else None
    if config is not None and not is_written(config):
        raise UsageError(
            f"{path} is a config of your own, which the settings of this run would replace: give it another name, or "
            f"name another {setting('output_dir')}"
        )
    path = output_dir / GRID_FILE
    if path.exists() and not is_output_folder(output_dir) and read_object(path, "split", "rows") is None:
        raise UsageError(
            f"{path} is a file of your own, which the scores of this run would replace: give it another name, or name "
            f"another {setting('output_dir')}"
        )


def _prepare(claimed: Claim, config: Config, task: Task | None, *, overwrite: bool) -> None:
    """Refuse settings that would fail later in the run, and write them to its folder."""
    output_dir = claimed.folder
    texts = [path for name in config.stages for path in _find_texts(name, getattr(config, name))]
    texts += [path for section in (config.rewire, config.general) if (path := section.text_file)]
    if overwrite:
        _clear(claimed, config.model_name_or_path, [*(task.files.values() if task else ()), *texts])
    for name in config.stages:
        if (output_dir / name / METADATA_FILE).exists():
            _check_finished(name, output_dir / name, config, task)
        else:
            check_output(output_dir / name, name, overwrite=False)
    _keep_config(output_dir / CONFIG_FILE, config)


def _write_grid(path: Path, grid: dict[str, Any]) -> None:
    with handle_write_errors(path):
        write_json(path, grid)


def _clear(claimed: Claim, model: str, inputs: list[str]) -> None:
    """Remove a run's files and the results made from them; other files in its folder stay."""
    output_dir = claimed.folder
    baselines = [path for path in (output_dir / BASELINES_FOLDER).glob("*") if is_output_folder(path)]
    makers = {output_dir / name: name for name in STAGES} | dict.fromkeys(baselines, BASELINE)
    with ExitStack() as stack:
        claims = []
        for folder, maker in makers.items():  # before the first one goes
            check_apart(model, folder)
            if folder.is_file():
                raise UsageError(f"{folder} is a file: name another {setting('output_dir')}")
            if folder.is_dir():
                claims.append(stack.enter_context(claim(folder, maker)))
                if not is_free(folder):
                    check_removable(folder, maker, inputs=inputs)
        claimed.check()
        for claimed_folder in claims:
            claimed_folder.clear()
    records = (output_dir / RECORDS_FOLDER).glob("vdlrecords.*")
    for path in (*(output_dir / name for name in (CONFIG_FILE, GRID_FILE, REPORT_FILE)), *records):
        path.unlink(missing_ok=True)
    for folder in (output_dir / BASELINES_FOLDER, output_dir / RECORDS_FOLDER):
        if folder.is_dir() and is_free(folder):
            shutil.rmtree(folder, ignore_errors=True)


def _check_finished(name: str, folder: Path, config: Config, task: Task | None) -> None:
    """Refuse to take a stage for finished that was finished with other settings, labels or data."""
    metadata, settings = read_metadata(folder), getattr(config, name)
    before = {**later_defaults(settings), **metadata.provenance.get("settings", {}), **metadata.space}
    now = {**later_defaults(settings), **lasting_settings(settings), "width_mults": list(config.space.width_mult_list)}
    if name != "finetune":
        before.setdefault("rank_mults", [1.0])
        now["rank_mults"] = list(config.space.embedding_rank_mult_list)
    if before.get("depth_mults") != [1.0]:  # a stage of full depth, whose grid may name others
        now["depth_mults"] = list(config.space.depth_mult_list)
    if now.get("text_file"):  # likewise
        before["text_file"] = before.get("text_file") and now["text_file"]
    if now.get("augmented_file") and "augmented" in metadata.provenance.get("made_of", {}):
        before["augmented_file"] = before.get("augmented_file") and now["augmented_file"]  # its hash is compared
    if now.get("unlabelled_files") and "unlabelled" in metadata.provenance.get("made_of", {}):
        before["unlabelled_files"] = before.get("unlabelled_files") and now["unlabelled_files"]
    if now.get("teacher_name_or_path"):  # its hash is compared, too
        before["teacher_name_or_path"] = before.get("teacher_name_or_path") and now["teacher_name_or_path"]
    before = {key: tuple(value) if isinstance(now.get(key), tuple) else value for key, value in before.items()}
    for key, value in now.items():
        if before.get(key, value) != value:
            raise UsageError(
                f"{folder} was made with {key} = {before[key]}, this run has {value}: name another "
                f"{setting('output_dir')}, or remove {folder} and the stages after it"
            )
    encoding = {name: getattr(config.task, name) for name in ENCODING_SETTINGS}
    if task is None or general_start.is_without_labels(name, config):
        general_start.check_texts(folder, metadata, name, config)
        return
    check_data(folder, metadata, task, hash_data(task, settings), **encoding)


def _check_start(name: str, folder: Path, source: str | Path, teacher: str | None) -> None:
    """Refuse a finished stage that was made of other weights than the stage before it, or the backbone, has now."""
    # The teacher of a run's width stage is by default the whole model that the stage starts from.
    named = teacher or (source if name == "width" else None)
    teachers = {"teacher": hash_source(named, whole_model=True)} if named else {}
    check_hashes(folder, read_metadata(folder), {"model": hash_source(source), **teachers})


def _find_texts(name: str, settings: Any) -> list[str]:
    """The further texts of a stage; a missing file is an error before the first stage, rather than hours later."""
    path = getattr(settings, "augmented_file", None)
    if path and not user_path(path).is_file():
        raise DataError(
            f"{path}: no such file; make it with 'dynabert augment', or leave out {setting(f'{name}.augmented_file')}"
        )
    unlabelled = getattr(settings, "unlabelled_files", ())
    for other in unlabelled:
        if not user_path(other).is_file():
            raise DataError(f"{other}: no such file: leave it out of {setting(f'{name}.unlabelled_files')}")
    return [*([path] if path else []), *unlabelled]


def _keep_config(path: Path, config: Config) -> None:
    """Save the resolved config; refuse a folder that holds another model's or another task's run."""
    import yaml

    # With a recipe a setting that the file lacks would be the recipe's, not the default.
    settings = recorded_settings(config) if config.recipe == Config.recipe else asdict(config)
    values = _from_anywhere(json.loads(json.dumps(settings)))  # tuples become lists, as YAML has them
    if path.exists():
        try:
            before = _flatten(locate(parse_yaml(path.read_text(encoding="utf-8"), str(path)), path.parent.absolute()))
        except (OSError, UsageError, ValueError, AttributeError, TypeError):
            raise DynabertError(f"{path}: damaged: remove it to go on with the settings of this run") from None
        for key, value in _flatten(values).items():
            if key.partition(".")[0] in ("model_name_or_path", "task", "space") and before.get(key, value) != value:
                raise UsageError(
                    f"{path.parent} holds a run with {key} = {before[key]}, this one has {value}: "
                    f"name another {setting('output_dir')}, or pass {setting('overwrite_output_dir')}"
                )
    with handle_write_errors(path):
        values = relative_inside(values, path.parent.absolute())
        write_text(path, HEADER + yaml.safe_dump(values, sort_keys=False, allow_unicode=True))


def _from_anywhere(values: dict[str, Any]) -> dict[str, Any]:
    """Settings with absolute paths, so that `run.yaml` runs, and compares, wherever it is called from."""
    changed: dict[str, Any] = {}
    for key, value in values.items():
        if isinstance(value, dict):
            changed[key] = _from_anywhere(value)
        elif value and (key in ("output_dir", *PATH_SETTINGS) or (key in MODEL_SETTINGS and _is_folder(value))):
            one = not isinstance(value, list)
            paths = [str(user_path(path).absolute()) for path in ([value] if one else value)]
            changed[key] = paths[0] if one else paths
    return values | changed


def _is_folder(model: str) -> bool:
    return model not in BUILT_IN and user_path(model).is_dir()


def _flatten(values: dict[str, Any]) -> dict[str, Any]:
    """Settings by dotted key."""
    flat: dict[str, Any] = {}
    for key, value in values.items():
        flat |= {f"{key}.{name}": item for name, item in value.items()} if isinstance(value, dict) else {key: value}
    return flat
