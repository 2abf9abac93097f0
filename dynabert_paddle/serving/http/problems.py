"""Errors of requests: all of them are answered in one JSON form."""

from __future__ import annotations

import json
from collections.abc import Mapping
from http import HTTPStatus
from types import MappingProxyType


class Problem(Exception):
    """A request that is not answered with predictions.

    Args:
        status: of HTTP.
        code: a word for programs, such as `queue_full`.
        message: one line for people: what is wrong, and what to do. It quotes no path of this machine.
        headers: of the answer.
    """

    def __init__(self, status: int, code: str, message: str, headers: Mapping[str, str] = MappingProxyType({})) -> None:
        super().__init__(message)
        self.status, self.code, self.message, self.headers = status, code, message, dict(headers)


def problem_body(code: str, message: str, request_id: str) -> bytes:
    """Write the JSON of a problem: `error` is a text, as the Open Inference Protocol has it.

    Args:
        code: as of a `Problem`.
        message: the same.
        request_id: of the request.

    Returns:
        The body of the answer.
    """
    return json.dumps({"error": message, "code": code, "request_id": request_id}, ensure_ascii=False).encode(
        errors="replace"
    )


def status_problem(status: int, allow: str | None = None) -> Problem:
    """Make the problem of a status that the framework found.

    Args:
        status: 404, 405 or another one.
        allow: methods of the path.

    Returns:
        The problem.
    """
    phrase = HTTPStatus(status).phrase
    hint = {404: ": see /docs for the paths", 405: f": use {allow}" if allow else ""}.get(status, "")
    headers = {"Allow": allow} if allow else {}
    return Problem(status, phrase.lower().replace(" ", "_"), f"{phrase.lower()}{hint}", headers)
