"""A bundle's verification in words."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any


def summarize_verification(verification: Mapping[str, Any]) -> str:
    """Say in a few words how far a bundle is from its model.

    Args:
        verification: as `bundle.json` has it.

    Returns:
        The difference of logits, or the scores on dev.
    """
    if "metric" in verification:
        return (
            f"{verification['metric']} {verification['exported']:.4f} on {verification['examples']} dev examples, "
            f"the model has {verification['source']:.4f}"
        )
    shapes = ", ".join("x".join(map(str, shape)) for shape in verification["shapes"])
    return f"logits differ by at most {verification['max_abs_diff']:.1e} (shapes {shapes})"
