"""A fetch is bounded in time and size, follows no redirect, and reports what it saw."""

from __future__ import annotations

import socket
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import pytest

from vagus.errors import Unavailable
from vagus.monitoring.http_fetch import HttpFetch
from vagus.reasons import Reason

_PATIENCE = 10.0


@contextmanager
def answering(answer: Callable[[socket.socket, bytes], None]) -> Iterator[tuple[str, int]]:
    """One connection is accepted, the head of its request read, and this response sent."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        server.settimeout(_PATIENCE)

        def serve() -> None:
            peer, _ = server.accept()
            with peer:
                peer.settimeout(_PATIENCE)
                request = b""
                while b"\r\n\r\n" not in request:
                    request += peer.recv(65_536)
                answer(peer, request)

        thread = threading.Thread(target=serve, daemon=True)
        thread.start()
        yield server.getsockname()
        thread.join(_PATIENCE)
        assert not thread.is_alive()


def reply(head: bytes, body: bytes = b"", seen: list[bytes] | None = None) -> Callable[[socket.socket, bytes], None]:
    """Send this response to the request, which is noted in `seen`."""
    noted = [] if seen is None else seen

    def answer(peer: socket.socket, request: bytes) -> None:
        noted.append(request)
        peer.sendall(head + b"\r\n\r\n" + body)

    return answer


def refused(fetch: HttpFetch, url: str = "http://status.group.example/crl/a/1/0.crl") -> Unavailable:
    with pytest.raises(Unavailable) as caught:
        fetch(url)
    assert caught.value.reason is Reason.STATUS_UNAVAILABLE
    return caught.value


def test_the_body_of_a_crl_comes_from_the_address_to_connect_to() -> None:
    seen: list[bytes] = []
    with answering(reply(b"HTTP/1.1 200 OK\r\nContent-Length: 5", b"\x30\x03\x0a\x01\x03", seen)) as address:
        body = HttpFetch(address)("http://status.group.example:8080/pki/crl/h1.icu/1/0.crl")
    assert body == b"\x30\x03\x0a\x01\x03"
    assert seen[0].startswith(b"GET /pki/crl/h1.icu/1/0.crl HTTP/1.1\r\n")
    assert b"Host: status.group.example:8080\r\n" in seen[0], "virtual hosts must find it"


def test_an_ocsp_request_is_posted() -> None:
    seen: list[bytes] = []
    with answering(reply(b"HTTP/1.1 200 OK\r\nContent-Length: 0", b"", seen)) as (host, port):
        assert HttpFetch()(f"http://{host}:{port}/ocsp", b"\x30\x00") == b""
    assert seen[0].startswith(b"POST /ocsp HTTP/1.1\r\n")
    assert b"Content-Type: application/ocsp-request\r\n" in seen[0]


@pytest.mark.parametrize("status", [b"404 Not Found", b"302 Found\r\nLocation: http://127.0.0.1:1/", b"503 Busy"])
def test_any_status_but_200_is_reported(status: bytes) -> None:
    with answering(reply(b"HTTP/1.1 " + status + b"\r\nContent-Length: 0")) as address:
        assert refused(HttpFetch(address)).facts["status"] == int(status[:3])


def test_a_body_that_is_too_large_is_cut_off() -> None:
    with answering(reply(b"HTTP/1.1 200 OK\r\nContent-Length: 5000", bytes(5000))) as address:
        assert "larger than 1000" in refused(HttpFetch(address, limit=1000)).message


def test_a_body_that_ends_early_is_refused() -> None:
    with answering(reply(b"HTTP/1.1 200 OK\r\nContent-Length: 50", bytes(20))) as address:
        assert "status" not in refused(HttpFetch(address)).facts


def test_a_server_that_does_not_respond_is_given_up() -> None:
    done = threading.Event()

    def wait(_peer: socket.socket, _request: bytes) -> None:
        done.wait(_PATIENCE)

    with answering(wait) as address:
        refused(HttpFetch(address, seconds=0.2))
        done.set()


def test_an_address_without_a_server_is_reported() -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        address = taken.getsockname()
    assert "status" not in refused(HttpFetch(address)).facts


@pytest.mark.parametrize(
    "url", ["https://status.group.example/a", "ldap://x/cn=crl", "http:///crl", "file:///etc/hosts"]
)
def test_only_plain_http_is_fetched(url: str) -> None:
    refused(HttpFetch(("127.0.0.1", 1)), url)
