"""A hospital in memory: its authorities, and one TLS server on loopback that speaks EST and takes telemetry."""

from __future__ import annotations

import base64
import socket
import threading
from contextlib import suppress
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import TYPE_CHECKING, Self

from cryptography import x509
from cryptography.hazmat.primitives import serialization

from tests.simulator.certificates import SERVER_AUTH, Issued, make_authority
from tests.simulator.orders import new_key
from vagus.errors import Malformed, NotTrusted
from vagus.testing import NOON
from vagus.tls import Credential, Peer, ServerContext, ServerTls, TlsStream
from vagus.wire.cms import encode_certs_only
from vagus_agent.routes import Route

if TYPE_CHECKING:
    from types import TracebackType

HOST = "enrol.h1.group.example"
DEVICE = "a" * 25 + "e"
DEVICE_NAME = f"{DEVICE}.icu.h1.group.example"
CRL_PATH = "/crl/h1.infra/1/0.crl"


class Hierarchy:
    """One hospital's authorities: a group root, its infrastructure CA, its device CA and a unit CA; a maker's line."""

    def __init__(self, hospital: str = "h1", now: datetime = NOON) -> None:
        self.root = make_authority("group root", now=now)
        self.infrastructure = make_authority(f"{hospital}/infra", self.root, now=now)
        self.device_ca = make_authority(hospital, self.root, now=now)
        self.unit = make_authority(f"{hospital}/icu", self.device_ca, path_length=0, now=now)
        self.maker = make_authority("maker line", now=now)

    def server_credential(self, host: str = HOST, changes: dict[str, object] | None = None) -> Credential:
        key = new_key()
        facts: dict[str, object] = {
            "dns_names": (host,),
            "addresses": ("127.0.0.1",),
            "roles": (SERVER_AUTH,),
            "crl_url": f"http://status.group.example{CRL_PATH}",
        }
        leaf = self.infrastructure.certify(key, **{**facts, **(changes or {})})  # type: ignore[arg-type]
        return Issued(leaf, key, (self.infrastructure.certificate,)).credential

    def idevid(self) -> Credential:
        key = new_key()
        leaf = self.maker.certify(key, common_name="AIP3-0001", roles=())
        return Issued(leaf, key).credential


@dataclass
class Request:
    """What reached the server after the handshake."""

    method: str
    path: str
    headers: dict[str, str]
    body: bytes
    peer: Peer


@dataclass
class Behaviour:
    """How the server answers; tests bend it."""

    now: datetime = NOON
    lifetime: timedelta = timedelta(days=365)
    not_before: timedelta = timedelta(hours=-1)
    name: str = DEVICE_NAME
    token: str | None = None
    refuse: dict[str, tuple[int, bytes]] = field(default_factory=dict)
    checkpoint: bytes | None = None
    serves_crl: bool = True
    revoked: tuple[int, ...] = ()
    wrong_key: bool = False
    cut_answer: int = 0
    retry_after: int | None = None
    closes_after_answer: bool = False
    drops_before_answer: int = 0
    admits: bool = True


class Server:
    """Threads over real sockets; counts what came. Use as a context manager; ends by itself."""

    def __init__(
        self,
        hierarchy: Hierarchy,
        credential: Credential | None = None,
        behaviour: Behaviour | None = None,
        *,
        tls: ServerTls | None = None,
        is_raw: bool = False,
    ) -> None:
        self.hierarchy = hierarchy
        self.behaviour = behaviour or Behaviour()
        self.requests: list[Request] = []
        self.peers: list[Peer] = []
        self.application_bytes = 0
        self._is_raw = is_raw
        settings = tls or ServerTls(client_auth="optional", alpn=() if is_raw else ("http/1.1",))
        own = credential or hierarchy.server_credential()
        self.serial = x509.load_pem_x509_certificate(own.chain_pem).serial_number
        self._context = ServerContext(own, settings)
        self._socket = socket.create_server(("127.0.0.1", 0))
        self._threads: list[threading.Thread] = []
        self._open: list[socket.socket] = []
        self._is_over = False

    @property
    def port(self) -> int:
        return int(self._socket.getsockname()[1])

    def route(self, host: str = HOST) -> Route:
        return Route(host, "127.0.0.1", self.port, self._is_raw)

    def __enter__(self) -> Self:
        thread = threading.Thread(target=self._accept, daemon=True)
        thread.start()
        self._threads.append(thread)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """Hang up everywhere and wait for the threads."""
        self._is_over = True
        with suppress(OSError):
            self._socket.shutdown(socket.SHUT_RDWR)
        self._socket.close()
        for each in self._open:
            with suppress(OSError):
                each.shutdown(socket.SHUT_RDWR)
        for thread in self._threads:
            thread.join(10)

    def _accept(self) -> None:
        while not self._is_over:
            try:
                accepted, _ = self._socket.accept()
            except OSError:
                return
            self._open.append(accepted)
            thread = threading.Thread(target=self._serve, args=(accepted,), daemon=True)
            thread.start()
            self._threads.append(thread)

    def _serve(self, accepted: socket.socket) -> None:
        accepted.settimeout(20)
        stream = self._context.new_stream()
        with accepted, suppress(OSError, Malformed, NotTrusted):
            try:
                while not stream.handshake():
                    accepted.sendall(stream.take())
                    data = accepted.recv(65536)
                    if not data:
                        return
                    stream.feed(data)
            finally:
                accepted.sendall(stream.take())
            peer = stream.peer()
            self.peers.append(peer)
            buffer = b""
            while True:
                data = self._read(accepted, stream)
                if not data:
                    break
                buffer += data
                buffer = self._answer_all(accepted, stream, peer, buffer)
            stream.close()
            accepted.sendall(stream.take())

    def _read(self, accepted: socket.socket, stream: TlsStream) -> bytes:
        while True:
            data = stream.read()
            if stream.has_answer:
                accepted.sendall(stream.take())
            if data is not None:
                self.application_bytes += len(data)
                return data
            piece = accepted.recv(65536)
            if not piece:
                return b""
            stream.feed(piece)

    def _answer_all(self, accepted: socket.socket, stream: TlsStream, peer: Peer, buffer: bytes) -> bytes:
        if self._is_raw:
            if not self.behaviour.admits:
                raise OSError
            stream.write(b"ok\n" * buffer.count(b"\n"))
            accepted.sendall(stream.take())
            return buffer.rpartition(b"\n")[2]
        while (end := buffer.find(b"\r\n\r\n")) >= 0:
            head = buffer[:end].decode("ascii").split("\r\n")
            headers = {k.lower(): v.strip() for k, _, v in (line.partition(":") for line in head[1:])}
            size = int(headers.get("content-length", "0"))
            if len(buffer) < end + 4 + size:
                break
            method, path, _ = head[0].split(" ")
            request = Request(method, path, headers, buffer[end + 4 : end + 4 + size], peer)
            buffer = buffer[end + 4 + size :]
            self.requests.append(request)
            answer = self._answer(request)
            if self.behaviour.drops_before_answer and method == "POST":
                self.behaviour.drops_before_answer -= 1
                raise OSError
            if self.behaviour.cut_answer and method == "POST":
                stream.write(answer[: self.behaviour.cut_answer])
                accepted.sendall(stream.take())
                raise OSError
            stream.write(answer)
            accepted.sendall(stream.take())
            if self.behaviour.closes_after_answer:
                raise OSError
        return buffer

    def _answer(self, request: Request) -> bytes:
        operation = request.path.rpartition("/")[2]
        refusal = self.behaviour.refuse.get(request.path) or self.behaviour.refuse.get(operation)
        if refusal is not None:
            return _encode(refusal[0], refusal[1], "application/problem+json", self.behaviour.retry_after)
        h = self.hierarchy
        if request.path == CRL_PATH and self.behaviour.serves_crl:
            return _encode(
                200, h.infrastructure.crl(self.behaviour.now, self.behaviour.revoked), "application/pkix-crl"
            )
        if request.path == "/log/checkpoint" and self.behaviour.checkpoint is not None:
            return _encode(200, self.behaviour.checkpoint, "text/plain")
        if request.path == "/telemetry":
            return _encode(204, b"", None)
        if operation == "cacerts":
            return _encode_certificates(h.root.der, h.infrastructure.der, h.device_ca.der, h.unit.der)
        if operation in {"simpleenroll", "simplereenroll"}:
            return self._enrol(request, operation)
        return _encode(404, b"nothing here", "text/plain")

    def _enrol(self, request: Request, operation: str) -> bytes:
        behaviour = self.behaviour
        given = request.headers.get("authorization", "")
        expected = base64.b64encode(f"device:{behaviour.token}".encode()).decode()
        has_token = behaviour.token is not None and given == f"Basic {expected}"
        if request.peer.leaf_der is None and not has_token:
            return _encode(401, b"prove yourself", "text/plain")
        csr = x509.load_der_x509_csr(base64.b64decode(request.body))
        assert csr.is_signature_valid
        if operation == "simplereenroll":
            assert request.peer.leaf_der is not None
            current = x509.load_der_x509_certificate(request.peer.leaf_der)
            san = x509.SubjectAlternativeName
            assert csr.subject == current.subject
            assert (
                csr.extensions.get_extension_for_class(san).value
                == current.extensions.get_extension_for_class(san).value
            )
        leaf = self.hierarchy.unit.certify(
            new_key() if behaviour.wrong_key else csr,
            common_name=DEVICE,
            dns_names=(behaviour.name,) if behaviour.name else (),
            not_before=behaviour.now + behaviour.not_before,
            lifetime=behaviour.lifetime,
        )
        return _encode_certificates(leaf.public_bytes(serialization.Encoding.DER))


def problem(status: int, reason: str, detail: str = "no") -> tuple[int, bytes]:
    """A refusal as this installation words it."""
    text = f'{{"type":"about:blank","title":"x","status":{status},"detail":"{detail}","reason":"{reason}"}}'
    return status, text.encode()


def _encode_certificates(*ders: bytes) -> bytes:
    body = base64.b64encode(encode_certs_only(ders))
    return _encode(200, body, "application/pkcs7-mime; smime-type=certs-only")


def _encode(status: int, body: bytes, content_type: str | None, retry_after: int | None = None) -> bytes:
    head = f"HTTP/1.1 {status} Whatever\r\n"
    if status != 204:
        head += f"Content-Length: {len(body)}\r\n"
    if retry_after is not None:
        head += f"Retry-After: {retry_after}\r\n"
    if content_type is not None:
        head += f"Content-Type: {content_type}\r\n"
    return head.encode() + b"\r\n" + body
