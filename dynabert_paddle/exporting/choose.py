"""The workers of an export to the fastest format: they write the candidates' graphs, time them, and check the fastest.

Each runs in a fresh process, which imports Paddle for one graph format.
"""

from __future__ import annotations

import shutil
from collections.abc import Mapping, Sequence
from dataclasses import replace
from functools import cache
from pathlib import Path

import numpy as np

from dynabert_paddle.bundle.engines import Engine
from dynabert_paddle.bundle.errors import as_dynabert_error
from dynabert_paddle.bundle.members import members_of, open_subnet
from dynabert_paddle.bundle.timing import make_batch
from dynabert_paddle.config.names import setting
from dynabert_paddle.errors import DynabertError, ModelError, UsageError
from dynabert_paddle.exporting.bundle import of_format, seal, write_tokenizer_and_script
from dynabert_paddle.exporting.candidates import Candidate, ChoiceJob
from dynabert_paddle.exporting.formats import PADDLE_FORMATS, TOLERANCES, needs_legacy
from dynabert_paddle.exporting.graphs import (
    Int8Data,
    check_graph,
    check_members,
    load_int8_data,
    run_batches,
    write_graph,
    write_members,
)
from dynabert_paddle.exporting.inference import save_graph
from dynabert_paddle.exporting.manifest import BundleManifest, BundleMember, CandidateResult, Choice
from dynabert_paddle.exporting.race import Lap, race
from dynabert_paddle.exporting.source import describe_source, load_source
from dynabert_paddle.files.atomic import handle_write_errors
from dynabert_paddle.runtime.interpreter import report_progress
from dynabert_paddle.runtime.machine import instruction_sets, processor_name
from dynabert_paddle.supernet.supernet import Supernet

_DEFAULT_LENGTH = 64
_EQUAL = 1.02  # latencies that differ by less are equal, and the candidate that comes first is preferred
_STATIC = "static"  # folder of the static graph that other graphs are made of


def write_pir(job: ChoiceJob) -> BundleManifest:
    """Write the graph of the format pir, where Paddle's legacy formats need another process.

    Args:
        job: the candidates.

    Returns:
        The manifest of the bundle in that format, not checked yet.
    """
    supernet, weights = load_source(job.export)
    manifest = describe_source(supernet, job.export, weights)
    seq_length(job, manifest)  # refused before the work
    with handle_write_errors(job.export.output_dir):
        return _Writer(supernet, manifest, job).write(Candidate("pir", "fp32"))


def choose(job: ChoiceJob) -> BundleManifest:
    """Write the candidates' graphs that are not there yet, time them, and make a bundle of the fastest that is correct.

    Args:
        job: the candidates.

    Returns:
        The manifest of the finished bundle.

    Raises:
        DynabertError: no candidate can be exported within its tolerance.
    """
    supernet, weights = load_source(job.export)
    manifest = describe_source(supernet, job.export, weights) if job.described is None else job.described
    length = seq_length(job, manifest)
    results = list(job.results)
    with handle_write_errors(job.export.output_dir):
        writer = _Writer(supernet, manifest, job)
        manifests, engines = _open_all(writer, job, results)
        laps = race(engines, make_batch(job.batch_size, length, manifest.vocab_size)) if engines else {}
        for name, lap in laps.items():
            report_progress(f"{name}: {lap.latency_ms:.2f} ms")
        finished = _check_fastest(writer, job, manifests, engines, laps, results)
        choice = Choice(
            batch_size=job.batch_size,
            seq_length=length,
            num_threads=job.num_threads,
            processor=processor_name(),
            instruction_sets=instruction_sets() or (),
            candidates=results,
        )
        finished = replace(finished, choice=choice)
        for path in sorted((job.folder / Candidate(finished.format, finished.precision).graph).iterdir()):
            shutil.move(path, job.export.partial_dir / path.name)
        write_tokenizer_and_script(supernet, job.export.partial_dir, format=finished.format)
        seal(job.export.partial_dir, finished)
    return finished


def seq_length(job: ChoiceJob, manifest: BundleManifest) -> int:
    """Return the length at which candidates are timed.

    Args:
        job: its length is used, if it has one.
        manifest: of the bundle.

    Returns:
        Tokens.

    Raises:
        UsageError: more than the model has positions.
    """
    if job.seq_length is None:
        return min(_DEFAULT_LENGTH, manifest.max_seq_length)
    if job.seq_length > manifest.max_positions:
        raise UsageError(
            f"{setting('seq_length')} is {job.seq_length}, more than the model's {manifest.max_positions} positions: "
            "pass a smaller one"
        )
    return job.seq_length


class _Writer:
    """Writes each graph that candidates have in common once.

    Args:
        supernet: the model.
        manifest: of the bundle, whatever its format.
        job: its folder is written to.
    """

    def __init__(self, supernet: Supernet, manifest: BundleManifest, job: ChoiceJob) -> None:
        self.supernet, self._manifest, self._job = supernet, manifest, job
        described = job.described
        self._members: dict[str, Sequence[BundleMember] | None] = {"pir": described.members} if described else {}

    @cache  # noqa: B019 - the writer lives as long as the process
    def data(self) -> Int8Data:
        """What int8 reads of the task."""
        return load_int8_data(self.supernet, self._job.export, self._manifest.max_seq_length, calibrates=True)

    def folder(self, candidate: Candidate) -> Path:
        """The folder with a candidate's graph."""
        return self._job.folder / candidate.graph

    def write(self, candidate: Candidate) -> BundleManifest:
        """Write a candidate's graph, unless it is there, and return the manifest of its bundle."""
        folder, name = self.folder(candidate), candidate.graph
        if name not in self._members:
            folder.mkdir()
            if self._manifest.members is None:
                self._write_graph(candidate, folder)
                self._members[name] = None
            else:
                self._members[name] = write_members(self.supernet, self._manifest.members, folder)
        manifest = of_format(self._manifest, candidate.format, candidate.precision)
        return replace(manifest, members=self._members[name])

    def _write_graph(self, candidate: Candidate, folder: Path) -> None:
        needs_texts = candidate.precision == "int8" and candidate.format in PADDLE_FORMATS
        calibration = self.data().calibration if needs_texts else ()
        graph = self._job.folder / _STATIC / ("legacy" if needs_legacy(candidate.format) else "pir")
        if not graph.exists():
            graph.mkdir(parents=True)
            save_graph(self.supernet, graph)
        write_graph(
            self.supernet,
            folder,
            graph,
            format=candidate.format,
            precision=candidate.precision,
            calibration=calibration,
        )


def _open_all(
    writer: _Writer, job: ChoiceJob, results: list[CandidateResult]
) -> tuple[dict[Candidate, BundleManifest], dict[str, Engine]]:
    """Write and open the candidates; the reasons of those that fail are added to the results."""
    manifests: dict[Candidate, BundleManifest] = {}
    engines: dict[str, Engine] = {}
    must_read = job.export.precision == "int8" or job.export.task_is_given
    for candidate in job.candidates:
        if candidate.precision == "int8":
            try:
                writer.data()
            except DynabertError as error:
                if must_read:
                    raise
                results.append(CandidateResult(candidate.format, candidate.precision, str(error)))
                continue
        try:
            manifests[candidate] = writer.write(candidate)
            with as_dynabert_error():
                engines[str(candidate)] = _open(writer.folder(candidate), manifests[candidate], job.num_threads)
        except DynabertError as error:
            results.append(CandidateResult(candidate.format, candidate.precision, str(error)))
    return manifests, engines


def _open(folder: Path, manifest: BundleManifest, num_threads: int) -> Engine:
    """Open a candidate; of several sub-networks all run, one after the other."""
    description = manifest.to_json()
    engines = [open_subnet(folder, description, subnet, num_threads=num_threads) for subnet in members_of(description)]
    if len(engines) == 1:
        return engines[0]

    def run_all(batch: dict[str, np.ndarray]) -> np.ndarray:
        return [engine(batch) for engine in engines][-1]

    return run_all


def _check_fastest(
    writer: _Writer,
    job: ChoiceJob,
    manifests: Mapping[Candidate, BundleManifest],
    engines: Mapping[str, Engine],
    laps: Mapping[str, Lap],
    results: list[CandidateResult],
) -> BundleManifest:
    """Check the candidates, the fastest first, until one is within its tolerance; the results become the table."""
    order = [candidate for candidate in manifests if str(candidate) in laps]
    fastest = next(iter(laps.values()), None)
    if fastest is not None:
        # A stable sort: among equally fast ones the first remains the first.
        order.sort(key=lambda candidate: _rank(laps[str(candidate)].ratio(fastest)))
    refused: dict[Candidate, str] = {}
    for chosen in order:
        try:
            finished = _check(writer, job, manifests[chosen], engines[str(chosen)], chosen)
            break
        except DynabertError as error:
            refused[chosen] = str(error)
    else:
        reasons = [f"{one.format} {one.precision}: {one.result}" for one in results]
        reasons += [f"{candidate}: {reason}" for candidate, reason in refused.items()]
        raise ModelError(f"no format is within its tolerance: {'; '.join(reasons)}")
    num_networks = len(manifests[chosen].members or "1")
    timed = [
        CandidateResult(
            format=candidate.format,
            precision=candidate.precision,
            result="chosen" if candidate == chosen else refused.get(candidate, _why(laps, candidate, chosen)),
            latency_ms=laps[str(candidate)].latency_ms / num_networks,
            ratio=laps[str(candidate)].ratio(laps[str(chosen)]),
        )
        for candidate in order
    ]
    results[:] = [*timed, *results]
    return finished


def _rank(ratio: float) -> float:
    return 1.0 if ratio <= _EQUAL else ratio


def _why(laps: Mapping[str, Lap], candidate: Candidate, chosen: Candidate) -> str:
    """Why a candidate was not chosen that may be correct."""
    own, best = len(laps[str(candidate)].rounds), len(laps[str(chosen)].rounds)
    if own < best:
        return f"slower: not timed any more after {own} of {best} rounds, and not checked"
    equal = laps[str(candidate)].ratio(laps[str(chosen)]) <= _EQUAL
    return f"{'equally fast' if equal else 'slower'}: not checked"


def _check(
    writer: _Writer, job: ChoiceJob, manifest: BundleManifest, engine: Engine, candidate: Candidate
) -> BundleManifest:
    is_int8 = candidate.precision == "int8"
    tolerance = TOLERANCES[candidate.format][candidate.precision]
    if is_int8 and job.export.tolerance is not None:
        tolerance = job.export.tolerance
    if manifest.members is not None:
        return check_members(manifest, writer.supernet, writer.folder(candidate), tolerance)
    data = writer.data() if is_int8 else None
    return check_graph(manifest, writer.supernet, run_batches(engine), data, tolerance)
