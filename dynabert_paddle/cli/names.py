"""The names of settings on the command line: flags, keys of `-o`, and lines of a config file."""

from __future__ import annotations

import click
from click.core import ParameterSource

from dynabert_paddle.cli.options import flag_name
from dynabert_paddle.config.names import argument_name, find_place


def option_name(key: str) -> str:
    """Name a setting as the running command takes it; see `config.names.setting`.

    Args:
        key: the setting's dotted key.

    Returns:
        Where the user gives it: a flag, a key of `-o`, or one in a line of the config file; else the flag that gives
        it, or `-o` with its key for a command without that flag.
    """
    context = click.get_current_context(silent=True)
    if context is None:  # in a thread of its own
        return argument_name(key)
    options = {parameter.name: parameter for parameter in context.command.params}
    section, _, field = key.rpartition(".")
    name = flag_name(section, field)
    if name not in options or context.get_parameter_source(name) is not ParameterSource.COMMANDLINE:
        place = _place(key, context)
        if place:
            return place
    if name in options:
        return min(options[name].opts, key=len) if name == "override" else max(options[name].opts, key=len)
    return f"-o {key}" if "override" in options and section else argument_name(key)


def _place(key: str, context: click.Context) -> str | None:
    from dynabert_paddle.config.loading import find_users_config

    place = find_place(key, find_users_config(context.params.get("config")), context.params.get("override") or ())
    return place.name if place else None
