"""Configs in files: found, read, overridden, validated."""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from dynabert_paddle.config.settings import SECTIONS, STAGES, Config, plain_name
from dynabert_paddle.errors import UsageError, did_you_mean
from dynabert_paddle.subnet import parse_mults

if TYPE_CHECKING:
    from pydantic import ValidationError

# Installed, the configs lie inside the package; in a checkout, and an editable install of it, beside the package.
_PACKAGE = Path(__file__).parents[1]
_CONFIG_DIR = next(
    (path / "configs" for path in (_PACKAGE, _PACKAGE.parent) if (path / "configs").is_dir()), _PACKAGE / "configs"
)

MAX_BYTES = 2**18  # of a config: the parser is slow
MAX_DEPTH = 30
MAX_VALUES = 2**16  # each alias counts with all that it stands for

# The sections that a `train` section's values go to.
_TRAINED = (*STAGES, "baseline")


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

    A `train` section sets a value for every stage that has it: in the file beside what stages set themselves, in an
    override over what the file sets for them.

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
    values = _spread_train(values)
    given = [_read_override(override) for override in overrides]
    for key, value in sorted(given, key=lambda pair: not pair[0].startswith("train.")):  # a stage's own go last
        _assign(values, key, value)
        values = _spread_train(values, over=True)
    for key, value in (flags or {}).items():
        if value is not None:
            _assign(values, key, value)
    values = _spread_train(values, over=True)
    for section, defaults in (base or {}).items():
        own = values.setdefault(section, {})
        if isinstance(own, dict):
            values[section] = {**inherited_settings(defaults, own), **own}
    return _validate(values, str(path) if path else "the settings")


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


def _validate(values: dict[str, Any], source: str) -> Config:
    # A list in one string, or a single number, is what a command line and a hasty YAML file hold.
    space = values.get("space")
    for key in ("width_mult_list", "depth_mult_list"):
        if isinstance(space, dict) and key in space:
            space[key] = parse_mults(space[key])
    for stage in _TRAINED:  # YAML takes a bare `off` for false
        if isinstance(values.get(stage), dict) and values[stage].get("amp") is False:
            values[stage]["amp"] = "off"
    return _build(Config, values, source)


def _build(section: Any, values: dict[str, Any], source: str) -> Any:
    from pydantic import TypeAdapter, ValidationError

    try:
        return TypeAdapter(section).validate_python(values)
    except ValidationError as error:
        raise UsageError(f"{source}: {_first_problem(section, error)}") from None


def _first_problem(section: Any, error: ValidationError) -> str:
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
    is_choice = problem["type"] == "literal_error"
    allowed = re.findall("'(.*?)'", problem["ctx"]["expected"]) if is_choice else []
    suggestion = did_you_mean(str(problem["input"]), allowed)
    return f"{key}: {problem['input']!r} is not allowed: {problem['msg'].lower()}{suggestion and '.'}{suggestion}"


def _spread_train(values: dict[str, Any], *, over: bool = False) -> dict[str, Any]:
    """Copy the values of the `train` section to every stage that has the field, replacing its own values or not."""
    shared = values.pop("train", None)
    if shared is None:
        return values
    if not isinstance(shared, dict):
        raise UsageError(f"train: a section holds keys and values, not {shared!r}")
    stages = {name: {f.name for f in dataclasses.fields(SECTIONS[name])} for name in _TRAINED}
    known = set().union(*stages.values())
    for key in shared:
        if key not in known:
            raise UsageError(f"unknown key 'train.{key}'.{did_you_mean(key, known)}")
    for name, keys in stages.items():
        own = values.setdefault(name, {})
        if isinstance(own, dict):
            spread = {key: value for key, value in shared.items() if key in keys}
            values[name] = own | spread if over else spread | own
    return values


def inherited_settings(defaults: Mapping[str, Any], own: Mapping[str, Any]) -> dict[str, Any]:
    """Return the defaults that still apply beside the user's values: another task or folder has other files.

    Args:
        defaults: values by field name, such as the task that a model was trained for.
        own: the user's values.

    Returns:
        The defaults that apply.
    """
    names = {plain_name(str(task.get("name", defaults.get("name")))) for task in (own, defaults)}
    if len(names) > 1:  # the length is the model's, not the task's
        return {key: value for key, value in defaults.items() if key == "max_seq_length"}
    if "data_dir" in own:
        return {key: value for key, value in defaults.items() if key not in ("train_file", "dev_file")}
    return dict(defaults)


def _read_override(text: str) -> tuple[str, Any]:
    key, separator, value = text.partition("=")
    if not separator:
        raise UsageError(f"-o {text}: write it as section.key=value, for example -o train.seed=3")
    return key.strip(), parse_yaml(value, f"-o {text}")


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
    return {key: value for key, value in values.items() if value is not None}  # an empty section changes nothing


def parse_yaml(text: str, source: str) -> Any:
    """Read plain values out of YAML.

    Args:
        text: the YAML.
        source: where it is from, for messages.

    Returns:
        Its values.

    Raises:
        UsageError: it is not YAML, too long, or its aliases stand for too much.
    """
    import yaml

    if len(text) > MAX_BYTES:
        raise UsageError(
            f"{source}: has {len(text):,} characters, a config at most {MAX_BYTES:,}: check that it is the right file"
        )
    try:
        depth = 0
        for token in yaml.scan(text):  # which is as lazy as its parser is slow
            kind = type(token).__name__
            depth += kind.endswith("StartToken") - kind.endswith("EndToken")
            if depth > MAX_DEPTH:
                raise ValueError(f"nested more than {MAX_DEPTH} deep")
        values = yaml.safe_load(text)
    except Exception as error:  # beside its own errors it raises what Python's types do, for a date of a 13th month
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
