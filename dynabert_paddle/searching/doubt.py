"""Whether the examples of a search are enough to tell the best sub-network from the next one, and how many would be."""

from __future__ import annotations

from typing import Any

from dynabert_paddle.files.search_result import SearchResult
from dynabert_paddle.searching.estimate import Estimate, error_margin, num_needed

_SHOWN_DIFFERENCE = 0.01  # a smaller difference of two scores is not worth the examples that would show it


def find_doubt(
    score_difference: Estimate, quality_difference: Estimate, *, num_scored: int, num_chosen_on: int
) -> dict[str, Any] | None:
    """Look whether the reported scores tell the best from the next one.

    Args:
        score_difference: of their scores.
        quality_difference: of what chooses.
        num_scored: the examples that the scores are of.
        num_chosen_on: the examples that choose.

    Returns:
        None if they do, else what `SearchResult.doubt` holds beside the rival.
    """
    if abs(score_difference.value) > error_margin(score_difference, two_sided=True):
        return None
    size = max(abs(score_difference.value), _SHOWN_DIFFERENCE)
    is_clear = abs(quality_difference.value) > error_margin(quality_difference, two_sided=True)
    num_to_choose_on = num_needed(quality_difference, num_chosen_on, quality_difference.value)
    return {
        "num_examples": num_needed(score_difference, num_scored, size),
        "for_difference": size,
        "is_choice_clear": is_clear,
        "num_to_choose_on": None if is_clear else num_to_choose_on,
    }


def describe_doubt(result: SearchResult) -> str | None:
    """Say that the scores do not tell the best from the next one; None if they do.

    Args:
        result: of a search.

    Returns:
        A sentence with the number of examples that would do.
    """
    best, doubt = result.best, result.doubt
    if best is None or doubt is None:
        return None
    what = {"divergence": "divergence from the full model", "agreement": "agreement"}.get(result.score, result.metric)
    text = (
        f"{result.num_examples} examples of {result.split} do not tell {best['subnet']} ({best['score']:.4f}) from "
        f"{doubt['rival']} ({doubt['rival_score']:.4f})"
    )
    if doubt["num_examples"]:
        text += f": about {doubt['num_examples']:,} would show a difference of {doubt['for_difference']:.3f}"
    text += f"; {result.num_chosen_on} other examples, which choose by {what}, "
    if doubt["is_choice_clear"]:
        return text + "do"
    text += "do not, either"
    return f"{text}: about {doubt['num_to_choose_on']:,} would" if doubt["num_to_choose_on"] else text
