"""Serves the published checkpoint and hash tiles (C2SP tlog-tiles); entries need authorisation and are not here."""

from __future__ import annotations

import asyncio
import re
from http import HTTPStatus
from pathlib import Path

from vagus.endpoints.http import ASGIApp, Receive, Scope, Send, send_response

_HASH_TILE = re.compile(r"tile/(?:[0-9]|[1-5][0-9]|6[0-3])(?:/x[0-9]{3}){0,6}/[0-9]{3}(?:\.p/[1-9][0-9]{0,2})?\Z")
_PREFIX = "/log/"


def log_files_app(folder: Path, otherwise: ASGIApp) -> ASGIApp:
    """GET and HEAD of /log/checkpoint and /log/tile/...; every other path is `otherwise`'s."""

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http" or not scope["path"].startswith(_PREFIX):
            await otherwise(scope, receive, send)
            return
        name = scope["path"].removeprefix(_PREFIX)
        is_checkpoint = name == "checkpoint"
        if scope["method"] not in {"GET", "HEAD"} or not (is_checkpoint or _HASH_TILE.match(name)):
            await send_response(send, HTTPStatus.NOT_FOUND, [(b"content-length", b"0")])
            return
        try:
            content = await asyncio.to_thread((folder / name).read_bytes)
        except OSError:
            await send_response(send, HTTPStatus.NOT_FOUND, [(b"content-length", b"0")])
            return
        kind = b"text/plain; charset=utf-8" if is_checkpoint else b"application/octet-stream"
        # A full tile never changes; checkpoints and partial tiles do (C2SP tlog-tiles, Caching).
        keep = b"no-cache" if is_checkpoint or ".p/" in name else b"public, max-age=31536000, immutable"
        headers = [
            (b"content-type", kind),
            (b"content-length", b"%d" % len(content)),
            (b"cache-control", keep),
        ]
        await send_response(send, HTTPStatus.OK, headers, b"" if scope["method"] == "HEAD" else content)

    return app


def under_prefix(prefix: str, app: ASGIApp) -> ASGIApp:
    """`app` at the path of the status URL: certificates may name http://host/pki/crl/..."""
    if not prefix:
        return app

    async def stripped(scope: Scope, receive: Receive, send: Send) -> None:
        path = scope.get("path", "")
        if scope["type"] == "http" and path.startswith(prefix + "/"):
            scope = {**scope, "path": path.removeprefix(prefix)}
        await app(scope, receive, send)

    return stripped
