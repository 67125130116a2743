"""Carries the HTTP requests of an admitted client to one upstream and the responses back; judges no peer.

Each exchange has two tasks on the event loop. `_carry_body` sends the client's body to the upstream, then waits until
the client leaves. `_carry_response` takes what the upstream sends and ends the exchange. Each side is read only as fast
as the other one takes it: `receive` and `send` of ASGI and `write` and `next` of the upstream connection all wait.

An idle upstream connection is used again for the same peer only. Should an upstream ever send a response out of step,
it reaches no other peer.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from contextlib import suppress
from typing import Any, Final

from vagus.endpoints.gateway.decisions import Outcome, Record, decide
from vagus.endpoints.gateway.fields import identity_fields, request_fields, response_fields
from vagus.endpoints.gateway.idle_connections import IdleConnections
from vagus.endpoints.gateway.upstream import Head, Upstream, UpstreamBroken, UpstreamConnection, connect, unreachable
from vagus.endpoints.http import Receive, Scope, Send, send_problem
from vagus.errors import NotAuthorised, Unavailable, VagusError
from vagus.fleet.admission import Admitted
from vagus.reasons import Reason
from vagus.tls import Peer

_SAFE: Final = frozenset({"GET", "HEAD", "OPTIONS", "TRACE"})
_BODILESS: Final = frozenset({204, 304})
_FINAL: Final = 200  # RFC 9110 15.2: status codes below 200 are interim responses
_CONTINUE_SECONDS: Final = 1.0

Reset = Callable[[], None]
Keep = Callable[[bytes, UpstreamConnection], None]


class ClientGone(Exception):
    """The client left before the response was whole."""


class HttpRelay:
    """An ASGI application that relays to one upstream."""

    def __init__(self, upstream: Upstream, record: Record) -> None:
        self._upstream = upstream
        self._record = record
        self._idle = IdleConnections(upstream.idle_per_peer)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Relay one request."""
        exchange = _Exchange(scope, receive, send, self._upstream)
        try:
            await self._relay(exchange)
        except ClientGone:
            return
        except VagusError as error:
            self._record_failure(exchange, error)
            if not exchange.has_begun:
                await send_problem(send, error, close=True)
                return
            # The response has begun, so its status cannot change any more: only a cut connection shows the client that
            # it is not whole.
            exchange.reset_client()

    async def _relay(self, exchange: _Exchange) -> None:
        if exchange.method == "CONNECT":
            raise NotAuthorised(Reason.METHOD_NOT_ALLOWED, "this gateway has no CONNECT tunnels; use a relay listener")
        for is_last_try in (False, True):
            connection = self._take_idle(exchange) if not is_last_try else None
            was_idle = connection is not None
            if connection is None:
                connection = await connect(self._upstream)
            try:
                await exchange.run(connection, self._idle.keep)
            except UpstreamBroken as error:
                # RFC 9110 9.2.2: a safe request without a body may be sent once more. The upstream may have been
                # closing the idle connection when it was taken, and no byte of a response has come.
                if was_idle and not connection.has_answered and exchange.is_repeatable:
                    continue
                raise unreachable(self._upstream, error) from error
            return

    def close(self) -> None:
        """Close the idle connections."""
        self._idle.close()

    def _record_failure(self, exchange: _Exchange, error: VagusError) -> None:
        of = exchange
        self._record(decide(of.listener, of.source, Outcome.FAILED, peer=of.peer, admitted=of.admitted, error=error))

    def _take_idle(self, exchange: _Exchange) -> UpstreamConnection | None:
        if exchange.method not in _SAFE:
            # Take no idle connection: the upstream may be closing it, and an unsafe request must not be sent twice.
            return None
        return self._idle.take(exchange.key)


class _Exchange:
    """One request and its response.

    `_go_on` is set when the body may be sent, `_is_sent` when the whole request has been sent. `_is_done` is set when
    the whole response has come, `_is_client_gone` when the client left before. `has_begun` says that the client has got
    the header of the response, so no other response can replace it.
    """

    def __init__(self, scope: Scope, receive: Receive, send: Send, upstream: Upstream) -> None:
        extensions: dict[str, Any] = scope.get("extensions", {})
        tls: dict[str, Any] = extensions.get("tls", {})
        self.method: str = scope["method"]
        self.peer: Peer | None = tls.get("peer")
        self.admitted: Admitted | None = tls.get("admitted")
        self.listener: str = tls.get("listener", "")
        client = scope.get("client")
        self.source: str = client[0] if client else ""
        self.key: bytes = (self.peer.leaf_der or b"") if self.peer is not None else b""
        self.reset_client: Reset = extensions.get("reset", lambda: None)
        self.has_begun = False
        self._is_client_gone = self._is_done = False
        self._scope = scope
        self._receive = receive
        self._send = send
        self._upstream = upstream
        self._framing, self._has_body = _framing_of(scope)
        self._expects_continue = any(
            name == b"expect" and value.lower() == b"100-continue" for name, value in scope["headers"]
        )
        self._go_on = asyncio.Event()
        self._is_sent = asyncio.Event()

    @property
    def is_repeatable(self) -> bool:
        """Whether sending the request twice can do no harm."""
        return self.method in _SAFE and not self._has_body

    def _request_head(self) -> bytes:
        scope = self._scope
        framing = [*self._framing]
        if self._has_body and self._expects_continue:
            framing.append((b"expect", b"100-continue"))
        fields = request_fields(scope["headers"], identity_fields(self.peer, self.admitted), self.source, framing)
        target = scope["raw_path"] + (b"?" + scope["query_string"] if scope["query_string"] else b"")
        lines = [b"%s %s HTTP/1.1\r\n" % (self.method.encode("ascii"), target)]
        lines += [name + b": " + value + b"\r\n" for name, value in fields]
        return b"".join([*lines, b"\r\n"])

    async def run(self, connection: UpstreamConnection, keep: Keep) -> None:
        """Send the request, and carry body and response side by side; `keep` gets the connection after the response.

        Raises UpstreamBroken, Unavailable, ClientGone.
        """
        connection.ask(self._request_head(), is_head_request=self.method == "HEAD")
        if not self._has_body:
            self._is_sent.set()
        if not (self._has_body and self._expects_continue):
            self._go_on.set()
        upwards = asyncio.create_task(self._carry_body(connection))
        try:
            await self._carry_response(connection, keep)
        except UpstreamBroken:
            if self._is_client_gone:
                raise ClientGone from None
            raise
        except BaseException:
            if not self._is_done:
                connection.give_up()
            raise
        finally:
            upwards.cancel()
            await asyncio.gather(upwards, return_exceptions=True)

    async def _carry_body(self, connection: UpstreamConnection) -> None:
        """Client to upstream; then wait for the client to leave, which ends the upstream's work too."""
        await self._go_on.wait()
        is_chunked = self._framing == _CHUNKED
        is_whole = False
        # the task that reads the response raises this error too, after what the upstream sent before
        with suppress(UpstreamBroken):
            while True:
                message = await self._receive()
                if message["type"] == "http.disconnect":
                    if not self._is_done:
                        self._is_client_gone = True
                        connection.give_up()
                    return
                if is_whole:
                    continue
                body: bytes = message.get("body", b"")
                is_whole = not message.get("more_body", False)
                if body and self._has_body:
                    await connection.write(b"%x\r\n%s\r\n" % (len(body), body) if is_chunked else body)
                if is_whole:
                    if is_chunked:
                        await connection.write(b"0\r\n\r\n")
                    self._is_sent.set()

    async def _carry_response(self, connection: UpstreamConnection, keep: Keep) -> None:
        """Upstream to client."""
        head = await self._wait_for_head(connection)
        headers = response_fields(head.headers)
        lengths = [value for name, value in head.headers if name == b"content-length"]
        if lengths and head.status not in _BODILESS:
            headers.append((b"content-length", lengths[0]))
        if not self._is_sent.is_set():
            # the client must send no further request: the rest of this body is not read
            headers.append((b"connection", b"close"))
        self.has_begun = True
        await self._send({"type": "http.response.start", "status": head.status, "headers": headers})
        while True:
            try:
                async with asyncio.timeout(self._upstream.silence_seconds):
                    part = await connection.next()
            except TimeoutError as error:
                raise self._late("a part of its response", self._upstream.silence_seconds) from error
            body = part if isinstance(part, bytes) else b""
            is_last = part is None or connection.is_at_end
            if is_last:
                # return the connection before the last byte: the client may send its next request at once
                self._finish(connection, keep)
            await self._send({"type": "http.response.body", "body": body, "more_body": not is_last})
            if is_last:
                return

    def _finish(self, connection: UpstreamConnection, keep: Keep) -> None:
        self._is_done = True
        if self._is_sent.is_set():
            keep(self.key, connection)
        else:
            connection.give_up()  # the upstream responded before it had the whole body

    async def _wait_for_head(self, connection: UpstreamConnection) -> Head:
        """The final header; the upstream's time runs from the end of the request."""
        if not self._is_sent.is_set() and (head := await self._head_before_the_body_ends(connection)) is not None:
            return head
        try:
            async with asyncio.timeout(self._upstream.response_seconds):
                while True:
                    event = await connection.next()
                    if isinstance(event, Head) and event.status >= _FINAL:
                        return event
        except TimeoutError as error:
            raise self._late("a response", self._upstream.response_seconds) from error

    async def _head_before_the_body_ends(self, connection: UpstreamConnection) -> Head | None:
        """A response that comes while the body is still on its way; 100 Continue lets the body begin.

        None once the whole request has been sent. A server that does not know 100 Continue stays silent, so the body
        begins after `_CONTINUE_SECONDS` too (RFC 9110 10.1.1).
        """
        sent = asyncio.create_task(self._is_sent.wait())
        coming = asyncio.create_task(connection.next())
        try:
            if not self._go_on.is_set():
                await asyncio.wait({coming}, timeout=_CONTINUE_SECONDS)
            while True:
                if coming.done():
                    event = coming.result()
                    if isinstance(event, Head) and event.status >= _FINAL:
                        return event
                    coming = asyncio.create_task(connection.next())
                self._go_on.set()
                await asyncio.wait({coming, sent}, return_when=asyncio.FIRST_COMPLETED)
                if not coming.done():
                    return None
        finally:
            for task in (coming, sent):
                task.cancel()
            await asyncio.gather(coming, sent, return_exceptions=True)

    def _late(self, what: str, seconds: float) -> Unavailable:
        return Unavailable(
            Reason.UPSTREAM_TIME_OUT, f"{self._upstream} behind this gateway did not send {what} within {seconds:g} s"
        )


_CHUNKED: Final = [(b"transfer-encoding", b"chunked")]


def _framing_of(scope: Scope) -> tuple[list[tuple[bytes, bytes]], bool]:
    """The framing fields of the request to the upstream, and whether it has a body; `check_framing` has passed."""
    for name, value in scope["headers"]:
        if name == b"transfer-encoding":
            return _CHUNKED, True
        if name == b"content-length":
            return [(b"content-length", b"%d" % int(value))], int(value) > 0
    return [], False
