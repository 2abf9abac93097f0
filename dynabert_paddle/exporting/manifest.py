"""The content of a bundle's `bundle.json`, before the files and their hashes are added."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from dynabert_paddle.files.json_values import json_values

APP_FILES = ("model_arm.nb", "vocab.txt", "lite_tokenizer.json", "bundle.json")  # of a Paddle Lite bundle


@dataclass(frozen=True)
class LogitCheck:
    """The bundle's logits against the model's, on random inputs.

    Args:
        shapes: batch size and length of each input.
        max_abs_diff: the largest absolute difference.
        tolerance: the largest difference allowed.
    """

    shapes: Sequence[Sequence[int]]
    max_abs_diff: float
    tolerance: float

    def __str__(self) -> str:
        """For example `logits differ by at most 1.2e-06 (shapes 1x2, 4x17)`."""
        shapes = ", ".join("x".join(map(str, shape)) for shape in self.shapes)
        return f"logits differ by at most {self.max_abs_diff:.1e} (shapes {shapes})"


@dataclass(frozen=True)
class MetricCheck:
    """The bundle's score on the dev set against the model's.

    Args:
        metric: the task's first metric.
        source: the model's score.
        exported: the bundle's score.
        examples: scored examples of the dev set.
        tolerance: how much of the score the bundle may lose.
        max_abs_diff: the largest absolute difference of logits.
        shapes: number of different batch shapes.
    """

    metric: str
    source: float
    exported: float
    examples: int
    tolerance: float
    max_abs_diff: float
    shapes: int

    def __str__(self) -> str:
        """For example `accuracy 0.9500 on 700 dev examples, the model has 0.9514`."""
        return f"{self.metric} {self.exported:.4f} on {self.examples} dev examples, the model has {self.source:.4f}"


@dataclass(frozen=True)
class Footprint:
    """What a Paddle Lite model costs on Lite's x86 runtime.

    Args:
        load_ms: milliseconds to load the file.
        memory_mb: the process's peak in MB, above that of a process that has only imported Paddle Lite.
        seq_length: tokens of the one text that was run.
        processor: the machine's, and its instructions.
    """

    load_ms: float
    memory_mb: float
    seq_length: int
    processor: str

    def __str__(self) -> str:
        """For example `9.1 MB of memory, loads in 11 ms (x86 runtime, 64 tokens)`."""
        return (
            f"{self.memory_mb:.1f} MB of memory, loads in {self.load_ms:.0f} ms (x86 runtime, {self.seq_length} tokens)"
        )


@dataclass(frozen=True)
class CandidateResult:
    """What became of one format and precision when the fastest was chosen.

    Args:
        format: one of `formats.TOLERANCES`.
        precision: one of the format's precisions.
        result: `chosen`, or why it was not.
        latency_ms: median milliseconds a batch, of several sub-networks their mean; None where it was not timed.
        ratio: its latency divided by that of the chosen one, median over the rounds in which both ran.
    """

    format: str
    precision: str
    result: str
    latency_ms: float | None = None
    ratio: float | None = None


@dataclass(frozen=True)
class Choice:
    """How a bundle's format and precision were chosen.

    Args:
        batch_size: texts in a batch.
        seq_length: tokens in a text.
        num_threads: CPU threads.
        processor: the machine's.
        instruction_sets: the processor's kind; see `runtime.machine.instruction_sets`.
        candidates: all that were considered, the fastest first.
    """

    batch_size: int
    seq_length: int
    num_threads: int
    processor: str
    instruction_sets: Sequence[str]
    candidates: Sequence[CandidateResult]


@dataclass(frozen=True)
class BundleMember:
    """One sub-network of a bundle of several.

    Args:
        subnet: its name.
        num_params: its number of parameters.
        macs: multiply-accumulates at sequence length 128.
        score: higher is better; `BundleManifest.ranked_by` names the metric.
        thresholds: as `BundleManifest.thresholds`.
        graph: file name of its graph.
        parameters: of each parameter: the index of the stored weight whose leading block it is, and its shape.
        verification: its check against the model.
    """

    subnet: str
    num_params: int
    macs: int
    score: float
    thresholds: Mapping[str, float] | None = None
    graph: str | None = None
    parameters: Sequence[tuple[int, Sequence[int]]] | None = None
    verification: LogitCheck | None = None


@dataclass(frozen=True)
class BundleManifest:
    """The content of `bundle.json`; a key that is None is left out.

    Args:
        format_version: version of the file's layout.
        format: one of `formats.TOLERANCES`.
        precision: the number format that the bundle computes in or is stored in.
        task: name, kind, metrics, and the columns of the texts.
        labels: class names by index; empty for a regression.
        answers: settings of the answer search in question answering.
        pair: whether an input is a pair of texts.
        max_seq_length: tokens to which texts are cut.
        special_tokens_in_text: whether the text of a special token in a text is that token.
        max_positions: number of the model's position embeddings.
        inputs: names of the graph's inputs; for Paddle Lite in the order of their indices.
        vocab_size: upper bound of the token ids, exclusive.
        pad_token_id: id of the padding token.
        unk_token_id: id of the unknown token.
        special_token_ids: ids of the special tokens that a text can contain.
        subnet: name of the only sub-network.
        num_params: its number of parameters.
        versions: versions of the packages that wrote the bundle.
        depends_on_batch: whether a text's logits depend on the other texts of its batch and on its padding.
        thresholds: for several labels a text, the probability from which each label is predicted by the only
            sub-network.
        vector_size: values of a text's vector, for embeddings.
        paddlelite: version of Paddle Lite's converter.
        footprint: memory and load time of a Paddle Lite model.
        members: the sub-networks of a bundle of several, best first.
        ranked_by: metric, split and size of the data behind the members' scores.
        max_weight_integer: the largest integer that stands for a weight of a matmul in int8; a bundle that does not say
            it may have larger ones, which overflow on processors without VNNI.
        choice: how format and precision were chosen, if they were.
        verification: the check against the model; for several sub-networks, the one with the largest difference.
    """

    format_version: int
    format: str
    precision: str
    task: Mapping[str, Any]
    labels: Sequence[str]
    answers: Mapping[str, Any] | None
    pair: bool
    max_seq_length: int
    special_tokens_in_text: bool
    max_positions: int
    inputs: Sequence[str]
    vocab_size: int
    pad_token_id: int
    unk_token_id: int | None
    special_token_ids: Sequence[int]
    subnet: str | None
    num_params: int | None
    versions: Mapping[str, str]
    depends_on_batch: bool
    thresholds: Mapping[str, float] | None = None
    vector_size: int | None = None
    paddlelite: str | None = None
    footprint: Footprint | None = None
    members: Sequence[BundleMember] | None = None
    ranked_by: Mapping[str, Any] | None = None
    max_weight_integer: int | None = None
    choice: Choice | None = None
    verification: LogitCheck | MetricCheck | None = None

    def to_json(self) -> dict[str, Any]:
        """Return the content of `bundle.json`, its keys in the file's order."""
        content = json_values(self)
        if self.choice is not None:
            content["choice"]["candidates"] = [json_values(result) for result in self.choice.candidates]
        if self.members is not None:
            content["members"] = [json_values(member) for member in self.members]
        return content
