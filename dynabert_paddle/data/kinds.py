"""The kinds of tasks: what a model for one ends in, what it is scored by, and what its files look like."""

from dataclasses import dataclass, field

from dynabert_paddle.data.metrics import ANSWER_METRICS
from dynabert_paddle.data.question_answering import QUESTION_ENDINGS
from dynabert_paddle.data.records import DATA_FILE_ENDINGS
from dynabert_paddle.data.token_classification import LABEL_COLUMN, SENTENCE_ENDINGS, TEXT_COLUMN


@dataclass(frozen=True)
class Kind:
    """A kind of task.

    Args:
        head: the ending of PaddleNLP's classes for it.
        metrics: what is measured where nothing else is asked for; the first metric selects.
        text_columns: what the column of the text may be called where the user names none.
        label_column: what the column of the label is called where the user names none.
        fixed_columns: by the setting's name, the columns about which the user has no choice.
        endings: of data files.
        num_outputs: of the model; None: one a label.
    """

    head: str
    metrics: tuple[str, ...]
    text_columns: tuple[str, ...] = ("sentence", "text")
    label_column: str = "label"
    fixed_columns: dict[str, str | None] = field(default_factory=dict)
    endings: tuple[str, ...] = DATA_FILE_ENDINGS
    num_outputs: int | None = None


def kind_of(class_name: str) -> str:
    """Tell what kind of task a model is for where nothing says so.

    Args:
        class_name: of a PaddleNLP model.

    Returns:
        The first kind whose models end in its head; classification where none does.
    """
    return next((name for name, kind in KINDS.items() if class_name.endswith(kind.head)), "classification")


KINDS = {
    "classification": Kind("ForSequenceClassification", ("accuracy", "macro_f1")),
    "regression": Kind("ForSequenceClassification", ("pearson", "spearman"), num_outputs=1),
    "token_classification": Kind(
        "ForTokenClassification",
        ("entity_f1", "token_accuracy"),
        text_columns=(TEXT_COLUMN,),
        label_column=LABEL_COLUMN,
        fixed_columns={"text_pair_column": None},
        endings=SENTENCE_ENDINGS,
    ),
    "question_answering": Kind(
        "ForQuestionAnswering",
        ANSWER_METRICS,
        text_columns=("question",),
        label_column="answers",
        fixed_columns={"text_column": "question", "text_pair_column": "context", "label_column": "answers"},
        endings=QUESTION_ENDINGS,
        num_outputs=2,
    ),
}
