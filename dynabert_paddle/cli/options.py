"""Command-line options generated from the config's sections: names, help and defaults have one home."""

from __future__ import annotations

import dataclasses
import inspect
import types
from collections.abc import Callable, Collection
from functools import cache
from typing import Annotated, Any, Literal, Union, get_args, get_origin, get_type_hints

import click
import typer

# Sections whose fields would be too short as flags.
_FLAG_PREFIX = {"task": {"name": "task_name"}}
_type_hints = cache(get_type_hints)  # called once for each field of a section


def with_sections(
    *sections: tuple[str, type], from_dir: Collection[str] = ()
) -> Callable[[Callable[..., None]], Callable[..., None]]:
    """Add an option to a command for every field of some config sections.

    The command receives them as one keyword argument, `flags`: values by dotted config key, None for those not passed.

    Args:
        sections: pairs of a section's key in the config and its class.
        from_dir: keys of the sections whose defaults are those that the model in DIR was trained with.

    Returns:
        A decorator for a command that has a `flags` argument.
    """
    options = {
        flag_name(key, field.name): (
            f"{key}.{field.name}" if key else field.name,
            _parameter(key, section, field, from_dir=key in from_dir),
        )
        for key, section in sections
        for field in dataclasses.fields(section)
        if field.default is not dataclasses.MISSING
    }

    def decorate(command: Callable[..., None]) -> Callable[..., None]:
        signature = inspect.signature(command, eval_str=True)
        own = [parameter for name, parameter in signature.parameters.items() if name != "flags"]
        taken = {parameter.name for parameter in own}
        added = {name: option for name, option in options.items() if name not in taken}

        def wrapper(**values: Any) -> Any:
            flags = {dotted: values.pop(name) for name, (dotted, _) in added.items()}
            return command(**values, flags=flags)

        parameters = [*own, *(parameter for _, parameter in added.values())]
        wrapper.__name__, wrapper.__doc__ = command.__name__, command.__doc__
        wrapper.__dict__["__signature__"] = inspect.Signature(parameters)
        wrapper.__annotations__ = {parameter.name: parameter.annotation for parameter in parameters}
        return wrapper

    return decorate


def flag_name(key: str, field: str) -> str:
    """Return the flag, without dashes, of a field in a section of the config."""
    return _FLAG_PREFIX.get(key, {}).get(field, field)


def _parameter(key: str, section: type, field: dataclasses.Field[Any], *, from_dir: bool) -> inspect.Parameter:
    name = flag_name(key, field.name)
    kind = _type_hints(section)[field.name]
    if get_origin(kind) in (types.UnionType, Union):
        parts = [part for part in get_args(kind) if part is not type(None)]
        kind = next((part for part in parts if get_origin(part) is dict), parts[0])
    many = get_origin(kind) is tuple
    settings: dict[str, Any] = {"help": field.metadata["help"]}
    if get_origin(kind) is Literal:
        settings["click_type"] = click.Choice(list(get_args(kind)))
        # The names are listed in the help text: in their own column they would leave no room for it.
        settings["metavar"] = "NAME"
        settings["help"] += f" ({', '.join(get_args(kind))})"
        kind = str
    elif get_origin(kind) is dict:
        settings["metavar"] = "'A: 1, B: 2'"
        settings["click_type"] = _Mapping()
        kind = str
    elif many:
        settings["metavar"] = "'A B'"
        settings["click_type"] = _Words()
        kind = str
    settings["show_default"] = _shown_default(field, from_dir=from_dir)
    flag = f"--{name}/--no_{name}" if kind is bool else f"--{name}"
    optional: Any = kind | None
    annotation = Annotated[optional, typer.Option(flag, rich_help_panel=_panel(key), **settings)]
    return inspect.Parameter(name, inspect.Parameter.KEYWORD_ONLY, default=None, annotation=annotation)


def _shown_default(field: dataclasses.Field[Any], *, from_dir: bool) -> str | bool:
    """The default as the help shows it; False for none."""
    default = field.default
    if default is None:
        return "DIR's" if from_dir else field.metadata["otherwise"] or False
    text = " ".join(map(str, default)) if isinstance(default, tuple) else str(default)
    return f"DIR's, else {text}" if from_dir else text


def _panel(key: str) -> str:
    return {"task": "Task and data", "space": "Search space"}.get(key, "Settings")


class _Words(click.ParamType):
    """Several words in one argument, separated by spaces or commas."""

    name = "words"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> list[str]:
        return value.replace(",", " ").split() if isinstance(value, str) else value


class _Mapping(click.ParamType):
    """Names with values, as YAML has them, without the braces around them; or a word in their place."""

    name = "mapping"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        if not isinstance(value, str):
            return value
        from dynabert_paddle.config.loading import parse_yaml

        is_bare = ":" in value and not value.lstrip().startswith("{")
        return parse_yaml(f"{{{value}}}" if is_bare else value, f"--{param.name if param else self.name}")
