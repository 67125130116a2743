"""EST against the real serving process on one core, the load on the other.

Many devices through one registration authority, and devices that each make a handshake of their own.
"""

from __future__ import annotations

import base64
import queue
import socket
import ssl
import threading
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import pkcs7

from bench.gate import bare_handshake_rate
from bench.rig.installation import ENROL_HOST, UNIT, devices_of, hospital, open_installation, vagus
from bench.rig.limits import REFERENCE_ISSUANCE, fsync_note, fsync_seconds, issuance_limit
from bench.rig.load import Load, Target, closed_loop, open_loop, percentile
from bench.rig.servers import Serving, on_load_core, serving
from bench.rows import Row
from vagus.identifiers import DeviceId
from vagus.tls import ClientContext, ClientTls, Credential

_WARM, _CLOSED, _OPEN, _OWN = 200, 1_200, 1_200, 300
_CONNECTIONS = 32
_THREADS = 12
_ASKED = 1_200.0
_PEM, _DER = serialization.Encoding.PEM, serialization.Encoding.DER


@dataclass(frozen=True, slots=True)
class _Party:
    """A device with its key and, once it has enrolled, its certificate."""

    device: DeviceId
    token: str
    key: ec.EllipticCurvePrivateKey

    def request(self) -> bytes:
        """Simpleenroll with the one-time token (RFC 7030 3.2.3), as bytes."""
        builder = x509.CertificateSigningRequestBuilder().subject_name(x509.Name([]))
        body = base64.b64encode(builder.sign(self.key, hashes.SHA256()).public_bytes(_DER))
        basic = base64.b64encode(f"{self.device}:{self.token}".encode())
        return _post("simpleenroll", body, b"Authorization: Basic " + basic + b"\r\n")

    def renewal(self, certificate: x509.Certificate) -> bytes:
        """Simplereenroll with a new key and the names of the certificate (RFC 7030 4.2.2), as bytes."""
        names = certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName)
        builder = x509.CertificateSigningRequestBuilder().subject_name(certificate.subject)
        builder = builder.add_extension(names.value, critical=names.critical)
        new = ec.generate_private_key(ec.SECP256R1())
        body = base64.b64encode(builder.sign(new, hashes.SHA256()).public_bytes(_DER))
        return _post("simplereenroll", body, b"Connection: close\r\n")


def rows() -> list[Row]:
    """Rows 2 and 3 of design section 9."""
    count = _WARM + _CLOSED + _OPEN
    with hospital(count) as folder:
        parties, gateway, chain = _prepare(folder)
        limit, disk = issuance_limit(), fsync_seconds(folder)
        with serving(folder) as server, on_load_core():
            gateway_files = _gateway_files(folder, server, gateway, chain)
            target = Target(server.addresses["enrol-h1"], ENROL_HOST, _trust(folder, gateway_files))
            asked = [party.request() for party in parties]
            closed, spent = _run_closed(target, server, asked[: _WARM + _CLOSED])
            rate = min(_ASKED, 0.5 * _CLOSED / spent, 0.7 * _CLOSED / closed.seconds)
            waited = server.waited_seconds()
            opened = open_loop(target, asked[_WARM + _CLOSED :], connections=64, per_second=rate)
            waited = (server.waited_seconds() - waited) / opened.seconds
            disk += fsync_seconds(folder)
            own = _own_handshakes(folder, server, parties, closed.bodies, chain)
        bare = bare_handshake_rate()
    return [
        _through_ra(closed, spent, limit, disk),
        _waiting(opened, rate, disk, waited),
        Row(
            path="EST: renewal with a full mutual handshake of its own",
            figure=own,
            unit="/CPU-s",
            limit_name="OpenSSL's handshake + one verify + one sign",
            limit=1 / (1 / bare + 1 / limit),
            bar=350,
            note=f"simplereenroll, new key, certificate of the device; {fsync_note(disk)}",
        ),
    ]


def _through_ra(closed: Load, spent: float, limit: float, disk: list[float]) -> Row:
    wall = _CLOSED / closed.seconds
    return Row(
        path="EST through a registration authority, a token each, durable, logged",
        figure=_CLOSED / spent,
        unit="/CPU-s",
        limit_name="one verify + one sign",
        limit=limit,
        bar=1_200,
        reference_limit=REFERENCE_ISSUANCE,
        note=f"{_CONNECTIONS} persistent TLS connections of one gateway; {wall:,.0f}/s wall; {fsync_note(disk)}",
    )


def _waiting(opened: Load, rate: float, disk: list[float], waited: float) -> Row:
    p50, p99 = (percentile(opened.waits, share) * 1e3 for share in (0.5, 0.99))
    return Row(
        path=f"EST through a registration authority, p99 at {rate:,.0f}/s, open loop",
        figure=p99,
        unit="ms",
        limit_name="ms, p99 of one fdatasync",
        limit=percentile(disk, 0.99) * 1e3,
        is_rate=False,
        bar=40,
        note=f"p50 {p50:.1f} ms; mean fdatasync {sum(disk) / len(disk) * 1e3:.1f} ms (the bar is for less than 3 ms);"
        f" its threads waited {waited:.2f} s in each second for their core",
    )


# the registration authority


def _prepare(folder: Path) -> tuple[list[_Party], _Party, bytes]:
    """Tokens for everybody, made in this process before the server has the installation."""
    with open_installation(folder) as installation:
        found = [*devices_of(installation, "Aorta IP3"), *devices_of(installation, "Keystone Gateway")]
        making = [installation.tokens.make(device, by="operator:bench") for device in found]
        parties = [
            _Party(device, future.result().text, ec.generate_private_key(ec.SECP256R1()))
            for device, future in zip(found, making, strict=True)
        ]
        chain = installation.open_issuers([UNIT])[UNIT].certificate_der
    return parties[:-1], parties[-1], chain


def _gateway_files(folder: Path, server: Serving, gateway: _Party, chain: bytes) -> Path:
    """Certificate, chain and key of the gateway, enrolled by its own token, in a file for the load's TLS."""
    trust = _trust(folder, None)
    load = closed_loop(Target(server.addresses["enrol-h1"], ENROL_HOST, trust), [gateway.request()], connections=1)
    place = folder / "gateway.pem"
    pem = _certificate(load.bodies[0]).public_bytes(_PEM) + x509.load_der_x509_certificate(chain).public_bytes(_PEM)
    place.write_bytes(pem + _key_pem(gateway.key))
    return place


def _run_closed(target: Target, server: Serving, requests: Sequence[bytes]) -> tuple[Load, float]:
    closed_loop(target, requests[:_WARM], connections=_CONNECTIONS)
    before = server.cpu_seconds()
    load = closed_loop(target, requests[_WARM:], connections=_CONNECTIONS)
    return load, server.cpu_seconds() - before


# a handshake each


def _own_handshakes(
    folder: Path, server: Serving, parties: Sequence[_Party], bodies: Sequence[bytes], chain: bytes
) -> float:
    """Renewals a CPU second of the server; every device shows a certificate that the server has not seen before."""
    anchors = (x509.load_pem_x509_certificate(vagus(folder, "ca", "export", "root").encode()).public_bytes(_DER),)
    above = x509.load_der_x509_certificate(chain).public_bytes(_PEM)
    wishes: list[tuple[ClientContext, bytes]] = []
    for party, body in zip(parties[_WARM:], bodies[: _OWN + _THREADS], strict=False):
        certificate = _certificate(body)
        credential = Credential(certificate.public_bytes(_PEM) + above, _key_pem(party.key))
        wishes.append((ClientContext(ClientTls(credential, anchors)), party.renewal(certificate)))
    address = server.addresses["enrol-h1"]
    _renew(address, wishes[_OWN:])
    before = server.cpu_seconds()
    _renew(address, wishes[:_OWN])
    return _OWN / (server.cpu_seconds() - before)


def _renew(address: tuple[str, int], wishes: Sequence[tuple[ClientContext, bytes]]) -> None:
    todo: queue.SimpleQueue[tuple[ClientContext, bytes]] = queue.SimpleQueue()
    for wish in wishes:
        todo.put(wish)
    failures: list[Exception] = []

    def run() -> None:
        while not failures:
            try:
                context, request = todo.get_nowait()
            except queue.Empty:
                return
            try:
                _ask(address, context, request)
            except Exception as error:  # noqa: BLE001  reported below, on the thread that waits
                failures.append(error)

    threads = [threading.Thread(target=run) for _ in range(_THREADS)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    if failures:
        raise failures[0]


def _ask(address: tuple[str, int], context: ClientContext, request: bytes) -> None:
    """One connection with its full handshake, one request, one response."""
    with socket.create_connection(address, timeout=30) as raw:
        raw.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        stream = context.new_stream(ENROL_HOST)
        while not stream.handshake():
            raw.sendall(stream.take())
            stream.feed(raw.recv(65_536))
        stream.write(request)
        raw.sendall(stream.take())
        response = b""
        while data := raw.recv(65_536):
            stream.feed(data)
            while read := stream.read():
                response += read
    if not response.startswith(b"HTTP/1.1 200"):
        raise RuntimeError(f"a renewal was refused: {response[:600]!r}")


# small things


def _post(operation: str, body: bytes, fields: bytes) -> bytes:
    head = f"POST /.well-known/est/{operation} HTTP/1.1\r\nHost: {ENROL_HOST}\r\nContent-Type: application/pkcs10\r\n"
    return head.encode() + fields + b"Content-Length: %d\r\n\r\n" % len(body) + body


def _trust(folder: Path, identity: Path | None) -> ssl.SSLContext:
    context = ssl.create_default_context(cadata=vagus(folder, "ca", "export", "root"))
    if identity is not None:
        context.load_cert_chain(identity)
    return context


def _certificate(body: bytes) -> x509.Certificate:
    return pkcs7.load_der_pkcs7_certificates(base64.b64decode(body))[0]


def _key_pem(key: ec.EllipticCurvePrivateKey) -> bytes:
    return key.private_bytes(_PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
