"""The names of labels that a data file writes as integers: from a file, or beside the data."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from dynabert_paddle.config.names import setting
from dynabert_paddle.data.parquet import names_of_features
from dynabert_paddle.data.records import quote, read_lines
from dynabert_paddle.errors import DataError
from dynabert_paddle.files.json_text import parse_json
from dynabert_paddle.runtime.home import user_path

NAMES_FILE = "labels.txt"  # one name a line, beside the data
_DESCRIPTIONS = ("dataset_info.json", "dataset_infos.json")  # of Hugging Face's datasets, which list the features


def read_labels_setting(labels: Sequence[str] | None) -> Sequence[str] | None:
    """Read the labels that a user gives, which can be the name of a file that lists them.

    Args:
        labels: the setting.

    Returns:
        The labels in their order.

    Raises:
        DataError: the file cannot be read.
    """
    if labels is None or isinstance(labels, str) or len(labels) != 1 or not isinstance(labels[0], str):
        return labels
    path = user_path(labels[0])
    return _read_names(path) if path.is_file() else labels


def _read_names(path: Path) -> list[str]:
    """Read a file of names: one a line; or JSON, a list, or an object as ClassLabel and `id2label` are."""
    if path.suffix.lower() != ".json":
        return [text.strip() for _, text in read_lines(path) if text.strip()]
    document = _read_json(path)
    names = document.get("names", document) if isinstance(document, dict) else document
    if isinstance(names, dict) and all(isinstance(value, int) for value in names.values()):  # label2id
        names = {number: name for name, number in names.items()}
    if isinstance(names, dict):
        try:
            names = [names[number] for number in sorted(names, key=int)]
        except (TypeError, ValueError):
            names = None
    if not isinstance(names, list) or not all(isinstance(name, str) for name in names):
        raise DataError(f"{path}: lists no labels; write one a line in a .txt file, or a JSON list of them.")
    return names


def _read_json(path: Path) -> Any:
    try:
        return parse_json("\n".join(text for _, text in read_lines(path)))
    except (ValueError, RecursionError) as error:
        raise DataError(f"{path}: not valid JSON ({error}).") from None


def find_tag_names(path: Path, column: str) -> tuple[list[str], Path] | None:
    """Find the names of integer labels beside a data file.

    Args:
        path: the data file.
        column: the column with the integers.

    Returns:
        The names by their number, and the file that lists them; None if there is none.

    Raises:
        DataError: such a file cannot be read.
    """
    beside = path.parent / NAMES_FILE
    if beside.is_file():
        return _read_names(beside), beside
    for name in _DESCRIPTIONS:
        described = path.parent / name
        if described.is_file():
            document = _read_json(described)
            infos = [document, *(document.values() if isinstance(document, dict) else ())]
            for info in infos:
                names = names_of_features(info.get("features") if isinstance(info, dict) else None)
                if column in names:
                    return names[column], described
    return None


def name_tags(values: Sequence[Any], names: Sequence[str], place: str) -> list[str]:
    """Replace integer labels by their names.

    Args:
        values: the integers of a sentence.
        names: the names by their number.
        place: file and line, for the message.

    Returns:
        The names.

    Raises:
        DataError: a number without a name.
    """
    wrong = [value for value in values if not 0 <= value < len(names)]
    if wrong:
        raise DataError(
            f"{place}: the label {wrong[0]} has no name; there are {len(names)}, {quote(list(names))}, which count "
            f"from 0: correct it, or list all names in their order with {setting('task.labels')}."
        )
    return [names[value] for value in values]
