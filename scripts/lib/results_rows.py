"""The rows of results.sh: which training rows choose, and the texts and labels that scores are of.

GLUE's training rows are divided once, by one rule that depends on their texts alone. Development rows are read twice:
their texts when a model has been trained, their labels when all models are scored.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from shutil import copyfile
from tempfile import TemporaryDirectory

from dynabert_paddle.data.catalog import find_declaration
from dynabert_paddle.data.declaration import Declaration
from dynabert_paddle.data.readers import Columns, Examples, read_examples, read_rows
from dynabert_paddle.errors import DataError, UsageError
from dynabert_paddle.files.atomic import write_text

TUNING_SHARE, MAX_TUNING = 0.1, 500
WORDS_IN_A_ROW = 4
# Labelled files beside train and dev; MRPC's labels of the test rows are in its original file alone.
FILES = {("mrpc", "test"): "msr_paraphrase_test.txt"}


@dataclass(frozen=True)
class Split:
    """A task's training rows, divided.

    Args:
        train: the file to train on.
        tuning: the file with the rows that choose.
        num_train: rows of `train`.
        num_tuning: rows of `tuning`.
        digest: eight digits that name both contents.
    """

    train: Path
    tuning: Path
    num_train: int
    num_tuning: int
    digest: str


def splits_of(task: str) -> tuple[str, ...]:
    """Name the files that a task's models are scored on."""
    return ("dev", *(split for name, split in FILES if name == task))


def choose_tuning(texts: Sequence[str], *, num_used: int | None) -> tuple[list[int], list[int]]:
    """Divide training rows into those to train on and those that choose.

    The rows that choose are a tenth, at most 500, of the rows in the order of a hash of their texts. Where only the
    first `num_used` rows are used, the file repeats itself: the rows that choose are then later ones that share no four
    words in a row with a row to train on. No text is in both parts.

    Args:
        texts: of all rows.
        num_used: use this many rows, the first ones; None for all.

    Returns:
        Ascending indices of the rows to train on, and of those that choose.

    Raises:
        DataError: there are not enough rows.
    """
    num_rows = len(texts) if num_used is None else num_used
    size = min(round(TUNING_SHARE * num_rows), MAX_TUNING)
    pool = range(len(texts)) if num_used is None else find_apart(texts, num_used)
    chosen = sorted(pool, key=lambda index: (hash_text(texts[index]), index))[:size]
    if len(chosen) < max(size, 1) or num_rows > len(texts):
        raise DataError(f"{len(texts)} training rows: too few for {num_rows} to train on and {size} that choose")
    known = {texts[index] for index in chosen}
    return [index for index in range(num_rows) if texts[index] not in known], sorted(chosen)


def find_apart(texts: Sequence[str], num_used: int) -> list[int]:
    """Find the rows after the first ones that have four words, and share no four words in a row with these.

    Args:
        texts: of all rows.
        num_used: how many the first ones are.

    Returns:
        Ascending indices.
    """
    used = {part for text in texts[:num_used] for part in word_runs(text)}
    return [
        index for index in range(num_used, len(texts)) if (runs := word_runs(texts[index])) and used.isdisjoint(runs)
    ]


def word_runs(text: str) -> set[tuple[str, ...]]:
    """All runs of four words of a text, in lower case."""
    words = text.lower().split()
    return {tuple(words[start : start + WORDS_IN_A_ROW]) for start in range(len(words) - WORDS_IN_A_ROW + 1)}


def hash_text(text: str) -> str:
    """Hash a text, for an order that no property of it explains."""
    return hashlib.sha256(text.encode()).hexdigest()


def write_split(task: str, glue_dir: Path, folder: Path, num_used: int | None) -> Split:
    """Divide a task's training file, and write both parts in its format.

    Args:
        task: its name.
        glue_dir: the folder that contains the task's.
        folder: where the parts go.
        num_used: as for `choose_tuning`.

    Returns:
        The files.

    Raises:
        DataError: the file cannot be read, or has too few rows.
    """
    declaration = find_declaration(task)
    source = _find_file(task, glue_dir, declaration.train_name)
    columns = _columns(declaration, labels=False)
    texts = ["\n".join(row.texts) for row in read_rows(source, columns, declaration.layout)]
    lines = source.read_text(encoding="utf-8-sig").removesuffix("\n").split("\n")
    header = [] if declaration.layout.header else [lines.pop(0)]
    if len(lines) != len(texts):
        raise DataError(f"{source}: {len(lines)} lines for {len(texts)} rows: a row must be a line")
    parts = choose_tuning(texts, num_used=num_used)
    contents = ["".join(f"{line}\n" for line in (*header, *(lines[index] for index in part))) for part in parts]
    paths = [folder / f"{name}.tsv" for name in ("train", "tuning")]
    folder.mkdir(parents=True, exist_ok=True)
    for path, content in zip(paths, contents, strict=True):
        write_text(path, content)
    sizes = [len(part) for part in parts]
    return Split(*paths, *sizes, hash_text("\0".join(contents))[:8])


def read_texts(task: str, glue_dir: Path, split: str) -> Examples:
    """Read the texts that models are scored on, and none of their labels."""
    return _read(task, glue_dir, split, labels=False)


def read_labels(task: str, glue_dir: Path, split: str) -> Examples:
    """Read the same rows with their labels: class indices, or for regression scores."""
    return _read(task, glue_dir, split, labels=True)


def _read(task: str, glue_dir: Path, split: str, *, labels: bool) -> Examples:
    declaration = find_declaration(task)
    path = _find_file(task, glue_dir, FILES.get((task, split), declaration.dev_name))
    with TemporaryDirectory() as scratch:
        copy = Path(scratch) / f"{split}.tsv"  # readers know a table by its ending
        copyfile(path, copy)
        return read_examples(
            copy,
            _columns(declaration, labels=labels),
            kind=declaration.kind,
            labels=declaration.labels or (),
            layout=declaration.layout,
        )


def _columns(declaration: Declaration, *, labels: bool) -> Columns:
    assert declaration.text_column  # GLUE's tasks all name theirs
    label = declaration.label_column or "label"
    return Columns(declaration.text_column, declaration.text_pair_column, label if labels else None)


def _find_file(task: str, glue_dir: Path, name: str) -> Path:
    folders: Iterable[str] = find_declaration(task).folders
    paths = [glue_dir / folder / name for folder in folders]
    found = next((path for path in paths if path.is_file()), None)
    if found is None:
        raise UsageError(f"--glue_dir {glue_dir}: it has no {task} file {paths[0].relative_to(glue_dir)}: name another")
    return found
