"""Serves the published checkpoint and hash tiles (C2SP tlog-tiles); entries need authorisation and are not here."""

from __future__ import annotations

import asyncio
import re
from http import HTTPStatus
from pathlib import Path

from vagus.endpoints.routing import NOT_FOUND, Request, Response, Route, RouteTable

_PATH = re.compile(
    r"/log/(checkpoint|tile/(?:[0-9]|[1-5][0-9]|6[0-3])(?:/x[0-9]{3}){0,6}/[0-9]{3}(?:\.p/[1-9][0-9]{0,2})?)\Z"
)


def log_files_app(folder: Path) -> RouteTable:
    """GET and HEAD of /log/checkpoint and /log/tile/..., from the files in `folder`."""

    async def send_file(request: Request) -> Response:
        name = request.found[1]
        try:
            content = await asyncio.to_thread((folder / name).read_bytes)
        except OSError:
            return NOT_FOUND
        is_checkpoint = name == "checkpoint"
        media_type = b"text/plain; charset=utf-8" if is_checkpoint else b"application/octet-stream"
        # A full hash tile never changes, so caches may store it; checkpoints and partial tiles do change (C2SP
        # tlog-tiles, Caching).
        is_final = not is_checkpoint and ".p/" not in name
        caching = b"public, max-age=31536000, immutable" if is_final else b"no-cache"
        return Response(HTTPStatus.OK, media_type, content, ((b"cache-control", caching),))

    return RouteTable((Route(_PATH, send_file),), root="/log/", is_terse=True)
