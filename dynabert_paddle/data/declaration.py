"""The declaration of a task: all that tells one from another."""

import os
from collections.abc import Sequence
from dataclasses import dataclass

from dynabert_paddle.data.fetch import Loader
from dynabert_paddle.data.layout import PLAIN, Layout
from dynabert_paddle.data.submission import SubmissionForm


@dataclass(frozen=True)
class Declaration:
    """What is fixed about a task before its files are opened.

    Args:
        name: the task's name.
        kind: one of `KINDS`.
        labels: the classes in the order of the logits; None: those of the training file.
        metrics: the first one selects; None: the kind's default.
        text_column: None: what the kind of task calls it.
        text_pair_column: None: single texts.
        label_column: the column of the class or the score; None: what the kind of task calls it.
        layout: how the files differ from plain ones.
        data_dir: where the files are; None: the user says, or `loader` fetches them.
        folders: names that the task's folder may have in a folder that holds several tasks.
        train_name: name of the training file; without an ending it may have any.
        dev_name: name of the development file, likewise.
        loader: fetches the files where the user names no folder; None: they cannot be fetched.
        submission: the form of a submission; None: there is none.
        scored_as: for a task with nothing but a test file, the task whose models predict it.
    """

    name: str
    kind: str = "classification"
    labels: Sequence[str] | None = None
    metrics: Sequence[str] | None = None
    text_column: str | None = None
    text_pair_column: str | None = None
    label_column: str | None = None
    layout: Layout = PLAIN
    data_dir: str | os.PathLike | None = None
    folders: tuple[str, ...] = ()
    train_name: str = "train"
    dev_name: str = "dev"
    loader: Loader | None = None
    submission: SubmissionForm | None = None
    scored_as: str | None = None
