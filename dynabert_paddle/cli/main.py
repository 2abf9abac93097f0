"""The `dynabert` command."""

from __future__ import annotations

import logging
import os
import re
import signal
import sys
import traceback
from collections.abc import Sequence
from typing import Annotated

import click
import typer
import typer.core

from dynabert_paddle import __version__
from dynabert_paddle.cli import augment, baseline, deploy, inspect, report, run, search, stages
from dynabert_paddle.cli.output import one_line
from dynabert_paddle.errors import DynabertError, Interrupted, UsageError, did_you_mean
from dynabert_paddle.runtime.interruption import Terminated
from dynabert_paddle.runtime.ranks import is_rank_zero, num_processes


class _Group(typer.core.TyperGroup):
    """The verbs; a misspelt one gets the nearest spelling, as options do."""

    def resolve_command(self, ctx: click.Context, args: list[str]):
        try:
            return super().resolve_command(ctx, args)
        except click.UsageError as error:
            error.message += did_you_mean(args[0], self.commands)
            raise


def _show_version(asked: bool) -> None:
    if asked:
        typer.echo(__version__)
        raise typer.Exit


app = typer.Typer(
    cls=_Group,
    help="DynaBERT on PaddlePaddle: one fine-tuned BERT becomes a supernet of sub-networks that all work.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    # Paddle's users write --output_dir, others --output-dir: both are understood.
    context_settings={"token_normalize_func": lambda token: token.replace("-", "_"), "max_content_width": 120},
)

for _module in (run, stages, augment, baseline, search, report, deploy, inspect):
    for _command in _module.COMMANDS:
        app.command(_command.__name__)(_command)


_SHARED = {command.__name__ for module in (run, stages, baseline, search) for command in module.COMMANDS}


@app.callback()
def _options(
    ctx: typer.Context,
    version: Annotated[
        bool, typer.Option("--version", help="Print the version and exit.", is_eager=True, callback=_show_version)
    ] = False,
    debug: Annotated[bool, typer.Option("--debug", help="Show the traceback of an error.")] = False,
) -> None:
    if num_processes() > 1 and ctx.invoked_subcommand not in _SHARED:
        raise UsageError(
            f"'{ctx.invoked_subcommand}' runs in one process: start it without paddle.distributed.launch; "
            f"those that share their work are {', '.join(sorted(_SHARED))}"
        )


def main() -> None:
    """Run the command line; an error is one line on stderr and an exit code, 2 for wrong usage and 1 for a failure."""
    before = signal.signal(signal.SIGTERM, _terminate)
    _log_to_stderr()
    if not is_rank_zero():
        sys.stdout = open(os.devnull, "w")  # noqa: SIM115 - until the process ends
    if not sys.stdout.isatty():  # where Rich would fold the help to 80 columns
        os.environ.setdefault("TERMINAL_WIDTH", "120")
    try:
        code = app(join_numbers(sys.argv[1:]), standalone_mode=False)
    except click.exceptions.NoArgsIsHelpError as error:
        error.show()
        code = error.exit_code
    except click.ClickException as error:
        command = getattr(error, "ctx", None)
        hint = f" ('{command.command_path} --help' lists what there is)" if command else ""
        _report(f"{error.format_message()}{hint}")
        code = error.exit_code
    except (KeyboardInterrupt, click.Abort):
        print("stopped", file=sys.stderr)
        code = 130
    except Terminated:
        print("stopped", file=sys.stderr)
        code = 128 + signal.SIGTERM
    except BrokenPipeError:
        code = 1
    except Interrupted as interrupted:
        print(one_line(str(interrupted)), file=sys.stderr)
        code = interrupted.exit_code
    except DynabertError as error:
        _report(str(error))
        code = error.exit_code
    except Exception as error:
        _report(f"{type(error).__name__}: {' '.join(str(error).split())[:500]} (--debug before the verb shows where)")
        code = 1
    finally:
        signal.signal(signal.SIGTERM, before)  # a program that calls this goes on
    sys.exit(code)


def _terminate(number: int, frame: object) -> None:
    raise Terminated


def join_numbers(words: Sequence[str]) -> list[str]:
    """Let a list of numbers after a flag be written as in argparse, `--batch_size 1 32`, too.

    Args:
        words: the command line.

    Returns:
        The same, with several numbers in a row after a flag as one word, as our list options take them.
    """
    joined: list[str] = []
    in_list = False
    for word in words:
        is_number = re.fullmatch(r"\d+(\.\d*)?|\.\d+", word) is not None
        if is_number and in_list:
            joined[-1] += f" {word}"
            continue
        in_list = is_number and bool(joined) and joined[-1].startswith("--")
        joined.append(word)
    return joined


class _OneLine(logging.Formatter):
    """What is logged may quote a file."""

    def format(self, record: logging.LogRecord) -> str:
        return one_line(super().format(record))


def _report(message: str) -> None:
    if "--debug" in sys.argv:
        traceback.print_exc()
    print(one_line(f"error: {message}"), file=sys.stderr)


def _log_to_stderr() -> None:
    from rich.logging import RichHandler

    from dynabert_paddle.training.logging import console

    # Rich keeps a progress bar below the lines; in a file it would only wrap them.
    handler = (
        RichHandler(console=console, show_time=False, show_level=False, show_path=False)
        if console.is_terminal
        else logging.StreamHandler()
    )
    handler.setFormatter(_OneLine())
    logger = logging.getLogger("dynabert_paddle")
    logger.addHandler(handler)
    logger.setLevel(logging.INFO if is_rank_zero() else logging.ERROR)
    logger.propagate = False
