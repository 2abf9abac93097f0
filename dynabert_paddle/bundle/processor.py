"""What a bundle's user should know about the processor that runs it.

This file is part of every bundle's `infer.py`.
"""

from __future__ import annotations

from typing import Any

from dynabert_paddle.runtime.machine import find_instructions, instruction_sets, slow_precision


def processor_warnings(description: dict[str, Any]) -> list[str]:
    """List what this processor makes of a bundle that another would not.

    Args:
        description: the content of its `bundle.json`.

    Returns:
        A line each: the bundle was chosen on another kind of processor; its precision is not faster than fp32 here,
        unless it was chosen on such a processor; its integers overflow here.
    """
    format, precision = description["format"], description["precision"]
    warnings = []
    choice, own = description.get("choice"), instruction_sets()
    if choice is not None and own is not None and set(choice["instruction_sets"]) != set(own):
        warnings.append(
            f"{format} in {precision} was chosen on another kind of processor ({_name(choice['instruction_sets'])}; "
            f"here {_name(own)}): another format may be faster here: export with --format auto on this machine"
        )
    if choice is None or warnings:
        slow = slow_precision(precision, format)
        warnings += [slow] if slow else []
    if precision == "int8" and "max_weight_integer" not in description and find_instructions("int8") == []:
        warnings.append(
            "its int8 weights go beyond 64, as in bundles of earlier versions, so that sums overflow on processors "
            "without VNNI, as this one is: answers differ from those elsewhere and can be wrong: export it again"
        )
    return warnings


def _name(sets: list[str]) -> str:
    return ", ".join(sets) or "none of AVX2, AVX-512, VNNI, bf16, AMX"
