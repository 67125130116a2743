"""A gateway that serves in a thread, a judge that judges real certificates, and a client that can misbehave."""

from __future__ import annotations

import asyncio
import base64
import json
import socket
import threading
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any, Self, cast

import pytest
import uvloop
from cryptography import x509
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.serialization import pkcs7

from tests.simulator.certificates import TestAuthority, authority, pump
from tests.simulator.upstreams import reset_at_close
from tests.simulator.waiting import wait_until
from vagus.endpoints.gateway.decisions import ConnectionDecision, Outcome
from vagus.errors import Conflict, NotTrusted
from vagus.fleet.admission import Admitted, PeerCredential
from vagus.identifiers import DeviceName
from vagus.policy.values import SessionOnRevocation
from vagus.reasons import Reason
from vagus.records.device_changes import DeviceChange
from vagus.records.engine.commit_facts import RevocationEvent
from vagus.testing import FrozenClock
from vagus.tls import ClientContext, ClientTls, Credential, Peer, Session
from vagus.transport.listeners import ListenerSpec, RunningListeners, start
from vagus.trust.validation import AcceptedIdentity
from vagus.x509.certificates import PathCertificate, decode_certificate

PATIENCE = 10.0


def admitted(name: str, *path: PathCertificate, **facts: Any) -> Admitted:
    """A verdict that admits the device of a certificate; only the text of its name is used here."""
    identity = AcceptedIdentity(
        device_name=cast("DeviceName", name),
        leaf_sha256=path[0].sha256,
        issuer_der=path[-1].der,
        serial=path[0].serial,
        not_after=path[0].not_after,
        path=path,
        anchor_sha256=b"",
    )
    return Admitted(credential=PeerCredential.LDEVID, function=None, identity=identity, **facts)


@dataclass
class PeerJudge:
    """Judges by signature up to the root, revoked serials and device states; knows the intermediate authorities."""

    installation: TestAuthority = field(default_factory=authority)
    session_on_revocation: SessionOnRevocation = SessionOnRevocation.CLOSE
    on_grace: NotTrusted | None = None
    position: int = 0
    judged: int = 0
    revoked: set[int] = field(default_factory=set)
    locked: dict[str, Reason] = field(default_factory=dict)
    decisions: list[ConnectionDecision] = field(default_factory=list)
    _callbacks: list[Callable[[Sequence[RevocationEvent]], None]] = field(default_factory=list)
    _device_callbacks: list[Callable[[Sequence[DeviceChange]], None]] = field(default_factory=list)

    def admit(self, peer: Peer, source: str) -> Admitted:
        self.judged += 1
        assert source == "127.0.0.1"
        if peer.leaf_der is None:
            raise NotTrusted(Reason.CREDENTIAL_MISSING, "this listener asks for a certificate; show one")
        known = {self.installation.issuing.certificate.subject: self.installation.issuing.certificate}
        path = [x509.load_der_x509_certificate(peer.leaf_der)]
        shown = [x509.load_der_x509_certificate(der) for der in peer.chain_der]
        for _ in range(5):
            if path[-1].issuer == self.installation.root.certificate.subject:
                break
            above = [each for each in shown if each.subject == path[-1].issuer]
            path.append(above[0] if above else known[path[-1].issuer])
        try:
            for below, above_it in zip(path, [*path[1:], self.installation.root.certificate], strict=True):
                below.verify_directly_issued_by(above_it)
        except InvalidSignature:
            raise NotTrusted(Reason.BAD_SIGNATURE, "a signature in the path does not verify") from None
        for place, certificate in enumerate(path):
            if certificate.serial_number in self.revoked:
                raise NotTrusted(Reason.REVOKED_CA if place else Reason.REVOKED, "the certificate is revoked")
        name = path[0].subject.rfc4514_string().removeprefix("CN=")
        if (reason := self.locked.get(name.partition(".")[0])) is not None:
            raise Conflict(reason, "the device is quarantined")
        links = [decode_certificate(each.public_bytes(serialization.Encoding.DER)) for each in path]
        facts = {"session_on_revocation": self.session_on_revocation, "on_grace": self.on_grace}
        return admitted(name, *links, **facts)

    def subscribe(self, callback: Callable[[Sequence[RevocationEvent]], None]) -> None:
        self._callbacks.append(callback)

    def subscribe_devices(self, callback: Callable[[Sequence[DeviceChange]], None]) -> None:
        self._device_callbacks.append(callback)

    def revoke(self, serial: int) -> None:
        self.revoked.add(serial)
        self.position += 1
        for callback in self._callbacks:
            callback([RevocationEvent(1, 1, serial, "revoke", 1, 0)])

    def change(self, device_id: str, reason: Reason | None) -> None:
        """Something becomes of a device: locked out for a reason, or not."""
        if reason is not None:
            self.locked[device_id] = reason
        self.position += 1
        for callback in self._device_callbacks:
            callback([DeviceChange(1, device_id, 0)])

    def told(self, outcome: Outcome) -> list[ConnectionDecision]:
        return [each for each in self.decisions if each.outcome is outcome]

    def wait_decided(self, outcome: Outcome, count: int = 1) -> ConnectionDecision:
        wait_until(lambda: len(self.told(outcome)) >= count)
        return self.told(outcome)[-1]


@pytest.fixture
def judge() -> PeerJudge:
    """A judge that has refused no peer yet."""
    return PeerJudge()


@dataclass
class Served:
    """Listeners that serve in a thread of their own."""

    loop: asyncio.AbstractEventLoop
    running: RunningListeners

    def port(self, name: str = "gate") -> int:
        return self.running.addresses[name][1]

    def check_admits(self) -> None:
        """A good device is served."""
        with Client(self.port(), pump().credential) as client:
            assert client.get().status == 200

    def on_loop(self, act: Callable[[], object]) -> object:
        """Do something on the loop's thread and wait for it."""
        done: Future[object] = Future()
        self.loop.call_soon_threadsafe(lambda: done.set_result(act()))
        return done.result(PATIENCE)


@contextmanager
def serving(*specs: ListenerSpec, judges: Sequence[PeerJudge] = (), grace: float = 0.2) -> Iterator[Served]:
    """Serve `specs` until the block ends."""
    found: Future[asyncio.AbstractEventLoop] = Future()
    failures: list[dict[str, object]] = []

    def run_loop() -> None:
        with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
            loop = runner.get_loop()
            loop.set_exception_handler(lambda _, context: failures.append(context))
            found.set_result(loop)
            loop.run_forever()

    thread = threading.Thread(target=run_loop, daemon=True)
    thread.start()
    loop = found.result(PATIENCE)
    feeds, devices = [judge.subscribe for judge in judges], [judge.subscribe_devices for judge in judges]
    starting = start(specs, clock=FrozenClock(), feeds=feeds, devices=devices)
    try:
        running = asyncio.run_coroutine_threadsafe(starting, loop).result(PATIENCE)
        try:
            yield Served(loop, running)
        finally:
            asyncio.run_coroutine_threadsafe(running.stop(grace), loop).result(PATIENCE)
    finally:
        loop.call_soon_threadsafe(loop.stop)
        thread.join(PATIENCE)
        assert not thread.is_alive(), "the listeners do not stop"
    assert not failures, failures


@dataclass(frozen=True)
class Response:
    """What an HTTP server answered."""

    status: int
    headers: dict[str, str]
    body: bytes

    @property
    def refusal(self) -> tuple[int, str]:
        """The status, and the reason in the problem document of the body."""
        return self.status, json.loads(self.body)["reason"]

    @property
    def reason(self) -> str:
        """The stable code of a problem."""
        said = json.loads(self.body)
        return str(said.get("reason") or said.get("code"))

    @property
    def certificate(self) -> x509.Certificate:
        """The certificate in a response of EST."""
        assert self.status == 200, (self.status, self.body[:300])
        return pkcs7.load_der_pkcs7_certificates(base64.b64decode(self.body))[0]


class Client:
    """A TLS client over a blocking socket."""

    def __init__(
        self,
        port: int,
        credential: Credential | None = None,
        *,
        context: ClientContext | None = None,
        session: Session | None = None,
    ) -> None:
        self.context = context or ClientContext(ClientTls(credential=credential, anchors_der=(authority().root.der,)))
        self.socket = socket.create_connection(("127.0.0.1", port), PATIENCE)
        self.stream = self.context.new_stream("localhost", session)
        self.buffer = b""
        try:
            self.shake()
        except BaseException:
            self.socket.close()
            raise

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.socket.close()

    def shake(self) -> None:
        while not self.stream.handshake():
            self.flush()
            data = self.socket.recv(65_536)
            if not data:
                raise ConnectionResetError("closed in the handshake")
            self.stream.feed(data)
        self.flush()

    def flush(self) -> None:
        self.socket.sendall(self.stream.take())

    def send(self, data: bytes) -> None:
        self.stream.write(data)
        self.flush()

    def receive(self) -> bytes:
        """The next plaintext; b"" after close_notify. Raises ConnectionError when the stream is cut."""
        if self.buffer:
            data, self.buffer = self.buffer, b""
            return data
        while (got := self.stream.read()) is None:
            if self.stream.has_answer:
                self.flush()
            data = self.socket.recv(262_144)
            if not data:
                raise ConnectionResetError("FIN without close_notify")
            self.stream.feed(data)
        return got

    def receive_exactly(self, size: int) -> bytes:
        parts: list[bytes] = []
        have = 0
        while have < size:
            data = self.receive()
            if not data:
                raise ConnectionResetError(f"closed after {have} of {size}")
            parts.append(data)
            have += len(data)
        whole = b"".join(parts)
        self.buffer = whole[size:] + self.buffer
        return whole[:size]

    def receive_until(self, mark: bytes) -> bytes:
        whole = b""
        while mark not in whole:
            data = self.receive()
            if not data:
                raise ConnectionResetError("closed")
            whole += data
        at = whole.index(mark) + len(mark)
        self.buffer = whole[at:] + self.buffer
        return whole[:at]

    def is_closed(self) -> bool:
        """Whether the other side has ended the connection, waiting for it."""
        try:
            return self.receive() == b""
        except ConnectionError:
            return True

    def was_cut(self) -> bool:
        """Whether the end came without close_notify."""
        try:
            while self.receive():
                pass
        except ConnectionError:
            return True
        return False

    def close_notify(self) -> None:
        self.stream.close()
        self.flush()

    def reset(self) -> None:
        reset_at_close(self.socket)
        self.socket.close()

    def read_response(self, *, is_head: bool = False) -> Response:
        head = self.receive_until(b"\r\n\r\n").decode("latin-1").split("\r\n")
        headers = {name.lower(): value.strip() for name, _, value in (line.partition(":") for line in head[1:] if line)}
        status = int(head[0].split(" ")[1])
        if is_head or status in {100, 204, 304}:
            return Response(status, headers, b"")
        if headers.get("transfer-encoding") == "chunked":
            body = b""
            while size := int(self.receive_until(b"\r\n"), 16):
                body += self.receive_exactly(size)
                self.receive_exactly(2)
            self.receive_exactly(2)
            return Response(status, headers, body)
        return Response(status, headers, self.receive_exactly(int(headers.get("content-length", "0"))))

    def get(self, path: str = "/", extra: str = "") -> Response:
        self.send(f"GET {path} HTTP/1.1\r\nHost: localhost\r\n{extra}\r\n".encode())
        return self.read_response()

    def post(self, body: bytes, path: str = "/", extra: str = "") -> Response:
        head = f"POST {path} HTTP/1.1\r\nHost: localhost\r\nContent-Length: {len(body)}\r\n{extra}\r\n"
        self.send(head.encode() + body)
        return self.read_response()


class PlainClient(Client):
    """The same words without TLS of ours: on a port, or on a connection that is there."""

    def __init__(self, place: int | socket.socket) -> None:
        self.socket = socket.create_connection(("127.0.0.1", place), PATIENCE) if isinstance(place, int) else place
        self.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self.buffer = b""

    def send(self, data: bytes) -> None:
        self.socket.sendall(data)

    def receive(self) -> bytes:
        if self.buffer:
            data, self.buffer = self.buffer, b""
            return data
        return self.socket.recv(262_144)
