"""Tables on stdout. On a narrow terminal names are shortened and columns go below each other; numbers are never cut."""

from __future__ import annotations

import sys
from collections.abc import Iterable, Sequence
from typing import Any, Literal

from dynabert_paddle.cli.output import one_line, show_json
from dynabert_paddle.model_shape import MACS_LENGTH
from dynabert_paddle.multipliers import FULL_NAME
from dynabert_paddle.searching.recommendation import cheapest_near

# Cells of a terminal that a shortened name or heading keeps.
_MIN_NAME, _MIN_HEADING = 16, 8
_PADDING, _EDGES = 3, 1  # cells beside each column, and at the ends of a row, in Rich's box SIMPLE_HEAD


def show_table(columns: Sequence[str], lines: Sequence[Sequence[str]], *, title: str, num_names: int = 1) -> None:
    """Print a table: drawn on a terminal, plain columns of any width elsewhere.

    Args:
        columns: headings.
        lines: cells.
        title: above the table.
        num_names: the first columns, left-aligned, hold names, which may be shortened; the others hold numbers.
    """
    from rich.box import SIMPLE_HEAD
    from rich.cells import cell_len
    from rich.console import Console
    from rich.table import Table

    rows = [list(map(one_line, row)) for row in (columns, *lines)]
    sizes = [[cell_len(row[index]) for row in rows] for index in range(len(columns))]
    widths = [max(column) for column in sizes]
    # A file or a pipe has no right edge. Names from files must not be read as markup.
    terminal = Console(markup=False, emoji=False)
    limit = terminal.width if sys.stdout.isatty() else _total(widths)
    share = limit // (2 * num_names)  # names take at most half of the terminal from the numbers
    least = [min(widths[index], _least_width({row[index] for row in rows}, share)) for index in range(num_names)]
    least += [max([*column[1:], min(column[0], _MIN_HEADING)]) for column in sizes[num_names:]]
    if title:
        terminal.print(title, style="bold", highlight=False, soft_wrap=not sys.stdout.isatty())
    for group in _split(least, num_names, limit):
        fitted = _shrink([widths[index] for index in group], [least[index] for index in group], limit)
        table = Table(box=SIMPLE_HEAD)
        shown = []
        for index, width in zip(group, fitted, strict=True):
            heading, *cells = (row[index] for row in rows)
            justify: Literal["left", "right"] = "left" if index < num_names else "right"
            table.add_column(shorten(heading, width), justify=justify, width=width, overflow="fold")
            is_clear = _are_distinct(cells, width)  # else they take several lines
            shown.append([shorten(cell, width) for cell in cells] if is_clear else cells)
        for line in zip(*shown, strict=True):
            table.add_row(*line)
        Console(width=max(limit, _total(fitted)), markup=False, emoji=False).print(table, crop=False)


def show_grid(rows: Sequence[dict[str, Any]], *, split: str, as_json: bool, positive_label: str | None = None) -> None:
    """Print sub-networks with their metrics and costs.

    Args:
        rows: from `evaluate_grid`.
        split: the data split.
        as_json: print JSON in place of a table.
        positive_label: the class whose F1 the metric `f1` is, which the output names.
    """
    if as_json:
        named = {} if positive_label is None else {"positive_label": positive_label}
        show_json({"split": split, **named, "rows": list(rows)})
        return
    metrics = [key for key in rows[0] if key not in ("subnet", "params", "params_without_embeddings", "macs")]
    headings = [f"f1 ({positive_label})" if metric == "f1" and positive_label else metric for metric in metrics]
    columns = ["sub-network", *headings, "params", "w/o embeddings", "MACs"]
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
    show_table(columns, lines, title=f"sub-networks on {split} (MACs of one sequence of {MACS_LENGTH} tokens)")


def recommended(rows: Sequence[dict[str, Any]]) -> list[str]:
    """Return the options that name the cheapest sub-network that is nearly as good as the full model.

    Args:
        rows: from `evaluate_grid`.

    Returns:
        For example `--subnet w0.50d0.75`; `--grid` if no row is the full model with a score above 0.
    """
    metric = next(key for key in rows[0] if key != "subnet")
    full_score = next((row[metric] for row in rows if row["subnet"] == FULL_NAME), 0.0)
    subnet = cheapest_near(((row["subnet"], row[metric], row["macs"]) for row in rows), full_score)
    return ["--subnet", subnet] if subnet else ["--grid"]


def shorten(text: str, width: int) -> str:
    """Replace a text's middle by an ellipsis where it is too wide.

    Args:
        text: a name.
        width: terminal cells; a Chinese character takes two.

    Returns:
        The text, at most this wide: names of sub-networks and paths often differ only at one of their ends.
    """
    from rich.cells import cell_len

    if cell_len(text) <= width:
        return text
    head, tail = text, text
    while cell_len(head) > width // 2:
        head = head[:-1]
    while cell_len(tail) > width - 1 - cell_len(head):
        tail = tail[1:]
    return f"{head}…{tail}"


def _least_width(names: set[str], limit: int) -> int:
    """The width from which different names stay different when they are shortened."""
    return next((width for width in range(min(_MIN_NAME, limit), limit) if _are_distinct(names, width)), limit)


def _are_distinct(names: Iterable[str], width: int) -> bool:
    names = set(names)
    return len({shorten(name, width) for name in names}) == len(names)


def _total(widths: Sequence[int]) -> int:
    return sum(widths) + _PADDING * len(widths) + _EDGES


def _split(least: Sequence[int], num_names: int, limit: int) -> list[list[int]]:
    """Split the columns of numbers into groups that fit beside the names."""
    names = list(range(num_names))
    groups = [names]
    for index in range(num_names, len(least)):
        if len(groups[-1]) > num_names and _total([least[i] for i in (*groups[-1], index)]) > limit:
            groups.append(names)
        groups[-1] = [*groups[-1], index]
    return groups


def _shrink(widths: Sequence[int], least: Sequence[int], limit: int) -> list[int]:
    """Take from the widest column until the table fits, or every column is at its least width."""
    fitted = list(widths)
    while _total(fitted) > limit and fitted != list(least):
        widest = max((i for i in range(len(fitted)) if fitted[i] > least[i]), key=fitted.__getitem__)
        fitted[widest] -= 1
    return fitted
