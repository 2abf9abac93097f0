"""The kinds of tasks, with their model heads, metrics and file formats."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from dynabert_paddle.config.names import setting
from dynabert_paddle.data.embedding_metrics import EMBEDDING_METRICS
from dynabert_paddle.data.embedding_settings import EMBEDDING_SETTINGS
from dynabert_paddle.data.label_set_metrics import LABEL_SET_METRICS
from dynabert_paddle.data.long_texts import DOCUMENT_SETTINGS
from dynabert_paddle.data.metrics import ANSWER_METRICS
from dynabert_paddle.data.question_answering import ANSWER_SETTINGS, QUESTION_ENDINGS
from dynabert_paddle.data.records import DATA_FILE_ENDINGS, TEXT_COLUMNS
from dynabert_paddle.data.token_classification import LABEL_COLUMN, SENTENCE_ENDINGS, TEXT_COLUMN
from dynabert_paddle.data.word_settings import WORD_SETTINGS
from dynabert_paddle.errors import UsageError


@dataclass(frozen=True)
class Kind:
    """A kind of task.

    Args:
        head: suffix of PaddleNLP's model classes for it.
        metrics: default metrics; the first selects the best model.
        text_columns: default names of the text column, in order of preference.
        label_columns: default names of the label column, in order of preference.
        fixed_columns: columns that the user cannot choose, by the setting's name.
        endings: allowed endings of data files.
        num_outputs: number of logits; None: one per label.
        settings: settings of a task that only some kinds have.
    """

    head: str
    metrics: tuple[str, ...]
    text_columns: tuple[str, ...] = TEXT_COLUMNS
    label_columns: tuple[str, ...] = ("label",)
    fixed_columns: dict[str, str | None] = field(default_factory=dict)
    endings: tuple[str, ...] = DATA_FILE_ENDINGS
    num_outputs: int | None = None
    settings: tuple[str, ...] = ()


def check_columns(kind: str, columns: Mapping[str, str | None]) -> None:
    """Refuse columns that a kind of task does not let the user choose.

    Args:
        kind: one of `KINDS`.
        columns: the user's columns by the setting's name.

    Raises:
        UsageError: a column is fixed, and another one is given.
    """
    fixed = KINDS[kind].fixed_columns
    for column, value in columns.items():
        if column in fixed and value not in (None, fixed[column]):
            allowed = f"it is {fixed[column]!r}" if fixed[column] else "there is none"
            raise UsageError(f"{setting(f'task.{column}')} is {value!r}, but in {kind} {allowed}: leave it out.")


def check_kind_settings(kind: str, settings: Mapping[str, Any]) -> None:
    """Refuse settings that are for other kinds of tasks.

    Args:
        kind: one of `KINDS`.
        settings: the user's settings by name; None for one that is not given.

    Raises:
        UsageError: the kind does not have one that is given.
    """
    for name, value in settings.items():
        if value is not None and name not in KINDS[kind].settings:
            kinds = list_kinds([other for other in KINDS if name in KINDS[other].settings])
            raise UsageError(f"{setting(f'task.{name}')} is for {kinds}, this task is {kind}: leave it out.")


def list_kinds(kinds: Sequence[str]) -> str:
    """Return kinds of tasks for a message, such as `classification, regression and multi_label`."""
    *others, last = kinds
    return f"{', '.join(others)} and {last}" if others else last


def kind_of(class_name: str) -> str:
    """Infer the kind of task from a model class.

    Args:
        class_name: name of a PaddleNLP model class.

    Returns:
        The first kind whose head is the name's suffix; classification if there is none.
    """
    return next((name for name, kind in KINDS.items() if class_name.endswith(kind.head)), "classification")


KINDS = {
    "classification": Kind("ForSequenceClassification", ("accuracy", "macro_f1"), settings=DOCUMENT_SETTINGS),
    "regression": Kind("ForSequenceClassification", ("pearson", "spearman"), num_outputs=1, settings=DOCUMENT_SETTINGS),
    "multi_label": Kind(
        "ForSequenceClassification",
        LABEL_SET_METRICS,
        label_columns=("labels", "label"),
        settings=("label_separator", *DOCUMENT_SETTINGS),
    ),
    "token_classification": Kind(
        "ForTokenClassification",
        ("entity_f1", "token_accuracy"),
        text_columns=(TEXT_COLUMN,),
        label_columns=(LABEL_COLUMN,),
        fixed_columns={"text_pair_column": None},
        endings=SENTENCE_ENDINGS,
        settings=(*WORD_SETTINGS, "word_split"),
    ),
    "question_answering": Kind(
        "ForQuestionAnswering",
        ANSWER_METRICS,
        text_columns=("question",),
        label_columns=("answers",),
        fixed_columns={"text_column": "question", "text_pair_column": "context", "label_column": "answers"},
        endings=QUESTION_ENDINGS,
        num_outputs=2,
        settings=ANSWER_SETTINGS,
    ),
    "embedding": Kind(
        "ForTextEmbedding",
        EMBEDDING_METRICS,
        endings=(*DATA_FILE_ENDINGS, ".txt"),
        settings=(*EMBEDDING_SETTINGS, "retrieval_dir"),
    ),
}
# Each text, or each word, has one of several classes; with `multi_label` a text can have several or none.
CLASS_KINDS = ("classification", "token_classification", "multi_label")
