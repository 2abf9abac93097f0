"""Command-line options generated from the config's sections: names, help and defaults have one home."""

from __future__ import annotations

import dataclasses
import inspect
import types
from collections.abc import Callable, Collection, Mapping
from functools import cache
from typing import Annotated, Any, Literal, Union, get_args, get_origin, get_type_hints

import click
import typer

# Sections whose fields would be too short as flags.
_FLAG_PREFIX = {"task": {"name": "task_name"}}
_type_hints = cache(get_type_hints)  # called once for each field of a section


def with_sections(
    *sections: tuple[str, type], from_dir: Collection[str] = (), given_by: str = "DIR"
) -> Callable[[Callable[..., None]], Callable[..., None]]:
    """Add an option to a command for every field of some config sections.

    The command receives them as one keyword argument, `flags`: values by dotted config key, None for those not passed.
    A flag that several sections have sets all of them.

    Args:
        sections: pairs of a section's key in the config and its class.
        from_dir: keys of the sections whose defaults are those that `given_by` has.
        given_by: the argument that has them, such as the folder of a model that was trained with them.

    Returns:
        A decorator for a command that has a `flags` argument.
    """
    fields: dict[str, dict[str, tuple[type, dataclasses.Field[Any]]]] = {}  # by flag and by the section's key
    for key, section in sections:
        for field in dataclasses.fields(section):
            if field.default is not dataclasses.MISSING:
                fields.setdefault(flag_name(key, field.name), {})[key] = (section, field)

    def decorate(command: Callable[..., None]) -> Callable[..., None]:
        signature = inspect.signature(command, eval_str=True)
        own = [parameter for name, parameter in signature.parameters.items() if name != "flags"]
        taken = {parameter.name for parameter in own}
        keys = {
            name: [f"{key}.{field.name}" if key else field.name for key, (_, field) in owners.items()]
            for name, owners in fields.items()
            if name not in taken
        }
        added = [_parameter(name, fields[name], given_by if {*fields[name]} & {*from_dir} else None) for name in keys]

        def wrapper(**values: Any) -> Any:
            flags = {dotted: values[name] for name, dotted_keys in keys.items() for dotted in dotted_keys}
            return command(**{name: value for name, value in values.items() if name in taken}, flags=flags)

        parameters = [*own, *added]
        wrapper.__name__, wrapper.__doc__ = command.__name__, command.__doc__
        wrapper.__dict__["__signature__"] = inspect.Signature(parameters)
        wrapper.__annotations__ = {parameter.name: parameter.annotation for parameter in parameters}
        return wrapper

    return decorate


def flag_name(key: str, field: str) -> str:
    """Return the flag, without dashes, of a field in a section of the config."""
    return _FLAG_PREFIX.get(key, {}).get(field, field)


def _parameter(
    name: str, owners: Mapping[str, tuple[type, dataclasses.Field[Any]]], given_by: str | None
) -> inspect.Parameter:
    """Make the option of a field, which the sections that have it describe alike."""
    key, (section, field) = next(iter(owners.items()))
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
    settings["show_default"] = _shown_default({key: field for key, (_, field) in owners.items()}, given_by)
    flag = f"--{name}/--no_{name}" if kind is bool else f"--{name}"
    optional: Any = kind | None
    annotation = Annotated[optional, typer.Option(flag, rich_help_panel=_panel(key), **settings)]
    return inspect.Parameter(name, inspect.Parameter.KEYWORD_ONLY, default=None, annotation=annotation)


def _shown_default(fields: Mapping[str, dataclasses.Field[Any]], given_by: str | None) -> str | bool:
    """The default as the help shows it, by section where they differ; False for none."""
    first = next(iter(fields.values()))
    if first.default is None:
        return f"{given_by}'s" if given_by else first.metadata["otherwise"] or False
    texts: dict[str, list[str]] = {}
    for key, field in fields.items():
        default = field.default
        text = " ".join(map(str, default)) if isinstance(default, tuple) else str(default)
        texts.setdefault(text, []).append(key)
    shown = ", ".join(text if len(texts) == 1 else f"{text} ({', '.join(keys)})" for text, keys in texts.items())
    return f"{given_by}'s, else {shown}" if given_by else shown


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
