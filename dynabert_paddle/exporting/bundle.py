"""Writes a bundle: a self-contained folder with a graph, a tokenizer, a script, and the files' checksums."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, replace
from pathlib import Path

from dynabert_paddle.backbone.structure import num_positions
from dynabert_paddle.backbone.text_embedding import BackboneForTextEmbedding
from dynabert_paddle.bundle.engines import INPUTS
from dynabert_paddle.bundle.manifest import BUNDLE_FILE, FORMAT_VERSION
from dynabert_paddle.config.names import setting
from dynabert_paddle.data.embedding_settings import EMBEDDING_SETTINGS
from dynabert_paddle.data.kinds import KINDS, Kind, kind_of
from dynabert_paddle.data.label_sets import check_separator
from dynabert_paddle.data.labels import describe_difference, permutation
from dynabert_paddle.data.long_texts import DOCUMENT_SETTINGS, bundle_document_settings
from dynabert_paddle.data.question_answering import AnswerSettings
from dynabert_paddle.data.token_classification import check_word_labels
from dynabert_paddle.data.word_settings import bundle_word_settings
from dynabert_paddle.errors import ModelError, UsageError
from dynabert_paddle.exporting.lite_tokenizer import write_lite_tokenizer
from dynabert_paddle.exporting.manifest import BundleManifest
from dynabert_paddle.exporting.scripts import write_lite_script, write_script
from dynabert_paddle.files.atomic import write_json
from dynabert_paddle.files.hashing import hash_file
from dynabert_paddle.runtime.environment import package_versions
from dynabert_paddle.supernet.rounding import MAX_WEIGHT_INTEGER
from dynabert_paddle.supernet.supernet import MULTI_LABEL, Supernet
from dynabert_paddle.text.tokenizer import Tokenizer

_TASK_KEYS = (
    *("name", "kind", "metrics", "text_column", "text_pair_column", "word_split", "label_separator"),
    *EMBEDDING_SETTINGS,
)

_README = """# {task}: {runtime}

{sentence}

```bash
pip install {packages}
{command}
```

| | |
|---|---|
| labels | {labels} |
| sub-network | {subnet} |
| format, precision | {format}, {precision} |
| longest input | {max_seq_length} tokens; longer texts are {longer} |
| special tokens in texts | {special_tokens} |
| inputs | `input_ids`, `token_type_ids`, `attention_mask`, int64 [batch, length], pass them by name |
| output | logits, float32 {output} |
| depends on the batch | {depends_on_batch} |
| checked against its source | {checked} |
{footprint}
`bundle.json` is the machine-readable form, with the SHA-256 of every file: always copy the whole folder.
"""


_SENTENCES = {
    "classification": "A text classifier.",
    "regression": "A text scorer: it predicts one value.",
    "multi_label": "A text classifier: it predicts the labels whose probability reaches their threshold, or none.",
    "token_classification": "A token classifier: it labels the words of a text and finds the entities that they form.",
    "question_answering": "A question answering model: the answer to the first text is a span of the second.",
    "embedding": "A sentence encoder: it turns a text into a vector; similar texts have vectors of a high cosine.",
}
_OUTPUTS = {
    "classification": "[batch, {}]",
    "regression": "[batch, 1]",
    "multi_label": "[batch, {}] (the sigmoid of each is its label's probability)",
    "token_classification": "[batch, length, {}]",
    "question_answering": "[batch, 2, length] (start and end of the answer)",
    "embedding": "[batch, {}] (a text's vector)",
}


def describe(
    supernet: Supernet, *, format: str, precision: str, max_seq_length: int, given_labels: Sequence[str] | None = None
) -> BundleManifest:
    """Describe the bundle of a model, before its graph is written.

    Args:
        supernet: the model to export.
        format: one of `formats.TOLERANCES`.
        precision: one of the format's precisions.
        max_seq_length: tokens to which texts are cut.
        given_labels: the user's names of the classes, in any order; in the logits' order for a model that has none.

    Returns:
        The manifest, not verified yet.

    Raises:
        DataError: the labels of words do not say which words form an entity.
        ModelError: the model has no Rust tokenizer, the numbers of labels and outputs differ, or it predicts several
            values a text.
        UsageError: `given_labels` are not the model's, or settings of the labels of words do not fit.
    """
    if not isinstance(supernet.tokenizer, Tokenizer):
        raise ModelError(
            "the model has no tokenizer: save one in its Rust form, tokenizer.json, into the model folder"
            if supernet.tokenizer is None
            else "this model's tokenizer has no Rust form (tokenizer.json), and bundles must run without PaddleNLP"
        )
    metadata, config = supernet.metadata, supernet.model.config
    task = {"kind": kind_of_model(supernet), **metadata.task}
    answers = task["kind"] == "question_answering"
    kind = KINDS[task["kind"]]
    labels = _labels_of(supernet, kind, given_labels, least=1 if task["kind"] == "multi_label" else 2)
    if labels and len(labels) != config.num_labels:
        raise ModelError(f"the model has {config.num_labels} outputs and {len(labels)} labels: fine-tune it again")
    recorded = {key: task[key] for key in _TASK_KEYS if task.get(key) is not None}
    if task["kind"] == "token_classification":
        check_word_labels(labels, "the model", scheme=task.get("label_scheme"))
        max_tokens = max_seq_length - supernet.tokenizer.num_special_tokens(1)
        words = bundle_word_settings(
            task, is_trained=bool(metadata.stage), max_tokens=max_tokens, max_seq_length=max_seq_length
        )
        recorded |= {key: value for key, value in words.items() if value is not None}
    if task["kind"] == "multi_label":
        check_separator(task.get("label_separator"), labels)
    if set(DOCUMENT_SETTINGS) <= set(kind.settings):
        max_tokens = max_seq_length - supernet.tokenizer.num_special_tokens(1 + bool(task.get("text_pair_column")))
        recorded |= bundle_document_settings(task, max_tokens=max_tokens, max_seq_length=max_seq_length)
    return BundleManifest(
        format_version=FORMAT_VERSION,
        format=format,
        precision=precision,
        task=recorded,
        labels=labels,
        answers=asdict(AnswerSettings.of(task)) if answers else None,
        pair=answers or (task["kind"] != "embedding" and bool(task.get("text_pair_column"))),
        max_seq_length=max_seq_length,
        special_tokens_in_text=supernet.tokenizer.special_tokens_in_text,
        max_positions=num_positions(config),
        inputs=INPUTS,
        vocab_size=config.vocab_size,
        pad_token_id=supernet.tokenizer.pad_token_id,
        unk_token_id=supernet.tokenizer.unk_token_id,
        special_token_ids=sorted(supernet.tokenizer.special_tokens),
        subnet=metadata.subnet.get("name", supernet.search_space().name(supernet.full)),
        num_params=supernet.search_space().num_params(supernet.full),
        versions=package_versions(),
        depends_on_batch=_depends_on_batch(format, precision),
        max_weight_integer=_max_weight_integer(format, precision),
        vector_size=supernet.model.vector_size if isinstance(supernet.model, BackboneForTextEmbedding) else None,
    )


def of_format(manifest: BundleManifest, format: str, precision: str) -> BundleManifest:
    """Describe the same bundle in another format and precision.

    Args:
        manifest: from `describe`.
        format: one of `formats.TOLERANCES`.
        precision: one of the format's precisions.

    Returns:
        The manifest.
    """
    return replace(
        manifest,
        format=format,
        precision=precision,
        depends_on_batch=_depends_on_batch(format, precision),
        max_weight_integer=_max_weight_integer(format, precision),
    )


def _depends_on_batch(format: str, precision: str) -> bool:
    """Whether activations are quantized with one scale for a whole batch."""
    return (format, precision) == ("onnx", "int8")


def _max_weight_integer(format: str, precision: str) -> int | None:
    """The largest integer of a matmul's weight; None where no int8 products are computed."""
    return MAX_WEIGHT_INTEGER if precision == "int8" and format != "lite" else None


def write_tokenizer_and_script(supernet: Supernet, folder: Path, *, format: str) -> None:
    """Write the tokenizer's files and the script that runs the bundle; Paddle Lite's tokenizer is pure Python."""
    assert supernet.tokenizer is not None  # `describe` refuses a model without one
    supernet.tokenizer.save_pretrained(folder)
    if format == "lite":
        write_lite_tokenizer(folder, special_tokens_in_text=supernet.tokenizer.special_tokens_in_text)
        write_lite_script(folder)
    else:
        write_script(folder)


def seal(folder: Path, manifest: BundleManifest) -> None:
    """Write the README and, last, `bundle.json` with every file's size and checksum."""
    (folder / "README.md").write_text(_readme(manifest), encoding="utf-8")
    files = {path.name: {"bytes": path.stat().st_size, "sha256": hash_file(path)} for path in sorted(folder.iterdir())}
    write_json(folder / BUNDLE_FILE, {**manifest.to_json(), "files": files})


def kind_of_model(supernet: Supernet) -> str:
    """Infer the kind of task of a model whose metadata do not record it.

    Args:
        supernet: the model.

    Returns:
        One of `data.kinds.KINDS`.

    Raises:
        ModelError: it predicts several values a text.
    """
    kind, config = kind_of(type(supernet.model).__name__), supernet.model.config
    problem = getattr(config, "problem_type", None)
    if kind != "classification" or supernet.metadata.task.get("kind"):
        return kind
    if problem == MULTI_LABEL:
        return "multi_label"
    if config.num_labels == 1:
        return "regression"
    if problem == "regression":
        raise ModelError(
            f"problem_type in config.json is 'regression' with {config.num_labels} outputs, and a bundle predicts one "
            "value a text: export a model with one output"
        )
    return kind


def _labels_of(supernet: Supernet, kind: Kind, given: Sequence[str] | None, *, least: int) -> list[str]:
    """The classes in the order of the logits; the user's names count for a model that has none."""
    if kind.num_outputs:
        if given:
            raise UsageError(f"the model predicts no labels: leave out {setting('task.labels')}")
        return []
    own = supernet.labels
    if given and len(set(given)) < max(least, len(given)):
        words = "two labels" if least > 1 else "one label"
        raise UsageError(f"{setting('task.labels')} must list at least {words}, each once, not {list(given)}")
    if own is None:
        return list(given or [f"LABEL_{index}" for index in range(supernet.model.config.num_labels)])
    if given and permutation(own, given) is None:
        raise UsageError(
            f"{setting('task.labels')} are not those of the model ({describe_difference(own, given)}): leave them out, "
            "or fine-tune the model on the new ones"
        )
    return list(own)


def _label_names(manifest: BundleManifest) -> str:
    if manifest.thresholds is None:
        return ", ".join(manifest.labels)
    return ", ".join(f"{label} (from {manifest.thresholds[label]:.2f})" for label in manifest.labels)


def _readme(manifest: BundleManifest) -> str:
    format, lite = manifest.format, manifest.format == "lite"
    if lite:
        # Paddle Lite reports the version v2.13-rc, but its wheel's is 2.13rc0.
        version = manifest.paddlelite or ""
        packages = f'paddlelite=={"2.13rc0" if version == "v2.13-rc" else version[1:]} "numpy<2"'
    elif format == "onnx":
        packages = "onnxruntime numpy tokenizers"
    else:
        packages = f"paddlepaddle=={manifest.versions.get('paddlepaddle', '3.1.1')} numpy tokenizers"
    script = "infer_lite.py" if lite else "infer.py"
    kind = manifest.task.get("kind", "classification")
    subnets = [str(manifest.subnet)] if manifest.members is None else [member.subnet for member in manifest.members]
    return _README.format(
        task=manifest.task.get("name", "model"),
        runtime={"lite": "Paddle Lite", "onnx": "ONNX"}.get(format, "Paddle Inference"),
        sentence=_SENTENCES[kind],
        packages=packages,
        command=f'python {script} "one text"' + (' "another text"' if manifest.pair else ""),
        labels=_label_names(manifest) or "none",
        subnet=", ".join(subnets) + ("; `--subnet` selects one, by default the first" if subnets[1:] else ""),
        format=format,
        precision=manifest.precision,
        max_seq_length=manifest.max_seq_length,
        longer="read in windows" if "doc_stride" in manifest.task else "cut",
        output=_OUTPUTS[kind].format(manifest.vector_size or len(manifest.labels)),
        special_tokens=(
            "a text that contains one, such as `[SEP]`, has that token there"
            if manifest.special_tokens_in_text
            else "are text like any other"
        ),
        depends_on_batch=(
            "yes: activations are quantized with one scale for a batch, so that the other texts of a batch, and its "
            "padding, can change a text's logits, and its answer if two answers are close"
            if manifest.depends_on_batch
            else "no"
        ),
        checked=manifest.verification,
        footprint="" if manifest.footprint is None else f"| footprint | {manifest.footprint} |\n",
    )
