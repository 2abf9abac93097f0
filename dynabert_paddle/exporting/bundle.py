"""Writes a bundle: a self-contained folder with a graph, a tokenizer, a script, and the files' checksums."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import Any

from dynabert_paddle.backbone.structure import num_positions
from dynabert_paddle.bundle.engines import INPUTS
from dynabert_paddle.bundle.manifest import BUNDLE_FILE, FORMAT_VERSION
from dynabert_paddle.data.kinds import KINDS, kind_of
from dynabert_paddle.data.question_answering import AnswerSettings
from dynabert_paddle.errors import ModelError
from dynabert_paddle.exporting.lite import write_tokenizer
from dynabert_paddle.exporting.manifest import BundleManifest
from dynabert_paddle.exporting.scripts import write_lite_script, write_script
from dynabert_paddle.files.atomic import write_json
from dynabert_paddle.files.hashing import hash_file
from dynabert_paddle.runtime.environment import package_versions
from dynabert_paddle.supernet.supernet import Supernet
from dynabert_paddle.text.tokenizer import Tokenizer

_README = """# {task}: {what}

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
| longest input | {max_seq_length} tokens; longer texts are cut |
| inputs | `input_ids`, `token_type_ids`, `attention_mask`, int64 [batch, length], feed them by name |
| output | float32 {output}, logits |
| checked against its source | {checked} |

`bundle.json` holds the same for machines, with the SHA-256 of every file: copy the folder as a whole.
"""


_SENTENCES = {
    "classification": "A text classifier.",
    "regression": "A text scorer: it predicts one value.",
    "token_classification": "It labels the words of a text, and finds what several of them make up.",
    "question_answering": "It finds the answer to a question, the first text, in a context, the second text.",
}
_OUTPUTS = {
    "classification": "[batch, {}]",
    "regression": "[batch, 1]",
    "token_classification": "[batch, length, {}]",
    "question_answering": "[batch, 2, length]: that the answer begins, and that it ends at a token",
}


def describe(supernet: Supernet, *, format: str, precision: str, max_seq_length: int) -> BundleManifest:
    """Describe the bundle of a model, before its graph is made.

    Args:
        supernet: the model to export.
        format: one of `formats.TOLERANCES`.
        precision: one of the format's precisions.
        max_seq_length: tokens to which texts are cut.

    Returns:
        The manifest without a verification.

    Raises:
        ModelError: the model has no Rust tokenizer, or the numbers of labels and outputs differ.
    """
    if not isinstance(supernet.tokenizer, Tokenizer):
        raise ModelError(
            "a bundle needs the model's tokenizer in its Rust form, tokenizer.json: save it into the model folder"
            if supernet.tokenizer is None
            else "this model's tokenizer has no Rust form (tokenizer.json), and a bundle does not carry PaddleNLP"
        )
    metadata, config = supernet.metadata, supernet.model.config
    task = {"kind": kind_of(type(supernet.model).__name__), **metadata.task}
    answers = task["kind"] == "question_answering"
    kind = KINDS[task["kind"]]
    labels = [] if kind.num_outputs else [str(label) for label in task.get("labels") or _labels_of(config)]
    if labels and len(labels) != config.num_labels:
        raise ModelError(f"the model has {config.num_labels} outputs and {len(labels)} labels: fine-tune it again")
    return BundleManifest(
        format_version=FORMAT_VERSION,
        format=format,
        precision=precision,
        task={key: task[key] for key in ("name", "kind", "metrics") if key in task},
        labels=labels,
        answers=asdict(AnswerSettings.of(task)) if answers else None,
        pair=answers or bool(task.get("text_pair_column")),
        max_seq_length=max_seq_length,
        max_positions=num_positions(config),
        inputs=INPUTS,
        vocab_size=config.vocab_size,
        pad_token_id=supernet.tokenizer.pad_token_id,
        subnet=metadata.subnet.get("name", supernet.search_space().name(supernet.full)),
        num_params=supernet.search_space().num_params(supernet.full),
        versions=package_versions(),
    )


def write_tokenizer_files(supernet: Supernet, folder: Path, *, format: str) -> None:
    """Write the tokenizer's files, and the script that runs the bundle; Paddle Lite's own are pure Python."""
    assert supernet.tokenizer is not None  # `describe` has refused a model without one
    supernet.tokenizer.save_pretrained(folder)
    if format == "lite":
        write_tokenizer(folder)
        write_lite_script(folder)
    else:
        write_script(folder)


def seal(folder: Path, manifest: BundleManifest) -> None:
    """Write the README and, last, `bundle.json` with every file's size and checksum."""
    (folder / "README.md").write_text(_readme(manifest), encoding="utf-8")
    files = {path.name: {"bytes": path.stat().st_size, "sha256": hash_file(path)} for path in sorted(folder.iterdir())}
    write_json(folder / BUNDLE_FILE, {**manifest.to_json(), "files": files})


def _labels_of(config: Any) -> list[str]:
    names = getattr(config, "id2label", None) or {}
    return [names.get(index, f"LABEL_{index}") for index in range(config.num_labels)]


def _readme(manifest: BundleManifest) -> str:
    format, lite = manifest.format, manifest.format == "lite"
    # Paddle Lite calls itself v2.13-rc, and its wheel is 2.13rc0.
    version = manifest.paddlelite or ""
    lite_version = {"v2.13-rc": "2.13rc0"}.get(version, version[1:])
    runtimes = {"onnx": "onnxruntime", "lite": f"paddlelite=={lite_version}"}
    packages = runtimes.get(format, f"paddlepaddle=={manifest.versions.get('paddlepaddle', '3.1.1')}")
    script = "infer_lite.py" if lite else "infer.py"
    kind = manifest.task.get("kind", "classification")
    subnets = [str(manifest.subnet)] if manifest.members is None else [member.subnet for member in manifest.members]
    return _README.format(
        task=manifest.task.get("name", "model"),
        what="Paddle Lite" if lite else {"onnx": "ONNX"}.get(format, "Paddle Inference"),
        sentence=_SENTENCES[kind],
        packages=packages + (' "numpy<2"' if lite else " numpy tokenizers"),
        command=f'python {script} "one text"' + (' "another text"' if manifest.pair else ""),
        labels=", ".join(manifest.labels) or "none",
        subnet=", ".join(subnets) + ("; the first runs, or which `--subnet` names" if subnets[1:] else ""),
        format=format,
        precision=manifest.precision,
        max_seq_length=manifest.max_seq_length,
        output=_OUTPUTS[kind].format(len(manifest.labels)),
        checked=manifest.verification,
    )
