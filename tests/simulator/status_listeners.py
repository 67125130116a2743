"""A status listener with an OCSP response cache and one without, over the same application and clock."""

from __future__ import annotations

import asyncio
import base64
import re
import time
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass, field
from datetime import timedelta
from functools import cached_property, partial
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.serialization import Encoding
from cryptography.x509 import ocsp

from tests.simulator.listeners import PlainClient, Response, Served, serving
from tests.simulator.publishing import PublishedHospital, published_hospital
from vagus.authority.issuance import IssuedCertificate
from vagus.endpoints.http import ASGIApp, Receive, Scope, Send, send_response
from vagus.endpoints.revocation_status import OcspReplies, status_app
from vagus.server.overload import LoadGauge, SheddingOcsp
from vagus.transport.limits import Limits
from vagus.transport.listeners import ListenerSpec
from vagus.transport.ocsp_cache import OcspCache

LIMITS = Limits(header_seconds=0.4, stall_seconds=0.4, linger_seconds=0.5)
AGE = timedelta(seconds=60)
SLOW_SECONDS = 0.4
"""How long the application takes for /slow."""
LAST = b"GET /last HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n"
"""The request that ends a connection."""

_DATE = re.compile(rb"Date: [^\r]*\r\n")
_LENGTH = re.compile(rb"Content-Length: ([0-9]+)\r\n")


class Busy(LoadGauge):
    """A gauge whose reading a test sets."""

    def __init__(self) -> None:
        super().__init__(1.0)
        self.now = False

    @property
    def is_behind(self) -> bool:
        return self.now


@dataclass
class StatusListeners:
    """A published hospital with status listeners; `seen` counts what came as far as the application."""

    clinic: PublishedHospital
    gauge: Busy = field(default_factory=Busy)
    seen: list[str] = field(default_factory=list)

    def __post_init__(self) -> None:
        source = SheddingOcsp(self.clinic.responses, self.gauge)
        self.replies = OcspReplies(source, self.clinic.built.clock, AGE)
        self.ready = OcspCache(self.replies)
        self.app = self._watched(status_app(publications=self.clinic.crls, ocsp=self.replies))

    @cached_property
    def issued(self) -> IssuedCertificate:
        """A good certificate to ask about."""
        return self.clinic.issue()

    def question(self, nonce: bytes | None = None) -> bytes:
        """A request about that certificate."""
        return question(self.issued, nonce=nonce)

    def spec(self, name: str, limits: Limits = LIMITS, *, is_ready: bool = True) -> ListenerSpec:
        cache = self.ready if is_ready else None
        return ListenerSpec(name, "127.0.0.1", 0, app=self.app, ocsp_cache=cache, limits=limits)

    def cut(self, stream: bytes) -> list[bytes]:
        """The requests that are answered from the cache, one by one, and the rest."""
        pieces, begin = [], 0
        while begin < len(stream) and (found := self.ready.find_response(stream, begin)) is not None:
            pieces.append(stream[begin : found[1]])
            begin = found[1]
        return [*pieces, stream[begin:]]

    def _watched(self, app: ASGIApp) -> ASGIApp:
        async def watched(scope: Scope, receive: Receive, send: Send) -> None:
            self.seen.append(scope["path"])
            if scope["path"] == "/slow":
                await asyncio.sleep(SLOW_SECONDS)
                await send_response(send, 200, [(b"content-length", b"4")], b"slow")
            else:
                await app(scope, receive, send)

        return watched


@contextmanager
def status_listeners(template: Path, folder: Path) -> Iterator[StatusListeners]:
    with published_hospital(template, folder) as clinic:
        yield StatusListeners(clinic)


def both(status: StatusListeners, limits: Limits = LIMITS) -> AbstractContextManager[Served]:
    """`slow` has the application alone, `fast` the cache as well."""
    return serving(status.spec("slow", limits, is_ready=False), status.spec("fast", limits))


def question(
    issued: IssuedCertificate,
    algorithm: hashes.HashAlgorithm | None = None,
    *,
    nonce: bytes | None = None,
    serial: int | None = None,
) -> bytes:
    """As another library writes it, SHA-1 as most clients."""
    issuer = x509.load_der_x509_certificate(issued.issuer.certificate_der)
    leaf = x509.load_der_x509_certificate(issued.der)
    return question_about(leaf, issuer, algorithm, nonce=nonce, serial=serial)


def question_about(
    leaf: x509.Certificate,
    issuer: x509.Certificate,
    algorithm: hashes.HashAlgorithm | None = None,
    *,
    nonce: bytes | None = None,
    serial: int | None = None,
) -> bytes:
    """The same for a certificate and its issuer; `serial` is another one to ask about."""
    hashed = algorithm or hashes.SHA1()
    builder = ocsp.OCSPRequestBuilder().add_certificate(leaf, issuer, hashed)
    if serial is not None:
        like = builder.build()
        names = like.issuer_name_hash, like.issuer_key_hash
        builder = ocsp.OCSPRequestBuilder().add_certificate_by_hash(*names, serial, hashed)
    if nonce is not None:
        builder = builder.add_extension(x509.OCSPNonce(nonce), critical=False)
    return builder.build().public_bytes(Encoding.DER)


def post(request_der: bytes, extra: str = "", *, version: str = "1.1") -> bytes:
    head = (
        f"POST /ocsp HTTP/{version}\r\nHost: status.example\r\nContent-Type: application/ocsp-request\r\n"
        f"Content-Length: {len(request_der)}\r\n{extra}\r\n"
    )
    return head.encode() + request_der


def get(request_der: bytes, extra: str = "", *, version: str = "1.1") -> bytes:
    text = base64.b64encode(request_der).decode().replace("/", "%2F")
    return f"GET /ocsp/{text} HTTP/{version}\r\nHost: status.example\r\n{extra}\r\n".encode()


def status_of(response: Response) -> ocsp.OCSPCertStatus | ocsp.OCSPResponseStatus:
    found = ocsp.load_der_ocsp_response(response.body)
    if found.response_status is not ocsp.OCSPResponseStatus.SUCCESSFUL:
        return found.response_status
    return found.certificate_status


def say(port: int, *pieces: bytes, reads_each: bool = True) -> bytes:
    """All that comes back until the server ends the connection, Date left out.

    Each piece but the last is one request, whose response is read before the next piece is sent. Without `reads_each`
    the pieces are segments of what is sent, with nothing read between them.
    """
    heard = b""
    with PlainClient(port) as client:
        try:
            for piece in pieces[:-1]:
                client.send(piece)
                if reads_each:
                    heard += client.receive_until(b"\r\n\r\n")
                    heard += client.receive_exactly(int(_LENGTH.findall(heard)[-1]))
                else:
                    time.sleep(0.002)
            client.send(pieces[-1])
            while data := client.receive():
                heard += data
        except ConnectionError:
            heard += b"(cut)"
    return _DATE.sub(b"", heard)


say_cut = partial(say, reads_each=False)
"""`say` for bytes that come in these segments."""
