"""Which curves a stage's chart has, and what it says of them."""

from pathlib import Path

import pytest

from dynabert_paddle.files.metadata import Metadata
from dynabert_paddle.reporting.content import Stage
from dynabert_paddle.reporting.curves import draw_training

pytestmark = pytest.mark.reference


def draw(*evaluations, losses=(2.0, 1.0)):
    log = [{"step": step, "train/loss": loss} for step, loss in enumerate(losses, start=1)]
    log += [{"step": step, "eval/accuracy/small": low, "eval/accuracy/big": high} for step, low, high in evaluations]
    return draw_training(Stage("depth", Path("depth"), Metadata(), tuple(log)))


def labels(chart):
    return [axes.get_ylabel() for axes in chart.axes]


def test_several_evaluations_are_curves():
    assert labels(draw((1, 0.5, 0.6), (2, 0.7, 0.9))) == ["loss", "accuracy"]


def test_a_single_evaluation_is_stated_in_text_and_table_without_a_curve():
    chart = draw((2, 0.7, 0.9))
    assert labels(chart) == ["loss"]
    assert chart.finding.en == (
        "The loss goes from 2 at step 1 to 1 at step 2. "
        "At the last evaluation accuracy lies between 0.7000 (small) and 0.9000 (big)."
    )
    assert chart.table.rows[-1] == ("2", "1", "0.7", "0.9")


@pytest.mark.parametrize("losses", [(), (2.0,)])
def test_curves_of_one_point_are_drawn_if_there_are_no_others(losses):
    assert labels(draw((1, 0.7, 0.9), losses=losses)) == ["loss", "accuracy"][1 - len(losses) :]


def test_a_single_loss_is_stated_once():
    assert draw(losses=(2.0,)).finding.en == "The loss is 2 at step 1."


def test_the_axis_of_steps_has_whole_numbers():
    axes = draw(losses=(3.0, 2.0, 1.0)).axes[-1]
    assert all(tick.is_integer() for tick in axes.get_xticks())


def test_an_empty_log_has_no_chart():
    assert draw(losses=()) is None
