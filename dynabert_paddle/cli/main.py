"""The `dynabert` command."""

from __future__ import annotations

import os
import re
import signal
import sys
import traceback
from collections.abc import Iterable, Iterator
from contextlib import ExitStack, contextmanager, redirect_stdout
from itertools import islice
from typing import Annotated, Any

import click
import typer
import typer.core
from typer import rich_utils
from typer.completion import completion_init, get_completion_script

from dynabert_paddle import __version__
from dynabert_paddle.cli import (
    augment,
    baseline,
    bench,
    compress,
    data,
    evaluate,
    export,
    inspect,
    predict,
    report,
    run,
    search,
    serve,
    stages,
)
from dynabert_paddle.cli.log import CommandLog, log_to_stderr
from dynabert_paddle.cli.names import option_name
from dynabert_paddle.config.names import settings_named_by
from dynabert_paddle.errors import DynabertError, Interrupted, UsageError, did_you_mean
from dynabert_paddle.runtime.home import user_path
from dynabert_paddle.runtime.memory import MEMORY_ADVICE, is_memory_error
from dynabert_paddle.runtime.ranks import is_rank_zero, num_processes
from dynabert_paddle.runtime.streams import is_of_stdout, run_process

PROGRAM, _COMPLETE_VARIABLE = "dynabert", "_DYNABERT_COMPLETE"


class _Group(typer.core.TyperGroup):
    """The verbs: in the order of a run, all listed if none is given; the error for a misspelt one suggests the nearest.

    Click and Typer do the first two in some of the versions that the supported environments have.
    """

    def list_commands(self, ctx: click.Context) -> list[str]:
        return list(self.commands)

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        if not args and not ctx.resilient_parsing:  # in which words are completed
            typer.echo(ctx.get_help(), err=True)
            ctx.exit(UsageError.exit_code)
        return super().parse_args(ctx, args)

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        try:
            return super().resolve_command(ctx, args)
        except click.UsageError as error:
            error.message += did_you_mean(args[0], self.commands)
            raise


class _Command(typer.core.TyperCommand):
    """A verb whose help shows no default for options without one; Typer shows `None` in some versions."""

    def __init__(self, *words: Any, **settings: Any) -> None:
        super().__init__(*words, **settings)
        for parameter in self.params:
            if isinstance(parameter, (typer.core.TyperOption, typer.core.TyperArgument)) and parameter.default is None:
                parameter.show_default = parameter.show_default if isinstance(parameter.show_default, str) else False


def _show_version(asked: bool) -> None:
    if asked:
        typer.echo(__version__)
        raise typer.Exit


def _show_completion(shell: str | None) -> None:
    if shell:
        script = get_completion_script(prog_name=PROGRAM, complete_var=_COMPLETE_VARIABLE, shell=shell)
        typer.echo(script)
        raise typer.Exit


app = typer.Typer(
    cls=_Group,
    help="DynaBERT on PaddlePaddle: one fine-tuned BERT becomes a supernet of sub-networks that all work.",
    add_completion=False,  # whose options have hyphens, and write to the user's .bashrc
    pretty_exceptions_enable=False,
    # Both --output_dir, as Paddle's users write it, and --output-dir.
    context_settings={"token_normalize_func": lambda token: token.replace("-", "_"), "max_content_width": 120},
)

for _module in (
    run,
    data,
    stages,
    evaluate,
    augment,
    baseline,
    search,
    report,
    compress,
    export,
    predict,
    serve,
    bench,
    inspect,
):
    for _command in _module.COMMANDS:
        app.command(_command.__name__, cls=_Command)(_command)


_SHARED = {command.__name__ for module in (run, stages, evaluate, baseline, search) for command in module.COMMANDS}


@app.callback()
def _options(
    ctx: typer.Context,
    version: Annotated[
        bool, typer.Option("--version", help="Print the version and exit.", is_eager=True, callback=_show_version)
    ] = False,
    debug: Annotated[bool, typer.Option("--debug", help="Show the traceback of an error.")] = False,
    quiet: Annotated[
        bool, typer.Option("--quiet", help="Print no log lines and no progress, only the result, warnings and errors.")
    ] = False,
    log_file: Annotated[
        str | None, typer.Option("--log_file", metavar="FILE", help="Append the log lines to a file, with their times.")
    ] = None,
    show_completion: Annotated[
        str | None,
        typer.Option(
            "--show_completion",
            click_type=click.Choice(["bash", "zsh", "fish"]),
            metavar="SHELL",
            help="Print what completes words in bash, zsh or fish, and exit: "
            'eval "$(dynabert --show_completion bash)" in .bashrc.',
            is_eager=True,
            callback=_show_completion,
        ),
    ] = None,
) -> None:
    log: CommandLog = ctx.obj
    if log_file is not None:
        log.copy_to(user_path(log_file))
    if quiet:
        log.be_quiet()
    if num_processes() > 1 and ctx.invoked_subcommand not in _SHARED:
        raise UsageError(
            f"'{ctx.invoked_subcommand}' runs in one process: start it without paddle.distributed.launch; "
            f"verbs that several processes share are {', '.join(sorted(_SHARED))}"
        )


def main() -> None:
    """Run the command line; an error is one line on stderr and an exit code, 2 for wrong usage and 1 for a failure."""
    sys.exit(run_process(_run_command))


def _run_command() -> int:
    """Run the verb; returns the exit code."""
    if _COMPLETE_VARIABLE in os.environ:
        completion_init()
    with _process_setup() as log:
        try:
            code = app(_prepare_words(sys.argv[1:]), standalone_mode=False, obj=log) or 0
            if code == 128 + signal.SIGINT:  # Typer's answer to Ctrl-C
                raise KeyboardInterrupt
            return code
        except click.ClickException as error:
            context = getattr(error, "ctx", None)
            hint = f" (see '{context.command_path} --help')" if context else ""
            if isinstance(error, click.NoSuchOption) and context and context.info_name == "predict":
                hint += "; a text that begins with - stands behind --: dynabert predict BUNDLE -- TEXT"
            _report(log, f"{error.format_message()}{hint}")
            return error.exit_code
        except click.Abort:
            raise KeyboardInterrupt from None
        except BrokenPipeError:
            raise
        except Interrupted as interrupted:
            anew = any(word.replace("-", "_") == "__overwrite_output_dir" for word in sys.argv)
            hint = ", but leave out --overwrite_output_dir, which would begin anew"
            hint = hint if anew and interrupted.is_saved else ""
            log.report(f"{interrupted}{hint}")
            return interrupted.exit_code
        except DynabertError as error:
            _report(log, str(error))
            return error.exit_code
        except Exception as error:
            if is_of_stdout(error):
                raise
            if is_memory_error(error):
                _report(log, MEMORY_ADVICE)
                return 1
            message = " ".join(str(error).split())[:500]
            _report(log, f"{type(error).__name__}: {message} (--debug before the verb shows where)")
            return 1


@contextmanager
def _process_setup() -> Iterator[CommandLog]:
    """Set up logging and stdout for a command; all is undone, since a program may call `main`, too."""
    with ExitStack() as undo:
        log = undo.enter_context(log_to_stderr())
        undo.enter_context(settings_named_by(option_name))
        if not is_rank_zero():
            undo.enter_context(redirect_stdout(undo.enter_context(open(os.devnull, "w"))))
        if not sys.stdout.isatty() and rich_utils.MAX_WIDTH is None:  # else Rich folds the help to 80 columns
            rich_utils.MAX_WIDTH = 120
            undo.callback(setattr, rich_utils, "MAX_WIDTH", None)
        yield log


def _prepare_words(words: list[str]) -> list[str]:
    """Prepare a command's words for Typer; those of `predict` may be texts, which stay as they are."""
    shared, words = _split_shared(words)
    verbs = {command.name for command in app.registered_commands}
    verb = next((word for word in words if word in verbs), None)
    return shared + (words if verb == "predict" else join_numbers(map(_expand_home, words)))


def _split_shared(words: list[str]) -> tuple[list[str], list[str]]:
    """Divide words into the options that all verbs share, which may stand behind the verb, too, and the others."""
    shared: list[str] = []
    others: list[str] = []
    left = iter(words)
    for word in left:
        name = word.partition("=")[0].replace("-", "_")
        if word == "--":
            others += [word, *left]
        elif name in ("__quiet", "__debug"):
            shared.append(word)
        elif name == "__log_file":
            shared += [word] if "=" in word else [word, *islice(left, 1)]
        else:
            others.append(word)
    return shared, others


def _expand_home(word: str) -> str:
    """Replace `~/` in a word, which the shell leaves in `--output_dir=~/out`, as in words from another program."""
    flag, path = re.fullmatch(r"(--?\w[\w-]*=)?(.*)", word, re.DOTALL).groups("")  # type: ignore[union-attr]
    return flag + str(user_path(path)) if path.startswith("~/") else word


def join_numbers(words: Iterable[str]) -> list[str]:
    """Join the numbers after a flag to one word, so that `--batch_size 1 32` works as in argparse."""
    joined: list[str] = []
    in_list = False
    for word in words:
        is_number = re.fullmatch(r"\d+(\.\d*)?|\.\d+|\d+/\d+", word) is not None
        if is_number and in_list:
            joined[-1] += f" {word}"
            continue
        in_list = is_number and bool(joined) and joined[-1].startswith("--")
        joined.append(word)
    return joined


def _report(log: CommandLog, message: str) -> None:
    if "--debug" in sys.argv:
        traceback.print_exc()
    log.report(f"error: {message}")
