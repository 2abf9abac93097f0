"""The verb `serve`: an HTTP server for bundles."""

from __future__ import annotations

from math import isfinite
from typing import Annotated

import typer

from dynabert_paddle.cli.output import one_line
from dynabert_paddle.cli.predict import BundleDevice
from dynabert_paddle.config.names import setting
from dynabert_paddle.errors import UsageError
from dynabert_paddle.runtime.streams import print_message
from dynabert_paddle.serving.http.settings import Limits, ServeSettings, check_access, check_installed, name_bundles


def serve(
    bundles: Annotated[
        list[str],
        typer.Argument(
            metavar="[NAME=]BUNDLE...", help="Folders that 'dynabert export' has made, with other names if you like."
        ),
    ],
    *,
    host: Annotated[
        str, typer.Option("--host", help="Address to listen on; another one than this machine's own needs a key.")
    ] = ServeSettings.host,
    port: Annotated[
        int, typer.Option("--port", min=0, max=65535, help="Its port; 0 for a free one.")
    ] = ServeSettings.port,
    workers: Annotated[
        int, typer.Option("--workers", min=1, max=256, help="Processes that answer.")
    ] = ServeSettings.workers,
    num_threads: Annotated[
        int | None,
        typer.Option(
            "--num_threads", min=1, help="CPU threads for the models of a worker.", show_default="all cores but one"
        ),
    ] = None,
    device: BundleDevice = "cpu",
    deadline_ms: Annotated[
        float | None, typer.Option("--deadline_ms", min=0.001, help="Deadline of requests that name none.")
    ] = None,
    queue_size: Annotated[
        int, typer.Option("--queue_size", min=1, help="Requests of a bundle that may wait in a worker.")
    ] = Limits.queue_size,
    max_body_bytes: Annotated[
        int, typer.Option("--max_body_bytes", min=1, help="Size of a request.")
    ] = Limits.max_body_bytes,
    max_texts: Annotated[int, typer.Option("--max_texts", min=1, help="Texts a request.")] = Limits.max_texts,
    max_characters: Annotated[
        int, typer.Option("--max_characters", min=1, help="Characters a text.")
    ] = Limits.max_characters,
    request_seconds: Annotated[
        float, typer.Option("--request_seconds", min=0.1, help="Time for a request to arrive.")
    ] = Limits.request_seconds,
    drain_seconds: Annotated[
        float, typer.Option("--drain_seconds", min=0.1, help="Time for queued requests after SIGTERM.")
    ] = ServeSettings.drain_seconds,
    api_key_file: Annotated[
        str | None, typer.Option("--api_key_file", help="File with the keys that clients must send, one a line.")
    ] = None,
    log_texts: Annotated[bool, typer.Option("--log_texts", help="Write the texts of requests into the log.")] = False,
) -> int:
    """Serve bundles over HTTP: sizes switch under load, SIGHUP loads the bundles anew, SIGTERM answers what is queued.

    Needs the extra 'serve'. The log is JSON lines on stdout; /docs in a browser is the page of the API.
    """
    for name, value in (
        ("deadline_ms", deadline_ms),
        ("request_seconds", request_seconds),
        ("drain_seconds", drain_seconds),
    ):
        if value is not None and not isfinite(value):
            raise UsageError(f"{setting(name)} must be a finite number, not {value}")
    check_installed()
    check_access(host, api_key_file)
    settings = ServeSettings(
        bundles=name_bundles(bundles),
        host=host,
        port=port,
        workers=workers,
        device=device,
        num_threads=num_threads,
        drain_seconds=drain_seconds,
        api_key_file=api_key_file,
        log_texts=log_texts,
        limits=Limits(
            queue_size=queue_size,
            max_body_bytes=max_body_bytes,
            max_texts=max_texts,
            max_characters=max_characters,
            deadline_ms=deadline_ms,
            request_seconds=request_seconds,
        ),
    )
    from dynabert_paddle.serving.http.supervisor import serve

    return serve(settings, _announce)


def _announce(url: str, seconds: float) -> None:
    print_message(one_line(f"serving {url} after {seconds:.1f} s; {url}/docs is the page of the API"))


COMMANDS = (serve,)
