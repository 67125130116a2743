"""Problem documents (RFC 9457) as bytes and values: how an error of Vagus is sent over HTTP; chooses no status."""

from __future__ import annotations

import json
from dataclasses import dataclass
from http import HTTPStatus
from typing import Final

from vagus.errors import LimitExceeded, Malformed, VagusError
from vagus.reasons import Reason

CONTENT_TYPE: Final = "application/problem+json"
MAX_PROBLEM: Final = 16 * 1024
_MAX_DETAIL: Final = 1000


@dataclass(frozen=True, slots=True)
class Problem:
    """One problem. `reason` is a Reason code of the sender's release, so a reader takes it as text."""

    status: int
    reason: str
    detail: str


def problem_from(error: VagusError, status: int) -> Problem:
    """What `error` says to the peer: its reason and its sentence. Facts stay in our own log."""
    return Problem(status, str(error.reason), error.message[:_MAX_DETAIL])


def encode_problem(problem: Problem) -> bytes:
    """The JSON document. Its type is about:blank, so its title is the status phrase (RFC 9457 4.2.1)."""
    document = {
        "type": "about:blank",
        "title": HTTPStatus(problem.status).phrase,
        "status": problem.status,
        "detail": problem.detail,
        "reason": problem.reason,
    }
    return json.dumps(document, ensure_ascii=True, separators=(",", ":")).encode("ascii")


def decode_problem(body: bytes) -> Problem:
    """The problem that a Vagus server sent.

    Raises LimitExceeded(TOO_LARGE) and Malformed(BAD_ENCODING) for what is not such a document.
    """
    if len(body) > MAX_PROBLEM:
        msg = f"a problem document of {len(body)} bytes exceeds the limit of {MAX_PROBLEM} bytes"
        raise LimitExceeded(Reason.TOO_LARGE, msg, limit=MAX_PROBLEM, value=len(body))
    try:
        document = json.loads(body)
    except (ValueError, RecursionError):
        raise Malformed(Reason.BAD_ENCODING, "the response body is not a JSON problem document (RFC 9457)") from None
    match document:
        case {"status": int(status), "reason": str(reason), "detail": str(detail)} if 400 <= status <= 599:
            return Problem(status, reason[:_MAX_DETAIL], detail[:_MAX_DETAIL])
        case _:
            raise Malformed(Reason.BAD_ENCODING, "the problem document (RFC 9457) lacks status, reason or detail")
