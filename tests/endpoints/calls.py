"""Calls an ASGI application in process, as a server would, and returns the whole response."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from starlette.types import ASGIApp, Message

from vagus.wire.problems import Problem, decode_problem


@dataclass(frozen=True)
class Answer:
    """One response."""

    status: int
    headers: Mapping[str, str]
    body: bytes

    @property
    def problem(self) -> Problem:
        """The problem document in the body."""
        assert self.headers["content-type"] == "application/problem+json"
        return decode_problem(self.body)


async def ask(
    app: ASGIApp,
    method: str,
    path: str,
    body: bytes = b"",
    *,
    headers: Mapping[str, str] | None = None,
    tls: Mapping[str, object] | None = None,
    parts: Sequence[bytes] | None = None,
) -> Answer:
    """One request and its response; `tls` is what the listener found, `parts` sends the body in pieces."""
    fields = {"host": "est.test", "content-length": str(len(body)), **(headers or {})}
    scope: dict[str, Any] = {
        "type": "http",
        "http_version": "1.1",
        "method": method,
        "path": path,
        "raw_path": path.encode("latin-1", "replace"),
        "query_string": b"",
        "headers": [(name.lower().encode(), value.encode("latin-1")) for name, value in fields.items()],
        "extensions": {} if tls is None else {"tls": dict(tls)},
    }
    pieces = list(parts if parts is not None else [body])
    sent: list[Message] = []

    async def receive() -> Message:
        if not pieces:
            return {"type": "http.disconnect"}
        piece = pieces.pop(0)
        return {"type": "http.request", "body": piece, "more_body": bool(pieces)}

    async def send(message: Message) -> None:
        sent.append(message)

    await app(scope, receive, send)
    assert sent[0]["type"] == "http.response.start"
    head = {name.decode(): value.decode() for name, value in sent[0]["headers"]}
    return Answer(sent[0]["status"], head, b"".join(message.get("body", b"") for message in sent[1:]))


def call(app: ASGIApp, method: str, path: str, body: bytes = b"", **more: Any) -> Answer:
    """`ask` from outside an event loop."""
    return asyncio.run(ask(app, method, path, body, **more))
