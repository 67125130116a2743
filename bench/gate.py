"""The gateway's full mutual handshakes and its relay, per second of the server's CPU, beside OpenSSL alone."""

from __future__ import annotations

import asyncio
import multiprocessing
import os
import socket
import statistics
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from multiprocessing.connection import Connection

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID
from OpenSSL import SSL, crypto

from bench.rig.servers import cpu_seconds
from bench.rows import Row, cpu_rate
from vagus.endpoints.gateway.tcp_relay import AdmittedStream, tcp_relay
from vagus.endpoints.gateway.upstream import Upstream
from vagus.fleet.admission import Admitted, PeerCredential
from vagus.tls import ClientContext, ClientTls, Credential, Peer, ServerContext, ServerTls
from vagus.transport.listeners import ListenerSpec, RunningListeners, run
from vagus.trust.anchors import AnchorSet
from vagus.trust.crl_status import CrlStatus
from vagus.trust.validation import Expectation, Role, Validator
from vagus.x509.certificates import decode_certificate
from vagus.x509.paths.search import Pool

HANDSHAKES, ROUNDS = 200, 4
RELAYED = 256 * 1024 * 1024
_DAY = timedelta(days=1)
_NOW = datetime.now(UTC)
_CORES = os.sched_getaffinity(0)
Key = ec.EllipticCurvePrivateKey


class WallClock:
    """The time of day."""

    def now(self) -> datetime:
        """Now."""
        return datetime.now(UTC)


@dataclass(frozen=True)
class Material:
    """A hierarchy of root, hospital and unit, with CRLs, and as many devices as handshakes."""

    root: x509.Certificate
    above: tuple[x509.Certificate, ...]
    crls: tuple[x509.CertificateRevocationList, ...]
    server: Credential
    devices: tuple[Credential, ...]


def _certificate(name: str, key: Key, issuer: tuple[x509.Certificate, Key] | None, *, is_ca: bool) -> x509.Certificate:
    subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])
    signer = issuer[1] if issuer else key
    usage = x509.KeyUsage(
        digital_signature=not is_ca,
        content_commitment=False,
        key_encipherment=False,
        data_encipherment=False,
        key_agreement=False,
        key_cert_sign=is_ca,
        crl_sign=is_ca,
        encipher_only=False,
        decipher_only=False,
    )
    builder = (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(issuer[0].subject if issuer else subject)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(_NOW - _DAY)
        .not_valid_after(_NOW + 300 * _DAY)
        .add_extension(x509.BasicConstraints(ca=is_ca, path_length=None), critical=True)
        .add_extension(usage, critical=True)
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(key.public_key()), critical=False)
        .add_extension(x509.AuthorityKeyIdentifier.from_issuer_public_key(signer.public_key()), critical=False)
    )
    if not is_ca:
        both = [ExtendedKeyUsageOID.CLIENT_AUTH, ExtendedKeyUsageOID.SERVER_AUTH]
        builder = builder.add_extension(x509.SubjectAlternativeName([x509.DNSName(name)]), critical=False)
        builder = builder.add_extension(x509.ExtendedKeyUsage(both), critical=False)
    return builder.sign(signer, hashes.SHA256())


def _crl(issuer: tuple[x509.Certificate, Key]) -> x509.CertificateRevocationList:
    builder = (
        x509.CertificateRevocationListBuilder()
        .issuer_name(issuer[0].subject)
        .last_update(_NOW - timedelta(hours=1))
        .next_update(_NOW + 7 * _DAY)
        .add_extension(x509.CRLNumber(1), critical=False)
        .add_extension(x509.AuthorityKeyIdentifier.from_issuer_public_key(issuer[1].public_key()), critical=False)
    )
    for _ in range(1000):
        gone = x509.RevokedCertificateBuilder().serial_number(x509.random_serial_number())
        builder = builder.add_revoked_certificate(gone.revocation_date(_NOW - _DAY).build())
    return builder.sign(issuer[1], hashes.SHA256())


def _credential(chain: list[x509.Certificate], key: Key) -> Credential:
    pem = serialization.Encoding.PEM
    secret = key.private_bytes(pem, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
    return Credential(b"".join(each.public_bytes(pem) for each in chain), secret)


def make_material(devices: int) -> Material:
    """Keys and certificates, made anew."""
    keys = [ec.generate_private_key(ec.SECP256R1()) for _ in range(3)]
    root = _certificate("root", keys[0], None, is_ca=True)
    hospital = _certificate("h1", keys[1], (root, keys[0]), is_ca=True)
    unit = _certificate("icu", keys[2], (hospital, keys[1]), is_ca=True)

    def leaf(name: str) -> Credential:
        key = ec.generate_private_key(ec.SECP256R1())
        return _credential([_certificate(name, key, (unit, keys[2]), is_ca=False), unit, hospital], key)

    return Material(
        root=root,
        above=(unit, hospital),
        crls=(_crl((root, keys[0])), _crl((hospital, keys[1])), _crl((unit, keys[2]))),
        server=leaf("localhost"),
        devices=tuple(leaf(f"device{number}.icu.h1.test") for number in range(devices)),
    )


def _der(value: x509.Certificate | x509.CertificateRevocationList) -> bytes:
    return value.public_bytes(serialization.Encoding.DER)


def _gate(material: Material, addresses: Connection, upstream: Upstream | None) -> None:
    """Serve as the product does, until killed by the parent."""
    anchors = AnchorSet.from_der([_der(material.root)])
    clock = WallClock()
    known = [decode_certificate(_der(each)) for each in material.above]
    status = CrlStatus(Pool(anchors, known))
    for crl in material.crls:
        status.load(_der(crl), clock.now())
    validator = Validator(anchors, status, known=[_der(each) for each in material.above])
    expectation = Expectation(role=Role.CLIENT, needs_identity=False)

    def admit(peer: Peer, _source: str) -> Admitted:
        assert peer.leaf_der is not None
        identity = validator.validate(peer.leaf_der, peer.chain_der, expectation, clock.now())
        return Admitted(credential=PeerCredential.LDEVID, function=None, identity=identity)

    class SayOk(asyncio.Protocol):
        def __init__(self, _stream: AdmittedStream) -> None:
            pass

        def connection_made(self, transport: asyncio.BaseTransport) -> None:
            assert isinstance(transport, asyncio.Transport)
            transport.write(b"ok")
            transport.close()

    def started(running: RunningListeners) -> None:
        addresses.send(running.addresses["gate"][1])

    stream: Callable[[AdmittedStream], asyncio.Protocol] = SayOk if upstream is None else tcp_relay(upstream)
    tls = ServerContext(material.server, ServerTls(alpn=()))
    run([ListenerSpec("gate", "127.0.0.1", 0, stream=stream, tls=tls, admit=admit)], clock=clock, started=started)


def _openssl(material: Material, addresses: Connection) -> None:
    """OpenSSL alone: its own chain and CRL check, blocking sockets, nothing of ours."""
    context = SSL.Context(SSL.TLS_SERVER_METHOD)
    context.set_min_proto_version(SSL.TLS1_3_VERSION)
    chain = x509.load_pem_x509_certificates(material.server.chain_pem)
    context.use_certificate(chain[0])
    for each in chain[1:]:
        context.add_extra_chain_cert(each)
    context.use_privatekey(crypto.load_privatekey(crypto.FILETYPE_PEM, material.server.key_pem))
    store = context.get_cert_store()
    assert store is not None
    store.add_cert(crypto.X509.from_cryptography(material.root))
    for crl in material.crls:
        store.add_crl(crl)
    store.set_flags(crypto.X509StoreFlags.CRL_CHECK | crypto.X509StoreFlags.CRL_CHECK_ALL)
    context.set_verify(SSL.VERIFY_PEER | SSL.VERIFY_FAIL_IF_NO_PEER_CERT)
    context.set_session_id(b"bench")
    context.set_session_cache_mode(SSL.SESS_CACHE_OFF)
    listener = socket.create_server(("127.0.0.1", 0), backlog=1024)
    addresses.send(listener.getsockname()[1])
    while True:
        accepted, _ = listener.accept()
        connection = SSL.Connection(context, accepted)
        connection.set_accept_state()
        connection.do_handshake()
        connection.sendall(b"ok")
        connection.shutdown()
        connection.close()


class Server:
    """A server process on a core of its own, and the CPU time that it has used."""

    def __init__(self, serve: Callable[..., None], *arguments: object) -> None:
        here, there = multiprocessing.Pipe()
        self._process = multiprocessing.get_context("fork").Process(
            target=self._body, args=(serve, *arguments), kwargs={"addresses": there}, daemon=True
        )
        self._process.start()
        self.port: int = here.recv()

    @staticmethod
    def _body(serve: Callable[..., None], *arguments: object, addresses: Connection) -> None:
        os.sched_setaffinity(0, {min(_CORES)})
        serve(arguments[0], addresses, *arguments[1:])

    def cpu_seconds(self) -> float:
        """Time on a CPU since its start, from the kernel's own books."""
        assert self._process.pid is not None
        return cpu_seconds(self._process.pid)

    def end(self) -> None:
        """Stop it."""
        self._process.kill()
        self._process.join()


def _shake(port: int, context: ClientContext) -> None:
    with socket.create_connection(("127.0.0.1", port)) as raw:
        stream = context.new_stream("localhost")
        while not stream.handshake():
            raw.sendall(stream.take())
            stream.feed(raw.recv(65_536))
        raw.sendall(stream.take())
        while not (data := stream.read()):
            if data == b"":
                raise ConnectionError("refused")
            stream.feed(raw.recv(65_536) or _refused())
        assert data == b"ok"
        stream.close()


def _refused() -> bytes:
    raise ConnectionError("the server closed without its ok")


def _handshake_rate(server: Server, contexts: list[ClientContext]) -> float:
    before = server.cpu_seconds()
    for context in contexts:
        _shake(server.port, context)
    time.sleep(0.05)  # its last closings
    return len(contexts) / (server.cpu_seconds() - before)


def bare_handshake_rate() -> float:
    """Full mutual handshakes a CPU second of OpenSSL alone with its own chain and CRL check."""
    material = make_material(2 * HANDSHAKES)
    anchors = (_der(material.root),)
    contexts = [ClientContext(ClientTls(each, anchors, alpn=())) for each in material.devices]
    os.sched_setaffinity(0, {max(_CORES)})
    alone = Server(_openssl, material)
    try:
        _handshake_rate(alone, contexts[:HANDSHAKES])
        return _handshake_rate(alone, contexts[HANDSHAKES:])
    finally:
        alone.end()
        os.sched_setaffinity(0, _CORES)


def _measure_handshakes() -> Row:
    material = make_material(HANDSHAKES * (ROUNDS + 1))
    anchors = (_der(material.root),)
    # Every handshake shows a certificate that the server has never seen, so nothing comes from a memory of verdicts.
    contexts = [ClientContext(ClientTls(each, anchors, alpn=())) for each in material.devices]
    gateway, alone = Server(_gate, material, None), Server(_openssl, material)
    rates: dict[Server, list[float]] = {gateway: [], alone: []}
    try:
        for number in range(ROUNDS + 1):
            batch = contexts[number * HANDSHAKES : (number + 1) * HANDSHAKES]
            for server, found in rates.items():
                found.append(_handshake_rate(server, batch))
    finally:
        gateway.end()
        alone.end()
    figure, limit = (statistics.median(found[1:]) for found in rates.values())  # the first round warms up
    return Row(
        path="gate: full mutual handshake, chain of 4 and CRLs checked",
        figure=figure,
        unit="/CPU-s",
        limit_name="OpenSSL with its own chain and CRL check",
        limit=limit,
        bar_ratio=0.65,
        note="TLS 1.3, X25519MLKEM768, P-256, a new certificate each time, two tickets, ok, close",
    )


def _flood(listener: socket.socket) -> None:
    block = b"x" * 1_048_576
    while True:
        connection, _ = listener.accept()
        with connection:
            for _ in range(RELAYED // len(block)):
                connection.sendall(block)


def _measure_relay() -> Row:
    listener = socket.create_server(("127.0.0.1", 0))
    threading.Thread(target=_flood, args=(listener,), daemon=True).start()
    material = make_material(1)
    server = Server(_gate, material, Upstream("127.0.0.1", listener.getsockname()[1]))
    context = ClientContext(ClientTls(material.devices[0], (_der(material.root),), alpn=()))
    try:
        rates = [_relay_rate(server, context) for _ in range(3)]
    finally:
        server.end()
    return Row(
        path="gate: raw relay, upstream to device",
        figure=statistics.median(rates),
        unit="MB/CPU-s",
        limit_name="OpenSSL encrypting 64 kB slices alone",
        limit=_encryption_rate(material),
    )


def _relay_rate(server: Server, context: ClientContext) -> float:
    with socket.create_connection(("127.0.0.1", server.port)) as raw:
        stream = context.new_stream("localhost")
        while not stream.handshake():
            raw.sendall(stream.take())
            stream.feed(raw.recv(65_536))
        raw.sendall(stream.take())
        before, got = server.cpu_seconds(), 0
        while got < RELAYED:  # the client's own decryption would only slow the load down
            data = raw.recv(1_048_576)
            if not data:
                break
            got += len(data)
        return got / 1e6 / (server.cpu_seconds() - before)


def _encryption_rate(material: Material) -> float:
    client = ClientContext(ClientTls(material.devices[0], alpn=())).new_stream("localhost")
    server = ServerContext(material.server, ServerTls(alpn=())).new_stream()
    for _ in range(4):
        client.handshake()
        server.feed(client.take())
        server.handshake()
        client.feed(server.take())
    block = b"x" * 65_536

    def encrypt() -> None:
        server.write(block)
        server.take(66_000)

    return cpu_rate(encrypt, seconds=0.3, rounds=3) * len(block) / 1e6


def rows() -> list[Row]:
    """The rows of the gateway."""
    os.sched_setaffinity(0, {max(_CORES)})  # the load; servers take the lowest core
    try:
        return [_measure_handshakes(), _measure_relay()]
    finally:
        os.sched_setaffinity(0, _CORES)
