"""The scripts that bundles carry, each in one file: the modules that they are made of, joined."""

from __future__ import annotations

import ast
import inspect
from pathlib import Path
from types import ModuleType

from dynabert_paddle.bundle import engines, gate, infer, infer_lite, manifest, members, openvino, rows
from dynabert_paddle.files import hashing
from dynabert_paddle.runtime import cores
from dynabert_paddle.text import decode, encode

# What each script is joined from: a module imports only modules before it.
INFER_MODULES = (hashing, manifest, decode, encode, rows, cores, openvino, engines, gate, members, infer)
INFER_LITE_MODULES = (hashing, manifest, decode, encode, rows, infer_lite)

# Imports that a script of its own has no use for, or has once at its top.
_LEFT_OUT = ("dynabert_paddle", "__future__")


def write_script(folder: Path) -> Path:
    """Write the script that runs a bundle of Paddle Inference or ONNX Runtime.

    Args:
        folder: the bundle.

    Returns:
        The script.
    """
    return _write(folder / "infer.py", *INFER_MODULES)


def write_lite_script(folder: Path) -> Path:
    """Write the script that runs a bundle of Paddle Lite.

    Args:
        folder: the bundle.

    Returns:
        The script.
    """
    return _write(folder / "infer_lite.py", *INFER_LITE_MODULES)


def _write(path: Path, *modules: ModuleType) -> Path:
    path.write_text(_one_script(*modules), encoding="utf-8")
    return path


def _one_script(*modules: ModuleType) -> str:
    """Join modules to a file that needs none of them: the last one's docstring, then all that they define."""
    parts = []
    for module in modules:
        source = inspect.getsource(module)
        lines, tree = source.splitlines(), ast.parse(source)
        imports = [node for node in tree.body if isinstance(node, ast.ImportFrom)]
        left_out = [node for node in imports if (node.module or "").startswith(_LEFT_OUT)]
        for node in reversed([tree.body[0], *left_out]):
            del lines[node.lineno - 1 : node.end_lineno]
        parts.append("\n".join(lines).strip())
    head = f'"""{ast.get_docstring(tree, clean=False)}"""\n\nfrom __future__ import annotations'
    return "\n\n\n".join([head, *parts]) + "\n"
