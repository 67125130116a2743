"""HTTP/1.1 on an admitted connection: uvicorn's httptools protocol with time-outs, bounds and the verdict added.

Deadlines (`_deadline`, checked by `tick`). None while no request is awaited: an application works, or the connection
is idle and uvicorn's keep-alive timer has it. The first header must be whole `header_seconds` after the connection was
made; each later one, after its first byte. A header gains no time by dripping. A body has two bounds: `stall_seconds`
for each pause, and `_body_end` for the whole. `_body_end` begins at `body_seconds`; each byte moves it on by the time
that it may take at `body_octets_per_second`, and it is never more than `body_seconds` ahead. So a body that comes at
that rate may be of any length, and one that trickles ends after `body_seconds`. While the application does not take the
body, and nothing is read, the client's time does not run.

uvicorn's own names used here (`connection_made`, `on_*`, `_start_asgi_task`, `RequestResponseCycle.keep_alive`) are
semi-public: tests/transport/test_http_protocol.py is the contract.
"""

from __future__ import annotations

import asyncio
from http import HTTPStatus
from typing import TYPE_CHECKING

import httptools
from uvicorn import Config
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol, RequestResponseCycle
from uvicorn.server import ServerState

from vagus.endpoints.gateway.decisions import Outcome
from vagus.endpoints.http import check_framing, problem_headers, read_target, refusing, spell_head, status_of
from vagus.errors import LimitExceeded, Malformed, NotAuthorised, Unavailable, VagusError
from vagus.events.log import REFUSALS
from vagus.reasons import Reason
from vagus.transport.listener_state import ListenerState
from vagus.transport.open_connections import ConnectionRight
from vagus.wire.problems import encode_problem, problem_from

if TYPE_CHECKING:
    from uvicorn._types import ASGI3Application

PIPELINED = 32
"""How many requests of a connection may wait for the response to the one before them."""
_TOO_LARGE_HEADER = HTTPStatus.REQUEST_HEADER_FIELDS_TOO_LARGE


class _IsOver(Exception):
    """Ends the parser's work on a segment whose rest is ignored; `data_received` catches it, and it is no error."""


class AdmittedHttp(HttpToolsProtocol):
    """One HTTP connection. `right` is the peer's right to it; None on a plain connection, whose peer is not judged."""

    def __init__(
        self, config: Config, state: ServerState, listener: ListenerState, right: ConnectionRight | None
    ) -> None:
        super().__init__(config, state, {})
        self._app = self.app
        self._listener = listener
        self._right = right
        self._deadline: float | None = None
        self._body_end = 0.0  # when the whole body must have arrived; see the module's docstring
        self._is_in_header = True
        self._is_begun = False  # the parser holds a part of a request
        self._is_last = False  # this request ends the connection, so pipelined ones after it are ignored
        self._is_over = False  # the response that ends the connection is being sent, so further bytes are ignored
        self._header_bytes = 0
        self._field_bytes = 0
        self._tls: dict[object, object] = {
            "peer": right.peer if right is not None else None,
            "admitted": None,
            "degraded": None,
            "listener": listener.rules.listener,
        }

    # Events of the connection.

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        """The header is awaited from now on."""
        super().connection_made(transport)
        self._listener.ticking.add(self)
        self._deadline = self.loop.time() + self._listener.limits.header_seconds

    def connection_lost(self, exc: Exception | None) -> None:
        """End the deadlines."""
        self._listener.ticking.discard(self)
        self._unset_keepalive_if_required()
        super().connection_lost(exc)

    def data_received(self, data: bytes) -> None:
        """Parse, with a bound on the header that llhttp does not have."""
        if self._is_over:
            return
        self._unset_keepalive_if_required()
        if self._is_in_header:
            self._header_bytes += len(data)
        try:
            self.parser.feed_data(data)
        except httptools.HttpParserUpgrade:
            self._decline_upgrade()
        except httptools.HttpParserError as error:
            if isinstance(error.__context__, _IsOver):
                return
            self._refuse_unparsed(self._explain(error))
            return
        if self._is_in_header and self._header_bytes > self._listener.limits.header_bytes:
            self._refuse_unparsed(self._header_too_large(), _TOO_LARGE_HEADER)
        elif not self._is_in_header:
            self._header_bytes = 0
            if self._deadline is not None:
                self._deadline = self._next_deadline(len(data))
        elif self._deadline is None and (self._header_bytes or self._is_begun):
            self._deadline = self.loop.time() + self._listener.limits.header_seconds

    def tick(self, now: float) -> None:
        """Header and body time-outs; the socket's own are its owner's."""
        if self.flow.read_paused:
            self._body_end = now + self._listener.limits.body_seconds
        elif self._deadline is not None and now > self._deadline:
            self._deadline = None
            what = "header" if self._is_in_header else "body"
            message = f"the {what} of the HTTP request did not arrive within its time limit; send it without pauses"
            self._refuse_unparsed(LimitExceeded(Reason.TIME_OUT, message))

    # Callbacks of the parser httptools.

    def on_message_begin(self) -> None:
        """A request begins."""
        if self._is_over:
            raise _IsOver
        super().on_message_begin()
        self._is_in_header = self._is_begun = True
        self._field_bytes = 0
        self.scope["extensions"] = {"tls": self._tls, "reset": self.transport.abort}  # type: ignore[dict-item]

    def on_header(self, name: bytes, value: bytes) -> None:
        """One field. Fields of a chunked body's trailer end nowhere: uvicorn would add them to the header."""
        self._field_bytes += len(name) + len(value) + 4
        is_bounded = len(self.headers) < self._listener.limits.header_fields
        if is_bounded and self._field_bytes <= self._listener.limits.header_bytes and self._is_in_header:
            super().on_header(name, value)
        elif self._field_bytes > self._listener.limits.header_bytes and not self._is_in_header:
            raise LimitExceeded(Reason.TOO_LARGE, "the HTTP request has too large a trailer section; send fewer fields")

    def on_headers_complete(self) -> None:
        """The header is whole: refuse what must not reach an application."""
        self._is_in_header = False
        self._body_end = self.loop.time() + self._listener.limits.body_seconds
        self._deadline = self._next_deadline(0)
        error = self._find_fault()
        if error is not None:
            self._is_last = True
            self._record_refusal(error)
        self.app = (
            self._app
            if error is None
            else refusing(error, status=_TOO_LARGE_HEADER if error.reason is Reason.TOO_LARGE else None)
        )
        super().on_headers_complete()
        if len(self.pipeline) > PIPELINED:  # respond to the queued requests, then end the connection
            self._is_last = True
            self.cycle.keep_alive = False

    def on_message_complete(self) -> None:
        """The request is whole."""
        self._is_over = self._is_over or self._is_last
        self._deadline = None
        self._is_in_header = True
        self._is_begun = False
        self._header_bytes = 0
        super().on_message_complete()

    def _next_deadline(self, received: int) -> float:
        """The nearer of the two bounds, after `received` more bytes of a body."""
        limits, now = self._listener.limits, self.loop.time()
        self._body_end = min(self._body_end + received / limits.body_octets_per_second, now + limits.body_seconds)
        return min(now + limits.stall_seconds, self._body_end)

    def _find_fault(self) -> VagusError | None:
        limits = self._listener.limits
        if self._field_bytes + len(self.url) > limits.header_bytes or len(self.headers) >= limits.header_fields:
            return self._header_too_large()
        try:
            check_framing(self.parser.get_http_version(), self.headers)
            self._take_target()
        except VagusError as error:
            return error
        if self.parser.should_upgrade():
            has_body = any(name in {b"content-length", b"transfer-encoding"} for name, _ in self.headers)
            # llhttp takes the body of an upgrade request for the other protocol, but the upstream server might not
            if has_body:
                return Malformed(Reason.SMUGGLING, "the request asks for an upgrade and has a body; send it without")
            if b"websocket" in (self._get_upgrade() or b""):
                return NotAuthorised(Reason.UPGRADE_REFUSED, "this server takes HTTP only and no WebSocket")
        return None

    def _take_target(self) -> None:
        """Applications see a path alone, and the one Host that counts. Raises Malformed(BAD_REQUEST)."""
        self.url, host = read_target(self.url, "http" if self._right is None else "https")
        if host is not None:
            self.headers[:] = [(b"host", host), *((name, value) for name, value in self.headers if name != b"host")]

    def _record_refusal(self, error: VagusError) -> None:
        if self._right is not None:
            self._right.record(Outcome.REFUSED, error)

    def _start_asgi_task(self, cycle: RequestResponseCycle, app: ASGI3Application) -> None:
        """Each request is held to the verdict as it is now, also one that waited for another."""
        right = self._right
        if right is not None:
            objection = right.find_objection()
            if objection is not None:
                # 401 would ask for HTTP credentials (RFC 9110 15.5.2), and 400 for another request. In this case the
                # peer itself is refused, whatever it requests, so the status is 403.
                status = None if isinstance(objection, Unavailable) else HTTPStatus.FORBIDDEN
                app = refusing(objection, status=status)  # type: ignore[assignment]
            self._tls.update(admitted=right.admitted, degraded=right.degraded)
        cycle.transport = _HeadWriter(cycle)
        super()._start_asgi_task(cycle, app)

    # Connections that end before a request reaches an application.

    def _decline_upgrade(self) -> None:
        """Other upgrades are ignored (RFC 9110 7.8), but the parser stops there, so this response is the last one.

        Java's HTTP client asks for h2c with every plain request.
        """
        self._is_over = True
        if self.cycle is not None:
            self.cycle.keep_alive = False
            if self.cycle.response_complete:
                self.transport.close()

    def _explain(self, error: httptools.HttpParserError) -> VagusError:
        inner = error.__context__
        if isinstance(inner, VagusError):
            return inner
        # llhttp stops at the first doubt about framing. Its texts are constants and never quote the client.
        message = f"the request is not HTTP/1.1: {error}"[:200]
        framing = {b"content-length", b"transfer-encoding"}
        seen = {name for name, _ in self.headers or ()}
        text = str(error).lower()
        is_framing = "content-length" in text or "transfer-encoding" in text or "chunk" in text or bool(seen & framing)
        return Malformed(Reason.SMUGGLING if is_framing else Reason.BAD_REQUEST, message)

    def _header_too_large(self) -> LimitExceeded:
        limits = self._listener.limits
        message = f"the header of the HTTP request exceeds {limits.header_bytes} bytes or {limits.header_fields} fields"
        return LimitExceeded(Reason.TOO_LARGE, message, limit=limits.header_bytes)

    def _refuse_unparsed(self, error: VagusError, status: int | None = None) -> None:
        """Respond to what never became a request, unless another response is under way on this connection."""
        self._is_over = True
        if self.transport.is_closing():
            return
        self._record_refusal(error)
        cycle = self.cycle
        if cycle is not None and not cycle.response_complete:
            if not cycle.more_body:  # an earlier request is complete: its response is sent, and ends the connection
                cycle.keep_alive = False
                return
            # The application waits for a body that will never arrive; the end of the connection ends that wait.
            cycle.disconnected = True
            cycle.message_event.set()
            if cycle.response_started or self.pipeline:
                self.transport.abort()
                return
        chosen = HTTPStatus(status or status_of(error))
        REFUSALS.note(error.reason)
        body = encode_problem(problem_from(error, chosen))
        fields = [*self.server_state.default_headers, *problem_headers(error, chosen, len(body))]
        head = b"HTTP/1.1 %d %s\r\n" % (chosen, chosen.phrase.encode("ascii"))
        lines = [name + b": " + value + b"\r\n" for name, value in fields]
        self.transport.write(spell_head(b"".join([head, *lines, b"connection: close\r\n\r\n"])) + body)
        self.transport.close()

    def send_400_response(self, msg: str) -> None:
        """What uvicorn calls for requests that do not parse."""
        self._refuse_unparsed(Malformed(Reason.BAD_REQUEST, msg))


class _HeadWriter(asyncio.Transport):
    """The transport of one response until its head is written, which uvicorn writes at once and in lower case."""

    def __init__(self, cycle: RequestResponseCycle) -> None:
        super().__init__()
        self._cycle, self._transport = cycle, cycle.transport

    def write(self, data: bytes | bytearray | memoryview) -> None:
        """The head in the RFCs' spelling; 100 Continue, which may come before it, has no header fields."""
        if self._cycle.response_started:
            self._cycle.transport = self._transport
            data = spell_head(bytes(data))
        self._transport.write(data)

    def is_closing(self) -> bool:
        """Whether the connection is ending."""
        return self._transport.is_closing()

    def close(self) -> None:
        """End the connection."""
        self._transport.close()
