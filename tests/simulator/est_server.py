"""A hospital in memory: its authorities, and one TLS server on loopback that speaks EST and takes telemetry."""

from __future__ import annotations

import base64
import socket
from contextlib import suppress
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Self

from cryptography import x509
from cryptography.hazmat.primitives import serialization

from tests.simulator.certificates import SERVER_AUTH, Issued, make_authority
from tests.simulator.listeners import Client
from tests.simulator.orders import new_key
from tests.simulator.upstreams import raw_upstream
from vagus.errors import Malformed, NotTrusted
from vagus.testing import NOON
from vagus.tls import Credential, Peer, ServerContext, ServerTls, TlsStream
from vagus.wire.cms import encode_certs_only
from vagus_agent.routes import Route

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
        self._serving = raw_upstream(self._serve, self._socket)

    @property
    def port(self) -> int:
        return int(self._socket.getsockname()[1])

    def route(self, host: str = HOST) -> Route:
        return Route(host, "127.0.0.1", self.port, self._is_raw)

    def __enter__(self) -> Self:
        self._serving.__enter__()
        return self

    def __exit__(self, *_: object) -> None:
        self._serving.__exit__(None, None, None)

    def close(self) -> None:
        """Stop listening, for a server that never served."""
        self._socket.close()

    def _serve(self, accepted: socket.socket) -> None:
        client = _Accepted(accepted, self._context.new_stream(), self)
        with suppress(OSError, Malformed, NotTrusted):
            client.shake()
            peer = client.stream.peer()
            self.peers.append(peer)
            while True:
                if self._is_raw:
                    self._take_line(client)
                else:
                    self._take_request(client, peer)

    def _take_line(self, client: Client) -> None:
        client.receive_until(b"\n")
        if not self.behaviour.admits:
            raise OSError
        client.send(b"ok\n")

    def _take_request(self, client: Client, peer: Peer) -> None:
        head = client.receive_until(b"\r\n\r\n").decode("ascii").rstrip().split("\r\n")
        headers = {k.lower(): v.strip() for k, _, v in (line.partition(":") for line in head[1:])}
        method, path, _ = head[0].split(" ")
        body = client.receive_exactly(int(headers.get("content-length", "0")))
        request = Request(method, path, headers, body, peer)
        self.requests.append(request)
        answer = self._answer(request)
        if self.behaviour.drops_before_answer and method == "POST":
            self.behaviour.drops_before_answer -= 1
            raise OSError
        if self.behaviour.cut_answer and method == "POST":
            client.send(answer[: self.behaviour.cut_answer])
            raise OSError
        client.send(answer)
        if self.behaviour.closes_after_answer:
            raise OSError

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


class _Accepted(Client):
    """The server's end of a connection; counts the application's bytes."""

    def __init__(self, accepted: socket.socket, stream: TlsStream, server: Server) -> None:
        self.socket, self.stream, self.buffer = accepted, stream, b""
        self._server = server

    def shake(self) -> None:
        """The handshake, or the alert that ends it."""
        try:
            super().shake()
        finally:
            self.flush()

    def receive(self) -> bytes:
        is_new = not self.buffer
        data = super().receive()
        self._server.application_bytes += len(data) if is_new else 0
        return data


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
