"""Reads the body of a request, up to a limit."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Any

from dynabert_paddle.serving.http.models import Disconnected
from dynabert_paddle.serving.http.problems import Problem

_DISCARDED = 16  # limits: a client that is cut off while it sends may not see the answer


async def read_body(receive: Callable[[], Awaitable[Any]], *, max_bytes: int) -> bytes:
    """Read a body.

    Args:
        receive: the request's ASGI channel.
        max_bytes: its limit.

    Returns:
        The body.

    Raises:
        Problem: it is longer.
        Disconnected: the client went away, or was too slow.
    """
    chunks, size, more = [], 0, True
    while more:
        message = await receive()
        if message["type"] == "http.disconnect":
            raise Disconnected
        chunk, more = message.get("body", b""), message.get("more_body", False)
        size += len(chunk)
        if size <= max_bytes:
            chunks.append(chunk)
        else:
            chunks.clear()
        if size > _DISCARDED * max_bytes:
            break
    if size > max_bytes:
        headers = {"Connection": "close"} if more else {}
        message = f"the body has more than {max_bytes} bytes: send fewer texts a request"
        raise Problem(413, "body_too_large", message, headers)
    return b"".join(chunks)
