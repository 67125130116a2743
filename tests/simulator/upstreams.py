"""Upstreams for the relay's tests, each in a thread: one that speaks HTTP, and ones that do what a test says."""

from __future__ import annotations

import http.server
import socket
import struct
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from tests.simulator.listeners import Client

PATIENCE = 60.0


@dataclass
class Seen:
    """What reached the upstream."""

    lines: list[str] = field(default_factory=list)
    headers: list[list[tuple[str, str]]] = field(default_factory=list)
    bodies: list[bytes] = field(default_factory=list)
    connections: int = 0

    def values(self, name: str) -> list[str]:
        """The values of a field in the newest request."""
        return [value for each, value in self.headers[-1] if each.lower() == name]


@contextmanager
def http_upstream() -> Iterator[tuple[int, Seen]]:
    """An HTTP/1.1 server that keeps what it saw and answers by path."""
    seen = Seen()

    class Answer(http.server.BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def setup(self) -> None:
            super().setup()
            seen.connections += 1

        def log_message(self, *_: object) -> None:
            """Quiet."""

        def _body(self) -> bytes:
            if self.headers.get("transfer-encoding") == "chunked":
                body = b""
                while size := int(self.rfile.readline(), 16):
                    body += self.rfile.read(size)
                    self.rfile.readline()
                self.rfile.readline()
                return body
            return self.rfile.read(int(self.headers.get("content-length", "0")))

        def _keep(self, body: bytes) -> None:
            seen.lines.append(self.requestline)
            seen.headers.append(self.headers.items())
            seen.bodies.append(body)

        def handle_expect_100(self) -> bool:
            if self.path == "/refuses-bodies":
                self._keep(b"")
                self.send_response(417)
                self.send_header("content-length", "0")
                self.end_headers()
                self.close_connection = True
                return False
            return super().handle_expect_100()

        def do_POST(self) -> None:
            body = self._body()
            self._keep(body)
            if self.path == "/no-content":
                self.send_response(204)
                self.end_headers()
                return
            self.send_response(200)
            self.send_header("Content-Length", str(len(body)))
            self.send_header("X-Upstream", "here")
            self.send_header("Connection", "X-Private")
            self.send_header("X-Private", "between us")
            self.end_headers()
            self.wfile.write(body)

        def do_GET(self) -> None:
            self._keep(b"")
            if self.path == "/chunked":
                self.send_response(200)
                self.send_header("Transfer-Encoding", "chunked")
                self.end_headers()
                for _ in range(3):
                    self.wfile.write(b"5\r\nhello\r\n")
                self.wfile.write(b"0\r\n\r\n")
                return
            size = self.path.partition("?")[0].rpartition("/")[2]
            body = b"x" * (int(size) if size.isdigit() else 5)
            self.send_response(304 if self.path.startswith("/same") else 200)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            if self.command != "HEAD" and not self.path.startswith("/same"):
                self.wfile.write(body)

        do_HEAD = do_GET  # noqa: N815  the library's name
        do_PUT = do_POST  # noqa: N815

    class Server(http.server.ThreadingHTTPServer):
        def handle_error(self, *_: object) -> None:
            """A client that leaves is what some tests are about."""

    server = Server(("127.0.0.1", 0), Answer)
    server.daemon_threads = True
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True)
    thread.start()
    try:
        yield server.server_address[1], seen
    finally:
        server.shutdown()
        server.server_close()


@pytest.fixture
def upstream() -> Iterator[tuple[int, Seen]]:
    """The port of an upstream, and what it saw."""
    with http_upstream() as found:
        yield found


@pytest.fixture
def seen(upstream: tuple[int, Seen]) -> Seen:
    """What reached the upstream."""
    return upstream[1]


@contextmanager
def raw_upstream(act: Callable[[socket.socket], None], listener: socket.socket | None = None) -> Iterator[int]:
    """A listener that does `act` with each connection, in a thread of its own, and hangs up everywhere at the end."""
    listener, connections = listener or socket.create_server(("127.0.0.1", 0)), list[socket.socket]()

    def serve_one(connection: socket.socket) -> None:
        with connection:
            connection.settimeout(PATIENCE)
            with suppress(OSError):  # the test ends as it likes
                act(connection)

    def serve() -> None:
        while True:
            try:
                connection, _ = listener.accept()
            except OSError:
                return
            connections.append(connection)
            threading.Thread(target=serve_one, args=(connection,), daemon=True).start()

    thread = threading.Thread(target=serve, daemon=True)
    thread.start()
    try:
        yield listener.getsockname()[1]
    finally:
        for each in (listener, *connections):
            with suppress(OSError):
                each.shutdown(socket.SHUT_RDWR)
        listener.close()
        thread.join(PATIENCE)


def pass_on(connection: socket.socket, port: int) -> None:
    """Carry every byte of a connection to a port of this machine and back, until one side ends."""
    with socket.create_connection(("127.0.0.1", port), PATIENCE) as onward:
        back = threading.Thread(target=_copy, args=(onward, connection), daemon=True)
        back.start()
        _copy(connection, onward)
        back.join(PATIENCE)


def _copy(source: socket.socket, to: socket.socket) -> None:
    with suppress(OSError):
        while data := source.recv(65_536):
            to.sendall(data)
    with suppress(OSError):
        to.shutdown(socket.SHUT_WR)


def reset_at_close(connection: socket.socket) -> None:
    """Make the next close an RST."""
    connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))


def read_head(connection: socket.socket) -> bytes:
    """A request's header."""
    data = b""
    while b"\r\n\r\n" not in data:
        part = connection.recv(65_536)
        if not part:
            raise ConnectionResetError
        data += part
    return data


def check_stops(client: Client) -> None:
    """A client that sends for ever to an upstream that does not read is stopped soon."""
    client.socket.settimeout(0.3)
    sent = 0
    with suppress(TimeoutError):
        while sent < 100_000_000:
            client.send(b"x" * 65_536)
            sent += 65_536
    assert sent < 30_000_000  # the kernel's buffers, not ours
