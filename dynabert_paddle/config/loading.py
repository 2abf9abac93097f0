"""Finds, reads, overrides and validates configs."""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Callable, Collection, Iterable, Mapping
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

from dynabert_paddle.config.names import Place, find_place, setting
from dynabert_paddle.config.run_file import CONFIG_FILE, is_run_file, locate
from dynabert_paddle.config.settings import ENCODING_SETTINGS, RECIPES, SECTIONS, STAGES, Config, plain_name
from dynabert_paddle.errors import UsageError, did_you_mean
from dynabert_paddle.multipliers import parse_mults

if TYPE_CHECKING:
    from pydantic import ValidationError

# The configs are inside an installed package, and beside the package in a checkout or an editable install.
_PACKAGE = Path(__file__).parents[1]
_CONFIG_DIR = next(
    (path / "configs" for path in (_PACKAGE, _PACKAGE.parent) if (path / "configs").is_dir()), _PACKAGE / "configs"
)

_RECIPE_DIR = Path(__file__).parent / "recipes"

MAX_BYTES = 2**18  # of a config file, because the parser is slow
MAX_DEPTH = 30
MAX_VALUES = 2**16  # an alias counts with all values that it expands to

# The sections that a `train` section sets.
_TRAIN_SECTIONS = (*STAGES, "baseline")

# Pydantic's errors of numbers out of range -> the bound's name there, and words for it.
_BOUNDS = {
    "greater_than_equal": ("ge", "at least"),
    "greater_than": ("gt", "more than"),
    "less_than_equal": ("le", "at most"),
    "less_than": ("lt", "less than"),
}
# Pydantic's name for one form of a setting that has several, in the place of an error.
_FORM = re.compile(r"(literal|dict)\[")
_FindPlace = Callable[[str], Place | None]


def built_in_configs() -> list[str]:
    """Return the names of the configs in the package, for example `quickstart`."""
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
    if name not in names and Path(name).is_dir():
        own = Path(name) / CONFIG_FILE
        advice = f"name its settings, {own}" if own.is_file() else f"name a YAML file, or one of {', '.join(names)}"
        raise UsageError(f"{name} is a folder: {advice}")
    if name not in names:
        raise UsageError(
            f"{name}: no such file, and no built-in config: {', '.join(names)}.{did_you_mean(name, names)}"
        )
    return _CONFIG_DIR / f"{name}.yaml"


def find_users_config(name: str | Path | None) -> Path | None:
    """Return a config's file, unless it is built in: its lines are not the user's."""
    return Path(name) if name and Path(name).is_file() and _CONFIG_DIR not in Path(name).parents else None


def load_config(
    path: str | Path | None = None,
    overrides: Iterable[str] = (),
    flags: Mapping[str, Any] | None = None,
    *,
    base: Mapping[str, Mapping[str, Any]] | None = None,
    resumes: bool = False,
) -> Config:
    """Resolve a config. Priority, highest first: flag, `-o` override, config file, `base`, recipe, default.

    A `train` section sets its values for every stage that has the field. In the config file, a stage's section has
    priority over it; in an override, `train` replaces the values of the file.

    Args:
        path: YAML file with values that differ from the defaults, or None. A run's own `run.yaml` means the run in its
            folder, wherever that is now.
        overrides: `section.key=value` strings; the values are parsed as YAML.
        flags: values of command-line flags by dotted key; None means not given.
        base: values by section that replace the defaults, such as the task that a model was trained on.
        resumes: where no recipe is given, take that of the run in the output folder, if one is there.

    Returns:
        The validated `Config`.

    Raises:
        UsageError: an invalid file, key or value; the message suggests the nearest key.
    """
    overrides = list(overrides)
    file = find_users_config(path)

    def place(key: str) -> Place | None:
        return None if (flags or {}).get(key) is not None else find_place(key, file, overrides)

    values: dict[str, Any] = _read_yaml(path) if path else {}
    if path and is_run_file(Path(path)):
        values = locate(values, Path(path).parent if Path(path).parent.name else Path(path).parent.absolute())
    values = _spread_train(values, place)
    given = [_read_override(override) for override in overrides]
    for key, value in sorted(given, key=lambda pair: not pair[0].startswith("train.")):  # values of single stages last
        _assign(values, key, value)
        values = _spread_train(values, place, over=True)
    for key, value in (flags or {}).items():
        if value is not None:
            _assign(values, key, value)
    values = _spread_train(values, place, over=True)
    for section, defaults in (base or {}).items():
        own = values.setdefault(section, {})
        if isinstance(own, dict):
            values[section] = {**inherited_settings(defaults, own), **own}
    if resumes and "recipe" not in values and (kept := find_recipe(str(values.get("output_dir", Config.output_dir)))):
        values["recipe"] = kept
    return _validate(_complete_by_recipe(values, place), place)


def find_recipe(output_dir: str | Path) -> str | None:
    """Return the recipe of the run in a folder: `paper` for one made before there were recipes; None for no run."""
    path = Path(output_dir).expanduser() / CONFIG_FILE
    if not (path.is_file() and is_run_file(path)):
        return None
    try:
        return _read_yaml(path).get("recipe", Config.recipe)
    except UsageError:  # a damaged file is told when the run reads it
        return None


def resolve_config(section: type, values: Mapping[str, Any]) -> Any:
    """Validate the values of one section, for example from Python code or a saved folder.

    Args:
        section: one of the section classes, for example `WidthConfig`.
        values: values by field name.

    Returns:
        The section.

    Raises:
        UsageError: an unknown key or a wrong value.
    """
    return _build(section, dict(values), lambda key: Place(key, section.__name__, setting(key)))


def _complete_by_recipe(values: dict[str, Any], place: _FindPlace) -> dict[str, Any]:
    """Add the recipe's values where nothing else is given."""
    name = values.get("recipe", Config.recipe)
    if name not in RECIPES:  # which the validation tells
        return values
    recipe = _spread_train(_read_yaml(_RECIPE_DIR / f"{name}.yaml"), place)
    for key, value in recipe.items():
        own = values.get(key, {} if isinstance(value, dict) else value)
        values[key] = {**value, **own} if isinstance(value, dict) and isinstance(own, dict) else own
    return values


def _validate(values: dict[str, Any], place: _FindPlace) -> Config:
    # The command line and YAML files may have a list in one string or a single number.
    space = values.get("space")
    for key in ("width_mult_list", "depth_mult_list", "embedding_rank_mult_list"):
        if isinstance(space, dict) and key in space:
            try:
                space[key] = parse_mults(space[key])
            except UsageError as error:
                found = place(f"space.{key}")
                raise UsageError(f"{found.name if found else setting(f'space.{key}')}: {error}") from None
    for stage in _TRAIN_SECTIONS:  # YAML reads a bare `off` as false
        if isinstance(values.get(stage), dict) and values[stage].get("amp") is False:
            values[stage]["amp"] = "off"
    return _build(Config, values, place)


def _build(section: Any, values: dict[str, Any], place: _FindPlace) -> Any:
    from pydantic import TypeAdapter, ValidationError

    try:
        return TypeAdapter(section).validate_python(values)
    except ValidationError as error:
        raise UsageError(_first_problem(section, error, place)) from None


def _first_problem(section: Any, error: ValidationError, place: _FindPlace) -> str:
    """Return one line about the first error that pydantic found."""
    problem, *others = error.errors()
    keys = [str(part) for part in problem["loc"]]
    if problem["type"] in ("unexpected_keyword_argument", "extra_forbidden"):
        owner = section
        for part in keys[:-1]:
            owner = SECTIONS.get(part, owner)
        return _unknown_key(".".join(keys), [f.name for f in dataclasses.fields(owner)], place)
    forms = [part for part in keys if _FORM.match(part)]
    if forms:  # a setting with several forms, with an error for each
        keys = keys[: keys.index(forms[0])]
        problems = [problem, *(other for other in others if list(map(str, other["loc"][: len(keys)])) == keys)]
        if isinstance(problem["input"], dict):
            problem = next(other for other in problems if "dict[" in str(other["loc"][len(keys)]))
        else:
            problem["msg"] = ", or ".join(dict.fromkeys(other["msg"] for other in problems))
    key = ".".join(part for part in keys if not part.isdecimal())  # a list is given as a whole
    found = place(key)
    name, value = found.name if found else setting(key), problem["input"]
    if problem["type"] in _BOUNDS:
        bound, words = _BOUNDS[problem["type"]]
        return f"{name} is {words} {problem['ctx'][bound]:g}, not {value}"
    is_choice = problem["type"] == "literal_error"
    allowed = re.findall("'(.*?)'", problem["ctx"]["expected"]) if is_choice else []
    suggestion = did_you_mean(str(value), allowed)
    return f"{name}: {value!r} is not allowed: {problem['msg'].lower()}{suggestion and '.'}{suggestion}"


def _unknown_key(key: str, allowed: Collection[str], place: _FindPlace) -> str:
    found = place(key)
    where = f"{found.source}: " if found else ""
    name = key.rpartition(".")[2]
    owners = [other for other, kind in SECTIONS.items() if name in {f.name for f in dataclasses.fields(kind)}]
    suggestion = did_you_mean(name, allowed) or f" Known keys: {', '.join(allowed)}."
    if owners and "." in key:
        suggestion = f" It is one of {', '.join(owners)}."
    return f"{where}unknown key '{key}'.{suggestion}"


def _spread_train(values: dict[str, Any], place: _FindPlace, *, over: bool = False) -> dict[str, Any]:
    """Copy the values of the `train` section to every stage that has the field; `over` replaces existing values."""
    shared = values.pop("train", None)
    if shared is None:
        return values
    if not isinstance(shared, dict):
        found = place("train")
        raise UsageError(f"{found.name if found else 'train'}: a section holds keys and values, not {shared!r}")
    fields_of = {name: {f.name for f in dataclasses.fields(SECTIONS[name])} for name in _TRAIN_SECTIONS}
    known = set().union(*fields_of.values())
    for key in shared:
        if key not in known:
            raise UsageError(_unknown_key(f"train.{key}", sorted(known), place))
    for name, keys in fields_of.items():
        own = values.setdefault(name, {})
        if isinstance(own, dict):
            spread = {key: value for key, value in shared.items() if key in keys}
            values[name] = own | spread if over else spread | own
    return values


def inherited_settings(defaults: Mapping[str, Any], own: Mapping[str, Any]) -> dict[str, Any]:
    """Return the defaults that still apply with the user's values: for another task or folder the files do not.

    Args:
        defaults: values by field name, such as the task that a model was trained on.
        own: the user's values.

    Returns:
        The defaults that apply.

    Raises:
        UsageError: the user names another kind of task than the model's.
    """
    kind, own_kind = defaults.get("kind"), own.get("kind")
    names = {plain_name(str(task.get("name", defaults.get("name")))) for task in (own, defaults)}
    if len(names) > 1:
        return {key: value for key, value in defaults.items() if key in ENCODING_SETTINGS}
    if kind and own_kind and own_kind != kind:
        raise UsageError(f"{setting('task.kind')} is {own_kind!r}, and the model is for {kind}: leave it out")
    if "data_dir" in own:
        return {key: value for key, value in defaults.items() if key not in ("train_file", "dev_file")}
    return dict(defaults)


def _read_override(text: str) -> tuple[str, Any]:
    key, separator, value = text.partition("=")
    if not separator:
        option = setting("override")
        raise UsageError(f"{option} {text}: write it as section.key=value, for example {option} train.seed=3")
    return key.strip(), parse_yaml(value, f"{setting('override')} {text}")


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
    values = parse_yaml(text, str(path))
    if values is None:
        return {}
    if not isinstance(values, dict):
        raise UsageError(f"{path}: a config holds keys and values, not {type(values).__name__}")
    for section in (values, *(value for value in values.values() if isinstance(value, dict))):
        for key in section:
            if not isinstance(key, str):
                raise UsageError(f"{path}: a key is a word, not {key!r}")
    return {key: value for key, value in values.items() if value is not None}  # ignore empty sections


class _RepeatedKeyError(Exception):
    """A mapping has a key twice."""


@cache
def _loader() -> Any:
    """Return YAML's safe loader, which here refuses a key that a mapping has twice: PyYAML takes the last one."""
    import yaml

    class Loader(yaml.SafeLoader):
        def compose_mapping_node(self, anchor: str | None) -> Any:
            node = super().compose_mapping_node(anchor)
            lines: dict[str, int] = {}
            for key, value in node.value:
                if not isinstance(key, yaml.ScalarNode) or key.tag == "tag:yaml.org,2002:merge":
                    continue
                line = key.start_mark.line + 1
                if key.value in lines:
                    what = "section" if isinstance(value, yaml.MappingNode) else "key"
                    raise _RepeatedKeyError(
                        f"line {line}: the {what} '{key.value}' is given twice, first in line {lines[key.value]}: "
                        "keep one of them"
                    )
                lines[key.value] = line
            return node

    return Loader


def parse_yaml(text: str, source: str) -> Any:
    """Parse YAML with plain values.

    Args:
        text: the YAML.
        source: name of the source for messages.

    Returns:
        The values.

    Raises:
        UsageError: invalid YAML, too long, too deeply nested, a key twice, or its aliases expand to too many values.
    """
    import yaml

    if len(text) > MAX_BYTES:
        raise UsageError(
            f"{source}: has {len(text):,} characters, a config at most {MAX_BYTES:,}: check that it is the right file"
        )
    try:
        depth = 0
        for token in yaml.scan(text):  # the scanner is lazy, and fails before the slow parser runs
            kind = type(token).__name__
            depth += kind.endswith("StartToken") - kind.endswith("EndToken")
            if depth > MAX_DEPTH:
                raise ValueError(f"nested more than {MAX_DEPTH} deep")
        values = yaml.load(text, Loader=_loader())
    except _RepeatedKeyError as error:
        raise UsageError(f"{source}: {error}") from None
    except Exception as error:  # also errors of Python's types, e.g. for a date in month 13
        mark = getattr(error, "problem_mark", None)
        where = f" line {mark.line + 1}:" if mark else ""
        reason = getattr(error, "problem", None) or str(error).partition("\n")[0] or type(error).__name__
        raise UsageError(f"{source}:{where} not YAML: {reason}") from None
    left, count = [values], 0
    while left:
        value = left.pop()
        count += 1
        if count > MAX_VALUES:
            raise UsageError(f"{source}: its aliases stand for more than {MAX_VALUES:,} values: write them out")
        if isinstance(value, dict):
            left += value.values()
        elif isinstance(value, (list, tuple, set)):
            left += value
    return values
