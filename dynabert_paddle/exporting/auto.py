"""Export to the format and precision that are the fastest on this machine."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from tempfile import TemporaryDirectory

from dynabert_paddle.errors import DynabertError
from dynabert_paddle.exporting.candidates import AUTO_PRECISION, Candidate, ChoiceJob, list_candidates
from dynabert_paddle.exporting.formats import needs_legacy
from dynabert_paddle.exporting.job import ExportJob
from dynabert_paddle.exporting.manifest import BundleManifest, CandidateResult
from dynabert_paddle.runtime.cores import num_cores
from dynabert_paddle.runtime.interpreter import run_apart


def export_fastest(job: ExportJob, *, batch_size: int, seq_length: int | None) -> BundleManifest:
    """Write a bundle of the fastest candidate whose check is passed to `job.partial_dir`.

    Args:
        job: its format is `auto`, its precision `auto` or the only one to consider.
        batch_size: texts in a batch.
        seq_length: tokens in a text; None for 64, or the bundle's maximum if that is smaller.

    Returns:
        The manifest of the bundle, with all candidates and what became of them.

    Raises:
        DynabertError: no candidate can be exported within its tolerance.
    """
    precision = None if job.precision == AUTO_PRECISION else job.precision
    candidates, results = list_candidates(precision, has_members=job.subnets is not None)
    with TemporaryDirectory(prefix="dynabert-choice-") as scratch:
        choice = ChoiceJob(
            export=job,
            candidates=candidates,
            results=results,
            folder=Path(scratch),
            batch_size=batch_size,
            seq_length=seq_length,
            num_threads=num_cores(),
        )
        legacy = any(needs_legacy(candidate.format) for candidate in candidates)
        if legacy and (pir := [one for one in candidates if one.format == "pir"]):
            choice = _write_pir_apart(choice, pir)
        return run_apart(run_choice, choice, legacy=legacy, name="the export to the fastest format")


def _write_pir_apart(choice: ChoiceJob, pir: list[Candidate]) -> ChoiceJob:
    """Write the graph of format pir, whose Paddle must be imported for it; returns what is left to do."""
    if len(pir) < len(choice.candidates):
        try:
            return replace(choice, described=run_apart(run_pir, choice, legacy=False, name="the export to pir"))
        except DynabertError as error:
            failed = tuple(CandidateResult(one.format, one.precision, str(error)) for one in pir)
            candidates = tuple(one for one in choice.candidates if one.format != "pir")
            return replace(choice, candidates=candidates, results=choice.results + failed)
    return choice


def run_pir(job: ChoiceJob) -> BundleManifest:
    """Write the graph of format pir, in the fresh process that `export_fastest` starts."""
    # Imported here, because it imports Paddle, which the process that calls `export` does not need.
    from dynabert_paddle.exporting.choose import write_pir

    return write_pir(job)


def run_choice(job: ChoiceJob) -> BundleManifest:
    """Choose a format, in the fresh process that `export_fastest` starts."""
    from dynabert_paddle.exporting.choose import choose

    return choose(job)
