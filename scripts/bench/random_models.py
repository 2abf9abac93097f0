"""Models with random weights, random batches for them, and training steps without the optimizer."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import numpy as np

    import dynabert_paddle as db
    from dynabert_paddle.data.features import Features
    from dynabert_paddle.supernet.calls import PassState
    from dynabert_paddle.training.batches import Shard
    from dynabert_paddle.training.replicas import Replicas
    from dynabert_paddle.training.steps import Step


def random_supernet(shape: str) -> db.Supernet:
    """Make a classifier for the built-in task. `shape` is layers x hidden size, such as `6x384`; heads are 32 wide."""
    from paddlenlp.transformers import BertConfig, BertForSequenceClassification

    import dynabert_paddle as db
    from dynabert_paddle.backbone.loading import find_backbone
    from dynabert_paddle.files.metadata import Metadata

    layers, hidden = map(int, shape.split("x"))
    task = db.load_task("snips")
    config = BertConfig(
        num_hidden_layers=layers,
        hidden_size=hidden,
        num_attention_heads=hidden // 32,
        intermediate_size=4 * hidden,
        num_labels=len(task.labels),
        use_cache=False,
    )
    tokenizer = db.Tokenizer.from_pretrained(find_backbone("minilm-l6"))
    metadata = Metadata(stage="finetune", task={**task.to_dict(), "max_seq_length": 128})
    return db.Supernet(BertForSequenceClassification(config), tokenizer, metadata)


def random_batch(batch_size: int, length: int) -> dict[str, np.ndarray]:
    """Make a batch without padding from the vocabulary of English BERT; each array is `[b, s]`."""
    import numpy as np

    ids = np.random.default_rng(0).integers(1000, 30000, (batch_size, length))
    return {"input_ids": ids, "token_type_ids": np.zeros_like(ids), "attention_mask": np.ones_like(ids)}


def random_features(num_examples: int, length: int) -> Features:
    """Make examples of equal length from the vocabulary of English BERT."""
    import numpy as np

    from dynabert_paddle.data.features import Features

    batch = random_batch(num_examples, length)
    offsets = np.arange(num_examples + 1) * length
    return Features(batch["input_ids"].reshape(-1), batch["token_type_ids"].reshape(-1), offsets, None)


def training_passes(replicas: Replicas, step: Step, batch: dict[str, np.ndarray]) -> Callable[[], None]:
    """Make a training step without its optimizer: the passes of all replicas, and the sum of their gradients."""

    def passes(model: db.Supernet, _: int, shard: Shard, state: PassState) -> None:
        for losses in step(model, shard, index=0, state=state):
            losses["loss"].backward()

    return shared_passes(replicas, passes, batch)


def shared_passes(
    replicas: Replicas,
    passes: Callable[[db.Supernet, int, Shard, PassState], None],
    batch: dict[str, np.ndarray],
) -> Callable[[], None]:
    """Make a function that splits a batch over the replicas, runs their passes and sums their gradients.

    Args:
        replicas: the model's replicas.
        passes: called with a replica, its number, its shard of the batch and the state of its passes.
        batch: the whole batch, `[b, s]` each.
    """
    from dynabert_paddle.supernet.calls import PassState
    from dynabert_paddle.supernet.cpu_operations import random_bits
    from dynabert_paddle.supernet.slices import SliceCache
    from dynabert_paddle.training.batches import cut_shard
    from dynabert_paddle.training.loop import MAX_CACHED_ELEMENTS

    shards = [cut_shard(batch, number, len(replicas)) for number in range(len(replicas))]

    def run() -> None:
        states = [PassState(SliceCache(MAX_CACHED_ELEMENTS), random_bits(number)) for number in range(len(replicas))]
        replicas.map(lambda replica, number: passes(replica, number, shards[number], states[number]))
        replicas.sum_gradients([state.slices for state in states])

    return run
