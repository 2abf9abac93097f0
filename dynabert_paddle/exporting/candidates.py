"""The formats and precisions among which `--format auto` chooses. Imports no Paddle."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from dynabert_paddle.config.names import setting
from dynabert_paddle.errors import DynabertError, UsageError, did_you_mean
from dynabert_paddle.exporting.formats import PADDLE_FORMATS, TOLERANCES, check_request, needs_legacy
from dynabert_paddle.exporting.job import ExportJob
from dynabert_paddle.exporting.manifest import BundleManifest, CandidateResult
from dynabert_paddle.runtime.machine import slow_precision

AUTO_PRECISION = "auto"  # all that can be faster than fp32 on this processor
_FORMATS = tuple(format for format in TOLERANCES if format != "lite")  # which is for other machines
_PRECISIONS = ("fp32", "bf16", "int8")
_OF_SEVERAL = ("fp32", "bf16")  # precisions of bundles of several sub-networks


@dataclass(frozen=True)
class Candidate:
    """A format and precision to compare.

    Args:
        format: one of `formats.TOLERANCES`.
        precision: one of the format's precisions.
    """

    format: str
    precision: str

    def __str__(self) -> str:
        """For example `onnx int8`."""
        return f"{self.format} {self.precision}"

    @property
    def graph(self) -> str:
        """Name of the folder with its graph, which several candidates can have in common."""
        if self.precision == "int8":
            return f"{self.format}-int8"
        return "legacy" if self.format in PADDLE_FORMATS and needs_legacy(self.format) else self.format


@dataclass(frozen=True)
class ChoiceJob:
    """What the worker processes of an export to the fastest format know.

    Args:
        export: its format is `auto`, its precision `auto` or the only one to consider.
        candidates: those to compare, in the order in which they are preferred where they are equally fast.
        results: those that are out of the question, and why.
        folder: holds a folder for each graph.
        batch_size: texts in a batch.
        seq_length: tokens in a text; None for 64, or the bundle's maximum if that is smaller.
        num_threads: CPU threads.
        described: the manifest of the bundle in format pir, if another process has written its graph.
    """

    export: ExportJob
    candidates: tuple[Candidate, ...]
    results: tuple[CandidateResult, ...]
    folder: Path
    batch_size: int
    seq_length: int | None
    num_threads: int
    described: BundleManifest | None = None


def list_candidates(
    precision: str | None, *, has_members: bool
) -> tuple[tuple[Candidate, ...], tuple[CandidateResult, ...]]:
    """List what this machine can run.

    Args:
        precision: the only one to consider; None for all that can be faster than fp32 on this processor.
        has_members: whether the bundle has several sub-networks.

    Returns:
        The candidates, in the order of preference; and those that are out of the question here, with the reason.

    Raises:
        UsageError: a precision that no candidate has.
        DynabertError: no format can be exported to.
    """
    formats: Sequence[str] = PADDLE_FORMATS if has_members else _FORMATS
    allowed = _OF_SEVERAL if has_members else _PRECISIONS
    if precision is not None and precision not in allowed:
        several = " for several sub-networks" if has_members else ""
        raise UsageError(
            f"{setting('format')} auto has the precisions {', '.join(allowed)}{several}, not '{precision}'."
            f"{did_you_mean(precision, allowed)}"
        )
    missing = _find_missing(formats)
    candidates, results = [], []
    for one in allowed if precision is None else (precision,):
        for format in formats:
            if one not in TOLERANCES[format]:
                continue
            slow = slow_precision(one) if precision is None and one == "bf16" else None
            if reason := missing.get(format) or slow:
                results.append(CandidateResult(format, one, reason))
            else:
                candidates.append(Candidate(format, one))
    if not candidates:
        raise DynabertError(f"this machine can export to no format: {'; '.join(missing.values())}")
    return tuple(candidates), tuple(results)


def _find_missing(formats: Sequence[str]) -> Mapping[str, str]:
    """By format that cannot be exported to, the reason."""
    reasons = {}
    for format in formats:
        try:
            check_request(format, "fp32")
        except DynabertError as error:
            reasons[format] = str(error)
    return reasons
