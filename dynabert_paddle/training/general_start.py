"""The stages of a run that read raw text in place of a task's rows, and how a task begins with what they have made."""

from __future__ import annotations

from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

from dynabert_paddle.backbone.loading import MASKED_LM, find_backbone
from dynabert_paddle.config.names import setting
from dynabert_paddle.config.settings import ENCODING_SETTINGS, Config
from dynabert_paddle.data.raw_texts import open_raw_texts
from dynabert_paddle.data.tasks import Task
from dynabert_paddle.errors import ModelError, UsageError
from dynabert_paddle.files.array_hash import hash_arrays
from dynabert_paddle.files.metadata import Metadata, check_expected, read_metadata
from dynabert_paddle.files.model_config import read_config
from dynabert_paddle.runtime.home import user_path
from dynabert_paddle.runtime.seeds import set_seed
from dynabert_paddle.supernet.supernet import Supernet
from dynabert_paddle.text.tokenizer import Tokenizer
from dynabert_paddle.training import processes
from dynabert_paddle.training.checkpoint import claim_output
from dynabert_paddle.training.general import check_without_dev, predicts_words, rewire_general, train_general
from dynabert_paddle.training.logging import logger
from dynabert_paddle.training.made_of import check_hashes, load_and_hash
from dynabert_paddle.training.masked_lm import load_masked_lm

_MASKED_LMS = (MASKED_LM, "ForPretraining", "ForPreTraining")  # ends of architectures that may have such a head
_WITHOUT_LABELS = ("rewire", "general")


def prepare_config(config: Config) -> Config:
    """Let the stages before general read its texts.

    Args:
        config: a run's settings.

    Returns:
        The settings.

    Raises:
        UsageError: a stage with labels comes before general, or there is no file.
    """
    if "general" not in config.stages:
        return config
    before = config.stages[: config.stages.index("general")]
    for name in before:
        if name not in _WITHOUT_LABELS:
            raise UsageError(
                f"{setting('stages')}: general begins with a pretrained backbone, and {name} gives it a task: put "
                f"general before {name}"
            )
    if not config.general.text_file:
        raise UsageError(
            f"the stage general needs raw text: name a file, one text a line, with {setting('general.text_file')}"
        )
    check_without_dev(config.general)
    if "rewire" in before:
        check_without_dev(config.rewire)
    if "rewire" in before and not config.rewire.text_file:
        config = replace(config, rewire=replace(config.rewire, text_file=config.general.text_file))
    return config


def is_without_labels(name: str, config: Config) -> bool:
    """Whether a stage reads raw text, and no task."""
    return name == "general" or (name == "rewire" and config.rewire.text_file is not None)


def run_without_labels(
    name: str,
    config: Config,
    *,
    source: str | Path,
    output_dir: str | Path,
    overwrite: bool = False,
    expected: Metadata | None = None,
) -> Supernet:
    """Run a stage that reads raw text, from a folder or a backbone's name to a folder.

    Args:
        name: rewire or general.
        config: holds the stage's settings and the search space.
        source: a pretrained model, or the folder of such a stage.
        output_dir: where the result goes.
        overwrite: replace what is in `output_dir`.
        expected: the metadata of `source`, if the settings were made from them.

    Returns:
        The model that the stage made, as it was saved.

    Raises:
        DynabertError: with the reason in one line.
    """
    set_seed(getattr(config, name).seed)  # what a backbone lacks of a head is new, and stays as it is
    supernet, weights = load_and_hash(source, partial(_load_pretrained, source))
    check_expected(source, expected, supernet.metadata)
    before = supernet.metadata
    if before.stage and not before.is_general:
        raise UsageError(
            f"{source} was made by the stage {before.stage} for a task, and {name} from raw text begins with a "
            f"pretrained backbone: name one, or leave out {setting(f'{name}.text_file')}"
        )
    if min(config.space.embedding_rank_mult_list) < 1 and predicts_words(supernet):
        raise UsageError(
            f"{setting('space.embedding_rank_mult_list')}: the embedding of {source} is tied to the head that predicts "
            "masked words, and has no ranks: leave it out"
        )
    origin = {} if before.stage else {"parent": source, "parent_hash": weights}
    encoding: dict[str, Any] = {key: getattr(config.task, key) for key in ENCODING_SETTINGS}
    settings: dict[str, Any] = {**encoding, **origin}
    space = config.space
    if name == "general":
        return train_general(
            supernet,
            supernet.search_space(
                width_mults=space.width_mult_list,
                depth_mults=space.depth_mult_list,
                rank_mults=space.embedding_rank_mult_list,
            ),
            output_dir=output_dir,
            config=config.general,
            overwrite=overwrite,
            **settings,
        )
    text_file = config.rewire.text_file
    inputs = [text_file] if text_file else []
    with claim_output(user_path(output_dir), "rewire", overwrite=overwrite, inputs=inputs) as claimed:
        ranks = space.embedding_rank_mult_list
        rewire_general(supernet, config=config.rewire, rank_mults=ranks, **settings)
        processes.on_rank_zero(partial(supernet.save_claimed, claimed))
    return supernet


def _load_pretrained(source: str | Path) -> Supernet:
    """Load a model with the head that predicts masked words, if it has one."""
    folder = find_backbone(source)
    if folder is not None and not read_metadata(folder).stage:
        architecture = str((read_config(folder).get("architectures") or [""])[0])
        if architecture.endswith(_MASKED_LMS):
            try:
                return Supernet(load_masked_lm(folder), Tokenizer.from_pretrained(folder))
            except ModelError as error:
                logger.warning("%s; its hidden states and attention relations alone are distilled", error)
    return Supernet.from_pretrained(source)


def with_classifier(source: str | Path, task: Task, *, seed: int) -> Supernet:
    """Load a model that has learned from raw text, with a new classifier.

    Args:
        source: its folder.
        task: has the labels.
        seed: the new weights follow from it.

    Returns:
        The model, whose metadata describe the task in part: `run_stage` completes them.
    """
    set_seed(seed)
    supernet = Supernet.from_pretrained(source, labels=task.labels, num_labels=task.num_outputs, head=task.head)
    logger.info("%s has learned from raw text: the classifier for task %r is new", source, task.name)
    supernet.metadata = supernet.metadata.replace(task={"kind": task.kind})
    return supernet


def check_texts(folder: Path, before: Metadata, name: str, config: Config) -> None:
    """Refuse a finished stage that has read other texts, or read them otherwise, than this run does.

    Args:
        folder: the stage's folder.
        before: its metadata.
        name: rewire or general.
        config: the run's settings.

    Raises:
        UsageError: something differs.
    """
    for key in ENCODING_SETTINGS:
        if (was := before.task.get(key)) not in (None, value := getattr(config.task, key)):
            raise UsageError(
                f"{folder} was made with {key} = {was}, this run has {value}: name another {setting('output_dir')}, or "
                f"remove {folder} and the stages after it"
            )
    settings = getattr(config, name)
    if settings.text_file and user_path(settings.text_file).is_file():
        key = f"{name}.text_file"
        size, seed = settings.holdout_size, settings.seed
        with open_raw_texts(settings.text_file, holdout_size=size, seed=seed, key=key) as texts:
            check_hashes(folder, before, {"train": hash_arrays([texts.fingerprint])})
