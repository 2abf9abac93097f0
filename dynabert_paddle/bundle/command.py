"""The command line that both inference scripts have: arguments, the rows of output, and exit codes.

This file is part of every bundle's `infer.py` and `infer_lite.py`, so it stays Python 3.7 syntax.
"""

from __future__ import annotations

import argparse
import io
import json
import sys
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import asdict
from functools import partial
from typing import Any, NamedTuple

from dynabert_paddle.bundle.manifest import ROLES, BundleError
from dynabert_paddle.bundle.tables import format_row, read_texts
from dynabert_paddle.runtime.memory import MEMORY_ADVICE, is_memory_error
from dynabert_paddle.runtime.streams import print_message, run_process
from dynabert_paddle.text.decode import AnyPrediction
from dynabert_paddle.text.word_labels import DECODINGS


class Opened(NamedTuple):
    """A bundle that is ready to predict.

    Args:
        description: the content of its `bundle.json`.
        predict: from rows of texts to one prediction each.
        input_warnings: what its user should know about the texts that it has read.
        warnings: what its user should know.
    """

    description: dict[str, Any]
    predict: Callable[[Iterable[Any]], Iterator[AnyPrediction]]
    input_warnings: Callable[[], Iterable[str]]
    warnings: Sequence[str] = ()


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the arguments that both scripts have."""
    parser.add_argument("text", nargs="*", help="a text; two for a task with pairs")
    parser.add_argument(
        "-i",
        "--input_file",
        help=".csv, .tsv, .jsonl or SQuAD's .json; or one text per line, or two separated by a TAB",
    )
    parser.add_argument(
        "--decode",
        choices=DECODINGS,
        help="labels of words: only those that may follow one another, or each word's best; as exported by default",
    )
    parser.add_argument("--json", action="store_true", help="print JSON lines with all details")
    parser.add_argument(
        "--threshold",
        action="append",
        default=[],
        metavar="T",
        help="several labels a text: the probability from which a label is predicted, or label=probability",
    )
    parser.add_argument(
        "--top_k", type=positive, metavar="K", help="several labels a text: predict at most the K most probable ones"
    )
    parser.add_argument("--role", choices=ROLES, help="texts to embed: what they are, document by default")
    parser.add_argument("--output_dim", type=positive, metavar="D", help="texts to embed: cut vectors to D values")


def positive(text: str) -> int:
    """Read a whole number of at least 1, for `argparse`."""
    if not text.isdecimal() or not int(text):
        raise argparse.ArgumentTypeError(f"a whole number of at least 1, not {text}")
    return int(text)


def run_script(
    parser: argparse.ArgumentParser,
    arguments: Iterable[str] | None,
    open_bundle: Callable[[argparse.Namespace], Opened],
) -> int:
    """Parse the command line, predict, and print a row for each text.

    Args:
        parser: with the arguments of `add_arguments`.
        arguments: in place of `sys.argv`.
        open_bundle: opens the bundle that the script is in.

    Returns:
        The exit code.
    """
    options = parser.parse_args(None if arguments is None else list(arguments))
    if bool(options.text) == bool(options.input_file):
        parser.error("give a text, or a file with -i")
    return run_process(partial(_print_predictions, open_bundle, options))


def _print_predictions(open_bundle: Callable[[argparse.Namespace], Opened], options: argparse.Namespace) -> int:
    try:
        if isinstance(sys.stdout, io.TextIOWrapper):
            sys.stdout.reconfigure(encoding="utf-8")  # like the input, regardless of the locale
        bundle = open_bundle(options)
        for message in bundle.warnings:
            _print_warning(message)
        rows = read_texts(options.input_file, bundle.description) if options.input_file else [options.text]
        for prediction in bundle.predict(rows):
            as_json = options.json
            print(json.dumps(asdict(prediction), ensure_ascii=False) if as_json else format_row(prediction.cells))
        for message in bundle.input_warnings():
            _print_warning(message)
    except BundleError as error:
        print_message(f"error: {error}")
        return 1
    except Exception as error:
        if not is_memory_error(error):
            raise
        print_message(f"error: {MEMORY_ADVICE}")
        return 1
    return 0


def _print_warning(message: str) -> None:
    print_message(f"warning: {message}")
