"""The method `sparse`: the weights that matter least become zero."""

from __future__ import annotations

from copy import deepcopy
from typing import Any

import numpy as np
from paddle import Tensor

from dynabert_paddle.config.command_settings import CompressConfig
from dynabert_paddle.config.names import setting
from dynabert_paddle.data.tasks import Task
from dynabert_paddle.errors import UsageError
from dynabert_paddle.supernet.sparsity import EMBEDDING, find_matrices, measure_sparsity
from dynabert_paddle.supernet.supernet import Supernet, to_tensors
from dynabert_paddle.training.batches import weighted_batches
from dynabert_paddle.training.inputs import tokenize_examples
from dynabert_paddle.training.label_loss import loss_for_gradients
from dynabert_paddle.training.pruning import Pruning, prune_weights

_BATCH_SIZE = 32
_ROUNDING = 1e-3  # of the shares that a pruned model has


def compress_sparse(supernet: Supernet, task: Task, config: CompressConfig) -> tuple[Supernet, dict[str, Any]]:
    """Make a model that training is to make sparse; without training set its weights to zero at once.

    Args:
        supernet: the model; it is not changed.
        task: gradients are computed on its training texts, if they are the criterion and nothing is trained.
        config: `sparsity`, `part`, `criterion` and `finetune_steps`.

    Returns:
        The model, and the record of the compression. Training keeps zeros in the parts that its metadata name.

    Raises:
        UsageError: no sparsity is given, the model has as much already, or gradients are to choose rows of words.
    """
    pruning = plan_pruning(supernet, config)
    parts = tuple(dict.fromkeys((*supernet.metadata.sparse_parts, *pruning.parts)))
    small = Supernet(deepcopy(supernet.model), supernet.tokenizer, supernet.metadata.replace(sparse_parts=parts))
    if not config.finetune_steps:
        squares = None
        if config.criterion == "gradient":
            squares = _mean_squared_gradients(small, task, config)
        prune_weights(small, pruning.parts, pruning.sparsity, squares)
    return small, {"sparsity": pruning.sparsity, "criterion": config.criterion, "part": ", ".join(pruning.parts)}


def plan_pruning(supernet: Supernet, config: CompressConfig) -> Pruning:
    """Return how training makes a model sparse.

    Args:
        supernet: the model before.
        config: as for `compress_sparse`.

    Returns:
        The plan, from the sparsity that the model has to the one that it is to have.

    Raises:
        UsageError: as for `compress_sparse`.
    """
    name, sparsity = setting("compress.sparsity"), config.sparsity
    if sparsity is None:
        raise UsageError(f"sparse needs {name}: the share of weights that become zero, for example 0.4")
    if EMBEDDING in config.part and config.criterion == "gradient":
        raise UsageError(
            f"{setting('compress.criterion')} gradient would remove all words that the training texts lack: leave out "
            f"{EMBEDDING} of {setting('compress.part')}, or pass magnitude"
        )
    before = measure_sparsity(supernet, config.part)
    for part, share in before.items():
        if share > sparsity - _ROUNDING:
            raise UsageError(
                f"{name} is {sparsity}, and {share:.3g} of the weights of {part} are zero already: pass a larger one"
            )
    return Pruning(config.part, sparsity, min(before.values()), config.criterion, config.finetune_steps)


def _mean_squared_gradients(supernet: Supernet, task: Task, config: CompressConfig) -> dict[str, Tensor]:
    """The mean over batches of the squared gradients of the loss, by a parameter's name in Paddle."""
    rng = np.random.default_rng(config.seed)
    sample = task.train.select(np.sort(rng.permutation(len(task.train))[: config.num_calibration_examples]))
    features = tokenize_examples(sample, supernet)
    matrices = [m for part in find_matrices(supernet, config.part).values() for m in part]
    sums = {matrix.name: matrix.detach() * 0 for matrix in matrices}
    supernet.eval()
    num_batches, loss = 0, loss_for_gradients(task.kind, config.seed)
    for batch in weighted_batches(features, _BATCH_SIZE, supernet.pad_token_id):
        inputs = to_tensors(batch)
        labels, weights = inputs.pop("labels", None), inputs.pop("label_weights", None)
        logits = supernet(logits_only=True, **inputs).logits
        loss(logits, labels, **({} if weights is None else {"weights": weights})).backward()
        num_batches += 1
        for matrix in matrices:
            assert matrix.grad is not None  # after backward
            sums[matrix.name] += matrix.grad.detach() ** 2
        supernet.clear_gradients()
    supernet.train()
    return {name: total / num_batches for name, total in sums.items()}
