"""Devices that enrol with tokens over real TLS and repeat the same request until somebody answers."""

from __future__ import annotations

import base64
import http.client
import queue
import ssl
import threading
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from itertools import islice

from cryptography import x509
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import pkcs7

from tests.durability.journal import Journal
from tests.simulator.orders import new_key, signing_request

_PATIENCE_SECONDS = 120

LEFT_OPEN = "ignore:unclosed <ssl.SSLSocket:ResourceWarning"
"""For tests that kill servers: Python's `wrap_socket` leaves a socket open that is reset before its handshake."""


@dataclass
class Wish:
    """One device's wish for a certificate: the same token and CSR at every try."""

    device: str
    token: str
    csr: bytes = field(default=b"", repr=False)
    key: ec.EllipticCurvePrivateKey = field(init=False, repr=False)

    def __post_init__(self) -> None:
        self.key = new_key()
        self.csr = base64.b64encode(signing_request(self.key, x509.Name([])))

    @property
    def headers(self) -> dict[str, str]:
        """What goes with the CSR."""
        basic = base64.b64encode(f"{self.device}:{self.token}".encode()).decode()
        return {"Content-Type": "application/pkcs10", "Authorization": f"Basic {basic}"}


class ListenerConnection(http.client.HTTPSConnection):
    """HTTPS to a loopback address whose certificate must show the listener's own host name."""

    def __init__(self, address: tuple[str, int], host_name: str, trust: ssl.SSLContext) -> None:
        super().__init__(*address, timeout=20)
        self._name, self._trust = host_name, trust

    def connect(self) -> None:
        """TCP, then TLS under the listener's name."""
        http.client.HTTPConnection.connect(self)
        self.sock = self._trust.wrap_socket(self.sock, server_hostname=self._name)


def pinning(anchor: str) -> ssl.SSLContext:
    """A client that trusts servers under this authority alone, which need not be a root."""
    context = ssl.create_default_context(cadata=anchor)
    context.verify_flags |= ssl.VERIFY_X509_PARTIAL_CHAIN
    return context


def enrol(connection: http.client.HTTPSConnection, wish: Wish, label: str | None = None) -> bytes:
    """The certificate's DER, requested under an EST label or under none (RFC 7030 section 3.2.2).

    Raises ConnectionError when there is no response, RuntimeError for a refusal.
    """
    path = "/.well-known/est/" + (f"{label}/" if label else "") + "simpleenroll"
    connection.request("POST", path, wish.csr, wish.headers)
    answer = connection.getresponse()
    body = answer.read()
    if answer.status == 503:
        raise ConnectionError("try again later")
    if answer.status != 200:
        raise RuntimeError(f"{answer.status}: {body[:300]!r}")
    certificates = pkcs7.load_der_pkcs7_certificates(base64.b64decode(body))
    return certificates[0].public_bytes(serialization.Encoding.DER)


class Clients:
    """Threads that take wishes from a queue and fulfil each, however often the server dies."""

    def __init__(self, tokens: Mapping[str, str], journal: Journal, trust: ssl.SSLContext, count: int = 4) -> None:
        self._queue: queue.SimpleQueue[Wish] = queue.SimpleQueue()
        self._tokens = iter(tokens.items())
        self.fed = 0
        self._journal, self._trust = journal, trust
        self.address: tuple[str, int] | None = None
        self.failures: list[str] = []
        self.received: queue.SimpleQueue[bytes] = queue.SimpleQueue()
        self._is_over = False
        self._threads = [threading.Thread(target=self._run, daemon=True) for _ in range(count)]

    def start(self) -> None:
        """Begin."""
        for thread in self._threads:
            thread.start()

    def stop(self) -> None:
        """Let each thread finish what it has in hand, and wait for them."""
        self._is_over = True
        for thread in self._threads:
            thread.join(_PATIENCE_SECONDS)

    def feed(self, least: int) -> None:
        """Let at least so many wishes wait, as long as there are tokens."""
        for device, token in islice(self._tokens, max(0, least - self._queue.qsize())):
            self._queue.put(Wish(device, token))
            self.fed += 1

    @property
    def is_idle(self) -> bool:
        """Whether every wish is fulfilled."""
        return self._queue.empty()

    def _run(self) -> None:
        connection: ListenerConnection | None = None
        while not self._is_over:
            try:
                wish = self._queue.get(timeout=0.1)
            except queue.Empty:
                continue
            deadline = time.monotonic() + _PATIENCE_SECONDS
            while time.monotonic() < deadline:
                at = self.address
                if at is None:
                    time.sleep(0.02)
                    continue
                try:
                    connection = connection or ListenerConnection(at, "enrol.test.example", self._trust)
                    der = enrol(connection, wish)
                except (OSError, http.client.HTTPException):
                    if connection is not None:
                        connection.close()
                    connection = None
                    time.sleep(0.05)
                    continue
                except RuntimeError as refused:
                    self.failures.append(f"{wish.device}: {refused}")
                    break
                self._journal.note("certificate", device=wish.device, der=der.hex())
                self.received.put(der)
                break
        if connection is not None:
            connection.close()
