"""One checked TLS connection from the device to a server, blocking and bounded in time; knows nothing of EST.

The server is verified after its last handshake message and *before* our own flight leaves: a server that is not the
hospital's gets neither an application byte nor our certificate (TLS 1.3 sends that in the client's last flight).
"""

from __future__ import annotations

import socket
import time
from contextlib import suppress
from typing import TYPE_CHECKING, Final

from vagus.errors import Malformed, NotTrusted, Unavailable
from vagus.reasons import Reason
from vagus.tls import ClientContext, ClientTls, Credential, Peer, Session, TlsStream
from vagus_agent.http import HttpExchange, Response
from vagus_agent.routes import Patience, Route
from vagus_agent.verification import verify_server

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence
    from datetime import datetime

    from cryptography.x509 import Certificate

_PIECE: Final = 65_536


class Caller:
    """Opens connections with one identity (or none) to servers under the pinned anchors."""

    def __init__(
        self,
        anchors: Sequence[Certificate],
        our_credential: Credential | None,
        now: Callable[[], datetime | None],
        patience: Patience | None = None,
        check: Callable[[Certificate], None] = lambda _server: None,
    ) -> None:
        """`now` gives None below the clock's floor: dates are left out then (only for the enrolment listener).

        `check` may refuse a server that verified, by raising: it knows which ones were revoked.
        """
        self._anchors = anchors
        self._now = now
        self._check = check
        self._patience = patience or Patience()
        self._http = ClientContext(ClientTls(credential=our_credential))
        self._raw = ClientContext(ClientTls(credential=our_credential, alpn=()))

    def open(self, route: Route, session: Session | None = None) -> Channel:
        """A connection whose server has been verified; resumed where `session` still counts at the server.

        Raises Unavailable(UPSTREAM_UNREACHABLE, TIME_OUT), NotTrusted(TLS_HANDSHAKE) and what `verify_server` raises.
        """
        deadline = time.monotonic() + self._patience.connect
        dialled = _dial(route, self._patience.connect)
        try:
            stream = (self._raw if route.is_raw else self._http).new_stream(route.name, session)
            wire = _Wire(dialled, stream, route)
            wire.shake_hands(deadline)
            peer = stream.peer()
            shown = (() if peer.leaf_der is None else (peer.leaf_der,)) + peer.chain_der
            server = verify_server(shown, anchors=self._anchors, host=route.name, at=self._now())
            self._check(server)
            wire.flush(deadline)  # the server is verified: only now does our certificate leave the device
        except BaseException:
            dialled.close()
            raise
        return Channel(wire, peer, server, route, self._patience)


class Channel:
    """A verified connection: bytes both ways, and HTTP on top for those who want it."""

    def __init__(self, wire: _Wire, peer: Peer, server: Certificate, route: Route, patience: Patience) -> None:
        self._wire = wire
        self._patience = patience
        self.peer = peer
        self.server = server
        self.route = route
        self.is_reusable = True
        """Whether another request may follow: the server has not said or shown that it closes."""

    def send(self, data: bytes) -> None:
        """Encrypt and send. Raises Unavailable(UPSTREAM_UNREACHABLE, TIME_OUT), Malformed(TLS_HANDSHAKE)."""
        self._wire.stream.write(data)
        self._wire.flush(time.monotonic() + self._patience.response)

    def receive(self, within: float | None = None) -> bytes:
        """What arrives next, b"" once the server has closed; waits `within` seconds, else as long as for a response.

        Raises Unavailable(TIME_OUT, UPSTREAM_UNREACHABLE); NotTrusted(TLS_HANDSHAKE) when the server breaks TLS off,
        which is how it refuses a certificate in TLS 1.3.
        """
        return self._wire.read(time.monotonic() + (self._patience.response if within is None else within))

    def ask(
        self, method: str, path: str, *, headers: Mapping[str, str] | None = None, body: bytes | None = None
    ) -> Response:
        """The response to one HTTP request; the connection stays open where both sides keep it.

        Raises what HttpExchange, `send` and `receive` raise.
        """
        exchange = HttpExchange(method, path, self.route.host, headers=headers, body=body)
        self.send(exchange.request)
        deadline = time.monotonic() + self._patience.response
        self.is_reusable = False
        while True:
            data = self._wire.read(deadline)
            response = exchange.feed(data) if data else exchange.end()
            if response is not None:
                self.is_reusable = response.keeps_alive
                return response

    def session(self) -> Session | None:
        """What a later connection may resume with; it comes with the first bytes that the server sends."""
        return self._wire.stream.session()

    def close(self) -> None:
        """Say goodbye (close_notify) and hang up."""
        self._wire.close()


class _Wire:
    """A socket and the TLS stream over it."""

    def __init__(self, dialled: socket.socket, stream: TlsStream, route: Route) -> None:
        self._socket = dialled
        self.stream = stream
        self._route = route

    def shake_hands(self, deadline: float) -> None:
        """Until our last flight waits to be sent; it is not sent here."""
        try:
            while not self.stream.handshake():
                self.flush(deadline)
                data = self._receive(deadline)
                if not data:
                    msg = f"server {self._route} closed during the TLS handshake; check its address and its listener"
                    raise Unavailable(Reason.UPSTREAM_UNREACHABLE, msg)
                self.stream.feed(data)
        except NotTrusted:
            with suppress(Unavailable):
                self.flush(deadline)  # send our TLS alert
            raise

    def read(self, deadline: float) -> bytes:
        while True:
            try:
                data = self.stream.read()
            except Malformed as error:  # a TLS alert: the server refused our certificate
                msg = f"server {self._route} broke off the TLS handshake: {error.message}"
                raise NotTrusted(Reason.TLS_HANDSHAKE, msg) from None
            if self.stream.has_answer:
                self.flush(deadline)
            if data is not None:
                return data
            data = self._receive(deadline)
            if not data:
                return b""
            self.stream.feed(data)

    def flush(self, deadline: float) -> None:
        data = self.stream.take()
        if not data:
            return
        with self._route.reaching():
            self._socket.settimeout(_left(deadline))
            self._socket.sendall(data)

    def close(self) -> None:
        self.stream.close()
        with suppress(Unavailable):
            self.flush(time.monotonic() + 1.0)
        self._socket.close()

    def _receive(self, deadline: float) -> bytes:
        with self._route.reaching(), suppress(ConnectionResetError):
            self._socket.settimeout(_left(deadline))
            return self._socket.recv(_PIECE)
        return b""


def _dial(route: Route, patience: float) -> socket.socket:
    with route.reaching():
        dialled = socket.create_connection((route.address, route.port), timeout=patience)
        dialled.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    return dialled


def _left(deadline: float) -> float:
    left = deadline - time.monotonic()
    if left <= 0:
        raise TimeoutError
    return left
