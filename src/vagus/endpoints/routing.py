"""An HTTP protocol as a table of routes: paths, methods, media types and body limits are checked here for all of them.

A protocol is a `RouteTable` and its handlers. A handler takes a `Request` and returns a `Response` or raises a
VagusError; the table knows the status of each reason. Several tables share a listener through `mount`.
"""

from __future__ import annotations

import re
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, field
from http import HTTPStatus
from typing import Final

from vagus.endpoints.http import STATUS, ASGIApp, Headers, Receive, Scope, Send, read_body, send_problem, send_response
from vagus.errors import LimitExceeded, Malformed, VagusError
from vagus.fleet.admission import Admitted
from vagus.reasons import Reason

_READING: Final = ("GET", "HEAD")


class _HttpRefusal(Malformed):
    """A refusal whose status is defined by HTTP and not by its reason, with the header field that belongs to it."""

    status: HTTPStatus
    field: tuple[bytes, bytes]

    def with_status(self, status: HTTPStatus, name: bytes, value: str) -> _HttpRefusal:
        """Set status and header field; returns the refusal itself."""
        self.status, self.field = status, (name, value.encode("ascii"))
        return self


@dataclass(frozen=True, slots=True)
class Response:
    """One response. `content_type` None means that it has no body; Content-Type and Content-Length are added here."""

    status: HTTPStatus
    content_type: bytes | None = None
    body: bytes = b""
    headers: Headers = ()


@dataclass(frozen=True, slots=True)
class Request:
    """One request of a route. `found` is the match of its path; the names in `headers` are lower case."""

    route: Route
    found: re.Match[str]
    method: str
    path: str
    headers: Mapping[bytes, bytes]
    admitted: Admitted | None
    """What the listener's verdict found of the peer; None for an anonymous one."""
    scope: Scope
    receive: Receive

    async def read_body(self) -> bytes:
        """The body, of the route's media type and within its limit.

        Raises Malformed(BAD_REQUEST), LimitExceeded(TOO_LARGE). A handler that has to check a credential does that
        before: no byte of the body is read until then.
        """
        route = self.route
        given = self.headers.get(b"content-type")
        media_type = (given or b"").decode("latin-1").partition(";")[0].strip().lower()
        if media_type != route.media_type and (given is not None or not route.is_media_type_optional):
            error = _HttpRefusal(Reason.BAD_REQUEST, f"the body must be {route.media_type}; set Content-Type so")
            # RFC 9110 15.5.16: 415 names the media type that is accepted
            raise error.with_status(HTTPStatus.UNSUPPORTED_MEDIA_TYPE, b"accept", route.media_type)
        coding = self.headers.get(b"content-encoding", b"").strip().lower()
        if coding not in {b"", b"identity"}:
            error = _HttpRefusal(Reason.BAD_REQUEST, f"the body has Content-Encoding {coding[:32]!r}; send it uncoded")
            # RFC 9110 12.5.3: in a 415, Accept-Encoding names the content codings that are accepted
            raise error.with_status(HTTPStatus.UNSUPPORTED_MEDIA_TYPE, b"accept-encoding", "identity")
        return await read_body(self.scope, self.receive, route.body_limit)


Handler = Callable[[Request], Awaitable[Response]]


@dataclass(frozen=True, slots=True)
class Route:
    """One kind of path. `media_type` and `body_limit` (bytes) are those of request bodies, where it takes any."""

    path: re.Pattern[str]
    handler: Handler
    methods: Sequence[str] = _READING
    media_type: str = ""
    is_media_type_optional: bool = False
    body_limit: int = 0


@dataclass(frozen=True, slots=True)
class RouteTable:
    """One protocol, as an ASGI application."""

    routes: Sequence[Route]
    root: str = "/"
    """Where its paths begin, for `mount`."""
    statuses: Mapping[Reason, HTTPStatus] = field(default_factory=lambda: STATUS)
    challenge: bytes = b""
    """WWW-Authenticate of each 401 (RFC 9110 11.6.1)."""
    not_found: str = "nothing is published at this path"
    is_terse: bool = False
    """An unknown path and a wrong method are both 404 without a body, as on a server of static files."""

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Respond to one request."""
        if scope["type"] != "http":
            return
        try:
            response = await self._respond(scope, receive)
        except VagusError as error:
            await self._send_error(send, error)
            return
        headers = response.headers
        if response.content_type is not None:
            size = b"%d" % len(response.body)
            headers = [(b"content-type", response.content_type), (b"content-length", size), *headers]
        await send_response(send, response.status, headers, b"" if scope["method"] == "HEAD" else response.body)

    async def _respond(self, scope: Scope, receive: Receive) -> Response:
        method, path = scope["method"], scope["path"]
        for route in self.routes:
            found = route.path.match(path)
            if found is None:
                continue
            if method in route.methods:
                admitted = (scope.get("extensions", {}).get("tls") or {}).get("admitted")
                headers = dict(scope["headers"])
                return await route.handler(Request(route, found, method, path, headers, admitted, scope, receive))
            if not self.is_terse:
                allowed = ", ".join(route.methods)
                error = _HttpRefusal(Reason.METHOD_NOT_ALLOWED, f"here {allowed} is allowed, not {method[:16]!r}")
                # RFC 9110 15.5.6: 405 lists the allowed methods
                raise error.with_status(HTTPStatus.METHOD_NOT_ALLOWED, b"allow", allowed)
        if self.is_terse:
            return NOT_FOUND
        raise Malformed(Reason.NOT_FOUND, self.not_found)

    async def _send_error(self, send: Send, error: VagusError) -> None:
        status = self.statuses.get(error.reason, HTTPStatus.INTERNAL_SERVER_ERROR)
        headers: list[tuple[bytes, bytes]] = []
        if isinstance(error, _HttpRefusal):
            status = error.status
            headers.append(error.field)
        if status == HTTPStatus.UNAUTHORIZED:
            headers.append((b"www-authenticate", self.challenge))
        # The rest of a body that is too large is not read: the connection ends with the error response.
        await send_problem(send, error, status=status, headers=headers, close=isinstance(error, LimitExceeded))


NOT_FOUND: Final = Response(HTTPStatus.NOT_FOUND, headers=((b"content-length", b"0"),))


def mount(*tables: RouteTable) -> ASGIApp:
    """One application for several protocols: the first table whose root begins the path, else the last one."""

    async def mounted(scope: Scope, receive: Receive, send: Send) -> None:
        path = scope.get("path", "")
        table = next((table for table in tables if path.startswith(table.root)), tables[-1])
        await table(scope, receive, send)

    return mounted


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
