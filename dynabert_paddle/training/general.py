"""Task-agnostic supernets: a pretrained backbone rewired and distilled into all of its sub-networks, from raw text."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import paddle

from dynabert_paddle.backbone.loading import MASKED_LM, set_arrays, to_arrays
from dynabert_paddle.backbone.structure import num_positions
from dynabert_paddle.config.loading import resolve_config
from dynabert_paddle.config.names import setting
from dynabert_paddle.config.options import lasting_settings
from dynabert_paddle.config.settings import GeneralConfig, RewireConfig, TaskConfig
from dynabert_paddle.data.batches import sequential_batches
from dynabert_paddle.data.features import Features, FeatureSet
from dynabert_paddle.data.raw_texts import RawTexts, open_raw_texts
from dynabert_paddle.data.readers import Columns, Examples
from dynabert_paddle.data.tasks import Task
from dynabert_paddle.distill.general import hidden_cosine
from dynabert_paddle.distill.losses import token_rows
from dynabert_paddle.errors import Interrupted, UsageError
from dynabert_paddle.files.array_hash import hash_arrays, hash_model
from dynabert_paddle.files.metadata import RAW_TEXT
from dynabert_paddle.rewiring.components import sort_embedding
from dynabert_paddle.rewiring.importance import RandomProjection, compute_importance
from dynabert_paddle.rewiring.permute import sort_by_importance
from dynabert_paddle.runtime.home import user_path
from dynabert_paddle.runtime.ranks import num_processes, rank
from dynabert_paddle.search_space import SearchSpace
from dynabert_paddle.subnet import Subnet
from dynabert_paddle.supernet.calls import PassState
from dynabert_paddle.supernet.extract import extract
from dynabert_paddle.supernet.quantized import find_bits
from dynabert_paddle.supernet.slices import SliceCache
from dynabert_paddle.supernet.supernet import Supernet, to_tensors
from dynabert_paddle.training import processes
from dynabert_paddle.training.checkpoint import claim_output, remove_checkpoints
from dynabert_paddle.training.early_stopping import check_early_stopping
from dynabert_paddle.training.inputs import Split
from dynabert_paddle.training.logging import logger
from dynabert_paddle.training.loop import fit
from dynabert_paddle.training.masking import Masking
from dynabert_paddle.training.predict import MAX_CACHED_ELEMENTS
from dynabert_paddle.training.stage import Stage, provenance_of, trained_mults
from dynabert_paddle.training.steps import general_step
from dynabert_paddle.training.text_stream import TextStream, tokenize_texts

HIDDEN_COSINE = "hidden_cosine"
_HOLDOUT = "holdout"


def rewire_general(
    supernet: Supernet,
    *,
    config: RewireConfig,
    rank_mults: Sequence[float] = (1.0,),
    max_seq_length: int = TaskConfig.max_seq_length,
    special_tokens_in_text: bool = TaskConfig.special_tokens_in_text,
    parent: str | Path | None = None,
    parent_hash: str | None = None,
) -> Supernet:
    """Sort a pretrained model's heads and neurons by their importance for its hidden states, in place.

    Args:
        supernet: a pretrained model, or one of the stage general.
        config: names the raw text, and how much of it to read.
        rank_mults: shares of the word embedding's components that later stages are to train.
        max_seq_length: longer inputs are cut to this number of tokens.
        special_tokens_in_text: whether the text of a special token in a text is that token.
        parent: name of the pretrained model.
        parent_hash: hash of its weights, if it has a folder.

    Returns:
        The same supernet, whose full model computes what it computed before.

    Raises:
        DynabertError: with the reason in one line.
    """
    config = resolve_config(RewireConfig, asdict(config))
    check_without_dev(config)
    _read_texts_as(supernet, max_seq_length, special_tokens_in_text)
    with _open(config, "rewire") as texts:
        features = _tokenize_held_out(texts, supernet)
    space = supernet.search_space(rank_mults=(1.0,)).with_ranks(rank_mults)
    logger.info("rewire: computing the importance of heads and neurons on %d texts, without labels", len(features))
    hashes = {"train": hash_arrays([texts.fingerprint]), "model": parent_hash or hash_model(to_arrays(supernet.model))}
    begin = time.perf_counter()

    def batches() -> Any:
        for rows in sequential_batches(features.lengths, config.per_device_eval_batch_size):
            yield features.collate(rows, supernet.pad_token_id)

    importance = compute_importance(supernet, batches(), RandomProjection(config.seed), of_hidden=True)
    importance = sort_by_importance(supernet, importance)
    if space.has_ranks:
        sort_embedding(supernet, batches())
    supernet.metadata = supernet.metadata.replace(
        stage="rewire",
        space={**supernet.metadata.space, **({"rank_mults": list(rank_mults)} if space.has_ranks else {})},
        importance=importance.to_dict(),
        metrics={},
        provenance=provenance_of(
            config,
            parent=supernet.metadata.provenance if parent is None else str(parent),
            examples=len(features),
            seconds=time.perf_counter() - begin,
            hashes=hashes,
        ),
    )
    return supernet


def train_general(
    supernet: Supernet,
    space: SearchSpace,
    *,
    output_dir: str | Path,
    config: GeneralConfig,
    max_seq_length: int = TaskConfig.max_seq_length,
    special_tokens_in_text: bool = TaskConfig.special_tokens_in_text,
    parent: str | Path | None = None,
    parent_hash: str | None = None,
    overwrite: bool = False,
) -> Supernet:
    """Distil a pretrained model into all of its sub-networks, from raw text: into their hidden states and relations.

    The teacher is the model itself as the stage begins.

    Args:
        supernet: the pretrained model, rewired or not, trained in place.
        space: its width and depth multipliers are trained.
        output_dir: where the model goes; an interrupted run in it is resumed.
        config: names the raw text, and how to train.
        max_seq_length: tokens of the longest input.
        special_tokens_in_text: whether the text of a special token in a text is that token.
        parent: name of the pretrained model, if this is the first stage.
        parent_hash: hash of its weights, if it has a folder.
        overwrite: replace what is in `output_dir`.

    Returns:
        The same supernet, with the best weights; `finetune` and `train_final` give it a classifier.

    Raises:
        DynabertError: with the reason in one line.
    """
    config = resolve_config(GeneralConfig, asdict(config))
    check_without_dev(config)
    if find_bits(supernet.model):
        raise UsageError("a quantized model is not distilled in general: do that first, and quantize_aware then")
    _read_texts_as(supernet, max_seq_length, special_tokens_in_text)
    stage = _make_stage(supernet, space, user_path(output_dir), config)
    with _open(config, "general") as texts:
        return _train(stage, texts, parent=parent, parent_hash=parent_hash, overwrite=overwrite)


def _make_stage(supernet: Supernet, space: SearchSpace, output_dir: Path, config: GeneralConfig) -> Stage:
    """Specify the stage, all but its texts."""
    teacher = extract(supernet, supernet.full)
    subnets = space.grid()
    text_file = user_path(config.text_file or "")
    nothing = Examples([], None, None, text_file)  # what is read is a stream
    return Stage(
        name="general",
        model=supernet,
        task=Task(
            name=RAW_TEXT,
            kind=RAW_TEXT,
            labels=(),
            metrics=(HIDDEN_COSINE,),
            columns=Columns("text"),
            train=nothing,
            dev=nothing,
            files={"text_file": str(text_file)},
        ),
        step=general_step(teacher, subnets, config, space=space),
        subnets=subnets,
        config=config,
        output_dir=output_dir,
        space=space,
        teacher=teacher,
        score=partial(score_hidden, teacher, batch_size=config.per_device_eval_batch_size),
    )


def _train(
    stage: Stage, texts: RawTexts, *, parent: str | Path | None, parent_hash: str | None, overwrite: bool
) -> Supernet:
    """As `loop.train`, on texts without labels."""
    supernet, subnets, config = stage.model, stage.subnets, stage.config
    assert supernet.tokenizer is not None and stage.space is not None and isinstance(config, GeneralConfig)
    masking = None
    if predicts_words(supernet):
        masking = Masking.of(supernet.tokenizer, supernet.model.config.vocab_size, config.mlm_probability)
    stream = TextStream(texts, supernet.tokenizer, supernet.metadata.max_seq_length, masking)
    held_out = Examples(list(texts.held_out), None, None, texts.path)
    split = Split(stream, _tokenize_held_out(texts, supernet), _HOLDOUT, held_out)
    check_early_stopping(stage, len(split.train))
    start = to_arrays(supernet.model)
    data = hash_arrays(split.train.content)
    settings = {
        **{key: value for key, value in lasting_settings(config).items() if key != "text_file"},  # its hash is here
        "stage": stage.name,
        "num_processes": num_processes(),
        "sub-networks": list(subnets),
        "data": data,
        "selection data": hash_arrays(split.select.content),
        "model": hash_arrays(start.values()),
    }
    hashes = {"train": hash_arrays([texts.fingerprint]), "model": parent_hash or hash_model(start)}
    processes.check_equal(str(settings), "general: the processes have read different texts or models: start again")
    with claim_output(stage.output_dir, stage.name, overwrite=overwrite, inputs=stage.inputs) as claimed:
        logger.info(
            "general: %d texts to learn from, %d held out to select on; no labels", len(split.train), len(split.select)
        )
        try:
            state = fit(stage, split, settings=settings, check_output=claimed.check)
        except Interrupted:
            set_arrays(supernet.model, start)
            raise
        before = supernet.metadata
        supernet.metadata = before.replace(
            stage=stage.name,
            space=trained_mults(stage.space, subnets),
            metrics={_HOLDOUT: state.best_metrics, "best_step": state.best_step, "steps": state.step},
            provenance=provenance_of(
                config,
                parent=before.provenance if parent is None else str(parent),
                examples=state.examples,
                seconds=state.seconds,
                hashes=hashes,
            ),
        )
        claimed.check()
        processes.on_rank_zero(partial(supernet.save_claimed, claimed))
        processes.on_rank_zero(partial(remove_checkpoints, stage.output_dir))
    return supernet


def score_hidden(
    teacher: Supernet,
    supernet: Supernet,
    features: FeatureSet,
    subnets: Mapping[str, Subnet],
    *,
    batch_size: int = 64,
) -> dict[str, dict[str, float]]:
    """Compare sub-networks with a teacher; the processes of `paddle.distributed.launch` share the work.

    Args:
        teacher: the teacher.
        supernet: the model.
        features: tokenized texts.
        subnets: sub-networks by name.
        batch_size: texts at a time.

    Returns:
        By the sub-network's name `hidden_cosine`: the mean over tokens of the cosine of the last hidden states.
    """
    was_training = supernet.training
    supernet.eval()
    sums, count = dict.fromkeys(subnets, 0.0), 0.0
    state, teacher_state = (PassState(SliceCache(MAX_CACHED_ELEMENTS)) for _ in range(2))
    with paddle.no_grad():
        for number, rows in enumerate(sequential_batches(features.lengths, batch_size)):
            if number % num_processes() != rank():
                continue
            inputs = to_tensors(features.collate(rows, supernet.pad_token_id))
            tokens = token_rows(inputs["attention_mask"])
            target = teacher(state=teacher_state, **inputs).hidden_states[-1]
            embeddings = supernet.embed_ranks(subnets.values(), state=state, **inputs)
            for name, subnet in subnets.items():
                output = supernet(subnet, embedding=embeddings[subnet.embedding_rank], state=state, **inputs)
                cosines = hidden_cosine(output.hidden_states[-1], target, tokens).numpy()
                sums[name] += float(cosines.sum(dtype=np.float64))
            count += float(inputs["attention_mask"].sum())
    if was_training:
        supernet.train()
    totals = processes.sum_values({**sums, "": count})
    return {name: {HIDDEN_COSINE: totals[name] / totals[""]} for name in subnets}


def predicts_words(supernet: Supernet) -> bool:
    """Whether a model's logits are those of masked words."""
    return type(supernet.model).__name__.endswith(MASKED_LM)


def check_without_dev(config: RewireConfig | GeneralConfig) -> None:
    """Refuse settings that let a stage read a dev set: raw text has none.

    Args:
        config: the stage's settings.

    Raises:
        UsageError: it would read one.
    """
    if isinstance(config, RewireConfig) and config.accumulation == "huawei":
        raise UsageError(
            f"{setting('rewire.accumulation')} is huawei, which reads a dev set: raw text has none, leave it out"
        )
    if isinstance(config, GeneralConfig) and config.select_on == "dev":
        raise UsageError(f"{setting('general.select_on')} is dev, and raw text has no dev set: set it to holdout")


def _open(config: RewireConfig | GeneralConfig, section: str) -> RawTexts:
    key = f"{section}.text_file"
    if not config.text_file:
        raise UsageError(f"{section} without labels needs raw text: name a file, one text a line, with {setting(key)}")
    return open_raw_texts(config.text_file, holdout_size=config.holdout_size, seed=config.seed, key=key)


def _tokenize_held_out(texts: RawTexts, supernet: Supernet) -> Features:
    assert supernet.tokenizer is not None
    return tokenize_texts(texts.held_out, supernet.tokenizer, supernet.metadata.max_seq_length)


def _read_texts_as(supernet: Supernet, max_seq_length: int, special_tokens_in_text: bool) -> None:
    """Let a model read texts as its later stages do, and record that it has no task."""
    if supernet.tokenizer is None:
        raise UsageError("a supernet needs its tokenizer to read text: Supernet(model, tokenizer)")
    positions = num_positions(supernet.model.config)
    if max_seq_length > positions:
        raise UsageError(
            f"{setting('task.max_seq_length')} is {max_seq_length}, more than the model's {positions} positions: "
            "pass a smaller one"
        )
    supernet.read_special_tokens(special_tokens_in_text)
    encoding = {"max_seq_length": max_seq_length, "special_tokens_in_text": special_tokens_in_text}
    supernet.metadata = supernet.metadata.replace(task={"kind": RAW_TEXT, **encoding})
