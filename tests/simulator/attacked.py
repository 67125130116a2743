"""The hospital that is attacked, its makers, and a client that says whatever it likes over real TLS."""

from __future__ import annotations

import base64
import hashlib
import socket
import ssl
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from itertools import count
from pathlib import Path
from typing import Any, Self

from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding
from cryptography.x509.oid import NameOID

from tests.simulator import certificates, plans
from tests.simulator.certificates import Extension, key_usage
from tests.simulator.commands import ENVIRONMENT, SOURCE, found_hospital
from tests.simulator.listeners import PlainClient, Response
from tests.simulator.orders import key_pem, new_key, signing_request
from tests.simulator.processes import Served, serving
from vagus.fleet.manifests import MadeDevice, MadeModel, Manifest, encode_manifest
from vagus.records.authorities import list_authorities
from vagus.records.devices import DeviceFilter, DeviceRow, list_devices
from vagus.wiring import Installation

PUMPS, MONITORS = 90, 4


def plan(upstream: int) -> str:
    """Three hospitals; the relays of the first have one upstream."""
    h1: dict[str, Any] = {"hospital": "h1", "units": ["icu"], "upstream": upstream}
    telemetry = {**h1, "function": "telemetry"}
    er = {**telemetry, "units": ["er"]}
    h3: dict[str, Any] = {"hospital": "h3", "upstream": upstream, "function": "telemetry"}
    registration: dict[str, Any] = {"registration_authorities": ["Aorta IP3:AIP3-000090"]}
    return plans.hospital_plan(
        plans.hospital(
            plans.devices("icu", 1, PUMPS),
            plans.devices("er", 5001, 12),
            plans.devices("icu", 1, MONITORS, "Borea M1"),
            plans.devices("icu", 9001, 1, host_names=["pump9001.attacked.example"]),
            units=("icu", "er"),
        ),
        plans.hospital(plans.devices("icu", 7001, 6), label="h2", title="Second Hospital"),
        plans.hospital(
            plans.devices("icu", 8001, 2),
            plans.devices("er", 8501, 2),
            label="h3",
            title="Third Hospital",
            units=("icu", "er"),
        ),
        title="Attacked Group",
        domain="attacked.example",
        models=[plans.model(), plans.model("Borea M1", "Borea Instruments", "patient-monitor", "BM1")],
        listeners=[
            plans.STATUS,
            plans.listener("enrol-h1", "enrolment", "enrol.attacked.example", hospital="h1", **registration),
            plans.listener("control-h1-icu", "relay-http", "control.attacked.example", **h1, function="control"),
            plans.listener("telemetry-h1-icu", "relay-http", "telemetry.attacked.example", **telemetry),
            plans.listener("telemetry-h1-er", "relay-http", "telemetry-er.attacked.example", **er),
            plans.listener("stream-h1-icu", "relay-tcp", "stream.attacked.example", **telemetry),
            plans.listener("enrol-h3", "enrolment", "enrol.h3.attacked.example", hospital="h3"),
            plans.listener("stream-h3", "relay-tcp", "stream.h3.attacked.example", **h3),
        ],
    )


ISSUE_FOR = "h1/icu,h1/er,h1/infra,h2/icu,h3/icu,h3/er,h3/infra"


def request(key: ec.EllipticCurvePrivateKey, like: x509.Certificate | None = None) -> bytes:
    """A CSR in base64, with the names of the certificate `like`."""
    if like is None:
        return base64.b64encode(signing_request(key, x509.Name([])))
    names = like.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    return base64.b64encode(signing_request(key, like.subject, names))


@dataclass
class Credential:
    """A key with what is shown for it, leaf first."""

    key: ec.EllipticCurvePrivateKey
    chain: list[x509.Certificate]

    @property
    def leaf(self) -> x509.Certificate:
        """What the key belongs to."""
        return self.chain[0]


PATIENCE = 6.0
"""Seconds to wait for a cut: the design says two, a busy machine more; idle connections end by themselves after ten."""


class Maker:
    """A maker with a root of its own that can sign whatever it likes."""

    def __init__(self, name: str, model: str, category: str) -> None:
        self.name, self.model, self.category = name, model, category
        self.key = new_key()
        subject = x509.Name([x509.NameAttribute(NameOID.ORGANIZATION_NAME, name)])
        self.root = sign_certificate(self.key.public_key(), subject, subject, self.key, is_ca=True)

    def manifest(self, serials: Sequence[str]) -> bytes:
        """What it says that it made."""
        digest = hashlib.sha256(self.root.public_bytes(Encoding.DER)).digest()
        devices = tuple(MadeDevice(self.model, serial) for serial in serials)
        return encode_manifest(Manifest(self.name, digest, (MadeModel(self.model, self.category),), devices))

    def idevid(
        self, *serials: str, unit: str | None = None, attributes: Sequence[x509.NameAttribute[str]] = ()
    ) -> Credential:
        """A birth certificate with these serialNumber attributes."""
        key = new_key()
        names = [x509.NameAttribute(NameOID.ORGANIZATION_NAME, self.name)]
        names += [x509.NameAttribute(NameOID.ORGANIZATIONAL_UNIT_NAME, unit)] if unit else []
        names += [x509.NameAttribute(NameOID.SERIAL_NUMBER, serial) for serial in serials]
        subject = x509.Name([x509.RelativeDistinguishedName([name]) for name in [*names, *attributes]])
        leaf = sign_certificate(key.public_key(), subject, self.root.subject, self.key, is_ca=False)
        return Credential(key, [leaf])


def sign_certificate(
    public: ec.EllipticCurvePublicKey,
    subject: x509.Name,
    issuer: x509.Name,
    key: ec.EllipticCurvePrivateKey,
    *,
    is_ca: bool,
    more: Sequence[Extension] = (),
    days: int = 3000,
    serial: int | None = None,
) -> x509.Certificate:
    """A plain v3 certificate."""
    began = datetime.now(UTC) - timedelta(hours=2)
    return certificates.sign_certificate(
        subject,
        public,
        issuer,
        key,
        (x509.BasicConstraints(is_ca, None), True),
        (key_usage("key_cert_sign", "crl_sign") if is_ca else key_usage("digital_signature"), True),
        (x509.SubjectKeyIdentifier.from_public_key(public), False),
        (x509.AuthorityKeyIdentifier.from_issuer_public_key(key.public_key()), False),
        *more,
        not_before=began,
        lifetime=timedelta(days=days, hours=2),
        serial=serial,
    )


class Wire(PlainClient):
    """One TLS (or plain) connection on which anything can be said."""

    def say(self, raw: bytes) -> Self:
        """Bytes as they are."""
        with suppress(OSError):
            self.send(raw)
        return self

    def ask(self, raw: bytes) -> Response:
        """Bytes as they are, and the response that must come."""
        response = self.say(raw).hear()
        assert response is not None, "no response"
        return response

    def receive(self) -> bytes:
        """What comes next; b"" where the connection ended, in whatever way."""
        try:
            return super().receive()
        except TimeoutError:
            raise
        except OSError:
            return b""

    def hear(self) -> Response | None:
        """The next HTTP response; None where the connection ended instead."""
        try:
            return self.read_response()
        except ConnectionResetError:
            return None

    def hear_all(self) -> list[Response]:
        """Every response until the connection ends."""
        return list(iter(self.hear, None))

    def has_ended(self, seconds: float) -> bool:
        """Whether the other side ends it within that time."""
        self.socket.settimeout(seconds)
        try:
            while self.receive():
                pass
        except TimeoutError:
            return False
        return True


@dataclass
class Hospital:
    """The installation, its process and its makers."""

    folder: Path
    scratch: Path
    aorta: Maker
    borea: Maker
    served: Served
    installation: Installation
    numbers: count[int] = field(default_factory=lambda: count(1))
    stock: dict[str, list[DeviceRow]] = field(default_factory=dict)

    # devices

    def device(self, unit: str = "h1/icu", model: str = "Aorta IP3") -> DeviceRow:
        """A device that no other test touches."""
        return self.stock[f"{unit}:{model}"].pop(0)

    def token(self, device: DeviceRow) -> str:
        """A new token for it."""
        return self.installation.tokens.make(device.id, by="operator:test").result().text

    def enrolled(self, unit: str = "h1/icu") -> tuple[DeviceRow, Credential]:
        """A device with its first certificate, from a token."""
        device = self.device(unit)
        key = new_key()
        listener = f"enrol-{device.unit.hospital}"
        answer = self.enrol(request(key), token=self.token(device), listener=listener)
        return device, Credential(key, [answer.certificate, *self.above(unit)])

    def revoke(self, device: DeviceRow) -> None:
        """Revoke all its certificates, as an operator does."""
        self.installation.operations.devices.revoke(self.installation.actor, str(device.id), "keyCompromise")

    def above(self, unit: str) -> list[x509.Certificate]:
        """The authorities between a device and the root, and the hospital's own."""
        return [self.authority(unit), self.authority(unit.partition("/")[0])]

    def authority(self, name: str) -> x509.Certificate:
        """An authority's certificate."""
        with self.installation.database.reading() as connection:
            found = {row.name: row.certificate_der for row in list_authorities(connection)}[name]
        assert found is not None
        return x509.load_der_x509_certificate(found)

    # talking

    def plug(self, listener: str) -> socket.socket:
        """A TCP connection to a listener."""
        return socket.create_connection(self.served.addresses[listener], timeout=10)

    def connect(
        self,
        listener: str,
        who: Credential | None = None,
        *,
        session: ssl.SSLSession | None = None,
        context: ssl.SSLContext | None = None,
    ) -> Wire:
        """A TLS connection to a listener, showing `who`."""
        plug = self.plug(listener)
        wrapped = (context or self.context(who)).wrap_socket(
            plug, server_hostname="x.attacked.example", session=session
        )
        return Wire(wrapped)

    def context(self, who: Credential | None) -> ssl.SSLContext:
        """A client that checks nothing and shows `who`."""
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
        context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
        if who is not None:
            path = self.scratch / f"{next(self.numbers)}.pem"
            path.write_bytes(key_pem(who.key) + b"".join(each.public_bytes(Encoding.PEM) for each in who.chain))
            context.load_cert_chain(path)
        return context

    def plain(self) -> Wire:
        """A connection to the status listener."""
        return Wire(self.plug("status"))

    def enrol(self, body: bytes, *, who: Credential | None = None, listener: str = "enrol-h1", **more: Any) -> Response:
        """One EST request on a connection of its own; `more` is for `est`."""
        with self.connect(listener, who) as wire:
            return wire.ask(est(body, **more))

    def admits(self, listener: str, who: Credential) -> bool:
        """Whether a relay, or the enrolment listener, does what a device asks."""
        if not listener.startswith("enrol"):
            answer = self.get(listener, who)
            return answer is not None and answer.status == 200
        with suppress(OSError), self.connect(listener, who) as wire:
            answer = wire.say(est(request(new_key()))).hear()
            return answer is not None and answer.status == 200
        return False

    def get(self, listener: str, who: Credential | None, path: str = "/") -> Response | None:
        """One GET through a relay."""
        try:
            with self.connect(listener, who) as wire:
                return wire.say(f"GET {path} HTTP/1.1\r\nHost: a\r\n\r\n".encode()).hear()
        except (ssl.SSLError, ConnectionError):
            return None


def est(
    body: bytes,
    *,
    token: str | None = None,
    user: str = "",
    operation: str = "simpleenroll",
    headers: Sequence[str] = (),
) -> bytes:
    """A whole EST request."""
    lines = [
        f"POST /.well-known/est/{operation} HTTP/1.1",
        "Host: enrol.attacked.example",
        "Content-Type: application/pkcs10",
        f"Content-Length: {len(body)}",
        *headers,
    ]
    if token is not None:
        lines.append("Authorization: Basic " + base64.b64encode(f"{user}:{token}".encode()).decode())
    return "\r\n".join([*lines, "", ""]).encode("latin-1") + body


@contextmanager
def build(folder: Path, scratch: Path, upstream: int) -> Iterator[Hospital]:
    """Make the hospital, take its makers' manifests in, and serve it."""
    found_hospital(folder, plan(upstream))
    aorta = Maker("Aorta Devices", "Aorta IP3", "infusion-pump")
    borea = Maker("Borea Instruments", "Borea M1", "patient-monitor")
    with Installation.open(folder, passphrase_sources=[SOURCE]) as installation:
        for maker in (aorta, borea):
            anchor_der = maker.root.public_bytes(Encoding.DER)
            installation.operations.devices.import_manifest(installation.actor, maker.manifest([]), anchor_der, None)
        more = ("--issue-for", ISSUE_FOR, "--passphrase-source", SOURCE)
        with serving(folder, *more, around=ENVIRONMENT) as served:
            hospital = Hospital(folder, scratch, aorta, borea, served, installation)
            with installation.database.reading() as connection:
                for row in list_devices(connection, DeviceFilter(), after=None, limit=500):
                    if row.maker_serial not in {"AIP3-000090", "AIP3-009001"}:
                        hospital.stock.setdefault(f"{row.unit}:{row.model}", []).append(row)
            yield hospital
