"""Damage to files: their bytes, the whole file, or values of JSON and YAML. A `random.Random` determines all of it."""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from random import Random
from typing import Any

import yaml

from dynabert_paddle.files.hashing import hash_file, hash_json

_VALUES: tuple[Any, ...] = (
    *(None, True, False, 0, 1, -1, 2, 3, 7, 2**31, 2**63, 10**9, 10**30, -(10**9)),
    *(0.5, -0.0, 1e300, float("nan"), float("inf"), "", "x", "nan", "9" * 5000, "x" * 100_000),
    *("../../../../etc/passwd", "/etc/passwd", "$(touch hacked)", "; touch hacked", "`touch hacked`"),
    *("\x1b[31mred\x1b[0m\x07", "[bold]", "<script>alert(1)</script>", "{{ 7 * 7 }}", "\u202eabc", "\ud800", "a\nb"),
    *([], {}, [[]], [None], {"": None}, ["x"] * 50, [1, "x", None], {"x": {"x": {"x": 1}}}),
)


def flip(content: bytearray, rng: Random) -> None:
    """Flip some bits."""
    for _ in range(rng.choice((1, 1, 1, 2, 8))):
        content[rng.randrange(len(content))] ^= 1 << rng.randrange(8)


def truncate(content: bytearray, rng: Random) -> None:
    """Cut the end off."""
    del content[rng.randrange(len(content)) :]


def zero(content: bytearray, rng: Random) -> None:
    """Overwrite a run of bytes with zeros."""
    start, end = sorted(rng.randrange(len(content) + 1) for _ in range(2))
    end = min(end, start + rng.choice((1, 16, 512, 4096)))
    content[start:end] = bytes(end - start)


def swap(content: bytearray, rng: Random) -> None:
    """Swap two blocks."""
    size = rng.randrange(1, max(2, len(content) // 4))
    first, second = (rng.randrange(len(content)) for _ in range(2))
    block, other = content[first : first + size], content[second : second + size]
    content[second : second + size] = block
    content[first : first + size] = other


def repeat(content: bytearray, rng: Random) -> None:
    """Duplicate a block."""
    start = rng.randrange(len(content))
    content[start:start] = content[start : start + rng.randrange(1, 200)]


def insert(content: bytearray, rng: Random) -> None:
    """Insert bytes with a special meaning, or random ones."""
    words = (
        b"\x00",
        b"\xff\xfe",
        b"\xef\xbb\xbf",
        b"\x1b[2J",
        b"\r\n",
        b"\t",
        b'"',
        b"\n\n",
        b"\xed\xa0\x80",
        b"{",
        b"[" * 5000,
    )
    start = rng.randrange(len(content) + 1)
    content[start:start] = rng.choice((*words, rng.randbytes(rng.randrange(1, 40))))


_BYTE_DAMAGES = (flip, flip, flip, truncate, truncate, zero, swap, repeat, insert)


def mutate_bytes(path: Path, rng: Random) -> str:
    """Damage the bytes of a file; returns the name of the damage."""
    content = bytearray(path.read_bytes())
    if not content:
        path.write_bytes(rng.randbytes(9))
        return "filled"
    damage = rng.choice(_BYTE_DAMAGES)
    damage(content, rng)
    path.write_bytes(content)
    return damage.__name__


def mutate_files(path: Path, rng: Random) -> str:
    """Remove, rename or replace a file; returns the name of the damage."""
    damage = rng.choice(("removed", "renamed", "emptied", "a folder", "a pipe", "endless", "dangling", "another file"))
    others = [other for other in sorted(path.parent.iterdir()) if other.is_file() and other != path]
    content = rng.choice(others).read_bytes() if others else b""
    if damage == "renamed":
        path.rename(path.with_name(f"{path.name}.old"))
        return damage
    path.unlink()
    if damage == "emptied":
        path.touch()
    elif damage == "a folder":
        path.mkdir()
    elif damage == "a pipe":
        os.mkfifo(path)
    elif damage == "endless":
        path.symlink_to("/dev/zero")
    elif damage == "dangling":
        path.symlink_to("nowhere")
    elif damage == "another file":
        path.write_bytes(content)
    return damage


def mutate_values(path: Path, rng: Random) -> str:
    """Change values of a JSON or YAML file, and sometimes its checksum to match, as an attacker would.

    Returns:
        The damage; it begins with `sealed` if the checksum matches the new content.
    """
    load, dump = (yaml.safe_load, yaml.safe_dump) if path.suffix == ".yaml" else (json.loads, json.dumps)
    tree = load(path.read_text(encoding="utf-8"))
    places = list(_places(tree))
    changes = []
    for parent, key in rng.sample(places, min(len(places), rng.choice((1, 1, 1, 2, 4)))):
        changes.append(_change(parent, key, rng))
    sealed = ""
    if isinstance(tree, dict) and "checksum" in tree and rng.random() < 0.6:
        sealed = "sealed "
        _seal(path.parent, tree)
    text = dump(tree)
    if rng.random() < 0.05:
        deep = ("[" * 20_000, '{"a":' * 5000)
        text = rng.choice((*deep, "&a [*a]", _nested_aliases(), f'{{"x": {"9" * 10_000}}}', text + text))
        sealed = ""
    path.write_text(text, encoding="utf-8", errors="surrogatepass")
    return f"{sealed}values {', '.join(changes)}"


def mutate_numbers(path: Path, rng: Random) -> str:
    """Replace a number of a JSON file by one that may steer a loop or an allocation, or by deep nesting.

    All checksums of the folder match the new content, as far as it can be hashed.

    Returns:
        The damage; it begins with `sealed`.
    """
    tree = json.loads(path.read_text(encoding="utf-8"))
    places = list(_places(tree))
    numbers = [(parent, key) for parent, key in places if type(parent[key]) in (int, float)]
    parent, key = rng.choice(numbers or places or [([tree], 0)])
    value = rng.choice((0, 1, -1, 2**31 - 1, float("nan"), "deep", "deeper"))
    parent[key] = value
    depth = {"deep": 900, "deeper": 100_000}.get(str(value), 0)
    nested = "[" * depth + "]" * depth
    if depth == 900:
        parent[key] = json.loads(nested)
    with suppress(RecursionError):
        if isinstance(tree, dict) and "checksum" in tree:
            _seal(path.parent, tree)
    path.write_text(json.dumps(tree).replace('"deeper"', nested), encoding="utf-8")
    for other in path.parent.glob("*.json"):
        content = json.loads(other.read_bytes()) if other != path and other.stat().st_size < 2**20 else None
        if isinstance(content, dict) and "checksum" in content and path.name in content.get("files", ()):
            _seal(path.parent, content)
            other.write_text(json.dumps(content), encoding="utf-8")
    return f"sealed values {str(key)[:30]} is {value}"


def _places(tree: Any):
    """Yield all values of a tree, each as its parent (a dict or list) and its key."""
    for key in list(tree) if isinstance(tree, dict) else range(len(tree)) if isinstance(tree, list) else ():
        yield tree, key
        yield from _places(tree[key])


def _change(parent: Any, key: Any, rng: Random) -> str:
    if key not in parent if isinstance(parent, dict) else key >= len(parent):
        return "nothing"  # removed by an earlier change
    how = rng.choice(("value", "value", "value", "near", "drop", "add", "repeat"))
    old = parent[key]
    if how == "drop":
        del parent[key]
    elif how == "add" and isinstance(parent, dict):
        parent[rng.choice(("x", "", "é" * 99, f"{key}x"))] = rng.choice(_VALUES)
    elif how == "repeat":
        parent[key] = [old] * rng.choice((2, 1000))
    elif how == "near" and type(old) in (int, float):
        parent[key] = rng.choice((old + 1, old - 1, -old, old * 1000, old * 10**8, str(old)))
    else:
        parent[key] = rng.choice(_VALUES)
    return f"{how} {str(key)[:30]}"


def _seal(folder: Path, tree: dict[str, Any]) -> None:
    """Update hashes and the checksum to match the new content, as the author of a malicious file does."""
    for name, entry in tree["files"].items() if isinstance(tree.get("files"), dict) else ():
        if (folder / name).is_file() and os.path.basename(name) == name:
            sha256 = hash_file(folder / name)
            size = (folder / name).stat().st_size
            tree["files"][name] = {**entry, "bytes": size, "sha256": sha256} if isinstance(entry, dict) else sha256
    del tree["checksum"]
    tree["checksum"] = hash_json(json.loads(json.dumps(tree)))


def _nested_aliases() -> str:
    """Return YAML whose aliases expand to 10^12 values ("billion laughs")."""
    lines = ["a0: &a0 [x, x, x, x, x, x, x, x, x, x]"]
    lines += [f"a{i}: &a{i} [{', '.join([f'*a{i - 1}'] * 10)}]" for i in range(1, 12)]
    return "\n".join([*lines, "task: {name: *a11}"])


def mutate(files: list[Path], rng: Random, *, intact: bool, only_numbers: bool = False) -> tuple[Path, str]:
    """Damage one of the files.

    Args:
        files: the files to choose from.
        rng: chooses the file and the damage.
        intact: the files are undamaged, so that JSON and YAML can be parsed and their values changed.
        only_numbers: change a number of a JSON file, if there is one.

    Returns:
        The file and the name of the damage.
    """
    if only_numbers and intact and (documents := [file for file in files if file.suffix == ".json"]):
        path = rng.choice(documents)
        return path, mutate_numbers(path, rng)
    path = rng.choice(files)
    ways: list[Callable[[Path, Random], str]] = [mutate_bytes, mutate_bytes, mutate_bytes, mutate_files]
    if intact and path.suffix in (".json", ".yaml"):
        ways += [mutate_values] * 6
    if intact and path.suffix == ".json":
        ways += [mutate_numbers] * 3
    return path, rng.choice(ways)(path, rng)
