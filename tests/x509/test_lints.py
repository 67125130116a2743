"""One negative certificate per lint: a good TBS with exactly one thing wrong."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta
from functools import partial
from operator import methodcaller

import pytest

from tests.simulator.refusals import refuses
from tests.x509 import chains
from tests.x509.chains import Ext, basic, constraints, san, usage
from tests.x509.hierarchy import DEVICE, NOT_BEFORE, UNIT, Authority, chain, contents, issuer_of, pack
from vagus.errors import PolicyRefusal
from vagus.reasons import Reason
from vagus.x509 import der, oids
from vagus.x509.algorithms import ECDSA_SHA512, KeyAlgorithm
from vagus.x509.keys import key_identifier
from vagus.x509.lints import DOCUMENTS, LINTS, Finding, check_tbs, find_findings
from vagus.x509.names.distinguished import SubjectFields, encode_subject
from vagus.x509.names.hardware_module import HardwareModule, encode_hardware_module
from vagus.x509.profiles import KeyUsage, NameForm, Profile
from vagus.x509.tbs import decode_tbs
from vagus.x509.templates import IssuerFacts, build_tbs, device_subtree_constraints

FIELDS = ("version", "serial", "signature", "issuer_name", "validity", "subject", "spki", "unique_ids")


@dataclass
class Parts:
    """A TBS taken apart into its elements, so that one of them can be spoilt."""

    profile: Profile
    issuer: IssuerFacts
    fields: dict[str, bytes]
    extensions: list[Ext]
    raw: Callable[[bytes], bytes] = field(default=lambda tbs: tbs)

    def encode(self) -> bytes:
        extensions = der.sequence(*(one.encode() for one in self.extensions))
        return self.raw(der.sequence(*self.fields.values(), der.explicit(3, extensions)))

    def findings(self) -> tuple[Finding, ...]:
        return find_findings(self.encode(), self.profile, self.issuer)

    def broken(self) -> set[str]:
        """The ids of the rules that it breaks."""
        return {one.lint.id for one in self.findings()}

    def assign(self, **values: bytes) -> None:
        assert self.fields.keys() >= values.keys()
        self.fields.update(values)

    def allow(self, **changes: object) -> None:
        """A profile under which one rule of ours passes, so that only another document's rule is broken."""
        self.profile = replace(self.profile, **changes)  # type: ignore[arg-type]

    def put(self, made: Ext) -> None:
        """Replaces an extension in its place, or adds it."""
        if all(one.oid != made.oid for one in self.extensions):
            self.extensions.append(made)
        self.extensions = [made if one.oid == made.oid else one for one in self.extensions]

    def drop(self, oid: str) -> None:
        self.extensions = [one for one in self.extensions if one.oid != oid]

    def turn(self, oid: str, *, is_critical: bool) -> None:
        self.extensions = [replace(one, critical=is_critical) if one.oid == oid else one for one in self.extensions]


def parts_of(profile: str, issuer: Authority | None = None, **changes: object) -> Parts:
    wanted, issuer = contents(profile, **changes), issuer or issuer_of(profile)
    tbs = build_tbs(wanted, issuer.facts)
    elements = [whole for _, _, whole in der.split_elements(der.content_of(tbs, der.SEQUENCE))]
    fields = dict(zip(FIELDS, [*elements[:7], b""], strict=True))
    extensions = [Ext(one.oid, one.value, one.is_critical) for one in decode_tbs(tbs).extensions]
    return Parts(wanted.profile, issuer.facts, fields, extensions)


def device() -> Parts:
    return parts_of("bedside")


def server() -> Parts:
    return parts_of("tls-server")


def responder() -> Parts:
    return parts_of("ocsp")


def unit_authority() -> Parts:
    name = encode_subject(SubjectFields("Harbour General Hospital", "ICU", "ICU Issuing CA"))
    spec = device_subtree_constraints(UNIT, inherits_addresses=True)
    return parts_of("issuing-ca", subject_der=name, name_constraints=spec)


def device_authority() -> Parts:
    return parts_of("device-ca")


def idevid() -> Parts:
    return parts_of("idevid")


def short_lived() -> Parts:
    """A profile that the shipped pack lacks: a certificate too short-lived to revoke."""
    parts = parts_of("technician")
    parts.allow(**SHORT_LIVED)
    parts.drop(oids.CRL_DISTRIBUTION_POINTS)
    parts.drop(oids.AUTHORITY_INFO_ACCESS)
    parts.put(chains.NO_REV_AVAIL)
    return parts


@dataclass(frozen=True)
class Negative:
    """What to spoil in which good certificate, and which other lints must speak too, because one fault is two."""

    good: Callable[[], Parts]
    spoilers: tuple[Callable[[Parts], object], ...]
    also: frozenset[str] = frozenset()


def spoils(good: Callable[[], Parts], *also: str) -> Callable[..., Negative]:
    return lambda *spoilers: Negative(good, spoilers, frozenset(also))


assign, allow, puts, drops, turns = (partial(methodcaller, name) for name in ("assign", "allow", "put", "drop", "turn"))


def names(*general_names: tuple[str, str | bytes]) -> Callable[[Parts], object]:
    return puts(san(*general_names))


def validity(not_before: bytes, not_after: bytes) -> Callable[[Parts], object]:
    return assign(validity=der.sequence(not_before, not_after))


def uri_point(uri: str) -> Callable[[Parts], object]:
    return puts(chains.crl_points(chains.point(chains.point_name(("uri", uri)))))


def access(*pairs: tuple[str, str]) -> Callable[[Parts], object]:
    located = (der.sequence(der.object_identifier(method), chains.general("uri", uri)) for method, uri in pairs)
    return puts(Ext(oids.AUTHORITY_INFO_ACCESS, der.sequence(*located)))


def attribute(oid: str, tag: int, text: bytes) -> bytes:
    return der.encode_tlv(der.SET, der.sequence(der.object_identifier(oid), der.encode_tlv(tag, text)))


def subject(*attributes: bytes) -> Callable[[Parts], object]:
    return assign(subject=der.sequence(*attributes))


def named(organisation: str, unit: str | None = None, common_name: str | None = None) -> Callable[[Parts], object]:
    return assign(subject=encode_subject(SubjectFields(organisation, unit, common_name)))


def key(kind: str) -> tuple[Callable[[Parts], object], ...]:
    """Another key, with its own key identifier."""
    spki = chains.spki(chains.key(kind))
    return assign(spki=spki), puts(Ext(oids.SUBJECT_KEY_IDENTIFIER, der.octet_string(key_identifier(spki))))


def grants(purpose: str) -> tuple[Callable[[Parts], object], ...]:
    """The purpose in the certificate and in its profile."""
    return puts(chains.purposes(purpose)), allow(extended_key_usage=(purpose,))


CN = attribute("2.5.4.3", der.UTF8_STRING, DEVICE.encode())
HOSPITAL = "Harbour General Hospital"
ORGANISATION = attribute("2.5.4.10", der.UTF8_STRING, HOSPITAL.encode())
GOOD_DNS = ("dns", f"{DEVICE}.{UNIT}")
OCSP = (oids.OCSP_ACCESS, "http://status.five-hospitals.example/ocsp")
POLICY = "1.3.6.1.4.1.32473.2.13"
EMPTY = b"\x30\x00"
YEAR_2049 = der.encode_tlv(der.GENERALIZED_TIME, b"20280301110000Z")
BEFORE, AFTER = der.time(NOT_BEFORE), der.time(NOT_BEFORE + timedelta(days=300))
MLDSA = frozenset({KeyAlgorithm.MLDSA44})
SIGN_AND_ENCIPHER = frozenset({KeyUsage.DIGITAL_SIGNATURE, KeyUsage.KEY_ENCIPHERMENT})
SIGN_AND_AGREE = frozenset({KeyUsage.DIGITAL_SIGNATURE, KeyUsage.KEY_AGREEMENT})
SHORT_LIVED = {"is_short_lived": True, "has_crl_pointer": False, "has_ocsp_pointer": False}
ALL_ADDRESSES = [("ip", bytes(8)), ("ip", bytes(32))]
PERMITTED = [("dns", UNIT), ("email", "none.invalid")]
BOUNDED_DNS = der.sequence(der.implicit(2, UNIT.encode()), der.implicit(1, b"\x02"))  # a subtree with a maximum
NOWHERE_MAIL = der.sequence(chains.general("email", "none.invalid"))
EXCLUDED = der.content_of(constraints([], ALL_ADDRESSES).value, der.SEQUENCE)
WITH_MAXIMUM = replace(constraints(), value=der.sequence(der.encode_tlv(0xA0, BOUNDED_DNS + NOWHERE_MAIL), EXCLUDED))

NEGATIVES: dict[str, Negative] = {
    # --- RFC 5280
    "rfc5280-der": spoils(device)(puts(Ext(oids.KEY_USAGE, bytes.fromhex("0302078000"), critical=True))),
    "rfc5280-version": spoils(device)(assign(version=b"\xa0\x03\x02\x01\x01")),
    "rfc5280-serial-positive": spoils(device)(
        # the 20 bytes of a negative number with as many bits as a good one
        assign(serial=der.integer(-(1 << 158)))
    ),
    "rfc5280-serial-length": spoils(device, "house-serial-size")(assign(serial=der.integer(1 << 159))),
    "rfc5280-signature-algorithm": spoils(device)(assign(signature=ECDSA_SHA512.identifier_der)),
    "rfc5280-issuer-name": spoils(device)(assign(issuer_name=encode_subject(SubjectFields(HOSPITAL)))),
    "rfc5280-time-form": spoils(device)(validity(BEFORE, YEAR_2049)),
    "rfc5280-time-order": spoils(device)(validity(AFTER, BEFORE)),
    "rfc5280-ca-subject": spoils(unit_authority)(assign(subject=EMPTY)),
    "rfc5280-empty-subject": spoils(device, "house-identity-common-name")(assign(subject=EMPTY)),
    "rfc5280-san-criticality": spoils(device)(turns(oids.SUBJECT_ALT_NAME, is_critical=True)),
    "rfc5280-subject-strings": spoils(device)(subject(attribute("2.5.4.10", 0x14, b"Harbour"), CN)),
    "rfc5280-subject-bounds": spoils(device)(subject(attribute("2.5.4.10", der.UTF8_STRING, b"x" * 65), CN)),
    "rfc5280-unique-ids": spoils(device)(assign(unique_ids=der.encode_tlv(0x82, b"\x00\x01"))),
    "rfc5280-extensions-once": spoils(device)(lambda parts: parts.extensions.append(parts.extensions[0])),
    "rfc5280-aki": spoils(device)(puts(Ext(oids.AUTHORITY_KEY_IDENTIFIER, der.sequence(der.implicit(0, bytes(20)))))),
    "rfc5280-aki-critical": spoils(device)(turns(oids.AUTHORITY_KEY_IDENTIFIER, is_critical=True)),
    "rfc5280-ski": spoils(device)(drops(oids.SUBJECT_KEY_IDENTIFIER)),
    "rfc5280-ski-critical": spoils(device)(turns(oids.SUBJECT_KEY_IDENTIFIER, is_critical=True)),
    "rfc5280-ku-present": spoils(device)(drops(oids.KEY_USAGE)),
    "rfc5280-ku-critical": spoils(device)(turns(oids.KEY_USAGE, is_critical=False)),
    "rfc5280-ku-cert-sign": spoils(device, "house-key-usage")(puts(usage(0, 5))),
    "rfc5280-policies-once": spoils(device)(puts(chains.policies(POLICY, POLICY))),
    "rfc5280-san-host-name": spoils(server)(names(("dns", "gate_1.h1.five-hospitals.example"))),
    "rfc5280-san-address": spoils(server)(names(("ip", b"\x0a\x03\x07"))),
    "rfc5280-bc-of-authority": spoils(unit_authority)(turns(oids.BASIC_CONSTRAINTS, is_critical=False)),
    "rfc5280-bc-path-length": spoils(device, "house-authority")(puts(basic(ca=False, path_length=0))),
    "rfc5280-path-length-of-issuer": spoils(unit_authority, "house-authority")(puts(basic(path_length=1))),
    "rfc5280-nc-ca-only": spoils(device)(
        allow(is_name_constrained=True),
        puts(constraints(PERMITTED, ALL_ADDRESSES)),
    ),
    "rfc5280-nc-critical": spoils(unit_authority)(turns(oids.NAME_CONSTRAINTS, is_critical=False)),
    "rfc5280-nc-subtrees": spoils(unit_authority)(puts(WITH_MAXIMUM)),
    "rfc5280-eku-not-empty": spoils(idevid)(puts(chains.purposes())),
    "rfc5280-cdp-uri": spoils(device)(turns(oids.CRL_DISTRIBUTION_POINTS, is_critical=True)),
    "rfc5280-aia-uri": spoils(device)(access(OCSP, (oids.CA_ISSUERS_ACCESS, "ca.cer"))),
    # --- RFC 6960
    "rfc6960-responder-purpose": spoils(responder)(*grants(oids.CLIENT_AUTH)),
    "rfc6960-responder-purpose-elsewhere": spoils(device)(*grants(oids.OCSP_SIGNING)),
    "rfc6960-nocheck": spoils(device)(puts(chains.NOCHECK)),
    "rfc6960-nocheck-value": spoils(responder)(puts(Ext(oids.OCSP_NOCHECK, EMPTY))),
    # --- RFC 9608
    "rfc9608-value": spoils(short_lived)(puts(replace(chains.NO_REV_AVAIL, critical=True))),
    "rfc9608-authority": spoils(unit_authority)(
        puts(chains.NO_REV_AVAIL), drops(oids.CRL_DISTRIBUTION_POINTS), allow(**SHORT_LIVED)
    ),
    "rfc9608-crl-pointer": spoils(short_lived)(
        uri_point("http://status.five-hospitals.example/0.crl"), allow(has_crl_pointer=True)
    ),
    "rfc9608-ocsp-pointer": spoils(short_lived)(access(OCSP), allow(has_ocsp_pointer=True)),
    # --- keys and host names
    "rfc8813-encipherment": spoils(device)(puts(usage(0, 2)), allow(key_usage=SIGN_AND_ENCIPHER)),
    "rfc9881-key-usage": spoils(device)(
        *key("mldsa44"), puts(usage(0, 4)), allow(key_usage=SIGN_AND_AGREE, key_algorithms=MLDSA)
    ),
    "rfc9549-a-labels": spoils(server)(names(("dns", "zz--gate.h1.five-hospitals.example"))),
    "cabf-server-name": spoils(server)(drops(oids.SUBJECT_ALT_NAME), allow(name_form=NameForm.NONE)),
    "cabf-any-purpose": spoils(device)(*grants(oids.ANY_EXTENDED_KEY_USAGE)),
    # --- IEEE 802.1AR
    "8021ar-no-expiry": spoils(idevid)(validity(BEFORE, der.time(datetime(2060, 1, 1, tzinfo=UTC)))),
    "8021ar-subject-serial": spoils(idevid)(named("Aorta Devices", None, "AIP3-000001")),
    "8021ar-key-usage": spoils(idevid)(puts(usage(1)), allow(key_usage=frozenset({KeyUsage.CONTENT_COMMITMENT}))),
    "8021ar-purposes": spoils(idevid)(*grants(oids.CODE_SIGNING)),
    "8021ar-hardware-module": spoils(idevid)(
        names(("other", der.object_identifier("1.3.6.1.5.5.7.8.4") + der.explicit(0, der.sequence(der.integer(1)))))
    ),
    # --- the profiles of Vagus (the ids keep the prefix of v0.1.0)
    "house-extensions-listed": spoils(device)(puts(Ext("1.3.6.1.4.1.32473.1.9", der.NULL_DER))),
    "house-basic-constraints": spoils(device)(drops(oids.BASIC_CONSTRAINTS)),
    "house-authority": spoils(unit_authority, "rfc5280-ku-cert-sign", "rfc5280-nc-ca-only")(puts(basic(ca=False))),
    "house-key-usage": spoils(device)(puts(usage(0, 1))),
    "house-purposes": spoils(device)(puts(chains.purposes(oids.CODE_SIGNING))),
    "house-policies": spoils(device)(drops(oids.CERTIFICATE_POLICIES)),
    "house-key-algorithm": spoils(device)(*key("p521")),
    "house-lifetime": spoils(device)(
        validity(BEFORE, der.time(NOT_BEFORE + timedelta(days=3 * 365, hours=1, seconds=1)))
    ),
    "house-outlives-issuer": spoils(device)(
        validity(BEFORE, der.time(datetime(2036, 1, 1, tzinfo=UTC))), allow(longest_lifetime=None)
    ),
    "house-serial-size": spoils(device)(assign(serial=der.integer(1 << 63))),
    "house-name-form": spoils(device)(names(GOOD_DNS, ("uri", "urn:uuid:f81d4fae-7dec-11d0-a765-00a0c91e6bf6"))),
    "house-identity-canonical": spoils(device, "house-identity-common-name")(
        names(("dns", f"{DEVICE.upper()}.{UNIT}"))
    ),
    "house-identity-common-name": spoils(device)(named(HOSPITAL, "ER", "another")),
    "house-subject-attributes": spoils(device)(
        subject(ORGANISATION, attribute("2.5.4.5", der.PRINTABLE_STRING, b"SN0001"), CN)
    ),
    "house-subtree": spoils(device)(names(("dns", f"{DEVICE}.er.h1.five-hospitals.example"))),
    "house-wildcard": spoils(server)(names(("dns", "*.h1.five-hospitals.example"))),
    "house-name-constraints": spoils(device_authority)(puts(constraints(PERMITTED))),
    "house-crl-pointer": spoils(device)(drops(oids.CRL_DISTRIBUTION_POINTS)),
    "house-ocsp-pointer": spoils(device)(access((OCSP[0], "https://status/ocsp"))),
    "house-access-methods": spoils(device)(access(OCSP, ("1.3.6.1.5.5.7.48.3", "http://status/tsa"))),
    "house-short-lived": spoils(short_lived)(drops(oids.NO_REV_AVAIL)),
}


def infrastructure() -> Parts:
    return parts_of("infrastructure-ca")


# further ways to break a rule that has its certificate above
VARIANTS: list[tuple[str, Negative]] = [
    ("rfc5280-issuer-name", spoils(device)(assign(issuer_name=EMPTY))),
    ("rfc5280-aki", spoils(device)(drops(oids.AUTHORITY_KEY_IDENTIFIER))),
    ("rfc5280-ski", spoils(device)(puts(Ext(oids.SUBJECT_KEY_IDENTIFIER, der.octet_string(bytes(20)))))),
    ("rfc5280-ku-present", spoils(device)(puts(usage()))),
    ("rfc5280-policies-once", spoils(device, "house-policies")(puts(chains.policies()))),
    ("rfc5280-time-form", spoils(device)(validity(der.encode_tlv(0x18, b"20270301110000Z"), AFTER))),
    ("rfc5280-subject-strings", spoils(device)(subject(attribute("2.5.4.6", 0x0C, b"CH"), ORGANISATION, CN))),
    ("rfc5280-subject-bounds", spoils(device)(subject(attribute("2.5.4.10", der.UTF8_STRING, b""), CN))),
    ("rfc5280-san-host-name", spoils(server)(names(("dns", "gate..example")))),
    ("rfc5280-san-host-name", spoils(server)(names(("dns", "gate.h1.five-hospitals.example.")))),
    ("rfc5280-san-host-name", spoils(server)(names(("dns", "a" * 64 + ".example")))),
    ("rfc5280-bc-of-authority", spoils(infrastructure)(drops(oids.BASIC_CONSTRAINTS))),
    ("rfc5280-path-length-of-issuer", spoils(lambda: parts_of("infrastructure-ca", chain()[2]))()),
    ("rfc5280-nc-subtrees", spoils(unit_authority)(puts(constraints()))),
    (
        "rfc5280-nc-subtrees",
        spoils(device_authority, "house-name-constraints")(puts(constraints(PERMITTED, [("ip", bytes(4))]))),
    ),
    (
        "rfc5280-der",
        spoils(unit_authority)(puts(Ext(oids.NAME_CONSTRAINTS, der.sequence(der.integer(1)), critical=True))),
    ),
    ("rfc5280-der", spoils(device)(puts(chains.policies(POLICY, qualifier=der.sequence())))),
    ("rfc5280-cdp-uri", spoils(device, "house-crl-pointer")(uri_point("h1/0.crl"))),
    ("rfc5280-cdp-uri", spoils(device)(puts(chains.crl_points(EMPTY)))),
    ("rfc5280-aia-uri", spoils(device)(turns(oids.AUTHORITY_INFO_ACCESS, is_critical=True))),
    ("rfc9549-a-labels", spoils(server)(names(("dns", "xn--99999999.example")))),
    ("house-crl-pointer", spoils(device)(uri_point("https://status/0.crl"))),
    ("house-crl-pointer", spoils(device)(uri_point("ldap://status/0.crl"))),
    ("house-name-constraints", spoils(unit_authority)(drops(oids.NAME_CONSTRAINTS))),
    ("house-name-constraints", spoils(infrastructure)(puts(constraints(PERMITTED, ALL_ADDRESSES)))),
    ("house-ocsp-pointer", spoils(device)(drops(oids.AUTHORITY_INFO_ACCESS))),
    ("house-name-form", spoils(device)(drops(oids.SUBJECT_ALT_NAME))),
    ("house-name-form", spoils(device)(names(GOOD_DNS, GOOD_DNS))),
    ("house-name-form", spoils(device)(names(("id", "1.2.3.4")))),
    ("house-name-form", spoils(server, "cabf-server-name")(names(("email", "a@none.invalid")))),
    ("house-name-form", spoils(responder)(names(GOOD_DNS))),
    (
        "house-identity-canonical",
        spoils(device, "house-identity-common-name", "house-wildcard")(names(("dns", f"*.{UNIT}"))),
    ),
    ("house-identity-canonical", spoils(device, "house-identity-common-name")(names(("dns", UNIT)))),
    ("house-short-lived", spoils(responder)(puts(chains.NO_REV_AVAIL))),
    ("rfc6960-nocheck", spoils(responder)(drops(oids.OCSP_NOCHECK))),
]


@pytest.mark.parametrize("good", [infrastructure, device, server, responder, unit_authority, idevid, short_lived])
def test_the_good_certificates_break_no_rule(good: Callable[[], Parts]) -> None:
    parts = good()
    assert parts.findings() == ()
    check_tbs(parts.encode(), parts.profile, parts.issuer)


@pytest.mark.parametrize(("name", "negative"), [*NEGATIVES.items(), *VARIANTS])
def test_each_negative_breaks_its_own_rule_and_no_undeclared_one(name: str, negative: Negative) -> None:
    parts = negative.good()
    for spoil in negative.spoilers:
        spoil(parts)
    assert parts.broken() == {name} | negative.also, [str(one) for one in parts.findings()]


def test_a_label_in_its_ascii_form_passes() -> None:
    parts = server()
    parts.put(san(("dns", "xn--klinik-sd-w9a.example"), ("dns", "a--b.example")))
    assert parts.findings() == ()


def test_every_lint_has_a_negative_certificate() -> None:
    assert {lint.id for lint in LINTS} == set(NEGATIVES)


def test_every_lint_names_its_document_and_clause() -> None:
    assert len({lint.id for lint in LINTS}) == len(LINTS)
    assert all(lint.document and lint.clause for lint in LINTS)
    assert sum(len(document.lints) for document in DOCUMENTS) == len(LINTS)


def test_a_refusal_lists_every_finding_with_its_document() -> None:
    parts = device()
    parts.drop(oids.KEY_USAGE)
    parts.assign(serial=der.integer(5))
    with refuses(Reason.LINT, PolicyRefusal) as refusal:
        check_tbs(parts.encode(), parts.profile, parts.issuer)
    assert refusal.value.facts["lints"] == "rfc5280-ku-present,house-serial-size"
    assert "RFC 5280 4.2.1.3" in refusal.value.message


@pytest.mark.parametrize(
    "spoil", [lambda tbs: tbs[:-1], lambda tbs: tbs + b"\x00", lambda _: b"", lambda tbs: b"\x30\x80" + tbs]
)
def test_a_tbs_that_does_not_decode_is_refused_under_the_der_rule(spoil: Callable[[bytes], bytes]) -> None:
    parts = device()
    parts.raw = spoil
    assert [one.lint.id for one in parts.findings()] == ["rfc5280-der"]


@pytest.mark.parametrize(
    ("oid", "value"),
    [
        (oids.SUBJECT_ALT_NAME, EMPTY),
        (oids.SUBJECT_ALT_NAME, b"\x30\x03\x82\x05a"),
        (oids.BASIC_CONSTRAINTS, der.sequence(b"\x01\x01\x00")),  # FALSE is the default and never written
        (oids.BASIC_CONSTRAINTS, der.sequence(b"\x01\x01\x01")),
        (oids.KEY_USAGE, bytes.fromhex("03020080")),  # trailing zero bits
        (oids.EXTENDED_KEY_USAGE, der.sequence(der.integer(1))),
        (oids.CERTIFICATE_POLICIES, der.sequence(der.integer(1))),
        (oids.CRL_DISTRIBUTION_POINTS, der.sequence(der.sequence(der.explicit(1, EMPTY)))),
        (oids.CRL_DISTRIBUTION_POINTS, der.sequence(der.sequence(der.explicit(0, EMPTY)))),  # a name of no form
        (oids.AUTHORITY_INFO_ACCESS, der.sequence(EMPTY)),
        (oids.AUTHORITY_KEY_IDENTIFIER, der.sequence(der.implicit(0, bytes(20)), der.implicit(2, b"\x01"))),
        (oids.SUBJECT_KEY_IDENTIFIER, der.integer(1)),
    ],
)
def test_an_extension_that_is_not_der_of_its_type_is_found(oid: str, value: bytes) -> None:
    parts = device()
    parts.extensions = [replace(one, value=value) if one.oid == oid else one for one in parts.extensions]
    assert "rfc5280-der" in parts.broken()


@pytest.mark.parametrize("name", [der.sequence(der.set_of([])), der.sequence(der.integer(1)), b"\x30\x80\x00\x00"])
def test_a_subject_that_is_no_name_is_found(name: bytes) -> None:
    parts = device()
    parts.assign(subject=name)
    assert "rfc5280-der" in parts.broken()


@pytest.mark.parametrize("location", [der.encode_tlv(0xA4, EMPTY), der.implicit(2, b"status.example")])
def test_an_access_location_is_a_uri(location: bytes) -> None:
    parts = device()
    pair = der.sequence(der.object_identifier(oids.OCSP_ACCESS), location)
    parts.put(Ext(oids.AUTHORITY_INFO_ACCESS, der.sequence(pair)))
    assert parts.broken() == {"rfc5280-aia-uri", "house-ocsp-pointer"}


def test_a_key_of_an_unknown_kind_is_found_and_never_signed() -> None:
    parts = device()
    parts.assign(spki=der.sequence(der.sequence(der.object_identifier("1.2.3.4")), der.bit_string(b"key")))
    assert "rfc5280-der" in parts.broken()


def test_an_idevid_may_have_client_authentication_but_a_foreign_other_name_it_may_not() -> None:
    parts = idevid()
    for grant in grants(oids.CLIENT_AUTH):
        grant(parts)
    assert parts.findings() == ()
    parts.put(san(("other", der.object_identifier("1.3.6.1.4.1.311.20.2.3") + der.explicit(0, b"\x0c\x01a"))))
    assert [one.lint.id for one in parts.findings()] == ["house-name-form"]
    parts.put(
        Ext(oids.SUBJECT_ALT_NAME, der.sequence(encode_hardware_module(HardwareModule("1.3.6.1.4.1.32473.9.1", b"x"))))
    )
    assert parts.findings() == ()


def test_a_re_keyed_authority_signed_by_its_older_self_does_not_count_in_the_path() -> None:
    device_ca = chain()[1]
    parts = parts_of("device-ca", device_ca, subject_der=device_ca.facts.subject_der)
    assert "rfc5280-path-length-of-issuer" not in parts.broken()


def test_the_shipped_profiles_pass_under_their_authorities() -> None:
    for name, profile in pack().profiles.items():
        if profile.path_length is None:
            issuer = issuer_of(name).facts
            check_tbs(build_tbs(contents(name), issuer), profile, issuer)


@pytest.mark.parametrize("bit", [7, 8, 9, 12, 15])
def test_a_key_usage_bit_that_no_profile_has_is_found(bit: int) -> None:
    parts = device()
    parts.put(usage(0, bit))
    assert "rfc5280-der" in parts.broken()
