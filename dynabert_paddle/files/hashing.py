"""SHA-256 of files and of JSON values.

This file is part of every bundle's `infer.py` and `infer_lite.py`; Python 3.7 runs it.
"""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Any


def hash_json(values: dict[str, Any]) -> str:
    """Return the SHA-256 of a JSON object in hexadecimal, independent of the order of its keys."""
    return hashlib.sha256(json.dumps(values, sort_keys=True, ensure_ascii=True).encode()).hexdigest()


def hash_file(path: Path) -> str:
    """Return the SHA-256 of a file's content in hexadecimal."""
    hashed = hashlib.sha256()
    with open(path, "rb") as file:
        for block in iter(lambda: file.read(1 << 20), b""):
            hashed.update(block)
    return hashed.hexdigest()
