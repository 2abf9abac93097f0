"""A static graph in Paddle Lite's format, for phones: converted, run on Lite's x86 runtime, and a tokenizer beside it.

Paddle Lite's wheels are for older Pythons than Paddle's, so all that needs one runs in another interpreter.
"""

from __future__ import annotations

import json
import os
import re
import subprocess
import tempfile
from collections.abc import Iterable, Sequence
from itertools import groupby
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from dynabert_paddle.errors import DynabertError, ModelError, UsageError
from dynabert_paddle.exporting.scripts import write_lite_script

if TYPE_CHECKING:
    import tokenizers

# One file for armv7 and armv8: the converter knows `arm` alone, and picks kernels that both builds of Lite have.
TARGETS = ("arm", "x86")
PRECISIONS = ("fp32", "int16", "int8")
TOKENIZER_FORMAT = 1

_CHECKOUT, _PACKAGE = Path(__file__).parents[2], Path(__file__).parents[1]
_VARIABLE = "DYNABERT_LITE_PYTHON"
_SET_UP = (
    "run 'bash scripts/setup_lite.sh' in the checkout, or run 'pip install paddlelite==2.13rc0 \"numpy<2\"' with a "
    f"Python 3.10 or 3.7 and name that interpreter with {_VARIABLE}=..."
)
_TIMEOUT = 1800  # seconds; 12 layers of 768 take 4
_LOG_PREFIX = re.compile(r"^\[[A-Z] [^\]]*\]\s*")
_PROBE = "0"  # a part of a word, around each character that is asked about
_BLOCK = 64  # characters that are asked about at once


def find_converter() -> Path:
    """Find an interpreter that has Paddle Lite.

    Returns:
        The one that DYNABERT_LITE_PYTHON names, or that of `.venv-lite` in the checkout.

    Raises:
        DynabertError: there is none, or it does not work.
    """
    named = os.environ.get(_VARIABLE)
    if named:
        reason = _why_unusable(Path(named))
        if reason:
            raise DynabertError(f"{_VARIABLE}={named}: {reason}: {_SET_UP}")
        return Path(named).absolute()
    python = _CHECKOUT / ".venv-lite" / "bin" / "python"
    if not (python.exists() or python.is_symlink()):
        raise DynabertError(f"Paddle Lite's converter is not set up: {_SET_UP}")
    reason = _why_unusable(python)
    if reason:
        raise DynabertError(f"{python}: {reason}: {_SET_UP}")
    return python


def converter_version(python: Path) -> str:
    """Tell Paddle Lite's version, which the app's library must have, too.

    Args:
        python: the interpreter.

    Returns:
        Such as `v2.13-rc`.

    Raises:
        DynabertError: the interpreter does not run, or has no paddlelite.
    """
    version = _last_line(_call(python, "version", timeout=60))
    if not re.match(r"v?\d", version):
        raise DynabertError("is no Python with paddlelite")
    return version


def convert(graph: Path, output: Path, *, target: str, precision: str, python: Path) -> None:
    """Convert a legacy graph to a `.nb` file.

    Args:
        graph: a folder with `model.pdmodel`, whose products with weights are `mul`, and `model.pdiparams`.
        output: the `.nb` file to write.
        target: `arm`, for armv7 and armv8, or `x86`.
        precision: `fp32`; or `int16` or `int8` for how the weights of the products are stored, to compute in fp32.
        python: the interpreter that has paddlelite.

    Raises:
        UsageError: another target or precision.
        DynabertError: the converter failed; no file is left.
    """
    if target not in TARGETS:
        raise UsageError(f"target '{target}' is not one of {', '.join(TARGETS)}; arm is for armv7 and armv8")
    if precision not in PRECISIONS:
        raise UsageError(f"precision '{precision}' is not one of {', '.join(PRECISIONS)} for Paddle Lite")
    for name in ("model.pdmodel", "model.pdiparams"):
        if not (graph / name).is_file():
            raise DynabertError(f"{graph}: no {name} in it: Paddle Lite converts the legacy format alone")
    try:
        # Beside the output, because only there is a rename sure to work.
        with tempfile.TemporaryDirectory(dir=output.parent, prefix=".lite-") as folder:
            made = Path(folder) / "model.nb"
            try:
                said = _call(python, "convert", graph.absolute(), made.absolute().with_suffix(""), target, precision)
            except DynabertError as error:
                raise DynabertError(f"{graph}: {error}: export this model in another format") from None
            if not made.is_file():
                raise DynabertError(f"{graph}: Paddle Lite's converter wrote no file: {_last_line(said)}")
            input_names(made, python=python)  # a file that was cut off does not load
            made.replace(output)
    except OSError as error:
        raise DynabertError(
            f"{output}: cannot be written ({error.strerror}): make room or name another folder"
        ) from None


def input_names(model: Path, *, python: Path) -> list[str]:
    """Tell a model's inputs in the order in which Lite's Java interface numbers them.

    Args:
        model: a `.nb` file for any target.
        python: the interpreter that has paddlelite.

    Returns:
        Their names.
    """
    return _last_line(_call(python, "inputs", model.absolute())).split(",")


def run_x86(model: Path, batches: list[dict[str, np.ndarray]], *, python: Path) -> list[np.ndarray]:
    """Execute a model on Lite's x86 runtime, with the code of `infer_lite.py`.

    Args:
        model: a `.nb` file for x86; one for ARM gives garbage.
        batches: inputs by name, int64 `[b, s]` of changing sizes; one predictor takes them all.
        python: the interpreter that has paddlelite.

    Returns:
        The output of each batch.

    Raises:
        DynabertError: the runtime failed.
    """
    with tempfile.TemporaryDirectory(prefix="dynabert-lite-") as folder:
        given, made = Path(folder) / "inputs.npz", Path(folder) / "outputs.npz"
        np.savez(given, **{f"{i}.{name}": array for i, batch in enumerate(batches) for name, array in batch.items()})
        said = _call(python, "run", model.absolute(), given, made, write_lite_script(Path(folder)))
        if not made.is_file():
            raise DynabertError(f"{model}: Paddle Lite's x86 runtime gave no output: {_last_line(said)}")
        with np.load(made) as arrays:
            return [arrays[str(i)] for i in range(len(batches))]


def write_tokenizer(folder: Path) -> None:
    """Write what `infer_lite.py` tokenizes with: `vocab.txt` in the order of the ids, and `lite_tokenizer.json`.

    Args:
        folder: a bundle's, with `tokenizer.json`.
    """
    settings, vocabulary = tokenizer_settings(folder)
    (folder / "vocab.txt").write_text("\n".join(vocabulary) + "\n", encoding="utf-8", newline="\n")
    text = json.dumps(settings, ensure_ascii=True, separators=(",", ":"))
    (folder / "lite_tokenizer.json").write_text(text + "\n", encoding="utf-8", newline="\n")


def tokenizer_settings(folder: Path) -> tuple[dict[str, Any], list[str]]:
    """Derive all that a plain implementation needs to give the ids of a bundle's tokenizer.

    What becomes of each character is asked of the Rust library, since every language's own Unicode tables have
    another age.

    Args:
        folder: a bundle's, with `tokenizer.json`.

    Returns:
        The content of `lite_tokenizer.json`, and the tokens by id; the empty string where an id has none.

    Raises:
        ModelError: it is not BERT's WordPiece tokenizer.
    """
    import tokenizers

    from dynabert_paddle.text.encode import find_templates

    path = Path(folder) / "tokenizer.json"
    try:
        backend = tokenizers.Tokenizer.from_str(path.read_text(encoding="utf-8"))
    except Exception as error:  # the library raises plain Exception
        reason = " ".join(str(error).split())[:200]
        raise ModelError(f"{path}: cannot be read ({reason}): export the model again") from None
    backend.no_padding()
    backend.no_truncation()
    parts = json.loads(backend.to_str())
    _check_is_bert(path, parts)
    model, normalizer, pre_tokenizer = parts["model"], parts["normalizer"], parts["pre_tokenizer"]
    vocabulary = [""] * (max(model["vocab"].values()) + 1)
    for token, index in model["vocab"].items():
        vocabulary[index] = token
    templates = find_templates(backend)
    if templates is None or model["unk_token"] not in model["vocab"]:
        raise ModelError(f"{path}: its vocabulary knows no letter, or not its own unk_token: it is damaged")
    characters = [chr(code) for code in range(0x110000) if not 0xD800 <= code < 0xE000]
    settings = {
        "format_version": TOKENIZER_FORMAT,
        "do_lower_case": normalizer["lowercase"],
        "strip_accents": normalizer["lowercase"]
        if normalizer["strip_accents"] is None
        else normalizer["strip_accents"],
        "tokenize_chinese_chars": normalizer["handle_chinese_chars"],
        "clean_text": normalizer["clean_text"],
        "split_symbols": pre_tokenizer["type"] == "Sequence",
        "unk_token": model["unk_token"],
        "continuing_subword_prefix": model["continuing_subword_prefix"],
        "max_input_chars_per_word": model["max_input_chars_per_word"],
        "characters": _normalization(backend, characters),
        "words": {"ranges": _separation(backend, characters)},
        "added_tokens": [
            {
                "content": backend.normalizer.normalize_str(token["content"])
                if token["normalized"]
                else token["content"],
                **{key: token[key] for key in ("id", "normalized", "lstrip", "rstrip")},
            }
            for token in parts["added_tokens"]
        ],
        "templates": {name: template._asdict() for name, template in zip(("single", "pair"), templates, strict=True)},
    }
    return settings, vocabulary


def _check_is_bert(path: Path, parts: dict[str, Any]) -> None:
    def refuse(what: str) -> None:
        raise ModelError(
            f"{path}: {what}, but infer_lite.py runs BERT's WordPiece tokenizer alone: export another format"
        )

    kinds = {part: (parts[part] or {}).get("type", "none") for part in ("model", "normalizer", "pre_tokenizer")}
    for part, wanted in (("model", "WordPiece"), ("normalizer", "BertNormalizer")):
        if kinds[part] != wanted:
            refuse(f"its {part} is {kinds[part]}")
    steps = [parts["pre_tokenizer"]]
    if kinds["pre_tokenizer"] == "Sequence":
        steps = parts["pre_tokenizer"]["pretokenizers"]
    if not steps[0] or steps[0]["type"] != "BertPreTokenizer" or not all(map(_is_split_at_characters, steps[1:])):
        refuse("its pre_tokenizer is " + "+".join(step["type"] if step else "none" for step in steps))
    for token in parts["added_tokens"]:
        if token["single_word"] or not token["content"].strip():
            refuse(f"its added token {token['content']!r} is blank or matches single words only")
    if any("\n" in token for token in parts["model"]["vocab"]):
        refuse("its vocabulary has a token with a line break")


def _is_split_at_characters(step: dict[str, Any]) -> bool:
    """Whether a pre-tokenizer makes tokens of single characters, so that each can be asked about by itself."""
    pattern = step.get("pattern", {}).get("Regex", "")
    return (
        (step["type"], step.get("behavior"), step.get("invert")) == ("Split", "Isolated", False)
        and pattern.startswith("[")
        and pattern.find("]") == len(pattern) - 1
    )


def _normalization(backend: tokenizers.Tokenizer, characters: Sequence[str]) -> dict[str, Any]:
    """What the normalizer makes of each character.

    It treats them one by one but for the order of combining marks, which it then removes: of those that it keeps, no
    vocabulary tells the order.
    """
    normalized = {character: backend.normalizer.normalize_str(character) for character in characters}
    syllables = range(0xAC00, 0xD7A4)
    hangul = all(len(normalized[chr(code)]) > 1 for code in syllables)
    kinds: list[str | None] = []
    replaced = {}
    for character, text in normalized.items():
        kind = {"": "", " ": " ", character: None, f" {character} ": " {} "}.get(text, "other")
        if kind == "other":
            kind = None
            if not (hangul and ord(character) in syllables):
                replaced[character] = text
        kinds.append(kind)
    return {"ranges": _ranges(characters, kinds), "replaced": replaced, "hangul": hangul}


def _separation(backend: tokenizers.Tokenizer, characters: Sequence[str]) -> dict[str, list[list[int]]]:
    """What the pre-tokenizer makes of each character: white space ends a word, punctuation stands alone."""
    kinds: list[str | None] = []
    for start in range(0, len(characters), _BLOCK):
        block = characters[start : start + _BLOCK]
        if len(_words(backend, "".join(block))) == 1:  # all of them are parts of words, as most are
            kinds += [None] * len(block)
            continue
        for character in block:
            words = _words(backend, character)
            alone = words == [_PROBE, character, _PROBE]
            kinds.append("\n{}\n" if alone else "\n" if words == [_PROBE, _PROBE] else None)
    return _ranges(characters, kinds)


def _words(backend: tokenizers.Tokenizer, text: str) -> list[str]:
    return [word for word, _ in backend.pre_tokenizer.pre_tokenize_str(_PROBE + text + _PROBE)]


def _ranges(characters: Sequence[str], kinds: Iterable[str | None]) -> dict[str, list[list[int]]]:
    """Group characters by kind, as pairs of the first and the last code point."""
    ranges: dict[str, list[list[int]]] = {}
    numbered = enumerate(zip(map(ord, characters), kinds, strict=True))
    # A run goes on while code points and numbers grow together.
    for (kind, _), run in groupby(numbered, key=lambda item: (item[1][1], item[1][0] - item[0])):
        codes = [code for _, (code, _) in run]
        if kind is not None:
            ranges.setdefault(kind, []).append([codes[0], codes[-1]])
    return ranges


def _why_unusable(python: Path) -> str:
    """Say why an interpreter cannot convert; the empty string where it can."""
    try:
        converter_version(python)
    except DynabertError as error:
        return str(error)
    return ""


def _call(python: Path, *arguments: str | Path, timeout: int = _TIMEOUT) -> str:
    """Run `lite_runner.py` in another interpreter, and return what it printed."""
    with tempfile.TemporaryDirectory(prefix="dynabert-lite-") as folder:  # for what a crash may leave
        try:
            done = subprocess.run(
                [str(python.absolute()), "-E", str(_PACKAGE / "exporting" / "lite_runner.py"), *map(str, arguments)],
                cwd=folder,
                stdin=subprocess.DEVNULL,
                capture_output=True,
                text=True,
                errors="replace",
                timeout=timeout,
            )
        except OSError as error:
            raise DynabertError(f"does not run ({error.strerror})") from None
        except subprocess.TimeoutExpired:
            raise DynabertError(f"Paddle Lite did not finish in {timeout} seconds") from None
    if done.returncode != 0:
        # Paddle Lite aborts its process where a check fails.
        raise DynabertError(
            f"Paddle Lite failed (exit code {done.returncode}): {_last_line(done.stderr + done.stdout)}"
        )
    return done.stdout


def _last_line(said: str) -> str:
    """Find what a program gave as its reason."""
    lines = [line.strip() for line in said.splitlines() if line.strip()]
    telling = [line for line in lines if line.startswith(("[F ", "[E ", "Wrong")) or "Error" in line]
    line = (telling or lines or ["it gave no reason"])[-1]
    return _LOG_PREFIX.sub("", line)[:300]
