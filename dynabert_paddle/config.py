"""The settings of a run: one validated section per stage, each default written once, here.

The sections are plain frozen dataclasses, so that the command line can list their fields without importing a
validation library; pydantic checks the values when a config is loaded.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from dynabert_paddle.errors import UsageError, did_you_mean
from dynabert_paddle.subnet import DEPTH_MULTS, WIDTH_MULTS, parse_mults

# Installed, the configs lie inside the package; in a checkout, and an editable install of it, beside the package.
_CONFIG_DIR = next(
    (path / "configs" for path in (Path(__file__).parent, Path(__file__).parents[1]) if (path / "configs").is_dir()),
    Path(__file__).parent / "configs",
)

STAGES = ("finetune", "rewire", "width", "depth", "final")


def _option(default: Any, help: str) -> Any:
    return field(default=default, metadata={"help": help})


class _Section:
    """What every section shares: unknown keys and wrong types are errors."""

    __pydantic_config__ = {"extra": "forbid"}  # noqa: RUF012 - pydantic's protocol for plain dataclasses


@dataclass(frozen=True)
class TaskConfig(_Section):
    """Which data, read how."""

    name: str = _option("snips", "the built-in task 'snips', or 'custom' for your own files")
    data_dir: str | None = _option(None, "folder with train.* and dev.* (.tsv, .csv or .jsonl)")
    train_file: str | None = _option(None, "training file, in place of data_dir")
    dev_file: str | None = _option(None, "development file, in place of data_dir")
    text_column: str | None = _option(None, "column of the sentence; found where it is 'sentence' or 'text'")
    text_pair_column: str | None = _option(None, "column of the second sentence of a pair")
    label_column: str | None = _option(None, "column of the label; 'label' where not given")
    labels: tuple[str, ...] | None = _option(None, "labels in their order; found in the training file where not given")
    kind: Literal["classification", "regression"] | None = _option(None, "what is predicted; a class where not given")
    metrics: tuple[str, ...] | None = _option(None, "metrics, of which the first selects; the task's own by default")
    max_seq_length: int = _option(128, "longer inputs are cut to so many tokens")


@dataclass(frozen=True)
class SpaceConfig(_Section):
    """Which sub-networks the grid has."""

    width_mult_list: tuple[float, ...] = _option(WIDTH_MULTS, "shares of heads and FFN neurons")
    depth_mult_list: tuple[float, ...] = _option(DEPTH_MULTS, "shares of layers")


@dataclass(frozen=True)
class TrainConfig(_Section):
    """How a stage trains; the defaults are those of the paper's authors' code."""

    num_train_epochs: float = _option(3.0, "passes over the training data")
    max_steps: int | None = _option(None, "optimizer steps, in place of num_train_epochs")
    per_device_train_batch_size: int = _option(32, "examples in a step")
    per_device_eval_batch_size: int = _option(64, "examples evaluated at a time")
    gradient_accumulation_steps: int = _option(1, "batches whose gradients one optimizer step sums")
    learning_rate: float = _option(2e-5, "peak learning rate, which then decays linearly to 0")
    warmup_ratio: float = _option(0.0, "share of the steps over which the learning rate rises")
    weight_decay: float = _option(0.0, "AdamW's weight decay, not applied to biases and norms")
    adam_epsilon: float = _option(1e-8, "AdamW's epsilon")
    max_grad_norm: float = _option(1.0, "clip the norm of the summed gradients of a step; 0 for no clipping")
    amp: Literal["off", "bf16", "fp16"] = _option("off", "automatic mixed precision")
    seed: int = _option(42, "every random choice follows from it")
    select_on: Literal["holdout", "dev"] = _option(
        "holdout", "choose the best checkpoint on held-out training examples, or on dev as the authors do"
    )
    holdout_size: int = _option(500, "training examples held out for that, at most a tenth of them")
    eval_steps: int = _option(0, "evaluate every so many steps; 0 for once an epoch")
    save_steps: int = _option(500, "write a checkpoint every so many steps; 0 for only when interrupted")
    logging_steps: int = _option(10, "log every so many steps")


@dataclass(frozen=True)
class FinetuneConfig(TrainConfig):
    """Stage 0: fine-tune the backbone on the labels."""


@dataclass(frozen=True)
class RewireConfig(_Section):
    """Stage 1: sort heads and neurons by importance."""

    accumulation: Literal["per_batch", "huawei"] = _option(
        "per_batch",
        "per_batch adds up each batch's importance on held-out training examples; huawei reads the dev set and never "
        "clears the gradients, as the authors' code does",
    )
    holdout_size: int = _option(
        500, "held-out training examples to read, at most a tenth of them; with finetune's size and seed the same ones"
    )
    per_device_eval_batch_size: int = _option(32, "examples in a batch")
    seed: int = _option(42, "chooses the held-out examples")


@dataclass(frozen=True)
class _SubnetsConfig(TrainConfig):
    subnets_per_step: Literal["all", "sandwich"] = _option(
        "all", "train every sub-network in each step, or the largest, the smallest and some random ones"
    )
    num_random_subnets: int = _option(2, "how many random ones a sandwich has")


@dataclass(frozen=True)
class WidthConfig(_SubnetsConfig):
    """Stage 2: distil the fine-tuned model into every width."""

    lambda_logit: float = _option(1.0, "weight of the logit loss, lambda_1 in the paper")
    lambda_hidden: float = _option(0.1, "weight of the embedding and hidden-state loss, lambda_2 in the paper")
    temperature: float = _option(1.0, "softens both sides' logits")
    include_padding: bool = _option(False, "average the hidden-state loss over padding too, as the authors do")


@dataclass(frozen=True)
class DepthConfig(WidthConfig):
    """Stage 3: distil the width-adaptive model into every width and depth."""

    lambda_hidden: float = _option(1.0, "weight of the embedding and hidden-state loss, lambda_2 in the paper")


@dataclass(frozen=True)
class FinalConfig(_SubnetsConfig):
    """Stage 4, optional: train every sub-network on the labels, without a teacher."""


@dataclass(frozen=True)
class Config(_Section):
    """A whole run."""

    model_name_or_path: str = _option("minilm-l6", "built-in backbone, PaddleNLP name, or a model folder")
    output_dir: str = _option("out", "folder that gets one folder per stage")
    device: str = _option("auto", "auto, cpu or gpu:N")
    stages: tuple[Literal[STAGES], ...] = _option(("finetune", "rewire", "width", "depth"), "which stages run")
    task: TaskConfig = field(default_factory=TaskConfig)
    space: SpaceConfig = field(default_factory=SpaceConfig)
    finetune: FinetuneConfig = field(default_factory=FinetuneConfig)
    rewire: RewireConfig = field(default_factory=RewireConfig)
    width: WidthConfig = field(default_factory=WidthConfig)
    depth: DepthConfig = field(default_factory=DepthConfig)
    final: FinalConfig = field(default_factory=FinalConfig)


SECTIONS = {
    f.name: f.default_factory for f in dataclasses.fields(Config) if f.default_factory is not dataclasses.MISSING
}


def built_in_configs() -> list[str]:
    """Names of the configs that come with the package, for example `quickstart`."""
    return sorted(str(path.relative_to(_CONFIG_DIR).with_suffix("")) for path in _CONFIG_DIR.rglob("*.yaml"))


def find_config(name: str) -> Path:
    """Find a config by its path or its built-in name.

    Args:
        name: path of a YAML file, or a name that `built_in_configs` lists.

    Returns:
        The file.

    Raises:
        UsageError: neither a file nor a built-in name.
    """
    if Path(name).is_file():
        return Path(name)
    names = built_in_configs()
    if name not in names:
        raise UsageError(
            f"{name}: no such file, and no built-in config: {', '.join(names)}.{did_you_mean(name, names)}"
        )
    return _CONFIG_DIR / f"{name}.yaml"


def load_config(
    path: str | Path | None = None,
    overrides: Iterable[str] = (),
    flags: Mapping[str, Any] | None = None,
    *,
    base: Mapping[str, Mapping[str, Any]] | None = None,
) -> Config:
    """Resolve a config: flag over `-o` override over file over default.

    A `train` section, in the file or in an override, sets a value for every stage that has it and does not set its own.

    Args:
        path: YAML file that holds only what differs from the defaults, or None.
        overrides: `section.key=value` strings; the values are read as YAML.
        flags: values by dotted key, as the command line gives them; None values count as not given.
        base: values by section that all others go before, such as the task that a model was trained for.

    Returns:
        The validated `Config`.

    Raises:
        UsageError: a file, key or value that cannot be used, with the nearest spelling of a key.
    """
    values: dict[str, Any] = _read_yaml(path) if path else {}
    for override in overrides:
        key, separator, text = override.partition("=")
        if not separator:
            raise UsageError(f"-o {override}: write it as section.key=value, for example -o train.seed=3")
        _assign(values, key.strip(), _parse_yaml(text, f"-o {override}"))
    for key, value in (flags or {}).items():
        if value is not None:
            _assign(values, key, value)
    for section, defaults in (base or {}).items():
        if isinstance(values.setdefault(section, {}), dict):
            values[section] = {**defaults, **values[section]}
    return _validate(_spread_train(values), str(path) if path else "the settings")


def resolve_config(section: type, values: Mapping[str, Any]) -> Any:
    """Validate the values of one section, as Python callers and saved folders give them.

    Args:
        section: one of the section classes, for example `WidthConfig`.
        values: values by field name.

    Returns:
        The section.

    Raises:
        UsageError: an unknown key or a wrong value.
    """
    return _build(section, dict(values), section.__name__)


def lasting_settings(config: Any) -> dict[str, Any]:
    """The settings that decide what a stage computes, without those that only decide what it reports and when.

    Args:
        config: one of the stage sections.

    Returns:
        Values by field name.
    """
    return {key: value for key, value in dataclasses.asdict(config).items() if key not in _REPORTING}


def _validate(values: dict[str, Any], source: str) -> Config:
    # A list in one string, or a single number, is what a command line and a hasty YAML file hold.
    space = values.get("space")
    for key in ("width_mult_list", "depth_mult_list"):
        if isinstance(space, dict) and key in space:
            space[key] = parse_mults(space[key])
    for stage in STAGES:  # YAML takes a bare `off` for false
        if isinstance(values.get(stage), dict) and values[stage].get("amp") is False:
            values[stage]["amp"] = "off"
    return _build(Config, values, source)


def _build(section: type, values: dict[str, Any], source: str) -> Any:
    from pydantic import TypeAdapter, ValidationError

    try:
        config = TypeAdapter(section).validate_python(values)
    except ValidationError as error:
        raise UsageError(f"{source}: {_first_problem(section, error)}") from None
    _check_ranges(config, source)
    return config


def _first_problem(section: type, error) -> str:
    """One line about the first problem that pydantic found."""
    problem = error.errors()[0]
    keys = [str(part) for part in problem["loc"]]
    key = ".".join(keys)
    if problem["type"] in ("unexpected_keyword_argument", "extra_forbidden"):
        owner = section
        for part in keys[:-1]:
            owner = SECTIONS.get(part, owner)
        allowed = [f.name for f in dataclasses.fields(owner)]
        suggestion = did_you_mean(keys[-1], allowed) or f" Known keys: {', '.join(allowed)}."
        return f"unknown key '{key}'.{suggestion}"
    return f"{key}: {problem['input']!r} will not do: {problem['msg'].lower()}"


_REPORTING = ("logging_steps", "save_steps")

# What each number may be; keys are field names, which mean the same in every section.
_RANGES = {
    "num_train_epochs": (0, None, False),
    "max_steps": (1, None, True),
    "per_device_train_batch_size": (1, None, True),
    "per_device_eval_batch_size": (1, None, True),
    "gradient_accumulation_steps": (1, None, True),
    "learning_rate": (0, None, True),
    "warmup_ratio": (0, 1, True),
    "weight_decay": (0, None, True),
    "adam_epsilon": (0, None, False),
    "max_grad_norm": (0, None, True),
    "seed": (0, 2**31 - 1, True),
    "holdout_size": (1, None, True),
    "eval_steps": (0, None, True),
    "save_steps": (0, None, True),
    "logging_steps": (1, None, True),
    "num_random_subnets": (0, None, True),
    "lambda_logit": (0, None, True),
    "lambda_hidden": (0, None, True),
    "temperature": (0, None, False),
    "max_seq_length": (3, None, True),
}


def _check_ranges(config: Any, source: str) -> None:
    for f in dataclasses.fields(config):
        value = getattr(config, f.name)
        if dataclasses.is_dataclass(value):
            _check_ranges(value, source)
        elif f.name in _RANGES and value is not None:
            low, high, inclusive = _RANGES[f.name]
            above = value >= low if inclusive else value > low
            if not (above and math.isfinite(value) and (high is None or value <= high)):
                bound = f"{'at least' if inclusive else 'more than'} {low}" + (f", at most {high}" if high else "")
                raise UsageError(f"{source}: {f.name} is {bound}, not {value}")


def _spread_train(values: dict[str, Any]) -> dict[str, Any]:
    """Give every stage the values of the `train` section that it has a field for and does not set itself."""
    shared = values.pop("train", None)
    if shared is None:
        return values
    if not isinstance(shared, dict):
        raise UsageError(f"train: a section holds keys and values, not {shared!r}")
    stages = {name: {f.name for f in dataclasses.fields(SECTIONS[name])} for name in STAGES}
    known = set().union(*stages.values())
    for key in shared:
        if key not in known:
            raise UsageError(f"unknown key 'train.{key}'.{did_you_mean(key, known)}")
    for name, keys in stages.items():
        own = values.setdefault(name, {})
        if isinstance(own, dict):
            values[name] = {key: value for key, value in shared.items() if key in keys} | own
    return values


def _assign(values: dict[str, Any], key: str, value: Any) -> None:
    *sections, name = key.split(".")
    for section in sections:
        values = values.setdefault(section, {})
        if not isinstance(values, dict):
            raise UsageError(f"'{key}': '{section}' is a value, not a section")
    values[name] = value


def _read_yaml(path: str | Path) -> dict[str, Any]:
    try:
        text = Path(path).read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise UsageError(f"{path}: cannot be read: {getattr(error, 'strerror', None) or error}") from None
    values = _parse_yaml(text, str(path))
    if values is None:
        return {}
    if not isinstance(values, dict):
        raise UsageError(f"{path}: a config holds keys and values, not {type(values).__name__}")
    for section in (values, *(value for value in values.values() if isinstance(value, dict))):
        for key in section:
            if not isinstance(key, str):
                raise UsageError(f"{path}: a key is a word, not {key!r}")
    return {key: value for key, value in values.items() if value is not None}  # an empty section changes nothing


def _parse_yaml(text: str, source: str) -> Any:
    import yaml

    try:
        return yaml.safe_load(text)
    except yaml.YAMLError as error:
        mark = getattr(error, "problem_mark", None)
        where = f" line {mark.line + 1}:" if mark else ""
        raise UsageError(f"{source}:{where} not YAML: {getattr(error, 'problem', None) or error}") from None
