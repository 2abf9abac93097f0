"""The declaration of a task: how it differs from others."""

import os
from collections.abc import Sequence
from dataclasses import dataclass

from dynabert_paddle.data.fetch import Loader
from dynabert_paddle.data.layout import PLAIN, Layout
from dynabert_paddle.data.submission import SubmissionForm


@dataclass(frozen=True)
class Declaration:
    """The properties of a task that are known before its files are read.

    Args:
        name: the task's name.
        kind: one of `KINDS`.
        labels: the classes in the order of the logits; None: those in the training file.
        metrics: the first metric selects the best model; None: the default of the kind.
        positive_label: the class whose F1 the metric `f1` is; None: the second.
        text_column: column of the text; None: the default of the kind.
        text_pair_column: column of the second text; None: single texts.
        label_column: column of the class or score; None: the default of the kind.
        layout: how the files differ from plain ones.
        data_dir: folder of the files; None: the user names it, or `loader` downloads them.
        folders: possible names of the task's folder in a folder of several tasks.
        train_name: name of the training file; a name without an ending allows any.
        dev_name: name of the development file, likewise.
        loader: downloads the files if the user names no folder; None: they cannot be downloaded.
        submission: the format of a submission; None: there is none.
        scored_as: for a task with only a test file, the task whose models predict it.
    """

    name: str
    kind: str = "classification"
    labels: Sequence[str] | None = None
    metrics: Sequence[str] | None = None
    positive_label: str | None = None
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
