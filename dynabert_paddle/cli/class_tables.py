"""Tables of the scores of each class."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

from dynabert_paddle.cli.output import one_line
from dynabert_paddle.cli.table import show_table

if TYPE_CHECKING:
    from dynabert_paddle.data.class_scores import ClassScores

_MAX_COLUMNS = 12  # of a confusion matrix; of a larger one the commonest confusions are listed
_MAX_CONFUSIONS = 20
_CALIBRATION = (
    "the mean of |accuracy - mean probability| over 15 bins of equal width of the highest probability, weighted by "
    "their predictions"
)
_CALIBRATION_OF_SEVERAL = (
    "the mean of |share of texts with the label - mean probability| over 15 bins of equal width of the probability of "
    "each label of each text, weighted by their number"
)


def show_classes(
    scores: Mapping[str, ClassScores], *, metrics: Sequence[str], positive_label: str | None = None
) -> None:
    """Print the scores of each class: of one sub-network all of them, of several the F1 of each and the calibration.

    Args:
        scores: by the sub-network's name.
        metrics: the task's metrics.
        positive_label: the class whose F1 the metric `f1` is.
    """
    names, first = list(scores), next(iter(scores.values()))
    calibration = _CALIBRATION_OF_SEVERAL if first.is_several else _CALIBRATION
    if len(scores) > 1:
        kinds = list(dict.fromkeys(score.name for one in scores.values() for score in one.classes))
        found = {name: {score.name: f"{score.f1:.4f}" for score in one.classes} for name, one in scores.items()}
        lines = [[kind, *(found[name].get(kind, "") for name in names)] for kind in kinds]
        lines.append(["(ECE)", *(f"{one.calibration.ece:.4f}" for one in scores.values())])
        show_table([first.unit, *names], lines, title="F1 of each class on dev, and the calibration error")
        print(f"(ECE): the expected calibration error, {calibration}")
    else:
        _show_one(names[0], first)
        print(f"expected calibration error (ECE): {first.calibration.ece:.4f}, {calibration}")
    if positive_label is not None:
        print(f"f1 is that of the label {one_line(positive_label)}")
    if "matthews" in metrics:
        print("matthews is the same whichever label is the positive one")


def _show_one(name: str, scores: ClassScores) -> None:
    columns = [scores.unit, "precision", "recall", "F1", "support"]
    lines = [
        [score.name, *(f"{value:.4f}" for value in (score.precision, score.recall, score.f1)), str(score.support)]
        for score in scores.classes
    ]
    show_table(columns, lines, title=f"each {scores.unit} of {name} on dev")
    if len(scores.labels) <= _MAX_COLUMNS:
        lines = [[label, *map(str, row)] for label, row in zip(scores.labels, scores.confusion.tolist(), strict=True)]
        title = "confusion matrix (a row for each label, a column for each prediction)"
        if scores.is_several:
            title = (
                "found labels on the diagonal; elsewhere texts that miss the label of the row and have that of the "
                f"column wrongly, {scores.labels[-1]}: none"
            )
        show_table(["label", *scores.labels], lines, title=title)
    else:
        confusions = scores.confusions()
        lines = [[label, predicted, str(count)] for label, predicted, count in confusions[:_MAX_CONFUSIONS]]
        title = f"the commonest of {len(confusions)} confusions (all with --json)"
        show_table(["label", "prediction", "count"], lines, title=title, num_names=2)
