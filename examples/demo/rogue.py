"""A spoofed station: accepts every connection and counts every application byte that it is given."""

from __future__ import annotations

import socket
import threading
from contextlib import suppress
from datetime import UTC, datetime, timedelta
from typing import Self

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import ExtendedKeyUsageOID

from vagus.errors import VagusError
from vagus.tls import Credential, ServerContext, ServerTls


def look_alike(genuine: x509.Certificate, host: str) -> tuple[Credential, bytes]:
    """A station's certificate for `host` under copies, name for name, of an authority and of its root; and that root.

    A comparison of names, serial numbers or dates finds no difference to the genuine chain; only the keys differ.
    """
    now = datetime.now(UTC)
    root_key, authority_key, station_key = (ec.generate_private_key(ec.SECP384R1()) for _ in range(3))
    root = _copy(genuine, genuine.issuer, root_key).sign(root_key, hashes.SHA384())
    authority = _copy(genuine, genuine.subject, authority_key).sign(root_key, hashes.SHA384())
    station = (
        x509.CertificateBuilder()
        .subject_name(x509.Name([]))
        .issuer_name(genuine.subject)
        .public_key(station_key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - timedelta(hours=1))
        .not_valid_after(now + timedelta(days=90))
        .add_extension(x509.SubjectAlternativeName([x509.DNSName(host)]), critical=True)
        .add_extension(x509.ExtendedKeyUsage([ExtendedKeyUsageOID.SERVER_AUTH]), critical=False)
        .sign(authority_key, hashes.SHA384())
    )
    pem = serialization.Encoding.PEM
    key = station_key.private_bytes(pem, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
    chain = b"".join(certificate.public_bytes(pem) for certificate in (station, authority, root))
    return Credential(chain, key), root.public_bytes(pem)


def _copy(genuine: x509.Certificate, subject: x509.Name, key: ec.EllipticCurvePrivateKey) -> x509.CertificateBuilder:
    """An authority called `subject`, issued under the name that issued `genuine`, with its serial, dates and usage."""
    usage = genuine.extensions.get_extension_for_class(x509.KeyUsage)
    return (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(genuine.issuer)
        .public_key(key.public_key())
        .serial_number(genuine.serial_number)
        .not_valid_before(genuine.not_valid_before_utc)
        .not_valid_after(genuine.not_valid_after_utc)
        .add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
        .add_extension(usage.value, critical=usage.critical)
    )


class Rogue:
    """Listens on a port of its own; `calls` connections came, `canary_bytes` of plaintext were caught."""

    def __init__(self, spoof: tuple[Credential, bytes]) -> None:
        credential, self.anchor_pem = spoof
        self._context = ServerContext(credential, ServerTls(client_auth="optional"))
        self._socket = socket.create_server(("127.0.0.1", 0))
        self.port = int(self._socket.getsockname()[1])
        self.calls = 0
        self.certificates = 0
        self.canary_bytes = 0
        self._thread = threading.Thread(target=self._listen, daemon=True)

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        with suppress(OSError):
            self._socket.shutdown(socket.SHUT_RDWR)
        self._socket.close()
        self._thread.join(10)

    def _listen(self) -> None:
        while True:
            try:
                caller, _ = self._socket.accept()
            except OSError:
                return
            self.calls += 1
            with caller, suppress(OSError, VagusError):
                caller.settimeout(10)
                self._take(caller)

    def _take(self, caller: socket.socket) -> None:
        stream = self._context.new_stream()
        finished = False
        while True:
            if not finished:
                finished = stream.handshake()
                if finished:
                    self.certificates += stream.peer().leaf_der is not None
            while finished and (data := stream.read()):
                self.canary_bytes += len(data)
                stream.write(b"HTTP/1.1 204 No Content\r\n\r\n")
            caller.sendall(stream.take())
            piece = caller.recv(65536)
            if not piece:
                return
            stream.feed(piece)
