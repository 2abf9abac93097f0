"""The method `vocabulary`: fewer pieces, and fewer positions where asked."""

from __future__ import annotations

from collections.abc import Sequence
from copy import deepcopy
from itertools import chain
from typing import Any

import numpy as np
from paddle import nn

from dynabert_paddle.backbone.structure import num_positions
from dynabert_paddle.compressing.texts import count_pieces, read_text_file, row_lengths, task_rows
from dynabert_paddle.config.command_settings import CompressConfig
from dynabert_paddle.config.names import setting
from dynabert_paddle.data.question_answering import Questions
from dynabert_paddle.data.readers import Examples
from dynabert_paddle.data.tasks import Task
from dynabert_paddle.errors import ModelError, UsageError
from dynabert_paddle.supernet.elastic_embedding import elastic_embedding, new_parameter
from dynabert_paddle.supernet.supernet import Supernet
from dynabert_paddle.text.tokenizer import Tokenizer


def compress_vocabulary(supernet: Supernet, task: Task, config: CompressConfig) -> tuple[Supernet, dict[str, Any]]:
    """Keep the special tokens, the pieces that some text needs to stay readable, and the most frequent ones.

    A text whose pieces are all kept has the same logits, bit for bit; no text gets an unknown token that it had not.

    Args:
        supernet: the model; it is not changed.
        task: its training texts say how frequent pieces are.
        config: `vocab_size`, further `text_file`s, and `max_positions`.

    Returns:
        The smaller model, and the record of the compression.

    Raises:
        UsageError: a size that is too small to read all texts, or not smaller than now.
        ModelError: a tokenizer whose vocabulary cannot be made smaller.
    """
    tokenizer = supernet.tokenizer
    if not isinstance(tokenizer, Tokenizer):
        raise ModelError(
            "the tokenizer runs in PaddleNLP alone (sentencepiece, or a list of characters): its vocabulary is not "
            "made smaller; WordPiece and byte-level BPE can be"
        )
    max_positions = _check_positions(supernet, config.max_positions)
    size = setting("compress.vocab_size")
    if config.vocab_size is None:
        raise UsageError(f"vocabulary needs {size}: how many pieces to keep, for example 8000")
    if config.vocab_size >= tokenizer.vocab_size:
        raise UsageError(
            f"{size} is {config.vocab_size}, and the model has {tokenizer.vocab_size} pieces: pass a smaller one"
        )
    rules = tokenizer.piece_rules(always=_named_ids(supernet.model.config).values())
    needed = len(rules.with_parts(rules.required))
    if needed > config.vocab_size:
        raise UsageError(
            f"{size} is {config.vocab_size}, and {needed} pieces are needed to read every text that can be read "
            f"now, special tokens included: pass at least {needed}"
        )
    train = list(task_rows(task.train))
    files = chain.from_iterable(map(read_text_file, config.text_file))
    counts = count_pieces(tokenizer, chain(chain.from_iterable(train), files))
    small_tokenizer, ids = tokenizer.keep_pieces(rules.choose(counts, config.vocab_size), max_length=max_positions)
    model = deepcopy(supernet.model)
    keep_rows(model, list(ids))
    if max_positions is not None:
        keep_positions(model, max_positions)
    small = Supernet(model, small_tokenizer, supernet.metadata)
    rows = [*train, *task_rows(task.dev)]
    examples = task.train  # contexts, and where the task says so other texts, are split into windows
    is_cut = not isinstance(examples, Questions) and not (
        examples.documents.has_windows if isinstance(examples, Examples) else examples.settings.long_text == "windows"
    )
    return small, {
        "vocab_size": [tokenizer.vocab_size, small_tokenizer.vocab_size],
        "max_positions": [num_positions(part.config) for part in (supernet.model, model)],
        **_compare_rows(tokenizer, small_tokenizer, rows, supernet.metadata.max_seq_length if is_cut else None),
    }


def keep_rows(model: nn.Layer, kept: Sequence[int]) -> None:
    """Reduce a model's word embedding in place to some rows; the ids in its config follow.

    Args:
        model: a PaddleNLP model.
        kept: the old ids in the order of the new ones.

    Raises:
        ModelError: a model without such a table.
    """
    elastic = elastic_embedding(model)
    table = _find_table(model, "word_embeddings") if elastic is None else elastic.stock
    ids = {old: new for new, old in enumerate(kept)}
    _set_rows(table, np.asarray(kept), owner=elastic or table)
    if elastic is not None:
        elastic.weight = table.weight
    table._padding_idx = ids.get(table._padding_idx, table._padding_idx)  # None or -1 where there is none
    for name, old in _named_ids(model.config).items():
        setattr(model.config, name, ids.get(old))
    model.config.vocab_size = len(kept)


def keep_positions(model: nn.Layer, max_positions: int) -> None:
    """Reduce a model's position embedding in place.

    Args:
        model: a PaddleNLP model.
        max_positions: the tokens of the longest input; what the model counts before the first one is kept, too.

    Raises:
        ModelError: a model without such a table.
    """
    config = model.config
    before = config.max_position_embeddings - num_positions(config)
    table = _find_table(model, "position_embeddings")
    _set_rows(table, np.arange(before + max_positions), owner=table)
    config.max_position_embeddings = before + max_positions


def _find_table(model: nn.Layer, name: str) -> Any:
    """The table of that name, as all of PaddleNLP's encoders call it."""
    tables = [layer for path, layer in model.named_sublayers() if path.rpartition(".")[2] == name]
    if len(tables) != 1:
        raise ModelError(f"{type(model).__name__} has {len(tables)} layers called {name}, expected one")
    return tables[0]


def _set_rows(table: Any, rows: np.ndarray, *, owner: Any) -> None:
    """Keep rows of a table, and of the scale that its owner has if it is quantized."""
    if getattr(owner, "weight_scale", None) is not None:
        owner.weight_scale = new_parameter(owner, owner.weight_scale.numpy()[rows])
    value = nn.initializer.Assign(table.weight.numpy()[rows])  # as its constructor would draw random numbers
    table.weight = table.create_parameter([len(rows), table.weight.shape[1]], default_initializer=value)
    table._num_embeddings = len(rows)


def _named_ids(config: Any) -> dict[str, int]:
    """The ids of special tokens that a model's config names."""
    values = {name: value for name, value in config.to_dict().items() if name.endswith("_token_id")}
    return {name: value for name, value in values.items() if type(value) is int and 0 <= value < config.vocab_size}


def _check_positions(supernet: Supernet, max_positions: int | None) -> int | None:
    if max_positions is None:
        return None
    now, needed = num_positions(supernet.model.config), supernet.metadata.max_seq_length
    name = setting("compress.max_positions")
    if max_positions > now:
        raise UsageError(f"{name} is {max_positions}, and the model has {now}: pass at most that")
    if max_positions < needed:
        raise UsageError(
            f"{name} is {max_positions}, and the model was trained with max_seq_length {needed}: pass at least "
            f"that, or fine-tune with a smaller max_seq_length first"
        )
    return max_positions


def _compare_rows(
    tokenizer: Tokenizer, small: Tokenizer, rows: Sequence[tuple[str, ...]], max_seq_length: int | None
) -> dict[str, Any]:
    """How many pieces a task's rows have before and after, and how many rows are longer than `max_seq_length`."""
    lengths = [row_lengths(each, rows) for each in (tokenizer, small)]
    found = {"rows": len(rows), "pieces_per_row": [round(float(values.mean()), 2) for values in lengths]}
    if max_seq_length is None:
        return found
    before, after = (values > max_seq_length for values in lengths)
    return {
        **found,
        "rows_cut": [int(before.sum()), int(after.sum())],
        "rows_newly_cut": int((after & ~before).sum()),
    }
