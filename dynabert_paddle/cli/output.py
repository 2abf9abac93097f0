"""How the command line shows results: tables or JSON on stdout, what was written and what comes next on stderr."""

from __future__ import annotations

import json
import re
import shlex
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from dynabert_paddle.runtime.ranks import is_rank_zero

_CONTROLS = re.compile("[\x00-\x1f\x7f-\x9f\u2028\u2029\u202a-\u202e\u2066-\u2069]")


def one_line(text: str) -> str:
    """Make a text that may come from somebody's file safe to print.

    Args:
        text: any text.

    Returns:
        The same with control characters, line breaks among them, as escapes: a terminal obeys them.
    """
    return _CONTROLS.sub(lambda match: repr(match[0])[1:-1], text)


def show_grid(rows: Sequence[dict[str, Any]], *, split: str, as_json: bool) -> None:
    """Print sub-networks with their metrics and costs.

    Args:
        rows: as `evaluate_grid` gives them.
        split: the data that was evaluated.
        as_json: for machines.
    """
    if as_json:
        show_json({"split": split, "rows": list(rows)})
        return
    metrics = [key for key in rows[0] if key not in ("subnet", "params", "params_without_embeddings", "macs")]
    columns = ["sub-network", *metrics, "params", "w/o embeddings", "MACs"]
    lines = [
        [
            row["subnet"],
            *(f"{row[metric]:.4f}" for metric in metrics),
            f"{row['params'] / 1e6:.2f} M",
            f"{row['params_without_embeddings'] / 1e6:.2f} M",
            f"{row['macs'] / 1e9:.3f} G",
        ]
        for row in rows
    ]
    show_table(columns, lines, title=f"sub-networks on {split} (MACs of one sequence of 128 tokens)")


def show_table(columns: Sequence[str], lines: Sequence[Sequence[str]], *, title: str) -> None:
    """Print a table: drawn on a terminal, plain columns elsewhere.

    Args:
        columns: headings; all columns but the first are right-aligned.
        lines: cells.
        title: above the table.
    """
    from rich.box import SIMPLE_HEAD
    from rich.console import Console
    from rich.table import Table

    table = Table(title=title, box=SIMPLE_HEAD, title_justify="left", title_style="bold")
    for index, column in enumerate(columns):
        table.add_column(one_line(column), justify="right" if index else "left", no_wrap=True)
    for line in lines:
        table.add_row(*map(one_line, line))
    # In a file or a pipe there is no edge to keep away from.
    # Names from files are no markup.
    console = Console(width=None if sys.stdout.isatty() else 200, markup=False, emoji=False)
    console.print(table, crop=False)


def show_json(values: Any) -> None:
    """Print JSON.

    Args:
        values: what to print.
    """
    print(json.dumps(values, ensure_ascii=False, indent=2))


def show_next(*then: str | Path, wrote: Sequence[str | Path] = ()) -> None:
    """End a verb: name what it wrote and the next command; of several processes the first one does.

    Args:
        then: the words after `dynabert` of a command.
        wrote: files and folders.
    """
    if not is_rank_zero():
        return
    for path in wrote:
        print(one_line(f"wrote {path}"), file=sys.stderr)
    print(one_line(f"next: {shlex.join(['dynabert', *map(str, then)])}"), file=sys.stderr)
