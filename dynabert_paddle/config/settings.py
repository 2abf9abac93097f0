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

from annotated_types import Ge, Interval

from dynabert_paddle.config.names import setting
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
from dynabert_paddle.errors import UsageError
from dynabert_paddle.multipliers import DEPTH_MULTS, WIDTH_MULTS

Stage = Literal["finetune", "rewire", "width", "depth", "general", "final"]
STAGES: tuple[str, ...] = get_args(Stage)
Recipe = Literal["paper", "best"]
RECIPES: tuple[str, ...] = get_args(Recipe)

TEXT_HELP = "raw text to learn from without labels: UTF-8, one text a line, of any size; .gz, too"
RANK_HELP = "rank multipliers: shares of the word embedding's components, which rewire makes where one is below 1"


def _make_absolute(section: Any, name: str) -> None:
    """Make a path of a section absolute, so that a repeated run finds it, and is known for the same, in any folder."""
    if path := getattr(section, name):
        object.__setattr__(section, name, _absolute(path))


def _absolute(path: str) -> str:
    return str(Path(path).expanduser().absolute())


@dataclass(frozen=True)
class TaskConfig(Section):
    """The task and its data."""

    name: str = option("snips", "a built-in task, such as snips, rte or tnews, or 'custom' for your own files")
    data_dir: str | None = option(
        None,
        "folder with the task's files (your own: train.* and dev.*), or its parent; GLUE and CLUE can be downloaded",
    )
    train_file: str | None = option(None, "training file, instead of data_dir")
    dev_file: str | None = option(None, "development file, instead of data_dir")
    text_column: str | None = option(None, "column of the text", otherwise="the task's, else sentence or text")
    text_pair_column: str | None = option(None, "column of the second text of a pair", otherwise="the task's")
    label_column: str | None = option(None, "column of the label", otherwise="the task's, else label")
    labels: tuple[str, ...] | None = option(
        None, "labels in their order", otherwise="the task's, else those of the training file, sorted"
    )
    kind: (
        Literal[
            "classification", "regression", "multi_label", "token_classification", "question_answering", "embedding"
        ]
        | None
    ) = option(None, "task type", otherwise="the task's, else classification")
    metrics: tuple[str, ...] | None = option(None, "metrics, the first selects the best model", otherwise="the task's")
    positive_label: str | None = option(None, "the label whose F1 the metric f1 is", otherwise="the second of the two")
    word_split: Literal["words", "characters"] | None = option(
        None, "labels of words: how a text is split to be predicted", otherwise="as the training file is"
    )
    label_separator: str | None = option(
        None, "multi_label: what separates the labels in a cell of .tsv and .csv; JSON has lists"
    )
    label_scheme: str | None = option(
        None,
        "labels of words: the scheme (IO, IOB1, IOB2, IOE1, IOE2, IOBES, BILOU, BMES, BMEWO, BIOS, BIOE, types, marks)",
        otherwise="found in the training file",
    )
    decode: Literal["constrained", "free"] | None = option(
        None, "labels of words: only those that may follow one another, or each word's best", otherwise="constrained"
    )
    long_text: Literal["windows", "truncate"] | None = option(
        None,
        "read long texts in windows, or cut them",
        otherwise="windows for labels of words, truncate for whole texts",
    )
    max_seq_length: Annotated[int, Ge(3)] = option(
        128, "longest input in tokens; longer ones are cut, or read in windows"
    )
    special_tokens_in_text: bool = option(
        True, "a special token's text in a text, such as [SEP], is that token; false: it is text like any other"
    )
    doc_stride: PositiveInt | None = option(
        None,
        "tokens between the starts of two windows of a long text",
        otherwise="half of a window, for question answering 128",
    )
    window_pooling: Literal["mean", "max"] | None = option(
        None,
        "windows of whole texts: their logits' mean, weighted by new tokens, or maximum is the text's",
        otherwise="mean",
        later=True,
    )
    max_answer_length: PositiveInt | None = option(None, "question answering: longest answer in tokens", otherwise="30")
    may_be_empty: bool | None = option(
        None, "question answering: questions may have no answer", otherwise="as in the training file"
    )
    pooling: Literal["mean", "cls", "max"] | None = option(
        None,
        "embedding: how a text's hidden states become its vector",
        otherwise="as the model's folder says, or mean",
        later=True,
    )
    normalize: bool | None = option(
        None, "embedding: divide vectors by their length", otherwise="as the model's folder says, or false", later=True
    )
    query_prompt: str | None = option(
        None, "embedding: what stands before a query", otherwise="as the model's folder says, or nothing", later=True
    )
    document_prompt: str | None = option(
        None, "embedding: what stands before a document", otherwise="as the model's folder says, or nothing", later=True
    )
    output_dims: tuple[int, ...] | None = option(
        None, "embedding: sizes to which vectors can be cut, such as 256 128 64; rewire rotates them for it", later=True
    )
    retrieval_dir: str | None = option(
        None, "embedding: folder to score on in BEIR's form: corpus.jsonl, queries.jsonl, qrels/test.tsv", later=True
    )


# Settings of `TaskConfig` that tell how a model reads texts, whatever its task is.
ENCODING_SETTINGS = ("max_seq_length", "special_tokens_in_text")


@dataclass(frozen=True)
class SpaceConfig(Section):
    """The grid of sub-networks."""

    width_mult_list: tuple[float, ...] = option(WIDTH_MULTS, "width multipliers: shares of heads and FFN neurons")
    depth_mult_list: tuple[float, ...] = option(DEPTH_MULTS, "depth multipliers: shares of layers")
    embedding_rank_mult_list: tuple[float, ...] = option((1.0,), RANK_HELP)


@dataclass(frozen=True)
class TrainConfig(Section):
    """How a stage trains; the defaults are those of the paper's authors' code."""

    num_train_epochs: PositiveFloat = option(3.0, "passes over the training data")
    max_steps: PositiveInt | None = option(None, "optimizer steps, instead of num_train_epochs")
    per_device_train_batch_size: PositiveInt = option(32, "examples in a step")
    per_device_eval_batch_size: PositiveInt = option(64, "examples evaluated at a time")
    gradient_accumulation_steps: PositiveInt = option(1, "batches whose gradients one optimizer step sums")
    learning_rate: NonNegativeFloat = option(2e-5, "peak learning rate, which then decays linearly to 0")
    warmup_ratio: Fraction = option(0.0, "share of the steps over which the learning rate rises")
    weight_decay: NonNegativeFloat = option(0.0, "AdamW's weight decay, not applied to biases and norms")
    adam_epsilon: PositiveFloat = option(1e-8, "AdamW's epsilon")
    max_grad_norm: NonNegativeFloat = option(1.0, "clip the norm of the summed gradients of a step; 0 for no clipping")
    ema_decay: Annotated[float, Interval(ge=0, lt=1)] = option(
        0.0,
        "score and keep an exponential moving average of the weights with this decay; 0: none",
        later=True,
    )
    amp: Literal["off", "bf16", "fp16"] = option("off", "automatic mixed precision")
    seed: Seed = option(42, "random seed")
    select_on: Literal["holdout", "dev"] = option(
        "holdout", "choose the best checkpoint on held-out training examples, or on dev as the authors do"
    )
    holdout_size: PositiveInt = option(500, "training examples to hold out for it, at most a tenth of all")
    eval_steps: NonNegativeInt = option(0, "steps between evaluations; 0 for once an epoch")
    early_stopping_patience: PositiveInt | None = option(
        None, "stop after so many evaluations in a row without a better score", later=True
    )
    save_steps: NonNegativeInt = option(500, "steps between checkpoints; 0 for no limit")
    save_minutes: NonNegativeFloat = option(
        5.0, "minutes between checkpoints, where save_steps take longer; 0 for no limit"
    )
    logging_steps: PositiveInt = option(10, "steps between log lines")


@dataclass(frozen=True)
class LabelLossConfig(TrainConfig):
    """How a stage that trains on labels weighs them; stages that distil a teacher read none."""

    class_weights: Literal["balanced"] | dict[Any, NonNegativeFloat] | None = option(
        None,
        "weight of each label's rows in the loss: balanced, or by name such as 'pos: 3, neg: 1', where other labels "
        "have 1; scaled so that their mean over the training rows is 1",
        later=True,
    )
    focal_gamma: NonNegativeFloat = option(
        0.0, "focal loss: a label of probability p counts (1 - p)^gamma times; 0 for cross-entropy", later=True
    )
    label_smoothing: Annotated[float, Interval(ge=0, lt=1)] = option(
        0.0, "share of each label that is spread evenly over all labels", later=True
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
class RewireConfig(Section):
    """Stage 1: sort heads and neurons by importance."""

    accumulation: Literal["per_batch", "huawei"] = option(
        "per_batch",
        "per_batch adds up each batch's importance on held-out training examples; huawei reads the dev set and never "
        "clears the gradients, as the authors' code does",
    )
    holdout_size: PositiveInt = option(
        500, "held-out training examples to read, at most a tenth of them; with finetune's size and seed the same ones"
    )
    per_device_eval_batch_size: PositiveInt = option(32, "examples in a batch")
    seed: Seed = option(42, "chooses the held-out examples")
    text_file: str | None = option(None, TEXT_HELP, later=True)

    def __post_init__(self) -> None:
        _make_absolute(self, "text_file")


@dataclass(frozen=True)
class _SubnetsConfig(TrainConfig):
    subnets_per_step: Literal["all", "sandwich"] = option(
        "all", "train every sub-network in each step, or the largest, the smallest and some random ones"
    )
    num_random_subnets: NonNegativeInt = option(2, "how many random ones a sandwich has")
    random_subnets: Literal["grid", "per_layer"] = option(
        "grid",
        "where a sandwich's random ones come from: the grid, or all that search looks at, spread evenly over MACs",
        later=True,
    )


@dataclass(frozen=True)
class WidthConfig(_SubnetsConfig):
    """Stage 2: distil the fine-tuned model into every width."""

    lambda_logit: NonNegativeFloat = option(1.0, "weight of the logit loss, lambda_1 in the paper")
    lambda_hidden: NonNegativeFloat = option(
        0.1, "weight of the embedding and hidden-state loss, lambda_2 in the paper"
    )
    temperature: PositiveFloat = option(1.0, "softens both sides' logits")
    teacher_name_or_path: str | None = option(
        None,
        "another fine-tuned model to distil from; its hidden states are compared only where both have the same sizes",
        otherwise="DIR itself",
        later=True,
    )
    lambda_label: NonNegativeFloat = option(
        0.0, "weight of the hard-label loss beside that of the logits; texts without a label have none", later=True
    )
    lambda_contrastive: NonNegativeFloat = option(
        0.0, "embedding: weight of telling a query's positive text from the others of its batch; 0 for off", later=True
    )
    lambda_relation: NonNegativeFloat = option(
        0.0,
        "weight of the attention relations (MiniLMv2) of each sub-network's last layer to the teacher's",
        later=True,
    )
    relation_layer: NonNegativeInt | None = option(
        None, "the teacher's layer that gives the relations, counted from 0", otherwise="the last", later=True
    )
    include_padding: bool = option(False, "average the hidden-state loss over padding too, as the authors do")
    augmented_file: str | None = option(
        None, "train on these texts, which 'dynabert augment' made of the training rows, without those held out"
    )
    unlabelled_files: tuple[str, ...] = option(
        (), "train on the texts of these files, too: tables with the task's columns of text, or .txt", later=True
    )

    def __post_init__(self) -> None:
        _make_absolute(self, "augmented_file")
        object.__setattr__(self, "unlabelled_files", tuple(map(_absolute, self.unlabelled_files)))


@dataclass(frozen=True)
class DepthConfig(WidthConfig):
    """Stage 3: distil the width-adaptive model into every width and depth."""

    lambda_hidden: NonNegativeFloat = option(
        1.0, "weight of the embedding and hidden-state loss, lambda_2 in the paper"
    )


@dataclass(frozen=True)
class GeneralConfig(_SubnetsConfig):
    """Without labels: distil a pretrained backbone into every width and depth, from raw text."""

    text_file: str | None = option(None, TEXT_HELP, later=True)
    num_train_epochs: PositiveFloat = option(1.0, "passes over the texts")
    learning_rate: NonNegativeFloat = option(2e-4, "peak learning rate, which then decays linearly to 0")
    warmup_ratio: Fraction = option(0.05, "share of the steps over which the learning rate rises")
    subnets_per_step: Literal["all", "sandwich"] = option(
        "sandwich", "train every sub-network in each step, or the largest, the smallest and some random ones"
    )
    lambda_hidden: NonNegativeFloat = option(1.0, "weight of the embedding and hidden-state loss")
    lambda_relation: NonNegativeFloat = option(
        1.0,
        "weight of the attention relations of the last layer: of queries, keys and values among themselves",
    )
    lambda_logit: NonNegativeFloat = option(
        5.0, "backbones with a masked-LM head: weight of the soft targets, alpha_ce in DistilBERT's code"
    )
    lambda_mlm: NonNegativeFloat = option(2.0, "likewise: weight of the masked words, alpha_mlm")
    lambda_cosine: NonNegativeFloat = option(1.0, "likewise: weight of the last hidden state's cosine loss, alpha_cos")
    temperature: PositiveFloat = option(2.0, "likewise: softens both sides' logits")
    mlm_probability: Annotated[float, Interval(gt=0, le=1)] = option(
        0.15, "likewise: share of the tokens that are to be predicted"
    )

    def __post_init__(self) -> None:
        _make_absolute(self, "text_file")


@dataclass(frozen=True)
class FinalConfig(_SubnetsConfig, LabelLossConfig):
    """Stage 4, optional: train every sub-network on the labels, without a teacher."""


@dataclass(frozen=True)
class BaselineConfig(LabelLossConfig):
    """A model of one fixed size to compare with; the weights are those of DistilBERT's and TinyBERT's authors."""

    method: Literal["distilbert", "tinybert", "pruned", "finetuned"] = option("distilbert", "how it is trained")
    subnet: str = option("w1.00d0.50", "the sub-network of DIR that gives its shape")
    num_examples: PositiveInt | None = option(
        None, "examples to see, those of the model that it starts from included, in place of steps and epochs"
    )
    temperature: PositiveFloat = option(2.0, "distilbert: softens both sides' logits")
    lambda_logit: NonNegativeFloat = option(5.0, "distilbert: weight of the logit loss, alpha_ce in its authors' code")
    lambda_label: NonNegativeFloat = option(2.0, "distilbert: weight of the hard-label loss, in place of alpha_mlm")
    lambda_cosine: NonNegativeFloat = option(
        1.0, "distilbert: weight of the last hidden state's cosine loss, alpha_cos"
    )
    layer_share: Fraction = option(
        0.5, "tinybert: share of the steps that train the layers, before those that train the prediction"
    )


@dataclass(frozen=True)
class Config(Section):
    """A whole run; `load_config` takes what is not given from the recipe, which this class itself does not read."""

    model_name_or_path: str = option("minilm-l6", "built-in backbone, PaddleNLP name, or a model folder")
    output_dir: str = option("out", "folder for the stages, one folder each")
    device: str = option("auto", "auto, cpu or gpu:N")
    stages: tuple[Stage, ...] = option(("finetune", "rewire", "width", "depth"), "the stages to run")
    recipe: Recipe = option("paper", "built-in settings that replace the defaults", later=True)
    task: TaskConfig = field(default_factory=TaskConfig)
    space: SpaceConfig = field(default_factory=SpaceConfig)
    finetune: FinetuneConfig = field(default_factory=FinetuneConfig)
    rewire: RewireConfig = field(default_factory=RewireConfig)
    width: WidthConfig = field(default_factory=WidthConfig)
    depth: DepthConfig = field(default_factory=DepthConfig)
    general: GeneralConfig = field(default_factory=GeneralConfig, metadata={"later": True})
    final: FinalConfig = field(default_factory=FinalConfig)
    baseline: BaselineConfig = field(default_factory=BaselineConfig)

    def __post_init__(self) -> None:
        object.__setattr__(self, "output_dir", os.path.expanduser(self.output_dir))


SECTIONS: dict[str, Any] = {
    f.name: f.default_factory for f in dataclasses.fields(Config) if f.default_factory is not dataclasses.MISSING
}


def plain_name(name: str) -> str:
    """Normalize a task's name: capitals, `-` and `_` make no difference."""
    return name.lower().replace("-", "").replace("_", "")
