"""The settings of a server; they travel to its worker processes as JSON."""

from __future__ import annotations

import dataclasses
import importlib.util
import ipaddress
import json
from dataclasses import dataclass
from pathlib import Path

from dynabert_paddle.config.names import setting
from dynabert_paddle.errors import DynabertError, UsageError

# Of the extra `serve`: each module, as it is imported.
_MODULES = ("fastapi", "fastapi_offline", "uvicorn", "prometheus_client")


@dataclass(frozen=True)
class Limits:
    """What one request may ask for, and how much may wait.

    Args:
        queue_size: requests of a bundle that may wait for their batch.
        max_body_bytes: size of a request's body.
        max_texts: rows of a request.
        max_characters: characters of a text; of a row of tokens together.
        deadline_ms: deadline of a request that names none; None for no deadline.
        request_seconds: time from a request's first byte until its last one has arrived.
    """

    queue_size: int = 256
    max_body_bytes: int = 2**20
    max_texts: int = 256
    max_characters: int = 20_000
    deadline_ms: float | None = None
    request_seconds: float = 10.0


@dataclass(frozen=True)
class ServeSettings:
    """A server.

    Args:
        bundles: name and folder of each.
        host: address to listen on.
        port: its port; 0 for a free one.
        workers: processes that answer, each with all bundles.
        device: `cpu`, `gpu` or `gpu:N`.
        num_threads: CPU threads for the models of a worker; None for all cores but one, shared by the workers.
        drain_seconds: time for queued requests after SIGTERM or a reload.
        api_key_file: file with the accepted keys, one a line; None for no keys.
        log_texts: whether the log holds the texts of requests.
        limits: of requests.
    """

    bundles: tuple[tuple[str, str], ...]
    host: str = "127.0.0.1"
    port: int = 8000
    workers: int = 1
    device: str = "cpu"
    num_threads: int | None = None
    drain_seconds: float = 30.0
    api_key_file: str | None = None
    log_texts: bool = False
    limits: Limits = dataclasses.field(default_factory=Limits)

    def to_json(self) -> str:
        """Return the settings as JSON."""
        return json.dumps(dataclasses.asdict(self))

    @staticmethod
    def from_json(text: str) -> ServeSettings:
        """Read settings.

        Args:
            text: from `to_json`.

        Returns:
            The settings.
        """
        content = json.loads(text)
        bundles = tuple((name, folder) for name, folder in content.pop("bundles"))
        return ServeSettings(bundles, **{**content, "limits": Limits(**content["limits"])})


def name_bundles(words: list[str]) -> tuple[tuple[str, str], ...]:
    """Give bundles their names.

    Args:
        words: each `NAME=FOLDER`, or a folder whose own name is taken.

    Returns:
        Name and absolute folder of each.

    Raises:
        UsageError: two have the same name, or a name is empty or has a slash.
    """
    named: dict[str, str] = {}
    for word in words:
        name, equals, folder = word.partition("=")
        if not equals or "/" in name or Path(word).is_dir():
            name, folder = Path(word).resolve().name, word
        if not name or not folder:
            raise UsageError(f"'{word}' names no bundle: give a folder, or NAME=FOLDER")
        if name in named:
            raise UsageError(f"two bundles are called '{name}': give one of them another name with NAME=FOLDER")
        named[name] = str(Path(folder).resolve())
    return tuple(named.items())


def check_access(host: str, api_key_file: str | None) -> None:
    """Refuse to serve other machines without a key.

    Args:
        host: address to listen on.
        api_key_file: file of the keys.

    Raises:
        UsageError: the address is not of this machine alone, and there is no key.
    """
    if api_key_file is not None:
        read_keys(Path(api_key_file))
    elif not _is_loopback(host):
        raise UsageError(
            f"{setting('host')} {host} is open to other machines: pass {setting('api_key_file')}, "
            "or listen on 127.0.0.1"
        )


def read_keys(path: Path) -> list[bytes]:
    """Read the accepted API keys.

    Args:
        path: a file with one key a line.

    Returns:
        The keys.

    Raises:
        UsageError: the file cannot be read, or holds no key, or one that no header can carry.
    """
    try:
        lines = path.read_bytes().split(b"\n")
    except OSError as error:
        raise UsageError(f"{path}: cannot be read: {error.strerror}: write the API key into it, one a line") from None
    keys = [line.strip() for line in lines if line.strip()]
    if not keys:
        raise UsageError(f"{path}: holds no API key: write one a line into it")
    for number, key in enumerate(keys, start=1):
        if not all(0x21 <= byte <= 0x7E for byte in key):
            raise UsageError(f"{path}: key {number} has a blank or a character that is not ASCII: take another key")
    return keys


def check_installed() -> None:
    """Refuse to start without the packages of the extra.

    Raises:
        DynabertError: one of them is not installed.
    """
    missing = [module for module in _MODULES if importlib.util.find_spec(module) is None]
    if missing:
        raise DynabertError(
            f"serve needs {', '.join(missing)}, not installed here: run pip install 'dynabert-paddle[serve]'"
        )


def _is_loopback(host: str) -> bool:
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"
