"""Augmenting a task's training rows into a file: streaming, and resumable to the byte."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager, nullcontext
from dataclasses import asdict
from functools import lru_cache
from itertools import islice
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn

from dynabert_paddle.config.command_settings import AugmentConfig
from dynabert_paddle.config.loading import resolve_config
from dynabert_paddle.config.names import setting
from dynabert_paddle.config.settings import TaskConfig
from dynabert_paddle.data.augment import SOURCE_ROW, Word, copy_row, to_line
from dynabert_paddle.data.readers import Columns
from dynabert_paddle.data.tasks import TrainingTexts, read_training_texts
from dynabert_paddle.data.word_vectors import WordVectors
from dynabert_paddle.errors import UsageError
from dynabert_paddle.runtime.home import user_path
from dynabert_paddle.runtime.interruption import resumable
from dynabert_paddle.training.logging import console, logger
from dynabert_paddle.training.masked_lm import MaskedLM
from dynabert_paddle.training.nearest_words import NearestWords
from dynabert_paddle.training.partial_file import PartialFile

_ENDINGS = (".tsv", ".jsonl")
_NEIGHBOURS_KEPT = 10_000
_LATER = ("word_dropout", "word_swap")

# A row's text, or both texts of a pair.
_Texts = tuple[str, ...]


class Augmented(NamedTuple):
    """What `augment` has done.

    Args:
        rows_in: rows that were read.
        rows_out: rows that were written: each row and its copies.
        words_replaced: in all copies.
    """

    rows_in: int
    rows_out: int
    words_replaced: int


def augment(
    masked_lm: str | Path | None,
    output_file: str | Path,
    *,
    task: Mapping[str, Any] | None = None,
    config: AugmentConfig | None = None,
    word_vectors: str | Path | None = None,
    model_name_or_path: str | Path | None = None,
    overwrite: bool = False,
) -> Augmented:
    """Write a task's training rows, and copies of them in which words are replaced, as TinyBERT does.

    The file has the task's text columns, and `source_row`, the number of the row that a text was made of. A row comes
    first, then its copies, in which both texts of a pair change. The random choices for a row follow from the seed and
    its number. Training rows are read one by one and need no labels.

    Args:
        masked_lm: folder or hub name of BERT's, ERNIE's or RoBERTa's masked LM; None: candidates are the words that
            are nearest in `word_vectors`, or else in the embedding of `model_name_or_path`.
        output_file: .tsv or .jsonl; an interrupted run in it is resumed.
        task: the settings of `config.TaskConfig` that differ from its defaults.
        config: how many copies, of how many candidates, with which probability and seed.
        word_vectors: for words of several tokens, as `WordVectors.read` takes them; without, such words stay. Without
            a masked LM for all words.
        model_name_or_path: the backbone; a masked LM of another vocabulary is refused.
        overwrite: replace `output_file`, and the partial file of an interrupted run with other settings.

    Returns:
        How many rows and words there were.

    Raises:
        Interrupted: Ctrl-C came; the same call goes on from there.
        DynabertError: with the reason in one line.
    """
    config = resolve_config(AugmentConfig, asdict(config or AugmentConfig()))
    task_config = resolve_config(TaskConfig, task or {})
    output = user_path(output_file)
    _check_output(output, overwrite=overwrite)
    texts = _find_texts(task_config)
    columns = texts.columns
    for path in (texts.path, *([Path(word_vectors).expanduser()] if word_vectors else [])):
        if output.exists() and path.exists() and output.samefile(path):
            raise UsageError(f"{output} is the file to read: name another {setting('output_file')}")
    # Once before the hours that the rest may take, so that a fault in the last row shows now.
    num_rows, digest = _survey(texts)
    vectors = WordVectors.read(word_vectors) if word_vectors else None
    model = _load_model(masked_lm, model_name_or_path)
    if task_config.max_seq_length > model.num_positions:
        owner = "masked LM" if masked_lm else "backbone"
        raise UsageError(
            f"{setting('task.max_seq_length')} is {task_config.max_seq_length}, more than the {owner}'s "
            f"{model.num_positions} positions: pass a smaller one"
        )

    @lru_cache(_NEIGHBOURS_KEPT)
    def neighbours(word: str) -> Sequence[str]:
        return vectors.neighbours(word, config.num_candidates) if vectors else ()

    def find_words(texts: Sequence[str]) -> list[list[Word]]:
        return model.find_words(
            texts,
            num_candidates=config.num_candidates,
            max_seq_length=task_config.max_seq_length,
            neighbours=neighbours,
        )

    settings = {
        "columns": [columns.text, columns.pair],
        "max_seq_length": task_config.max_seq_length,
        # Files of earlier versions have been begun without the settings in _LATER.
        **{key: value for key, value in asdict(config).items() if key != "batch_size" and (value or key not in _LATER)},
        "training rows": digest,
        "masked_lm": model.fingerprint,
        "word_vectors": vectors.fingerprint if vectors else None,
    }
    with PartialFile(output, settings, counts=Augmented(0, 0, 0)._asdict(), overwrite=overwrite) as file:
        rows = islice(enumerate(texts), file.counts["rows_in"], None)
        with _show_progress(file.counts["rows_in"], num_rows) as advance:
            while window := list(islice(rows, config.batch_size)):
                file.write(*_augment_rows(window, columns, find_words, config, as_json=output.suffix == ".jsonl"))
                advance(len(window))
        file.finish()
    return Augmented(**file.counts)


def _augment_rows(
    rows: list[tuple[int, _Texts]],
    columns: Columns,
    find_words: Callable[[Sequence[str]], list[list[Word]]],
    config: AugmentConfig,
    *,
    as_json: bool,
) -> tuple[str, dict[str, int]]:
    """The lines for some numbered rows, with the header before row 0, and their counts."""
    names = [*filter(None, (columns.text, columns.pair)), SOURCE_ROW]
    words = iter(find_words([text for _, texts in rows for text in texts]))
    lines, words_replaced = [], 0
    for index, texts in rows:
        versions, count = copy_row(
            texts,
            list(islice(words, len(texts))),
            np.random.default_rng([config.seed, index]),
            num_copies=config.num_copies,
            probability=config.probability,
            dropout=config.word_dropout,
            swap=config.word_swap,
        )
        records = [dict(zip(names, (*version, index), strict=True)) for version in versions]
        lines += [to_line(record, as_json=as_json) for record in records]
        words_replaced += count
    header = "" if as_json or rows[0][0] else to_line({name: name for name in names}, as_json=False)
    return header + "".join(lines), Augmented(len(rows), len(lines), words_replaced)._asdict()


def _load_model(masked_lm: str | Path | None, backbone: str | Path | None) -> MaskedLM | NearestWords:
    """Load what finds candidates; a masked LM of another vocabulary than the backbone's is refused."""
    if masked_lm is None and backbone is None:
        raise UsageError(
            f"name a {setting('masked_lm')} that predicts words, or a {setting('model_name_or_path')} in whose "
            "embedding the nearest ones are taken"
        )
    if masked_lm is None:
        assert backbone is not None
        return NearestWords.from_pretrained(backbone)
    model = MaskedLM.from_pretrained(masked_lm)
    if backbone:
        model.check_vocabulary(backbone)
    return model


def _check_output(path: Path, *, overwrite: bool) -> None:
    if path.suffix not in _ENDINGS:
        raise UsageError(f"{path}: the file to write ends in {' or '.join(_ENDINGS)}")
    if not path.parent.is_dir():
        raise UsageError(f"{path}: there is no folder {path.parent}: make it, or name another {setting('output_file')}")
    if path.is_dir():
        raise UsageError(f"{path} is a folder: name another {setting('output_file')}")
    if path.exists() and not overwrite:
        raise UsageError(
            f"{path} exists: pass {setting('overwrite_output_file')} to replace it, or name another "
            f"{setting('output_file')}"
        )


def _find_texts(config: TaskConfig) -> TrainingTexts:
    names = ("name", "data_dir", "train_file", "text_column", "text_pair_column", "label_column", "kind")
    return read_training_texts(**{name: getattr(config, name) for name in names})


def _survey(rows: Iterable[_Texts]) -> tuple[int, str]:
    """How many rows there are, and a hash of them."""
    hashed, count = hashlib.blake2b(digest_size=8), 0
    for texts in rows:
        hashed.update(repr(texts).encode())
        count += 1
    return count, hashed.hexdigest()


@contextmanager
def _show_progress(done: int, total: int) -> Iterator[Callable[[int], None]]:
    """Show a bar on a terminal, elsewhere one line; turn Ctrl-C into a message that says where the run stands."""
    columns = (TextColumn("augment"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn(), TimeRemainingColumn())
    progress = Progress(*columns, console=console)
    bar = progress.add_task("augment", total=total, completed=done)
    going_on = f", going on from row {done}" if done else ""
    logger.info("augment: %d rows%s", total, going_on)
    with (
        resumable(
            "augment",
            lambda: f" after {progress.tasks[bar].completed:.0f} of {total} rows",
            resume_point=lambda: "there" if progress.tasks[bar].completed else "",
        ),
        progress if console.is_terminal or console.is_jupyter else nullcontext(),
    ):
        yield lambda rows: progress.advance(bar, rows)
