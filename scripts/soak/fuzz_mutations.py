"""Damage for files: bytes, whole files, and values of JSON and YAML. All of it follows from one `random.Random`."""

from __future__ import annotations

import json
import os
from collections.abc import Callable
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
    """Put zeros in the place of a run of bytes."""
    start, end = sorted(rng.randrange(len(content) + 1) for _ in range(2))
    end = min(end, start + rng.choice((1, 16, 512, 4096)))
    content[start:end] = bytes(end - start)


def swap(content: bytearray, rng: Random) -> None:
    """Let two blocks change places."""
    size = rng.randrange(1, max(2, len(content) // 4))
    first, second = (rng.randrange(len(content)) for _ in range(2))
    block, other = content[first : first + size], content[second : second + size]
    content[second : second + size] = block
    content[first : first + size] = other


def repeat(content: bytearray, rng: Random) -> None:
    """Write a block twice."""
    start = rng.randrange(len(content))
    content[start:start] = content[start : start + rng.randrange(1, 200)]


def insert(content: bytearray, rng: Random) -> None:
    """Insert bytes that mean something to somebody."""
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


_BYTES = (flip, flip, flip, truncate, truncate, zero, swap, repeat, insert)


def mutate_bytes(path: Path, rng: Random) -> str:
    """Damage a file's bytes.

    Args:
        path: the file.
        rng: chooses how.

    Returns:
        What was done.
    """
    content = bytearray(path.read_bytes())
    if not content:
        path.write_bytes(rng.randbytes(9))
        return "filled"
    damage = rng.choice(_BYTES)
    damage(content, rng)
    path.write_bytes(content)
    return damage.__name__


def mutate_files(path: Path, rng: Random) -> str:
    """Damage a folder: one of its files is not what it was.

    Args:
        path: the file.
        rng: chooses how.

    Returns:
        What was done.
    """
    what = rng.choice(("removed", "renamed", "emptied", "a folder", "a pipe", "endless", "dangling", "another file"))
    others = [other for other in sorted(path.parent.iterdir()) if other.is_file() and other != path]
    content = rng.choice(others).read_bytes() if others else b""
    if what == "renamed":
        path.rename(path.with_name(f"{path.name}.old"))
        return what
    path.unlink()
    if what == "emptied":
        path.touch()
    elif what == "a folder":
        path.mkdir()
    elif what == "a pipe":
        os.mkfifo(path)
    elif what == "endless":
        path.symlink_to("/dev/zero")
    elif what == "dangling":
        path.symlink_to("nowhere")
    elif what == "another file":
        path.write_bytes(content)
    return what


def mutate_values(path: Path, rng: Random) -> str:
    """Change values of a JSON or YAML file, and sometimes its checksum with them, as one would who means it.

    Args:
        path: the file.
        rng: chooses how.

    Returns:
        What was done; it begins with `sealed` where the file now vouches for its new content.
    """
    load, dump = (yaml.safe_load, yaml.safe_dump) if path.suffix == ".yaml" else (json.loads, json.dumps)
    tree = load(path.read_text(encoding="utf-8"))
    places = list(_places(tree))
    done = []
    for holder, key in rng.sample(places, min(len(places), rng.choice((1, 1, 1, 2, 4)))):
        done.append(_change(holder, key, rng))
    sealed = ""
    if isinstance(tree, dict) and "checksum" in tree and rng.random() < 0.6:
        sealed = "sealed "
        _seal(path.parent, tree)
    text = dump(tree)
    if rng.random() < 0.05:
        text = rng.choice(("[" * 20_000, '{"a":' * 5000, "&a [*a]", _laughs(), f'{{"x": {"9" * 10_000}}}', text + text))
        sealed = ""
    path.write_text(text, encoding="utf-8", errors="surrogatepass")
    return f"{sealed}values {', '.join(done)}"


def _places(tree: Any):
    """Every place in a tree that has a value, as its holder and its key."""
    for key in list(tree) if isinstance(tree, dict) else range(len(tree)) if isinstance(tree, list) else ():
        yield tree, key
        yield from _places(tree[key])


def _change(holder: Any, key: Any, rng: Random) -> str:
    if key not in holder if isinstance(holder, dict) else key >= len(holder):
        return "nothing"  # an earlier change took it away
    how = rng.choice(("value", "value", "value", "near", "drop", "add", "repeat"))
    old = holder[key]
    if how == "drop":
        del holder[key]
    elif how == "add" and isinstance(holder, dict):
        holder[rng.choice(("x", "", "é" * 99, f"{key}x"))] = rng.choice(_VALUES)
    elif how == "repeat":
        holder[key] = [old] * rng.choice((2, 1000))
    elif how == "near" and type(old) in (int, float):
        holder[key] = rng.choice((old + 1, old - 1, -old, old * 1000, old * 10**8, str(old)))
    else:
        holder[key] = rng.choice(_VALUES)
    return f"{how} {str(key)[:30]}"


def _seal(folder: Path, tree: dict[str, Any]) -> None:
    """Make the hashes agree with what is there, as the writer of a malicious file does."""
    for name, entry in tree["files"].items() if isinstance(tree.get("files"), dict) else ():
        if (folder / name).is_file() and os.path.basename(name) == name:
            sha256 = hash_file(folder / name)
            tree["files"][name] = {**entry, "sha256": sha256} if isinstance(entry, dict) else sha256
    del tree["checksum"]
    tree["checksum"] = hash_json(json.loads(json.dumps(tree)))


def _laughs() -> str:
    lines = ["a0: &a0 [x, x, x, x, x, x, x, x, x, x]"]
    lines += [f"a{i}: &a{i} [{', '.join([f'*a{i - 1}'] * 10)}]" for i in range(1, 12)]
    return "\n".join([*lines, "task: {name: *a11}"])


def mutate(files: list[Path], rng: Random, *, whole: bool) -> tuple[Path, str]:
    """Damage one of some files.

    Args:
        files: the files.
        rng: chooses which, and how.
        whole: they are as they were written, so that their values can be changed.

    Returns:
        The file, and what was done.
    """
    path = rng.choice(files)
    ways: list[Callable[[Path, Random], str]] = [mutate_bytes, mutate_bytes, mutate_bytes, mutate_files]
    if whole and path.suffix in (".json", ".yaml"):
        ways += [mutate_values] * 6
    return path, rng.choice(ways)(path, rng)
