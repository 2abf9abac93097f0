"""The inference scripts of bundles: each is one file, joined from modules of this package."""

from __future__ import annotations

import ast
import inspect
from pathlib import Path
from types import ModuleType

from dynabert_paddle.bundle import (
    command,
    engines,
    gate,
    infer,
    infer_lite,
    input_counts,
    label_choice,
    manifest,
    members,
    openvino,
    processor,
    rows,
    tables,
)
from dynabert_paddle.files import hashing, json_text, unchanged
from dynabert_paddle.runtime import cores, machine, memory, streams
from dynabert_paddle.text import (
    conll,
    decode,
    document_windows,
    encode,
    leading,
    lines,
    marks,
    quoting,
    squad,
    word_decoding,
    word_labels,
    word_windows,
)

# In this order: a module imports only modules before it.
_SHARED_MODULES = (
    memory,
    hashing,
    json_text,
    unchanged,
    encode,
    marks,
    word_labels,
    decode,
    word_windows,
    document_windows,
    word_decoding,
    leading,
    lines,
    conll,
    quoting,
    squad,
    manifest,
    input_counts,
    label_choice,
    rows,
    tables,
    streams,
    command,
)
INFER_MODULES = (*_SHARED_MODULES, cores, machine, openvino, engines, gate, members, processor, infer)
INFER_LITE_MODULES = (*_SHARED_MODULES, infer_lite)

# Imports to remove: the joined modules need none of the package, and __future__ stands once at the top.
_REMOVED_IMPORTS = ("dynabert_paddle", "__future__")


def write_script(folder: Path) -> Path:
    """Write the script that runs a bundle of Paddle Inference or ONNX Runtime.

    Args:
        folder: the bundle.

    Returns:
        The script's path.
    """
    return _write(folder / "infer.py", *INFER_MODULES)


def write_lite_script(folder: Path) -> Path:
    """Write the script that runs a bundle of Paddle Lite.

    Args:
        folder: the bundle.

    Returns:
        The script's path.
    """
    return _write(folder / "infer_lite.py", *INFER_LITE_MODULES)


def _write(path: Path, *modules: ModuleType) -> Path:
    path.write_text(_join(*modules), encoding="utf-8")
    return path


def _join(*modules: ModuleType) -> str:
    """Join modules into one self-contained source: the last module's docstring, then the modules without theirs."""
    parts = []
    for module in modules:
        source = inspect.getsource(module)
        kept, tree = source.splitlines(), ast.parse(source)
        imports = [node for node in tree.body if isinstance(node, ast.ImportFrom)]
        removed = [node for node in imports if (node.module or "").startswith(_REMOVED_IMPORTS)]
        for node in reversed([tree.body[0], *removed]):
            del kept[node.lineno - 1 : node.end_lineno]
        parts.append("\n".join(kept).strip())
    head = f'"""{ast.get_docstring(tree, clean=False)}"""\n\nfrom __future__ import annotations'
    return "\n\n\n".join([head, *parts]) + "\n"
