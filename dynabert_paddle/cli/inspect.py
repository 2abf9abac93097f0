"""The verbs `env` and `configs`: this machine, and the built-in configs."""

from __future__ import annotations

from typing import Annotated

import typer

from dynabert_paddle.cli.output import show_json
from dynabert_paddle.cli.run import Json
from dynabert_paddle.errors import DynabertError


def env(*, json: Json = False) -> None:
    """Show versions, threads, what the processor's instructions speed up, and the exports that this machine can do."""
    from dynabert_paddle.exporting.formats import list_format_support, list_instruction_sets
    from dynabert_paddle.runtime.environment import describe_environment
    from dynabert_paddle.runtime.paddle_versions import check_version

    described = describe_environment()
    described["instruction_sets"] = list_instruction_sets()
    described["abilities"] |= list_format_support()
    try:
        check_version()
    except DynabertError as error:
        described["abilities"]["train and evaluate"] = f"no: {error}"
    if json:
        show_json(described)
        return
    for key, value in described.items():
        if isinstance(value, dict):
            print(f"{key.replace('_', ' ')}:")
            for name, text in value.items():
                print(f"  {name}: {text}")
        else:
            print(f"{key}: {value}")


def configs(
    name: Annotated[str | None, typer.Argument(metavar="[NAME]", help="A built-in config to print.")] = None,
) -> None:
    """List the built-in configs, or print one."""
    from dynabert_paddle.config.loading import built_in_configs, find_config

    print(find_config(name).read_text(encoding="utf-8") if name else "\n".join(built_in_configs()))


COMMANDS = (env, configs)
