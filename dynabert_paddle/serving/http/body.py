"""Reads the body of a request, up to a limit."""

from __future__ import annotations

from fastapi import Request

from dynabert_paddle.serving.http.models import Disconnected
from dynabert_paddle.serving.http.problems import Problem

_CLOSE = {"Connection": "close"}  # what was not read of the body is no next request
_DISCARDED = 16  # limits: a client that is cut off while it sends may not see the answer


async def read_body(request: Request, *, max_bytes: int) -> bytes:
    """Read a body.

    Args:
        request: the request.
        max_bytes: the limit of its body.

    Returns:
        The body.

    Raises:
        Problem: it is longer, or compressed.
        Disconnected: the client went away, or was too slow.
    """
    encoding = request.headers.get("content-encoding", "identity").strip().lower()
    if encoding not in ("", "identity"):
        raise Problem(415, "compressed_body", f"the body is in {encoding[:20]!r}: send it as it is", _CLOSE)
    chunks, size, more = [], 0, True
    while more:
        message = await request.receive()
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
        advice = f"the body has more than {max_bytes} bytes: send fewer texts a request"
        raise Problem(413, "body_too_large", advice, _CLOSE if more else {})
    return b"".join(chunks)
