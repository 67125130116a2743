"""Throwaway keys and a hierarchy built by our own templates, for tests alone."""

from __future__ import annotations

from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from functools import cache

from cryptography import x509
from cryptography.hazmat.primitives.serialization import Encoding

from tests.x509 import chains
from tests.x509.chains import Key, key, spki
from vagus.identifiers import DeviceId, draw_serial
from vagus.policy.packs import load_pack
from vagus.policy.values import PolicyPack
from vagus.testing import SeededEntropy
from vagus.x509 import Certificate, templates
from vagus.x509.algorithms import SignatureAlgorithm
from vagus.x509.keys import PublicKey, decode_public_key
from vagus.x509.names.distinguished import SubjectFields, encode_subject
from vagus.x509.names.hardware_module import HardwareModule
from vagus.x509.profiles import Kind, NameForm
from vagus.x509.templates import Contents, IssuerFacts, NameConstraintSpec

NOT_BEFORE = datetime(2027, 3, 1, 11, 0, 0, tzinfo=UTC)
GROUP = "five-hospitals.example"
UNIT = f"icu.h1.{GROUP}"
DEVICE = DeviceId.draw(SeededEntropy(7)).text
STATUS = "http://status.five-hospitals.example"


@cache
def pack() -> PolicyPack:
    """The shipped pack."""
    return load_pack()


def public_key(kind: str = "p256", number: int = 0) -> PublicKey:
    """The public half as our own value."""
    return decode_public_key(spki(key(kind, number)))


def sign(private: Key, algorithm: SignatureAlgorithm, message: bytes) -> bytes:
    """A signature as a certificate holds it."""
    digest = algorithm.hash_name or ""
    pss = (digest, int(digest[3:]) // 8) if algorithm.name.startswith("rsa-pss") else None
    return chains.sign(private, message, digest, pss)


def contents(profile: str, **changes: object) -> Contents:
    """What a good certificate of a profile holds, with the named fields changed."""
    chosen = pack().profiles[profile]
    lifetime = chosen.default_lifetime
    is_authority = chosen.kind is Kind.AUTHORITY
    subject = SubjectFields("Harbour General Hospital", "Intensive Care", DEVICE)
    dns_names: tuple[str, ...] = ()
    addresses: tuple[str, ...] = ()
    module: HardwareModule | None = None
    if chosen.name_form is NameForm.DEVICE:
        dns_names = (f"{DEVICE}.{UNIT}",)
    elif chosen.name_form is NameForm.SERVER:
        dns_names, addresses = (f"gate.h1.{GROUP}",), ("10.3.7.21", "2001:db8::7")
        subject = SubjectFields("Harbour General Hospital", None, "gate")
    elif chosen.name_form is NameForm.HARDWARE_MODULE:
        module = HardwareModule("1.3.6.1.4.1.32473.9.1", b"AIP3-000001")
        subject = SubjectFields("Aorta Devices", None, "Aorta IP3", serial_number="AIP3-000001")
    else:
        subject = SubjectFields("Harbour General Hospital", None, f"Test {profile}")
    constraints: NameConstraintSpec | None = None
    if profile == "sdc-ca":
        constraints = templates.sdc_constraints([f"sdc.h1.{GROUP}"])
    elif chosen.is_name_constrained:
        constraints = templates.device_subtree_constraints(f"h1.{GROUP}")
    made = Contents(
        profile=chosen,
        public_key=public_key("p384" if "p256" not in chosen.key_algorithms else "p256"),
        subject_der=encode_subject(subject),
        serial=draw_serial(SeededEntropy(1)),
        not_before=NOT_BEFORE,
        not_after=None if lifetime is None else NOT_BEFORE + lifetime,
        dns_names=dns_names,
        ip_addresses=addresses,
        hardware_module=module,
        crl_url=f"{STATUS}/crl/h1.icu/1/0.crl",
        ocsp_url=f"{STATUS}/ocsp",
        ca_issuers_url=None if is_authority and not chosen.has_crl_pointer else f"{STATUS}/ca/h1.icu/1.cer",
        name_constraints=constraints,
    )
    return replace(made, **changes)  # type: ignore[arg-type]


def signed(wanted: Contents, facts: IssuerFacts, private: Key) -> bytes:
    """A certificate of these contents, unlinted."""
    tbs, algorithm = templates.build_tbs(wanted, facts), facts.signature_algorithm
    return templates.assemble(tbs, algorithm, sign(private, algorithm, tbs))


@dataclass(frozen=True)
class Authority:
    """A throwaway authority: its certificate and its key."""

    certificate: Certificate
    key: Key
    facts: IssuerFacts

    @property
    def der(self) -> bytes:
        """Its certificate in DER."""
        return self.certificate.public_bytes(Encoding.DER)

    def issue(self, wanted: Contents) -> bytes:
        """A signed certificate, unlinted."""
        return signed(wanted, self.facts, self.key)


def root(kind: str = "p384", profile: str = "root", subject: bytes | None = None) -> Authority:
    """A self-signed root."""
    private = key(kind, 100)
    public = public_key(kind, 100)
    name = subject or encode_subject(SubjectFields("Five Hospitals", None, "Five Hospitals Root", country="CH"))
    wanted = contents(profile, subject_der=name, public_key=public, crl_url=None, ca_issuers_url=None)
    facts = templates.self_issuer(name, public, wanted.not_after)
    certificate = x509.load_der_x509_certificate(signed(wanted, facts, private))
    return Authority(certificate, private, templates.issuer_facts(certificate))


def under(parent: Authority, profile: str, kind: str, number: int, **changes: object) -> Authority:
    """A subordinate authority that ends with its parent at the latest."""
    wanted = contents(profile, public_key=public_key(kind, number), **changes)
    limit = parent.facts.not_after
    if limit is not None and wanted.not_after is not None and wanted.not_after > limit:
        wanted = replace(wanted, not_after=limit - timedelta(days=1))
    certificate = x509.load_der_x509_certificate(parent.issue(wanted))
    return Authority(certificate, key(kind, number), templates.issuer_facts(certificate))


def maker() -> Authority:
    """The root of a maker of devices."""
    return root(profile="maker-root", subject=encode_subject(SubjectFields("Aorta Devices", None, "Aorta Root")))


def issuer_of(profile: str) -> Authority:
    """An authority that issues certificates of this profile."""
    top, device, unit = chain()
    match profile:
        case "maker-root" | "line-ca":
            return maker()
        case "root" | "device-ca" | "sdc-ca" | "infrastructure-ca":
            return top
        case "issuing-ca":
            return device
        case "tls-server":
            return under(top, "infrastructure-ca", "p256", 103)
        case "idevid":
            name = encode_subject(SubjectFields("Aorta Devices", None, "Aorta Line CA"))
            return under(maker(), "line-ca", "p256", 104, subject_der=name)
        case _:
            return unit


def chain(kind: str = "p256", root_kind: str = "p384") -> tuple[Authority, Authority, Authority]:
    """Root, device CA of hospital h1, issuing CA of its ICU."""
    top = root(root_kind)
    device_name = encode_subject(SubjectFields("Harbour General Hospital", None, "Harbour General Hospital Device CA"))
    unit_name = encode_subject(SubjectFields("Harbour General Hospital", "Intensive Care", "Intensive Care Issuing CA"))
    device = under(top, "device-ca", root_kind, 101, subject_der=device_name)
    spec = templates.device_subtree_constraints(UNIT, inherits_addresses=device.facts.excludes_addresses)
    return top, device, under(device, "issuing-ca", kind, 102, subject_der=unit_name, name_constraints=spec)
