"""The settings of commands beside a run: `compress`, `augment` and `search`."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, Literal

from annotated_types import Ge, Interval

from dynabert_paddle.config.options import (
    Fraction,
    NonNegativeFloat,
    NonNegativeInt,
    PositiveFloat,
    PositiveInt,
    Section,
    Seed,
    option,
)
from dynabert_paddle.model_shape import MACS_LENGTH


@dataclass(frozen=True)
class CompressConfig(Section):
    """How `compress` makes a model smaller."""

    method: Literal["vocabulary", "low_rank", "sparse", "share_layers", "quantize_aware"] = option(
        "vocabulary", "how the model is made smaller"
    )
    vocab_size: PositiveInt | None = option(None, "vocabulary: pieces to keep, special tokens included")
    text_file: tuple[str, ...] = option(
        (), "vocabulary: plain text, one a line, whose pieces count beside those of the training texts"
    )
    max_positions: PositiveInt | None = option(
        None, "vocabulary: tokens of the longest input, at least max_seq_length (default: the model's)"
    )
    rank_share: Annotated[float, Interval(gt=0, le=1)] | None = option(
        None, "low_rank: rank of each product, as a share of the smaller side of its matrix"
    )
    part: tuple[Literal["embedding", "attention", "ffn"], ...] = option(
        ("attention", "ffn"),
        "low_rank, sparse: what becomes a product or sparse: embedding, and of each layer attention and ffn",
    )
    sparsity: Annotated[float, Interval(gt=0, lt=1)] | None = option(
        None, "sparse: share of the weights that become zero"
    )
    criterion: Literal["magnitude", "gradient"] = option(
        "magnitude", "sparse: weights become zero by their size, or by their size times their gradient"
    )
    groups: int | None = option(None, "share_layers: number of groups of neighbouring layers that share their weights")
    start: Literal["mean", "first", "last"] = option(
        "first", "share_layers: the layer that a group begins with, or the mean of its layers"
    )
    weight_bits: int = option(8, "quantize_aware: bits of the weights: 8, 4, or 2, which means -1, 0 or 1")
    num_calibration_examples: PositiveInt = option(
        256, "low_rank, quantize_aware, and sparse by gradient without finetune_steps: training texts to measure on"
    )
    finetune_steps: NonNegativeInt = option(0, "steps to train the smaller model, distilled from DIR")
    learning_rate: NonNegativeFloat | None = option(
        None, "peak learning rate of these steps (default: that of DIR's last stage)"
    )
    per_device_eval_batch_size: PositiveInt = option(64, "examples scored at a time")
    seed: Seed = option(42, "random seed")


@dataclass(frozen=True)
class AugmentConfig(Section):
    """How `augment` makes copies of a text; the defaults are the DynaBERT paper's."""

    num_copies: PositiveInt = option(30, "copies of each row, N in the paper")
    num_candidates: PositiveInt = option(15, "words that can replace a word, M in the paper")
    probability: Fraction = option(0.4, "probability that a word is replaced, p in the paper")
    word_dropout: Annotated[float, Interval(ge=0, lt=1)] = option(
        0.0, "probability that a word of a copy, between two blanks, is left out"
    )
    word_swap: Fraction = option(0.0, "probability that a word of a copy changes places with the next one")
    seed: Seed = option(42, "every random choice follows from it and the row")
    batch_size: PositiveInt = option(64, "rows at a time; changes nothing in the file")


@dataclass(frozen=True)
class SearchConfig(Section):
    """How `search` looks for sub-networks, and their budget."""

    max_latency_ms: PositiveFloat | None = option(None, "budget: milliseconds a batch on this machine")
    max_params: PositiveFloat | None = option(None, "budget: parameters, embeddings included")
    max_macs: PositiveFloat | None = option(None, f"budget: multiply-accumulates of {MACS_LENGTH} tokens")
    max_size_mb: PositiveFloat | None = option(None, "budget: megabytes of the weights' file")
    goals: tuple[str, ...] | None = option(
        None,
        "costs to trade against the metric: latency_ms, macs, params, size_mb",
        otherwise="those of the budget, else macs",
    )
    device: str = option("cpu", "where latency is measured and candidates are scored: cpu or gpu:N")
    batch_size: PositiveInt = option(1, "batch size of the latency measurement")
    seq_length: PositiveInt = option(64, "sequence length of the latency measurement, in tokens")
    num_threads: PositiveInt | None = option(None, "CPU threads for the latency measurement", otherwise="all cores")
    precision: Literal["fp32", "bf16", "int8"] = option("fp32", "precision of the latency measurement")
    format: Literal["paddle", "pir", "openvino", "onnx"] | None = option(
        None, "format of the latency measurement", otherwise="that of `export`"
    )
    num_evaluations: PositiveInt = option(300, "sub-networks to score")
    population_size: Annotated[int, Ge(2)] = option(20, "sub-networks in a generation")
    seed: Seed = option(42, "random seed")
    score: Literal["divergence", "metric", "agreement"] = option(
        "divergence",
        "choose by the divergence from the full model's outputs on training texts, by the task's first metric, or by "
        "agreement with the full model, which needs no labels",
    )
    num_texts: PositiveInt | None = option(
        None, "training texts to measure the divergence on", otherwise="1024, or all if there are fewer"
    )
    score_on: Literal["holdout", "dev"] = option("holdout", "score on held-out training examples, or on dev")
    holdout_size: PositiveInt | None = option(
        None, "examples to score on: half of them take part in the choice, half give the scores", otherwise="all"
    )
    per_device_eval_batch_size: PositiveInt = option(64, "examples scored at a time")
    finetune_steps: NonNegativeInt = option(0, "steps to train the best sub-network, distilled from the full model")
    storage: str | None = option(
        None, "URL of a database, or path of a journal file, through which several searches share their measurements"
    )
