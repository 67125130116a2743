"""A hospital in memory that can enrol: root, h1, its units and infrastructure, and a maker with a line; no sockets."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec

from tests.simulator.installation import ER as PLANNED_ER
from tests.simulator.installation import GROUP, H1, INFRA, ROOT, SDC, STATUS_URL, Installation, pack
from tests.simulator.installation import ICU as PLANNED_ICU
from tests.simulator.orders import common_name, new_key, new_public_key, signing_request, spki
from tests.simulator.stock import BY, ICU, Stock
from vagus.authority.issuance import IssuedCertificate
from vagus.events.revocations import RevocationFollower
from vagus.fleet.admission import Admission, Admitted, ListenerRules, Validators
from vagus.fleet.database_status import DatabaseStatus
from vagus.fleet.enrolment.enrol import Enrolment, EnrolmentRequest, Kind
from vagus.fleet.enrolment.evidence import OneTimeToken
from vagus.identifiers import DeviceName, UnitName, draw_serial
from vagus.keystore.passphrases import Passphrase
from vagus.keystore.signing import Purpose, SigningKey
from vagus.keystore.software import SoftwareKeystore
from vagus.records.authorities import find_newest
from vagus.records.devices import DeviceRow
from vagus.records.models import MakerAnchorRow, ModelRow, put_maker_anchor, put_model
from vagus.records.units import UnitRow, put_unit
from vagus.testing import NOON, SeededEntropy
from vagus.tls import Peer
from vagus.trust.anchors import AnchorSet
from vagus.trust.status import UnsafeNoStatus
from vagus.trust.validation import Validator
from vagus.x509.algorithms import KeyAlgorithm
from vagus.x509.keys import PublicKey, decode_public_key
from vagus.x509.library_certificates import decode_certificate
from vagus.x509.names.distinguished import SubjectFields, encode_subject
from vagus.x509.names.hardware_module import HardwareModule
from vagus.x509.requests import CertificateRequest, decode_request
from vagus.x509.templates import (
    Contents,
    IssuerFacts,
    NameConstraintSpec,
    assemble,
    build_tbs,
    issuer_facts,
    self_issuer,
)

UNITS = ("h1/icu", "h1/er", "h1/infra", "h1/sdc")
HARDWARE_TYPE = "1.3.6.1.4.1.32473.7.1"


@dataclass
class Authority:
    """A certification authority for tests: certificate and key in one hand."""

    key: SigningKey
    der: bytes
    facts: IssuerFacts
    authority_id: int = 0


class Forge:
    """Makes authorities and birth certificates the short way, without ceremonies."""

    def __init__(self, folder: Path, *, seed: int = 11) -> None:
        self.entropy = SeededEntropy(seed)
        passphrase = Passphrase("correct horse battery staple")
        self.keystore = SoftwareKeystore.create(folder, passphrase, entropy=self.entropy, unsafe_fast=True)

    def authority(
        self,
        name: str,
        profile: str,
        parent: Authority | None,
        constraints: NameConstraintSpec | None = None,
        *,
        like: Authority | None = None,
    ) -> Authority:
        """An authority under `parent`, or a root; with the subject of the authority `like`."""
        key_id = name.replace("/", ".")
        purposes = {Purpose.CERTIFICATE, Purpose.CRL}
        key = self.keystore.generate(key_id, KeyAlgorithm.P256, purposes, f"authority:{name}#1")
        own = encode_subject(SubjectFields(organisation="Hospital h1", common_name=f"{name} CA"))
        subject = own if like is None else like.facts.subject_der
        not_after = NOON + timedelta(days=2000)
        public = decode_public_key(key.spki_der)
        issuer = parent.facts if parent is not None else self_issuer(subject, public, not_after)
        url = None if parent is None else f"{STATUS_URL}/crl/{name}.crl"
        contents = self._contents(
            profile, public, subject, not_after=not_after, crl_url=url, name_constraints=constraints
        )
        der = self.sign(contents, issuer, (parent or Authority(key, b"", issuer)).key)
        return Authority(key, der, issuer_facts(decode_certificate(der)))

    def birth_certificate(self, line: Authority, serial: str, *, in_subject: bool = False) -> tuple[bytes, bytes]:
        """An IDevID and its key's SPKI."""
        key = ec.generate_private_key(ec.SECP256R1())
        public = decode_public_key(spki(key))
        subject = SubjectFields(organisation="Acme", serial_number=serial if in_subject else None)
        module = None if in_subject else HardwareModule(HARDWARE_TYPE, serial.encode())
        url = f"{STATUS_URL}/crl/line/1/0.crl"
        contents = self._contents("idevid", public, encode_subject(subject), hardware_module=module, crl_url=url)
        return self.sign(contents, line.facts, line.key), public.spki_der

    def copy(
        self, der: bytes, issuer: Authority, *, serial: int | None = None, lifetime: timedelta | None = None
    ) -> bytes:
        """A certificate with the same names and, unless given, serial, for another key, signed by `issuer`."""
        original = x509.load_der_x509_certificate(der)
        names = original.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
        contents = self._contents(
            "bedside",
            new_public_key(),
            original.subject.public_bytes(),
            serial=original.serial_number if serial is None else serial,
            not_before=original.not_valid_before_utc,
            not_after=original.not_valid_before_utc + (lifetime or timedelta(days=300)),
            dns_names=tuple(names.get_values_for_type(x509.DNSName)),
            crl_url=f"{STATUS_URL}/crl/h1.icu/1/0.crl",
        )
        return self.sign(contents, issuer.facts, issuer.key)

    def server_certificate(self, issuer: Authority, like: x509.Certificate) -> bytes:
        """A server certificate with the names and serial of another, for another key, signed by `issuer`."""
        names = like.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
        contents = self._contents(
            "tls-server",
            new_public_key(),
            like.subject.public_bytes(),
            serial=like.serial_number,
            not_after=like.not_valid_after_utc,
            dns_names=tuple(names.get_values_for_type(x509.DNSName)),
            crl_url=f"{STATUS_URL}/crl/h1.infra/1/0.crl",
        )
        return self.sign(contents, issuer.facts, issuer.key)

    def _contents(self, profile: str, public: PublicKey, subject_der: bytes, **more: Any) -> Contents:
        fields = {
            "serial": draw_serial(self.entropy),
            "not_before": NOON - timedelta(days=1),
            "not_after": None,
            **more,
        }
        return Contents(profile=pack().profiles[profile], public_key=public, subject_der=subject_der, **fields)

    @staticmethod
    def sign(contents: Contents, issuer: IssuerFacts, key: SigningKey) -> bytes:
        """The certificate."""
        tbs = build_tbs(contents, issuer)
        return assemble(tbs, issuer.signature_algorithm, key.sign(Purpose.CERTIFICATE, tbs))


class Site:
    """A hospital and a maker in memory: everything that an enrolment needs."""

    def __init__(self, folder: Path, installation: Stock) -> None:
        self.stock = installation
        installation.build(ROOT, H1, PLANNED_ICU, PLANNED_ER, INFRA, SDC)
        self.root, self.h1, *units = [_authority(installation, name) for name in ("root", "h1", *UNITS)]
        self.units = dict(zip(UNITS, units, strict=True))
        self.forge = Forge(folder / "maker")
        self.maker_root = self.forge.authority("maker-root", "root", None)
        self.line = self.forge.authority("line", "line-ca", self.maker_root)
        with installation.database.writing() as connection:
            put_unit(connection, UnitRow(ICU, "Hospital h1", "Intensive Care"))
            anchor = hashlib.sha256(self.maker_root.der).digest()
            put_maker_anchor(connection, MakerAnchorRow(anchor, "Acme", self.maker_root.der, 0))
            put_model(connection, ModelRow("pump", "Acme", "infusion-pump", "bedside", anchor))
        self.issuers, self.issuance = installation.issuers(*UNITS), installation.issuance()
        self.enrolment = Enrolment(
            installation.database, installation.writer, self.issuance, self.issuers, group_domain=GROUP
        )
        self.revocations = installation.revocations
        self.follower = RevocationFollower(installation.database, installation.clock)
        self.follower.follow(installation.writer)
        status = DatabaseStatus(installation.database, self.follower, bound=timedelta(hours=24), elsewhere=None)
        validator = Validator(AnchorSet.from_der((self.root.der,)), status)
        makers = Validator(AnchorSet.from_der((self.maker_root.der,)), UnsafeNoStatus())
        servers = Validator(AnchorSet.from_der((self.units["h1/infra"].der,)), status)
        self.validators = Validators(validator, servers, makers)
        self.admission = Admission(installation.database, pack(), installation.clock, self.validators)

    def admit(self, leaf: bytes | None, *chain: bytes, rules: ListenerRules | None = None) -> Admitted:
        """The verdict on a peer that shows these certificates."""
        return self.admission.admit(peer(leaf, *chain), rules or ENROLMENT)

    def admit_device(self, issued: IssuedCertificate, rules: ListenerRules | None = None) -> Admitted:
        """The verdict on a device with a certificate of its own."""
        return self.admit(issued.der, issued.issuer.certificate_der, self.h1.der, rules=rules)

    def admit_born(self, device: DeviceRow) -> Admitted:
        """The verdict on a device that shows its maker's certificate to an enrolment listener."""
        idevid, _ = self.forge.birth_certificate(self.line, device.maker_serial)
        return self.admit(idevid, self.line.der)

    def token(self, device: DeviceRow) -> str:
        """A token of that device."""
        return self.stock.tokens.make(device.id, by=BY).result(10).text

    def enrol(self, device: DeviceRow, label: str | None = None) -> IssuedCertificate:
        """A certificate that the device gets for a token; the row of its signature is written."""
        issued = self.enrolment.enrol(wish(self.token(device), label=label), self.stock.clock.now())
        self.stock.settle()
        return issued

    def name(self, device: DeviceRow, unit: UnitName | None = None) -> str:
        """The identity name of a device."""
        return str(DeviceName(device.id, unit or device.unit, GROUP))


ENROLMENT = ListenerRules(function=None, group_domain=GROUP, needs_certificate=False)


def peer(leaf: bytes | None, *chain: bytes, version: int = 0x0304) -> Peer:
    """A peer whose handshake is through."""
    return Peer(
        version=version,
        cipher="TLS_AES_256_GCM_SHA384",
        group="X25519MLKEM768",
        sni=None,
        alpn=None,
        resumed=False,
        leaf_der=leaf,
        chain_der=chain,
    )


def request_der(
    key: ec.EllipticCurvePrivateKey, *, subject: bytes | None = None, dns_names: tuple[str, ...] = ()
) -> bytes:
    """A CSR; `subject` is the DER of a certificate whose subject is copied."""
    name = common_name("anything") if subject is None else x509.load_der_x509_certificate(subject).subject
    names = x509.SubjectAlternativeName([x509.DNSName(each) for each in dns_names]) if dns_names else None
    return signing_request(key, name, names)


def request(key: ec.EllipticCurvePrivateKey | None = None, **names: Any) -> CertificateRequest:
    """A decoded CSR, of a new key unless one is given, with the `names` of `request_der`."""
    return decode_request(request_der(key or new_key(), **names))


def wish(token: str, **more: Any) -> EnrolmentRequest:
    """A request for a first certificate, proved by a token; `more` are other fields of it."""
    fields = {"csr": request(), "kind": Kind.ENROL, "protocol": "est", **more}
    return EnrolmentRequest(evidence=OneTimeToken(token), **fields)


@contextmanager
def new_site() -> Iterator[Site]:
    """A fresh one: units h1/icu, h1/er and h1/infra issue; model "pump" is vouched for by the maker."""
    with TemporaryDirectory() as folder, Stock.new(Path(folder)) as installation:
        site = Site(Path(folder), installation)
        yield site
        site.follower.close()


def _authority(installation: Installation, name: str) -> Authority:
    row = installation.find(find_newest, name)
    assert row.certificate_der is not None
    key = installation.keystore(name).load(row.key_id)
    return Authority(key, row.certificate_der, issuer_facts(decode_certificate(row.certificate_der)), row.id)
