"""The parts of results.sh: what is trained from what, with which settings, and the names that tell parts apart.

A part is one training, or one search, of one task, backbone and seed. Its name ends with a hash of its settings, of its
rows and of the parts that it starts from, so that no result of other settings is taken for it, on any machine.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, fields, replace
from functools import cache, cached_property
from importlib.resources import files
from math import floor
from pathlib import Path
from typing import Any

import yaml
from parts import Record, find_records, hash_settings
from results_shapes import TASKS, Backbone, fixed_shapes

import dynabert_paddle.config
from dynabert_paddle.config.command_settings import SearchConfig
from dynabert_paddle.config.loading import load_config, resolve_config
from dynabert_paddle.config.options import lasting_settings
from dynabert_paddle.config.settings import ENCODING_SETTINGS, FinalConfig
from dynabert_paddle.errors import UsageError
from dynabert_paddle.files.hashing import hash_file

KEY = ("task", "backbone", "seed", "part")
FULL = "w1.00d1.00"
PARAMS_SHARE = 0.3  # of the encoder's parameters: those of its layers
FIXED_SIZE = ("distilbert", "tinybert", "pruned", "finetuned")
NUM_CONTINUED = 2  # fixed-size models of each budget that go on to further seeds
SEEDS = (1, 2, 3)

PAPER_TASKS, PAPER_SEEDS = ("rte", "mrpc", "cola"), (1, 2)

# The last epoch's weights are kept: nothing is chosen while training. The rows that choose are in the place of dev.
TRAINING = {"num_train_epochs": 3.0, "learning_rate": 1e-4, "select_on": "dev", "eval_steps": 10**9}
TEACHER_STAGES = ("finetune", "rewire")
PAPER_STAGES = (*TEACHER_STAGES, "width", "depth", "final")


def shared_settings(*sections: str) -> dict[str, Any]:
    """The settings, by dotted names, that all trainings share, for the sections that a part has."""
    trained = [section for section in sections if section != "rewire"]
    values = {f"{section}.{key}": value for section in trained for key, value in TRAINING.items()}
    return {"task.max_seq_length": 128, **values}


def read_recipe(name: str) -> tuple[tuple[str, ...], dict[str, Any]]:
    """Read the stages of a recipe behind the teacher's, and their settings by dotted names."""
    path = files(dynabert_paddle.config) / "recipes" / f"{name}.yaml"
    values = yaml.safe_load(path.read_text(encoding="utf-8"))
    stages = tuple(stage for stage in values.get("stages", PAPER_STAGES) if stage not in TEACHER_STAGES)
    sections = {key: section for key, section in values.items() if isinstance(section, dict)}
    if unknown := set(sections) - {*stages, "space"}:
        raise UsageError(f"{path}: it has settings of {', '.join(sorted(unknown))}, which the teacher here lacks")
    dotted = {f"{key}.{name}": value for key, section in sections.items() for name, value in section.items()}
    # A run's own files have 2e-4 as a text, which the settings read as a number.
    numbers = {key: float(value) for key, value in dotted.items() if key.endswith("learning_rate")}
    return stages, {**dotted, **numbers}


BEST_STAGES, BEST = read_recipe("best")
BEST_SETTINGS = {**shared_settings(*BEST_STAGES), **BEST, "stages": BEST_STAGES}
# What the recipe gains by its parts: supernets that lack one of them, trained for as many steps.
ABLATION_TASKS, ABLATION_SEEDS = ("mrpc", "sts-b"), (1, 2)
WITHOUT_REWIRING, WITHOUT_DISTILLATION = "without rewiring", "without distillation"
ABLATIONS = (WITHOUT_REWIRING, WITHOUT_DISTILLATION)
TRIAL = "trial"  # of other settings of the recipe, on the rows that choose alone
SEARCH = {"goals": ("macs", "params"), "num_evaluations": 200, "score_on": "dev"}


@dataclass(frozen=True)
class Part:
    """One training or one search.

    Args:
        task: its task.
        backbone: its backbone.
        seed: its seed.
        label: a method, and what tells its parts apart.
        kind: `run`, `search` or `baseline`, the command that makes it.
        method: of its rows in the results; None for a part that only others start from.
        settings: by the dotted names of a config, without files and seed.
        needs: the part that it starts from.
        digest: of the task's rows.
        from_stage: the stage of that part that it starts from; by default its last.
    """

    task: str
    backbone: Backbone
    seed: int
    label: str
    kind: str
    method: str | None
    settings: Mapping[str, Any]
    needs: Part | None
    digest: str
    from_stage: str = ""

    @cached_property
    def name(self) -> str:
        """Its label with a hash of all that its result depends on."""
        content = {
            "kind": self.kind,
            "settings": _resolve(tuple(self.settings.items()), self.kind),
            "rows": self.digest,
            "needs": self.needs and self.needs.name,
            **({"from_stage": self.from_stage} if self.from_stage else {}),
        }
        return f"{self.label}-{hash_settings(content)}"

    @property
    def key(self) -> dict[str, Any]:
        """The key of its record."""
        return dict(zip(KEY, (self.task, self.backbone.name, self.seed, self.name), strict=True))

    @property
    def chain(self) -> list[Part]:
        """The parts that it starts from, the first one first, and itself."""
        return [*(self.needs.chain if self.needs else ()), self]


@dataclass(frozen=True)
class Rows:
    """A task's rows, as far as the plan depends on them.

    Args:
        num_train: rows to train on.
        digest: names the training rows and those that choose.
    """

    num_train: int
    digest: str


def plan_parts(task: str, backbone: Backbone, seed: int, rows: Rows, records: Sequence[Record]) -> list[Part]:
    """List the parts of a task, backbone and seed, each behind the one that it starts from.

    The first seed has all fixed-size models. Further seeds have the two best of each budget, by the rows that choose,
    once the first seed's are all there.

    Args:
        task: the task.
        backbone: the backbone.
        seed: the seed.
        rows: the task's rows.
        records: of finished parts.

    Returns:
        The parts.
    """

    def part(label: str, kind: str, method: str | None, settings: Mapping[str, Any], needs: Part | None) -> Part:
        return Part(task, backbone, seed, label, kind, method, settings, needs, rows.digest)

    def run(label: str, method: str | None, stages: Sequence[str], needs: Part | None, **settings: Any) -> Part:
        return part(label, "run", method, {**shared_settings(*stages), **settings, "stages": tuple(stages)}, needs)

    teacher = run("teacher", "teacher", TEACHER_STAGES, None)
    best = part("best", "run", "grid", BEST_SETTINGS, teacher)
    parts = [teacher, best, part("search", "search", "searched", SEARCH, best)]
    for method, subnet in plan_fixed(task, backbone, seed, rows, records):
        settings = {
            **shared_settings("baseline"),
            "baseline.method": method,
            "baseline.subnet": subnet,
            "baseline.num_examples": num_examples(rows.num_train),
        }
        start = None if method == "finetuned" else teacher
        parts.append(part(f"{method}-{subnet}", "baseline", method, settings, start))
    if backbone.tasks == TASKS and task in PAPER_TASKS and seed in PAPER_SEEDS:
        width = run("paper-width", None, ("width",), teacher)
        parts += [width, run("paper-depth", "paper", ("depth",), width)]
    if backbone.tasks == TASKS and task in ABLATION_TASKS and seed in ABLATION_SEEDS:
        known = {field.name for field in fields(FinalConfig)}
        of_stage = (name.rpartition(".")[2] for name in BEST if name.startswith(f"{BEST_STAGES[-1]}."))
        on_labels = {f"final.{key}": BEST[f"{BEST_STAGES[-1]}.{key}"] for key in of_stage if key in known}
        parts += [
            replace(best, label="without-rewiring", method=WITHOUT_REWIRING, from_stage="finetune"),
            run("without-distillation", WITHOUT_DISTILLATION, ("final",), teacher, **on_labels),
        ]
    return parts


def plan_trial(best: Part, overrides: Mapping[str, Any]) -> Part:
    """Plan a supernet with other settings of its stage.

    Args:
        best: the recipe's own.
        overrides: settings of the stage or of the space, by dotted names.

    Returns:
        The part.

    Raises:
        UsageError: a setting of another section, which would change the teacher, too.
    """
    for name in overrides:
        if name.split(".")[0] not in (*best.settings["stages"], "space"):
            sections = " or ".join(f"{section}.KEY" for section in (*best.settings["stages"], "space"))
            raise UsageError(f"--set {name}: a trial changes the supernet's stage alone: pass {sections}")
    return replace(best, label=TRIAL, method=TRIAL, settings={**best.settings, **overrides})


def plan_fixed(
    task: str, backbone: Backbone, seed: int, rows: Rows, records: Sequence[Record]
) -> list[tuple[str, str]]:
    """List the method and the sub-network of each fixed-size model of a seed."""
    shapes = fixed_shapes(backbone)
    pairs = [(method, subnet) for by_method in shapes.values() for method, subnet in by_method.items()]
    if seed == SEEDS[0]:
        return pairs
    first = {part.label: part.key for part in plan_parts(task, backbone, SEEDS[0], rows, records)}
    tuning = {}
    for method, subnet in pairs:
        found = find_records(records, first[f"{method}-{subnet}"])
        if found:
            (row,) = found[0]["rows"]
            tuning[method, subnet] = row["tuning"]
    chosen = []
    for by_method in shapes.values():
        own = list(by_method.items())
        if all(pair in tuning for pair in own):
            chosen += sorted(own, key=lambda pair: -tuning[pair])[:NUM_CONTINUED]
    return chosen


def num_examples(num_train: int) -> int:
    """Count the examples that the whole chain of a supernet reads: fine-tuning, rewiring, and the recipe's stages."""
    rewiring = min(500, num_train // 10)
    shared = TRAINING["num_train_epochs"]
    epochs = shared + sum(BEST.get(f"{stage}.num_train_epochs", shared) for stage in BEST_STAGES)
    return floor(epochs * num_train) + rewiring


def config_values(settings: Mapping[str, Any], seed: int, places: Mapping[str, str]) -> dict[str, Any]:
    """Return the settings of a part as the sections of a config file.

    Args:
        settings: by dotted names.
        seed: the part's.
        places: further ones: the files of the task, and folders.

    Returns:
        Nested values for YAML.
    """
    values: dict[str, Any] = {}
    for name, value in {**settings, **places, "train.seed": seed}.items():
        section, _, key = name.rpartition(".")
        (values.setdefault(section, {}) if section else values)[key] = (
            list(value) if isinstance(value, tuple) else value
        )
    return values


@cache
def _resolve(settings: tuple[tuple[str, Any], ...], kind: str) -> dict[str, Any]:
    """All settings that a part's result depends on, those at their defaults included; validation takes its time."""
    if kind == "search":
        return _without_places(lasting_settings(resolve_config(SearchConfig, dict(settings))))
    config = load_config(flags=dict(settings))
    sections: Iterable[str] = config.stages if kind == "run" else ("baseline",)
    return {
        **{name: _without_places(lasting_settings(getattr(config, name))) for name in sections},
        "space": lasting_settings(config.space),
        "encoding": {name: getattr(config.task, name) for name in ENCODING_SETTINGS},
    }


def _without_places(settings: Mapping[str, Any]) -> dict[str, Any]:
    """Leave out the seed, which names a part by itself, and put hashes of their contents in the place of files."""

    def content(value: Any) -> Any:
        if isinstance(value, tuple):
            return tuple(map(content, value))
        return hash_file(path) if isinstance(value, str) and (path := Path(value)).is_absolute() else value

    return {key: content(value) for key, value in settings.items() if key != "seed"}
