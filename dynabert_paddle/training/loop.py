"""The training loop of every stage: take a batch, compute the step's losses, backward, step, log, evaluate, save."""

from __future__ import annotations

import itertools
import math
import signal
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import asdict, replace
from functools import partial
from typing import Any

import numpy as np
import paddle

from dynabert_paddle.backbone.loading import set_arrays, to_arrays
from dynabert_paddle.config.loading import resolve_config
from dynabert_paddle.config.names import setting
from dynabert_paddle.config.options import recorded_settings
from dynabert_paddle.errors import DynabertError, Interrupted, ModelError, UsageError
from dynabert_paddle.files.atomic import handle_write_errors
from dynabert_paddle.runtime.environment import keep_freed_memory
from dynabert_paddle.runtime.ranks import rank
from dynabert_paddle.runtime.seeds import step_seed
from dynabert_paddle.runtime.streams import TERMINATING, is_ignored
from dynabert_paddle.supernet.calls import PassState
from dynabert_paddle.supernet.cpu_operations import random_bits
from dynabert_paddle.supernet.quantized import find_bits
from dynabert_paddle.supernet.slices import SliceCache
from dynabert_paddle.supernet.sparsity import keep_zeros
from dynabert_paddle.supernet.supernet import Supernet
from dynabert_paddle.training import processes
from dynabert_paddle.training.batches import StepBatches, count_steps, step_batches, steps_between_evaluations
from dynabert_paddle.training.checkpoint import (
    TrainState,
    claim_output,
    load_checkpoint,
    remove_checkpoints,
    save_checkpoint,
)
from dynabert_paddle.training.class_weights import check_label_loss, find_class_weights
from dynabert_paddle.training.data_warnings import warn_about_training
from dynabert_paddle.training.early_stopping import check_early_stopping, describe_stop, has_stopped_early
from dynabert_paddle.training.evaluate import evaluate_subnets
from dynabert_paddle.training.inputs import Split, match_labels, split_task
from dynabert_paddle.training.latent_weights import LatentWeights
from dynabert_paddle.training.logging import LOG_FOLDER, RunLog, logger
from dynabert_paddle.training.optimizer import MIN_LOSS_SCALE, apply_gradients, learning_rate_at, make_optimizer
from dynabert_paddle.training.replicas import Replicas, count_replicas
from dynabert_paddle.training.stage import Stage, finished_metadata, hash_origins, resume_settings
from dynabert_paddle.training.start_score import describe_decline, score_full_model
from dynabert_paddle.training.steps import Losses
from dynabert_paddle.training.teacher_vectors import prepare_selection
from dynabert_paddle.training.thresholds import measure_thresholds
from dynabert_paddle.training.weight_average import WeightAverage

_STOPPING = (*TERMINATING, signal.SIGINT)
MAX_CACHED_ELEMENTS = 2**25  # of each replica's slices: with their gradients at most 256 MB


def train(stage: Stage, *, overwrite: bool = False) -> Supernet:
    """Run a stage: train its model, resume where a run was interrupted, and write the finished model's folder.

    Under `paddle.distributed.launch` all processes call this. They share the rows of each batch and sum their gradients
    once a step; only the first process writes.

    Args:
        stage: the specification.
        overwrite: replace what is in the output folder.

    Returns:
        The stage's model with the best weights.

    Raises:
        Interrupted: SIGINT, SIGTERM or SIGHUP came; a checkpoint is written.
        UsageError: the output folder is not free, or holds an unfinished run with other settings.
        DynabertError: the loss or a gradient is not finite, something cannot be written, or another process has ended;
            earlier checkpoints stay.
    """
    config = resolve_config(type(stage.config), asdict(stage.config))  # a caller in Python may have passed anything
    task = match_labels(stage.model, stage.task, "the model")
    if stage.teacher and match_labels(stage.teacher, task, "the teacher").labels != task.labels:
        raise UsageError(
            f"the teacher has the model's labels in another order: {', '.join(stage.teacher.labels or ())} in place of "
            f"{', '.join(task.labels)}: distil from the model that this one was made of"
        )
    check_label_loss(task, config, section=stage.name)
    stage = replace(stage, config=config, task=task)
    is_inherited = stage.config_section is not None
    model, split = stage.model, split_task(stage.task, stage.model, config, is_inherited=is_inherited)
    if task.kind == "embedding":
        stage, split = prepare_selection(stage, split)
    check_early_stopping(stage, len(split.train))
    start = to_arrays(model.model)
    settings, hashes = resume_settings(stage, split, start), hash_origins(stage, start)
    processes.check_equal(str(settings), f"{stage.name}: the processes have read different data or models: start again")
    with claim_output(stage.output_dir, stage.name, overwrite=overwrite, inputs=stage.inputs) as claimed:
        warn_about_training(stage.task, split, model, config, is_fixed=is_inherited)
        logger.info("%s: %d training examples, %d to select on", stage.name, len(split.train), len(split.select))
        score_before = score_full_model(stage, split)
        try:
            state = fit(stage, split, settings=settings, check_output=claimed.check)
        except Interrupted:
            set_arrays(model.model, start)  # so that the same call resumes from the checkpoint
            raise
        if decline := describe_decline(stage, split, score_before, state):
            logger.warning("%s", decline)
        batch_size = config.per_device_eval_batch_size
        thresholds = measure_thresholds(model, task, split.select, stage.subnets, batch_size=batch_size)
        model.metadata = finished_metadata(stage, split, state, hashes, thresholds)
        claimed.check()
        if stage.write_results:
            stage.write_results(state)
        processes.on_rank_zero(partial(model.save_claimed, claimed))
        processes.on_rank_zero(partial(remove_checkpoints, stage.output_dir))
    return model


def fit(
    stage: Stage, split: Split, *, settings: dict[str, Any], check_output: Callable[[], None] = lambda: None
) -> TrainState:
    """Train from the newest checkpoint to the last step, and leave the best weights in the model.

    Args:
        stage: the specification; its output folder gets logs and checkpoints.
        split: the tokenized examples.
        settings: an interrupted run is resumed only if its settings are equal.
        check_output: called before anything is written; raises if the output folder is another one by now.

    Returns:
        The state after the last step.

    Raises:
        DynabertError: as in `train`.
    """
    keep_freed_memory()
    if stage.config.amp != "off" and paddle.get_device() == "cpu":
        logger.warning("amp %s: Paddle has no mixed precision on a CPU; training in float32", stage.config.amp)
        stage = replace(stage, config=replace(stage.config, amp="off"))
    config, model, output_dir = stage.config, stage.model, stage.output_dir
    total_steps = count_steps(len(split.train), config)
    eval_steps = steps_between_evaluations(len(split.train), config)
    class_weights = find_class_weights(stage.task, config, split.train.targets, section=stage.name)
    optimizer = make_optimizer(model, config)
    scaler = paddle.amp.GradScaler(enable=config.amp == "fp16")
    latent = LatentWeights(model.model) if find_bits(model.model) else None
    if latent and config.ema_decay:
        raise UsageError(f"{setting('train.ema_decay')}: an average of rounded weights is not rounded: leave it out")
    average = WeightAverage(model.model, config.ema_decay) if config.ema_decay else None
    state = load_checkpoint(
        output_dir, model.model, optimizer, scaler, settings=settings, latent=latent, average=average
    )
    if state.step > total_steps:
        raise ModelError(f"{output_dir}: holds a checkpoint of step {state.step} of {total_steps}: remove it")
    if state.step:
        logger.info("%s: going on from step %d of %d", stage.name, state.step, total_steps)
    elif (output_dir / LOG_FOLDER).exists():
        logger.warning("%s: an earlier run has left no checkpoint: beginning with the first step", stage.name)
    model.train()
    log = RunLog(
        output_dir,
        stage.name,
        total_steps=total_steps,
        first_step=state.step,
        hparams=recorded_settings(config),
        metrics=[f"eval/{stage.metric}/{name}" for name in stage.subnets],
    )
    # The same number in each process, whatever its machine has: shards are numbered over all processes.
    replicas = Replicas(model, min(processes.gather(count_replicas())))
    batches = step_batches(
        split.train,
        config,
        model.pad_token_id,
        first_step=state.step,
        num_replicas=len(replicas),
        class_weights=class_weights,
    )
    has_ended = partial(has_stopped_early, stage, state, eval_steps)
    begin = time.perf_counter() - state.seconds
    saved = time.monotonic()
    # Errors of save_checkpoint name the checkpoint's folder instead.
    with handle_write_errors(output_dir), log, replicas, _stop_requests() as stop:
        while state.step < total_steps and not has_ended():
            learning_rate = learning_rate_at(state.step, total_steps, config)
            optimizer.set_lr(learning_rate)
            batch = next(batches)
            state.examples += batch.num_examples
            losses = _optimizer_step(stage, replicas, optimizer, scaler, batch, index=state.step, latent=latent)
            state.step += 1
            if stage.pruning:
                stage.pruning.prune(model, optimizer, state.step)
            if average:
                average.update(state.step)
            log.advance()
            check_output()
            last = state.step == total_steps
            if state.step % config.logging_steps == 0 or last:
                log.train(state.step, {**losses, "learning_rate": learning_rate})
            if state.step % eval_steps == 0 or last:
                _check_weights(stage, state.step)
                with average.applied() if average else nullcontext():
                    _evaluate(stage, split, state, log)
                last = last or has_ended()
            state.seconds = time.perf_counter() - begin
            is_due = 0 < config.save_minutes <= (time.monotonic() - saved) / 60
            stopping, is_due = _agree(stop, is_due)  # a signal that comes after this is for the next step
            if stopping or last or is_due or (config.save_steps and state.step % config.save_steps == 0):
                _check_weights(stage, state.step)
                save = partial(save_checkpoint, output_dir, state, model.model, optimizer, scaler)
                save = partial(save, latent=latent, average=average)
                processes.on_rank_zero(partial(save, settings=settings))
                saved = time.monotonic()
            if stopping:  # after the last step, too, so that nothing after this stage begins
                message = f"{stage.name}: stopped after step {state.step} of {total_steps}"
                raise Interrupted(f"{message}; the same command goes on from there", exit_code=128 + stopping)
    if state.step < total_steps:
        logger.info("%s", describe_stop(stage, state, total_steps))
    set_arrays(model.model, state.best_arrays)
    return state


def _optimizer_step(
    stage: Stage,
    replicas: Replicas,
    optimizer: paddle.optimizer.Optimizer,
    scaler: paddle.amp.GradScaler,
    batch: StepBatches,
    *,
    index: int,
    latent: LatentWeights | None,
) -> dict[str, float]:
    """Compute all gradients of a step, sum them, and step; returns the mean loss and its parts."""
    config = stage.config
    paddle.seed(step_seed(config.seed, index, rank()))
    seeds = [step_seed(config.seed, index, rank() * len(replicas) + number) for number in range(len(replicas))]
    states = [PassState(SliceCache(MAX_CACHED_ELEMENTS), random_bits(seed)) for seed in seeds]
    num_micro_batches = len(batch.shards[0])

    def run(replica: Supernet, number: int) -> list[dict[str, float]]:
        with _autocast(config.amp):
            return [
                _backward(stage.step(replica, shard, index=index, state=states[number]), scaler, num_micro_batches)
                for shard in batch.shards[number]
            ]

    totals: dict[str, float] = {}
    for losses in itertools.chain.from_iterable(replicas.map(run)):
        for name, value in losses.items():
            totals[name] = totals.get(name, 0.0) + value / num_micro_batches
    totals = processes.sum_values(totals)
    if not math.isfinite(totals["loss"]):
        stage.model.clear_gradients()
        raise _diverged(stage, f"the loss is {totals['loss']} at step {index + 1}")
    replicas.sum_gradients([state.slices for state in states])
    processes.sum_gradients(stage.model.model.parameters())
    with latent.step() if latent else nullcontext(), keep_zeros(stage.model):
        next_scale = apply_gradients(optimizer, scaler)
    if next_scale is not None:
        overflow = f"gradients overflow float16 at step {index + 1}"
        if next_scale < MIN_LOSS_SCALE:
            raise _diverged(stage, f"{overflow} at every loss scale")
        logger.warning(
            "%s: %s; the step is skipped, the loss scale is %g from now on", stage.name, overflow, next_scale
        )
    return totals


def _backward(step: Iterator[Losses], scaler: paddle.amp.GradScaler, num_micro_batches: int) -> dict[str, float]:
    """Call backward for each loss that a step yields; returns the means of the losses and their parts."""
    passes = []
    for losses in step:
        scaler.scale(losses["loss"] / num_micro_batches).backward()
        passes.append({name: value.detach() for name, value in losses.items()})
    return {name: float(sum(losses[name] / len(passes) for losses in passes)) for name in passes[0]}


def _check_weights(stage: Stage, step: int) -> None:
    """Refuse weights that are not finite: a finite loss can have a gradient that is not."""
    if not all(bool(paddle.isfinite(parameter).all()) for parameter in stage.model.model.parameters()):
        raise _diverged(stage, f"the loss's gradient has left weights that are not finite at step {step}")


def _diverged(stage: Stage, what: str) -> DynabertError:
    without_amp = "" if stage.config.amp == "off" else " or turn amp off"
    return DynabertError(
        f"{stage.name}: {what}; checkpoints before it stay: lower the learning rate ({stage.config.learning_rate:g})"
        f"{without_amp}, remove this stage's folder, and start again"
    )


def _evaluate(stage: Stage, split: Split, state: TrainState, log: RunLog) -> None:
    """Score the stage's sub-networks, and keep the weights if their mean score is the best so far."""
    if stage.score:
        scores = stage.score(stage.model, split.select, stage.subnets)
    else:
        scores = evaluate_subnets(
            stage.model,
            split.select,
            stage.subnets,
            metrics=stage.task.metrics,
            batch_size=stage.config.per_device_eval_batch_size,
        )
    log.evaluation(state.step, scores, split.select_name)
    if stage.pruning and state.step < stage.pruning.last_step:
        return
    score = float(np.mean([row[stage.metric] for row in scores.values()]))
    if score > state.best_score or not state.best_arrays:
        state.best_score, state.best_step = score, state.step
        state.best_metrics = {name: dict(row) for name, row in scores.items()}
        state.best_arrays = to_arrays(stage.model.model)


def _autocast(amp: str) -> AbstractContextManager[Any]:
    if amp == "off":
        return nullcontext()
    return paddle.amp.auto_cast(level="O1", dtype="bfloat16" if amp == "bf16" else "float16")


def _agree(requests: list[int], is_due: bool) -> tuple[int, bool]:
    """Return the signal that stops the run, 0 for none, and whether to save: the same in all processes."""
    counts = {f"{number:d}": float(number in requests) for number in _STOPPING}
    totals = processes.sum_values({**counts, "due": float(is_due)})
    is_due = totals.pop("due") > 0
    return next((int(number) for number, count in totals.items() if count), 0), is_due


@contextmanager
def _stop_requests() -> Iterator[list[int]]:
    """Collect signals to stop, so that a step can end before the run does; a second Ctrl-C stops at once."""
    requests: list[int] = []
    if threading.current_thread() is not threading.main_thread():
        yield requests
        return

    def request(number: int, frame: object) -> None:
        requests.append(number)
        if signal.SIGINT in previous:
            signal.signal(signal.SIGINT, previous[signal.SIGINT])

    previous: dict[int, Any] = {}
    try:
        for number in _STOPPING:
            if not is_ignored(number):
                previous[number] = signal.signal(number, request)
                signal.siginterrupt(number, False)  # Paddle's store takes an interrupted call for an ended process
        yield requests
    finally:
        for number, handler in previous.items():
            signal.signal(number, handler)
    if requests:  # that came too late for a step to see
        signal.raise_signal(requests[-1])
