"""The one training loop. A stage supplies the work of a step and the score; the loop does the rest."""

from __future__ import annotations

import itertools
import math
import signal
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, nullcontext
from dataclasses import asdict, dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import paddle
from paddle import Tensor

from dynabert_paddle.backbone.loading import set_arrays, to_arrays
from dynabert_paddle.config.settings import TrainConfig
from dynabert_paddle.data.batches import length_bucketed_batches
from dynabert_paddle.data.features import FeatureSet
from dynabert_paddle.errors import DynabertError, Interrupted
from dynabert_paddle.files.atomic import writing
from dynabert_paddle.runtime.environment import keep_freed_memory
from dynabert_paddle.runtime.ranks import num_processes, rank
from dynabert_paddle.runtime.seeds import step_seed
from dynabert_paddle.subnet import Subnet
from dynabert_paddle.supernet.cpu_operations import fast_gradients
from dynabert_paddle.supernet.supernet import Supernet, to_tensors
from dynabert_paddle.training import processes
from dynabert_paddle.training.checkpoint import TrainState, load_checkpoint, save_checkpoint
from dynabert_paddle.training.logging import RunLog, logger
from dynabert_paddle.training.loss_scale import LEAST_SCALE, apply_gradients
from dynabert_paddle.training.replicas import Replicas, count_replicas
from dynabert_paddle.training.share import Share, take_share

# Does a batch's forward and backward passes; is given the model, the step, the batch, what to call instead of
# `loss.backward()`, and what part of the whole batch this one is, by which every loss is to be multiplied; returns the
# loss and its parts. Several threads call it at a time, each with a replica of the model.
Step = Callable[[Supernet, int, dict[str, Tensor], Callable[[Tensor], None], Share], dict[str, Tensor]]
Scores = Mapping[str, Mapping[str, float]]


@dataclass(frozen=True)
class Stage:
    """What differs between stages.

    Args:
        name: of the stage.
        step: the work of one batch.
        evaluate: scores the sub-networks below.
        subnets: by name.
        metric: the metric of which their mean is to be highest.
        split: the data that `evaluate` reads.
    """

    name: str
    step: Step
    evaluate: Callable[[], Scores]
    subnets: Mapping[str, Subnet]
    metric: str
    split: str


def train(
    supernet: Supernet,
    features: FeatureSet,
    stage: Stage,
    *,
    config: TrainConfig,
    output_dir: Path,
    settings: Mapping[str, Any],
) -> TrainState:
    """Train until the last step, from the newest checkpoint on, and leave the best weights in the model.

    Under `paddle.distributed.launch` all processes call this. They share each batch's rows, and add up their gradients
    once a step; only the first one writes.

    Args:
        supernet: trained in place.
        features: the training examples.
        stage: the work of a step, and the score.
        config: how to train.
        output_dir: gets logs and checkpoints.
        settings: what an interrupted run must have in common with this one to be resumed.

    Returns:
        The state after the last step.

    Raises:
        Interrupted: SIGINT or SIGTERM came; a checkpoint is written.
        UsageError: an unfinished run with other settings is there.
        DynabertError: the loss or a gradient is not finite, something cannot be written, or another process has ended;
            earlier checkpoints stay.
    """
    keep_freed_memory()
    total_steps = count_steps(len(features), config)
    eval_steps = config.eval_steps or steps_per_epoch(len(features), config)

    if config.amp != "off" and paddle.get_device() == "cpu":
        logger.warning("amp %s: Paddle has no mixed precision on a CPU; training in float32", config.amp)
        config = replace(config, amp="off")
    optimizer = make_optimizer(supernet, config)
    scaler = paddle.amp.GradScaler(enable=config.amp == "fp16")
    state = load_checkpoint(output_dir, supernet.model, optimizer, scaler, settings=settings)
    if state.step:
        logger.info("%s: going on from step %d of %d", stage.name, state.step, total_steps)
    supernet.train()
    log = RunLog(
        output_dir,
        stage.name,
        total_steps=total_steps,
        first_step=state.step,
        hparams=asdict(config),
        metrics=[f"eval/{stage.metric}/{name}" for name in stage.subnets],
    )
    # As many in each process, whatever its machine has: the parts of a batch are numbered throughout.
    replicas = Replicas(supernet, min(processes.gather(count_replicas())))
    batches = _batches_from(state.step, features, config, supernet.pad_token_id, num_replicas=len(replicas))
    begin = time.perf_counter() - state.seconds
    with writing(output_dir), log, replicas, _stop_requests() as stop:  # of a checkpoint the error says so itself
        while state.step < total_steps:
            learning_rate = _learning_rate(state.step, total_steps, config)
            optimizer.set_lr(learning_rate)
            num_examples, shares = next(batches)
            state.examples += num_examples
            parts = _optimizer_step(replicas, optimizer, scaler, stage, state.step, shares, config)
            state.step += 1
            log.advance()
            last = state.step == total_steps
            if state.step % config.logging_steps == 0 or last:
                log.train(state.step, {**parts, "learning_rate": learning_rate})
            if state.step % eval_steps == 0 or last:
                _check_weights(supernet, stage, state.step, config)
                _keep_best(supernet, stage, state, log)
            state.seconds = time.perf_counter() - begin
            stopping = _agreed(stop)  # a request that comes after this is for the next step
            due = stopping or last or (config.save_steps and state.step % config.save_steps == 0)
            if due:
                _check_weights(supernet, stage, state.step, config)
                save = partial(save_checkpoint, output_dir, state, supernet.model, optimizer, scaler)
                processes.lead(partial(save, settings=settings))
            if stopping:  # after the last step, too: whatever would come after it shall not begin
                message = f"{stage.name}: stopped after step {state.step} of {total_steps}"
                exit_code = 130 if stopping == signal.SIGINT else 0
                raise Interrupted(f"{message}; the same command goes on from there", exit_code=exit_code)
    set_arrays(supernet.model, state.best_arrays)
    return state


def count_steps(num_examples: int, config: TrainConfig) -> int:
    """Count the optimizer steps of a run.

    Args:
        num_examples: training examples.
        config: how to train.

    Returns:
        `max_steps`, or what `num_train_epochs` come to.
    """
    return config.max_steps or max(1, math.ceil(config.num_train_epochs * steps_per_epoch(num_examples, config)))


def steps_per_epoch(num_examples: int, config: TrainConfig) -> int:
    """Count the optimizer steps in which every example is read once.

    Args:
        num_examples: training examples.
        config: how to train.

    Returns:
        The steps; the last one may have fewer examples.
    """
    return math.ceil(math.ceil(num_examples / global_batch_size(config)) / config.gradient_accumulation_steps)


def global_batch_size(config: TrainConfig) -> int:
    """Count the examples of a batch, of which each process has a share.

    Args:
        config: how to train.

    Returns:
        The examples of a batch that is full; a step has `gradient_accumulation_steps` batches.
    """
    return config.per_device_train_batch_size * num_processes()


def _batches_from(
    first_step: int, features: FeatureSet, config: TrainConfig, pad_token_id: int, *, num_replicas: int
) -> Iterator[tuple[int, list[list[tuple[dict[str, Tensor], Share]]]]]:
    """How many examples each optimizer step reads, and of its batches the share of each of this process's replicas.

    What a step reads follows from the seed and the step alone.
    """
    size = config.gradient_accumulation_steps
    step = 0

    def own(batches: list[np.ndarray]) -> list[list[tuple[dict[str, Tensor], Share]]]:
        whole = [features.collate(rows, pad_token_id) for rows in batches]
        return [[take(arrays, replica) for arrays in whole] for replica in range(num_replicas)]

    def take(arrays: dict[str, np.ndarray], replica: int) -> tuple[dict[str, Tensor], Share]:
        part, share = take_share(arrays, rank() * num_replicas + replica, num_processes() * num_replicas)
        return to_tensors(part), share

    for epoch in itertools.count():
        order = length_bucketed_batches(features.lengths, global_batch_size(config), seed=config.seed, epoch=epoch)
        while batches := list(itertools.islice(order, size)):
            if step >= first_step:
                yield sum(map(len, batches)), own(batches)
            step += 1


def _optimizer_step(
    replicas: Replicas,
    optimizer: paddle.optimizer.Optimizer,
    scaler: paddle.amp.GradScaler,
    stage: Stage,
    step: int,
    shares: list[list[tuple[dict[str, Tensor], Share]]],
    config: TrainConfig,
) -> dict[str, float]:
    """Do the passes of each batch, and step; returns the loss and its parts, the means over the batches."""
    paddle.seed(step_seed(config.seed, step, rank()))

    def run(replica: Supernet, number: int) -> list[dict[str, float]]:
        def backward(loss: Tensor) -> None:
            scaler.scale(loss / len(shares[number])).backward()

        seed = step_seed(config.seed, step, rank() * len(replicas) + number)
        with _autocast(config.amp), fast_gradients(seed):
            parts = [stage.step(replica, step, batch, backward, share) for batch, share in shares[number]]
        return [{name: float(value) for name, value in of_batch.items()} for of_batch in parts]

    totals: dict[str, float] = {}
    for parts in itertools.chain.from_iterable(replicas.map(run)):
        for name, value in parts.items():
            totals[name] = totals.get(name, 0.0) + value / len(shares[0])
    totals = processes.sum_values(totals)
    if not math.isfinite(totals["loss"]):
        replicas.supernet.clear_gradients()
        raise _diverged(stage, f"the loss is {totals['loss']} at step {step + 1}", config)
    replicas.sum_gradients()
    processes.sum_gradients(replicas.supernet.model.parameters())
    next_scale = apply_gradients(optimizer, scaler)
    if next_scale is not None:
        overflow = f"gradients overflow float16 at step {step + 1}"
        if next_scale < LEAST_SCALE:
            raise _diverged(stage, f"{overflow} whatever the loss is scaled by", config)
        logger.warning(
            "%s: %s, which is left out; the loss is scaled by %g from now on", stage.name, overflow, next_scale
        )
    return totals


def _check_weights(supernet: Supernet, stage: Stage, step: int, config: TrainConfig) -> None:
    """A finite loss can have a gradient that is not: such weights are neither a checkpoint nor a result."""
    if not all(bool(paddle.isfinite(parameter).all()) for parameter in supernet.model.parameters()):
        raise _diverged(stage, f"the loss's gradient has left weights that are not finite at step {step}", config)


def _diverged(stage: Stage, what: str, config: TrainConfig) -> DynabertError:
    return DynabertError(
        f"{stage.name}: {what}; checkpoints before it stay: lower the learning rate ({config.learning_rate:g}) "
        f"or turn amp off, remove this stage's folder, and start again"
    )


def _keep_best(supernet: Supernet, stage: Stage, state: TrainState, log: RunLog) -> None:
    scores = stage.evaluate()
    log.evaluation(state.step, scores, stage.split)
    score = float(np.mean([row[stage.metric] for row in scores.values()]))
    if score > state.best_score or not state.best_arrays:
        state.best_score, state.best_step = score, state.step
        state.best_metrics = {name: dict(row) for name, row in scores.items()}
        state.best_arrays = to_arrays(supernet.model)


def make_optimizer(supernet: Supernet, config: TrainConfig) -> paddle.optimizer.Optimizer:
    """Make AdamW, which decays what is neither a bias nor of a norm.

    Args:
        supernet: has the parameters.
        config: how to train.

    Returns:
        The optimizer; the learning rate is set before each step.
    """
    decayed = {
        parameter.name
        for name, parameter in supernet.model.named_parameters()
        if not name.endswith("bias") and "norm" not in name
    }
    return paddle.optimizer.AdamW(
        learning_rate=config.learning_rate,
        epsilon=config.adam_epsilon,
        weight_decay=config.weight_decay,
        apply_decay_param_fun=decayed.__contains__,
        parameters=supernet.model.parameters(),
        # Applied once a step, to what all sub-networks' backward passes have summed.
        grad_clip=paddle.nn.ClipGradByGlobalNorm(config.max_grad_norm) if config.max_grad_norm else None,
    )


def _learning_rate(step: int, total_steps: int, config: TrainConfig) -> float:
    """Linear warm-up, then linear decay to 0 at `total_steps`."""
    warmup = math.ceil(config.warmup_ratio * total_steps)
    if step < warmup:
        return config.learning_rate * (step + 1) / warmup
    return config.learning_rate * (total_steps - step) / max(1, total_steps - warmup)


def _autocast(amp: str):
    if amp == "off":
        return nullcontext()
    return paddle.amp.auto_cast(level="O1", dtype={"bf16": "bfloat16", "fp16": "float16"}[amp])


def _agreed(stop: list[int]) -> int:
    """The signal by which any of the processes was asked to stop, 0 for none: they stop after the same step."""
    asked = {f"{number:d}": float(number in stop) for number in (signal.SIGTERM, signal.SIGINT)}
    return next((int(number) for number, count in processes.sum_values(asked).items() if count), 0)


@contextmanager
def _stop_requests() -> Iterator[list[int]]:
    """Collect SIGINT and SIGTERM, so that a step can end before the run does; a second Ctrl-C stops at once."""
    requests: list[int] = []
    if threading.current_thread() is not threading.main_thread():
        yield requests
        return

    def request(number: int, frame: object) -> None:
        requests.append(number)
        signal.signal(signal.SIGINT, previous[signal.SIGINT])

    previous = {number: signal.signal(number, request) for number in (signal.SIGINT, signal.SIGTERM)}
    for number in previous:
        signal.siginterrupt(number, False)  # Paddle's store takes an interrupted call for an ended process
    try:
        yield requests
    finally:
        for number, handler in previous.items():
            signal.signal(number, handler)
    if requests:  # which came too late for a step to see
        signal.raise_signal(requests[-1])
