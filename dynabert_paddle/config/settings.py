"""The settings of a run: one validated section per stage, each default written once, here.

The sections are plain frozen dataclasses, so that the command line can list their fields without importing a
validation library; pydantic checks the values when a config is loaded.
"""

from __future__ import annotations

import dataclasses
import os
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Any, Literal, get_args

from annotated_types import Ge, Gt, Interval

from dynabert_paddle.config.names import setting
from dynabert_paddle.errors import UsageError
from dynabert_paddle.model_shape import MACS_LENGTH
from dynabert_paddle.multipliers import DEPTH_MULTS, WIDTH_MULTS

Stage = Literal["finetune", "rewire", "width", "depth", "final"]
STAGES: tuple[str, ...] = get_args(Stage)
Recipe = Literal["paper", "best"]
RECIPES: tuple[str, ...] = get_args(Recipe)

PositiveFloat = Annotated[float, Gt(0)]
NonNegativeFloat = Annotated[float, Ge(0)]
Fraction = Annotated[float, Interval(ge=0, le=1)]
PositiveInt = Annotated[int, Ge(1)]
NonNegativeInt = Annotated[int, Ge(0)]
Seed = Annotated[int, Interval(ge=0, le=2**31 - 1)]


def _option(default: Any, help: str, *, otherwise: str | None = None) -> Any:
    """Describe a field; `otherwise` is shown as the default where the default is None."""
    return field(default=default, metadata={"help": help, "otherwise": otherwise})


RANK_HELP = "rank multipliers: shares of the word embedding's components, which rewire makes where one is below 1"


class _Section:
    """Base of all sections: unknown keys, wrong types, and infinite or undefined numbers are errors."""

    __pydantic_config__ = {"extra": "forbid", "allow_inf_nan": False}  # noqa: RUF012 - pydantic's protocol for plain dataclasses


@dataclass(frozen=True)
class TaskConfig(_Section):
    """The task and its data."""

    name: str = _option("snips", "a built-in task, such as snips, rte or tnews, or 'custom' for your own files")
    data_dir: str | None = _option(
        None,
        "folder with the task's files (your own: train.* and dev.*), or its parent; GLUE and CLUE can be downloaded",
    )
    train_file: str | None = _option(None, "training file, instead of data_dir")
    dev_file: str | None = _option(None, "development file, instead of data_dir")
    text_column: str | None = _option(None, "column of the text", otherwise="the task's, else sentence or text")
    text_pair_column: str | None = _option(None, "column of the second text of a pair", otherwise="the task's")
    label_column: str | None = _option(None, "column of the label", otherwise="the task's, else label")
    labels: tuple[str, ...] | None = _option(
        None, "labels in their order", otherwise="the task's, else those of the training file, sorted"
    )
    kind: (
        Literal[
            "classification", "regression", "multi_label", "token_classification", "question_answering", "embedding"
        ]
        | None
    ) = _option(None, "task type", otherwise="the task's, else classification")
    metrics: tuple[str, ...] | None = _option(None, "metrics, the first selects the best model", otherwise="the task's")
    positive_label: str | None = _option(None, "the label whose F1 the metric f1 is", otherwise="the second of the two")
    word_split: Literal["words", "characters"] | None = _option(
        None, "labels of words: how a text is split to be predicted", otherwise="as the training file is"
    )
    label_separator: str | None = _option(
        None, "multi_label: what separates the labels in a cell of .tsv and .csv; JSON has lists"
    )
    label_scheme: str | None = _option(
        None,
        "labels of words: the scheme (IO, IOB1, IOB2, IOE1, IOE2, IOBES, BILOU, BMES, BMEWO, BIOS, BIOE, types, marks)",
        otherwise="found in the training file",
    )
    decode: Literal["constrained", "free"] | None = _option(
        None, "labels of words: only those that may follow one another, or each word's best", otherwise="constrained"
    )
    long_text: Literal["windows", "truncate"] | None = _option(
        None,
        "read long texts in windows, or cut them",
        otherwise="windows for labels of words, truncate for whole texts",
    )
    max_seq_length: Annotated[int, Ge(3)] = _option(
        128, "longest input in tokens; longer ones are cut, or read in windows"
    )
    special_tokens_in_text: bool = _option(
        True, "a special token's text in a text, such as [SEP], is that token; false: it is text like any other"
    )
    doc_stride: PositiveInt | None = _option(
        None,
        "tokens between the starts of two windows of a long text",
        otherwise="half of a window, for question answering 128",
    )
    window_pooling: Literal["mean", "max"] | None = _option(
        None,
        "windows of whole texts: their logits' mean, weighted by new tokens, or maximum is the text's",
        otherwise="mean",
    )
    max_answer_length: PositiveInt | None = _option(
        None, "question answering: longest answer in tokens", otherwise="30"
    )
    may_be_empty: bool | None = _option(
        None, "question answering: questions may have no answer", otherwise="as in the training file"
    )
    pooling: Literal["mean", "cls", "max"] | None = _option(
        None, "embedding: how a text's hidden states become its vector", otherwise="as the model's folder says, or mean"
    )
    normalize: bool | None = _option(
        None, "embedding: divide vectors by their length", otherwise="as the model's folder says, or false"
    )
    query_prompt: str | None = _option(
        None, "embedding: what stands before a query", otherwise="as the model's folder says, or nothing"
    )
    document_prompt: str | None = _option(
        None, "embedding: what stands before a document", otherwise="as the model's folder says, or nothing"
    )
    output_dims: tuple[int, ...] | None = _option(
        None, "embedding: sizes to which vectors can be cut, such as 256 128 64; rewire rotates them for it"
    )
    retrieval_dir: str | None = _option(
        None, "embedding: folder to score on in BEIR's form: corpus.jsonl, queries.jsonl, qrels/test.tsv"
    )


# Settings of `TaskConfig` that tell how a model reads texts, whatever its task is.
ENCODING_SETTINGS = ("max_seq_length", "special_tokens_in_text")


@dataclass(frozen=True)
class SpaceConfig(_Section):
    """The grid of sub-networks."""

    width_mult_list: tuple[float, ...] = _option(WIDTH_MULTS, "width multipliers: shares of heads and FFN neurons")
    depth_mult_list: tuple[float, ...] = _option(DEPTH_MULTS, "depth multipliers: shares of layers")
    embedding_rank_mult_list: tuple[float, ...] = _option((1.0,), RANK_HELP)


@dataclass(frozen=True)
class TrainConfig(_Section):
    """How a stage trains; the defaults are those of the paper's authors' code."""

    num_train_epochs: PositiveFloat = _option(3.0, "passes over the training data")
    max_steps: PositiveInt | None = _option(None, "optimizer steps, instead of num_train_epochs")
    per_device_train_batch_size: PositiveInt = _option(32, "examples in a step")
    per_device_eval_batch_size: PositiveInt = _option(64, "examples evaluated at a time")
    gradient_accumulation_steps: PositiveInt = _option(1, "batches whose gradients one optimizer step sums")
    learning_rate: NonNegativeFloat = _option(2e-5, "peak learning rate, which then decays linearly to 0")
    warmup_ratio: Fraction = _option(0.0, "share of the steps over which the learning rate rises")
    weight_decay: NonNegativeFloat = _option(0.0, "AdamW's weight decay, not applied to biases and norms")
    adam_epsilon: PositiveFloat = _option(1e-8, "AdamW's epsilon")
    max_grad_norm: NonNegativeFloat = _option(1.0, "clip the norm of the summed gradients of a step; 0 for no clipping")
    ema_decay: Annotated[float, Interval(ge=0, lt=1)] = _option(
        0.0, "score and keep an exponential moving average of the weights, of which so much stays in a step; 0: none"
    )
    amp: Literal["off", "bf16", "fp16"] = _option("off", "automatic mixed precision")
    seed: Seed = _option(42, "random seed")
    select_on: Literal["holdout", "dev"] = _option(
        "holdout", "choose the best checkpoint on held-out training examples, or on dev as the authors do"
    )
    holdout_size: PositiveInt = _option(500, "training examples to hold out for it, at most a tenth of all")
    eval_steps: NonNegativeInt = _option(0, "steps between evaluations; 0 for once an epoch")
    early_stopping_patience: PositiveInt | None = _option(
        None, "stop after so many evaluations in a row without a better score"
    )
    save_steps: NonNegativeInt = _option(500, "steps between checkpoints; 0 for no limit")
    save_minutes: NonNegativeFloat = _option(
        5.0, "minutes between checkpoints, where save_steps take longer; 0 for no limit"
    )
    logging_steps: PositiveInt = _option(10, "steps between log lines")


@dataclass(frozen=True)
class LabelLossConfig(TrainConfig):
    """How a stage that trains on labels weighs them; stages that distil a teacher read none."""

    class_weights: Literal["balanced"] | dict[Any, NonNegativeFloat] | None = _option(
        None,
        "weight of each label's rows in the loss: balanced, or by name such as 'pos: 3, neg: 1', where other labels "
        "have 1; scaled so that their mean over the training rows is 1",
    )
    focal_gamma: NonNegativeFloat = _option(
        0.0, "focal loss: a label of probability p counts (1 - p)^gamma times; 0 for cross-entropy"
    )
    label_smoothing: Annotated[float, Interval(ge=0, lt=1)] = _option(
        0.0, "share of each label that is spread evenly over all labels"
    )

    def __post_init__(self) -> None:
        if isinstance(self.class_weights, dict):  # YAML and Python may have numbers and booleans as keys
            by_name = {_label_name(key): weight for key, weight in self.class_weights.items()}
            if len(by_name) < len(self.class_weights):
                given = ", ".join(map(repr, self.class_weights))
                raise UsageError(f"{setting('train.class_weights')} names a label twice ({given}): keep one of them")
            object.__setattr__(self, "class_weights", by_name)


def _label_name(key: object) -> str:
    return str(key).lower() if isinstance(key, bool) else str(key).strip()


@dataclass(frozen=True)
class FinetuneConfig(LabelLossConfig):
    """Stage 0: fine-tune the backbone on the labels."""


@dataclass(frozen=True)
class RewireConfig(_Section):
    """Stage 1: sort heads and neurons by importance."""

    accumulation: Literal["per_batch", "huawei"] = _option(
        "per_batch",
        "per_batch adds up each batch's importance on held-out training examples; huawei reads the dev set and never "
        "clears the gradients, as the authors' code does",
    )
    holdout_size: PositiveInt = _option(
        500, "held-out training examples to read, at most a tenth of them; with finetune's size and seed the same ones"
    )
    per_device_eval_batch_size: PositiveInt = _option(32, "examples in a batch")
    seed: Seed = _option(42, "chooses the held-out examples")


@dataclass(frozen=True)
class _SubnetsConfig(TrainConfig):
    subnets_per_step: Literal["all", "sandwich"] = _option(
        "all", "train every sub-network in each step, or the largest, the smallest and some random ones"
    )
    num_random_subnets: NonNegativeInt = _option(2, "how many random ones a sandwich has")
    random_subnets: Literal["grid", "per_layer"] = _option(
        "grid",
        "where a sandwich's random ones come from: the grid, or all that search looks at, spread evenly over MACs",
    )


@dataclass(frozen=True)
class WidthConfig(_SubnetsConfig):
    """Stage 2: distil the fine-tuned model into every width."""

    lambda_logit: NonNegativeFloat = _option(1.0, "weight of the logit loss, lambda_1 in the paper")
    lambda_hidden: NonNegativeFloat = _option(
        0.1, "weight of the embedding and hidden-state loss, lambda_2 in the paper"
    )
    temperature: PositiveFloat = _option(1.0, "softens both sides' logits")
    teacher_name_or_path: str | None = _option(
        None,
        "another fine-tuned model to distil from; its hidden states are compared only where both have the same sizes",
        otherwise="DIR itself",
    )
    lambda_label: NonNegativeFloat = _option(
        0.0, "weight of the hard-label loss beside that of the logits; texts without a label have none"
    )
    lambda_contrastive: NonNegativeFloat = _option(
        0.0, "embedding: weight of telling a query's positive text from the others of its batch; 0 for off"
    )
    lambda_relation: NonNegativeFloat = _option(
        0.0, "weight of the attention relations (MiniLMv2) of each sub-network's last layer to the teacher's"
    )
    relation_layer: NonNegativeInt | None = _option(
        None, "the teacher's layer that gives the relations, counted from 0", otherwise="the last"
    )
    include_padding: bool = _option(False, "average the hidden-state loss over padding too, as the authors do")
    augmented_file: str | None = _option(
        None, "train on these texts, which 'dynabert augment' made of the training rows, without those held out"
    )
    unlabelled_files: tuple[str, ...] = _option(
        (), "train on the texts of these files, too: tables with the task's columns of text, or .txt"
    )

    def __post_init__(self) -> None:
        # Absolute, so that a repeated run finds them, and is known for the same, in any folder.
        if self.augmented_file:
            object.__setattr__(self, "augmented_file", _absolute(self.augmented_file))
        object.__setattr__(self, "unlabelled_files", tuple(map(_absolute, self.unlabelled_files)))


def _absolute(path: str) -> str:
    return str(Path(path).expanduser().absolute())


@dataclass(frozen=True)
class DepthConfig(WidthConfig):
    """Stage 3: distil the width-adaptive model into every width and depth."""

    lambda_hidden: NonNegativeFloat = _option(
        1.0, "weight of the embedding and hidden-state loss, lambda_2 in the paper"
    )


@dataclass(frozen=True)
class FinalConfig(_SubnetsConfig, LabelLossConfig):
    """Stage 4, optional: train every sub-network on the labels, without a teacher."""


@dataclass(frozen=True)
class BaselineConfig(LabelLossConfig):
    """A model of one fixed size to compare with; the weights are those of DistilBERT's and TinyBERT's authors."""

    method: Literal["distilbert", "tinybert", "pruned", "finetuned"] = _option("distilbert", "how it is trained")
    subnet: str = _option("w1.00d0.50", "the sub-network of DIR that gives its shape")
    num_examples: PositiveInt | None = _option(
        None, "examples to see, those of the model that it starts from included, in place of steps and epochs"
    )
    temperature: PositiveFloat = _option(2.0, "distilbert: softens both sides' logits")
    lambda_logit: NonNegativeFloat = _option(5.0, "distilbert: weight of the logit loss, alpha_ce in its authors' code")
    lambda_label: NonNegativeFloat = _option(2.0, "distilbert: weight of the hard-label loss, in place of alpha_mlm")
    lambda_cosine: NonNegativeFloat = _option(
        1.0, "distilbert: weight of the last hidden state's cosine loss, alpha_cos"
    )
    layer_share: Fraction = _option(
        0.5, "tinybert: share of the steps that train the layers, before those that train the prediction"
    )


@dataclass(frozen=True)
class CompressConfig(_Section):
    """How `compress` makes a model smaller."""

    method: Literal["vocabulary", "low_rank", "sparse", "share_layers", "quantize_aware"] = _option(
        "vocabulary", "how the model is made smaller"
    )
    vocab_size: PositiveInt | None = _option(None, "vocabulary: pieces to keep, special tokens included")
    text_file: tuple[str, ...] = _option(
        (), "vocabulary: plain text, one a line, whose pieces count beside those of the training texts"
    )
    max_positions: PositiveInt | None = _option(
        None, "vocabulary: tokens of the longest input, at least max_seq_length (default: the model's)"
    )
    rank_share: Annotated[float, Interval(gt=0, le=1)] | None = _option(
        None, "low_rank: rank of each product, as a share of the smaller side of its matrix"
    )
    part: tuple[Literal["embedding", "attention", "ffn"], ...] = _option(
        ("attention", "ffn"),
        "low_rank, sparse: what becomes a product or sparse: embedding, and of each layer attention and ffn",
    )
    sparsity: Annotated[float, Interval(gt=0, lt=1)] | None = _option(
        None, "sparse: share of the weights that become zero"
    )
    criterion: Literal["magnitude", "gradient"] = _option(
        "magnitude", "sparse: weights become zero by their size, or by their size times their gradient"
    )
    groups: int | None = _option(None, "share_layers: number of groups of neighbouring layers that share their weights")
    start: Literal["mean", "first", "last"] = _option(
        "first", "share_layers: the layer that a group begins with, or the mean of its layers"
    )
    weight_bits: int = _option(8, "quantize_aware: bits of the weights: 8, 4, or 2, which means -1, 0 or 1")
    num_calibration_examples: PositiveInt = _option(
        256, "low_rank, quantize_aware, and sparse by gradient without finetune_steps: training texts to measure on"
    )
    finetune_steps: NonNegativeInt = _option(0, "steps to train the smaller model, distilled from DIR")
    learning_rate: NonNegativeFloat | None = _option(
        None, "peak learning rate of these steps (default: that of DIR's last stage)"
    )
    per_device_eval_batch_size: PositiveInt = _option(64, "examples scored at a time")
    seed: Seed = _option(42, "random seed")


@dataclass(frozen=True)
class AugmentConfig(_Section):
    """How `augment` makes copies of a text; the defaults are the DynaBERT paper's."""

    num_copies: PositiveInt = _option(30, "copies of each row, N in the paper")
    num_candidates: PositiveInt = _option(15, "words that can replace a word, M in the paper")
    probability: Fraction = _option(0.4, "probability that a word is replaced, p in the paper")
    word_dropout: Annotated[float, Interval(ge=0, lt=1)] = _option(
        0.0, "probability that a word of a copy, between two blanks, is left out"
    )
    word_swap: Fraction = _option(0.0, "probability that a word of a copy changes places with the next one")
    seed: Seed = _option(42, "every random choice follows from it and the row")
    batch_size: PositiveInt = _option(64, "rows at a time; changes nothing in the file")


@dataclass(frozen=True)
class SearchConfig(_Section):
    """How `search` looks for sub-networks, and their budget."""

    max_latency_ms: PositiveFloat | None = _option(None, "budget: milliseconds a batch on this machine")
    max_params: PositiveFloat | None = _option(None, "budget: parameters, embeddings included")
    max_macs: PositiveFloat | None = _option(None, f"budget: multiply-accumulates of {MACS_LENGTH} tokens")
    max_size_mb: PositiveFloat | None = _option(None, "budget: megabytes of the weights' file")
    goals: tuple[str, ...] | None = _option(
        None,
        "costs to trade against the metric: latency_ms, macs, params, size_mb",
        otherwise="those of the budget, else macs",
    )
    device: str = _option("cpu", "where latency is measured and candidates are scored: cpu or gpu:N")
    batch_size: PositiveInt = _option(1, "batch size of the latency measurement")
    seq_length: PositiveInt = _option(64, "sequence length of the latency measurement, in tokens")
    num_threads: PositiveInt | None = _option(None, "CPU threads for the latency measurement", otherwise="all cores")
    precision: Literal["fp32", "bf16", "int8"] = _option("fp32", "precision of the latency measurement")
    format: Literal["paddle", "pir", "openvino", "onnx"] | None = _option(
        None, "format of the latency measurement", otherwise="that of `export`"
    )
    num_evaluations: PositiveInt = _option(300, "sub-networks to score")
    population_size: Annotated[int, Ge(2)] = _option(20, "sub-networks in a generation")
    seed: Seed = _option(42, "random seed")
    score: Literal["divergence", "metric", "agreement"] = _option(
        "divergence",
        "choose by the divergence from the full model's outputs on training texts, by the task's first metric, or by "
        "agreement with the full model, which needs no labels",
    )
    num_texts: PositiveInt | None = _option(
        None, "training texts to measure the divergence on", otherwise="1024, or all if there are fewer"
    )
    score_on: Literal["holdout", "dev"] = _option("holdout", "score on held-out training examples, or on dev")
    holdout_size: PositiveInt | None = _option(
        None, "examples to score on: half of them take part in the choice, half give the scores", otherwise="all"
    )
    per_device_eval_batch_size: PositiveInt = _option(64, "examples scored at a time")
    finetune_steps: NonNegativeInt = _option(0, "steps to train the best sub-network, distilled from the full model")
    storage: str | None = _option(
        None, "URL of a database, or path of a journal file, through which several searches share their measurements"
    )


@dataclass(frozen=True)
class Config(_Section):
    """A whole run; `load_config` takes what is not given from the recipe, which this class itself does not read."""

    model_name_or_path: str = _option("minilm-l6", "built-in backbone, PaddleNLP name, or a model folder")
    output_dir: str = _option("out", "folder for the stages, one folder each")
    device: str = _option("auto", "auto, cpu or gpu:N")
    stages: tuple[Stage, ...] = _option(("finetune", "rewire", "width", "depth"), "the stages to run")
    recipe: Recipe = _option("paper", "built-in settings that replace the defaults")
    task: TaskConfig = field(default_factory=TaskConfig)
    space: SpaceConfig = field(default_factory=SpaceConfig)
    finetune: FinetuneConfig = field(default_factory=FinetuneConfig)
    rewire: RewireConfig = field(default_factory=RewireConfig)
    width: WidthConfig = field(default_factory=WidthConfig)
    depth: DepthConfig = field(default_factory=DepthConfig)
    final: FinalConfig = field(default_factory=FinalConfig)
    baseline: BaselineConfig = field(default_factory=BaselineConfig)

    def __post_init__(self) -> None:
        object.__setattr__(self, "output_dir", os.path.expanduser(self.output_dir))


SECTIONS: dict[str, Any] = {
    f.name: f.default_factory for f in dataclasses.fields(Config) if f.default_factory is not dataclasses.MISSING
}

_REPORTING = ("logging_steps", "save_steps", "save_minutes")
# Settings that folders of earlier versions lack: a folder records them only where they differ from their default.
_LATER = (
    *("recipe", "early_stopping_patience", "class_weights", "focal_gamma", "label_smoothing", "window_pooling"),
    *("pooling", "normalize", "query_prompt", "document_prompt", "output_dims", "retrieval_dir"),
    *("random_subnets", "ema_decay", "lambda_label", "lambda_contrastive", "unlabelled_files"),
    *("lambda_relation", "relation_layer", "teacher_name_or_path"),
)


def plain_name(name: str) -> str:
    """Normalize a task's name: capitals, `-` and `_` make no difference."""
    return name.lower().replace("-", "").replace("_", "")


def lasting_settings(config: Any) -> dict[str, Any]:
    """Return the settings that a stage's result depends on, without those of logging and checkpoints.

    Args:
        config: one of the stage sections.

    Returns:
        Values by field name, as `recorded_settings` has them.
    """
    return {key: value for key, value in recorded_settings(config).items() if key not in _REPORTING}


def recorded_settings(config: Any) -> dict[str, Any]:
    """Return the settings that a folder records.

    Args:
        config: a run's settings, or one of their sections.

    Returns:
        Values by field name; those of `later_defaults` are left out where they are the default.
    """
    later = later_defaults(config)
    values = {field.name: getattr(config, field.name) for field in dataclasses.fields(config)}
    return {
        key: recorded_settings(value) if dataclasses.is_dataclass(value) else value
        for key, value in values.items()
        if key not in later or value != later[key]
    }


def later_defaults(config: Any) -> dict[str, Any]:
    """Return the defaults of a section's settings that a folder does not record at their default."""
    return {field.name: field.default for field in dataclasses.fields(config) if field.name in _LATER}
