"""Templates: the profile and the inventory decide every field, the request gives the key."""

from __future__ import annotations

import ipaddress
from collections.abc import Sequence
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding
from cryptography.x509.oid import AuthorityInformationAccessOID, ExtendedKeyUsageOID, ExtensionOID
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.simulator.certificates import key_usage
from tests.simulator.programs import Result, run
from tests.simulator.refusals import reason_of
from tests.x509 import chains, hierarchy
from tests.x509.hierarchy import DEVICE, GROUP, NOT_BEFORE, UNIT, chain, contents, issuer_of, pack, root, under
from vagus.errors import Malformed, VagusError
from vagus.identifiers import draw_serial
from vagus.reasons import Reason
from vagus.testing import SeededEntropy
from vagus.x509 import der, oids, templates
from vagus.x509.algorithms import RSA_PSS_SHA256, KeyAlgorithm
from vagus.x509.keys import decode_public_key, verify_signature
from vagus.x509.lints import check_tbs
from vagus.x509.names.distinguished import SubjectFields, encode_subject
from vagus.x509.names.hardware_module import HardwareModule
from vagus.x509.requests import decode_request
from vagus.x509.tbs import decode_tbs
from vagus.x509.templates import Contents, NameConstraintSpec, build_tbs, issuer_facts, self_issuer

ENTITIES = sorted(name for name, profile in pack().profiles.items() if profile.path_length is None)


def certificate_of(wanted: Contents, issuer: hierarchy.Authority) -> x509.Certificate:
    check_tbs(build_tbs(wanted, issuer.facts), wanted.profile, issuer.facts)
    return x509.load_der_x509_certificate(issuer.issue(wanted))


def differs_only_in_key_serial_dates(one: bytes, other: bytes) -> bool:
    """Whether two TBS are equal byte for byte without serial, dates, key and key identifier."""

    def blotted(tbs: bytes) -> bytes:
        elements = [whole for _, _, whole in der.split_elements(der.content_of(tbs, der.SEQUENCE))]
        assert len(elements) == 8
        extensions = decode_tbs(tbs).by_oid
        identifier = extensions[oids.SUBJECT_KEY_IDENTIFIER].value
        elements[1] = elements[4] = elements[6] = b""
        return b"".join(elements).replace(identifier, bytes(len(identifier)))

    return blotted(one) == blotted(other)


# --- the request gives the key ---------------------------------------------------------------------------------------


def plain_request(subject: str = "") -> x509.CertificateSigningRequestBuilder:
    return x509.CertificateSigningRequestBuilder().subject_name(x509.Name.from_rfc4514_string(subject))


def with_names() -> x509.CertificateSigningRequestBuilder:
    names = x509.UnrecognizedExtension(ExtensionOID.SUBJECT_ALTERNATIVE_NAME, chains.HOSTILE_NAMES.value)
    builder = plain_request("CN=gate.h1.five-hospitals.example,OU=ER,O=Root of all")
    return builder.add_extension(names, critical=True)


def with_purposes() -> x509.CertificateSigningRequestBuilder:
    purposes = [ExtendedKeyUsageOID.OCSP_SIGNING, ExtendedKeyUsageOID.ANY_EXTENDED_KEY_USAGE]
    return plain_request().add_extension(x509.ExtendedKeyUsage(purposes), critical=True)


def as_authority() -> x509.CertificateSigningRequestBuilder:
    usage = key_usage("key_cert_sign", "crl_sign")
    builder = plain_request().add_extension(x509.BasicConstraints(ca=True, path_length=9), critical=True)
    return builder.add_extension(usage, critical=True)


def with_ten_attributes() -> x509.CertificateSigningRequestBuilder:
    builder = plain_request()
    for arc in range(10):
        builder = builder.add_attribute(x509.ObjectIdentifier(f"1.3.6.1.4.1.32473.7.{arc}"), b"hostile")
    return builder


@pytest.mark.parametrize("profile", ENTITIES)
@pytest.mark.parametrize("build", [with_names, with_purposes, as_authority, with_ten_attributes])
def test_nothing_of_a_hostile_request_but_its_key_reaches_the_certificate(profile: str, build: object) -> None:
    assert callable(build)
    if "p256" not in pack().profiles[profile].key_algorithms:
        pytest.skip("this profile takes no P-256 keys; the template does not differ")
    made: list[bytes] = []
    for number, builder in enumerate((plain_request(), build())):
        key = chains.key("p256", 200 + number)
        assert isinstance(key, ec.EllipticCurvePrivateKey)
        decoded = decode_request(builder.sign(key, hashes.SHA256()).public_bytes(Encoding.DER))
        wanted = contents(
            profile,
            public_key=decoded.public_key,
            serial=draw_serial(SeededEntropy(number)),
            not_before=NOT_BEFORE + timedelta(seconds=number),
        )
        made.append(build_tbs(wanted, issuer_of(profile).facts))
        assert decoded.public_key.spki_der in made[-1]
    assert made[0] != made[1]
    assert differs_only_in_key_serial_dates(*made)


def test_the_comparison_sees_every_other_difference() -> None:
    issuer = chain()[2].facts
    good = build_tbs(contents("bedside"), issuer)
    for changed in (
        contents("bedside", subject_der=encode_subject(SubjectFields("Other"))),
        contents("bedside", dns_names=("other.icu.h1.five-hospitals.example",)),
        contents("bedside", crl_url="http://elsewhere/0.crl"),
        contents("imaging"),
    ):
        assert not differs_only_in_key_serial_dates(good, build_tbs(changed, issuer))


def test_equal_contents_give_equal_bytes() -> None:
    issuer = chain()[2].facts
    assert build_tbs(contents("bedside"), issuer) == build_tbs(contents("bedside"), issuer)


# --- what a certificate contains --------------------------------------------------------------------------------------


def test_a_device_certificate_contains_what_its_profile_says() -> None:
    made = certificate_of(contents("bedside"), chain()[2])
    assert made.version is x509.Version.v3
    assert made.subject.rfc4514_string() == f"CN={DEVICE},OU=Intensive Care,O=Harbour General Hospital"
    found = made.extensions
    names = found.get_extension_for_class(x509.SubjectAlternativeName)
    assert (names.critical, names.value.get_values_for_type(x509.DNSName)) == (False, [f"{DEVICE}.{UNIT}"])
    usage = found.get_extension_for_class(x509.KeyUsage)
    assert (usage.critical, usage.value.digital_signature, usage.value.key_cert_sign) == (True, True, False)
    purposes = found.get_extension_for_class(x509.ExtendedKeyUsage).value
    assert [one.dotted_string for one in purposes] == [oids.CLIENT_AUTH, oids.EAP_OVER_LAN]
    basic = found.get_extension_for_class(x509.BasicConstraints)
    assert (basic.critical, basic.value.ca, basic.value.path_length) == (True, False, None)
    (point,) = found.get_extension_for_class(x509.CRLDistributionPoints).value
    assert point.full_name is not None
    assert point.full_name[0].value == "http://status.five-hospitals.example/crl/h1.icu/1/0.crl"
    access = {one.access_method for one in found.get_extension_for_class(x509.AuthorityInformationAccess).value}
    assert access == {AuthorityInformationAccessOID.OCSP, AuthorityInformationAccessOID.CA_ISSUERS}
    assert (made.not_valid_after_utc - made.not_valid_before_utc).days == 730


def test_authorities_carry_a_crl_pointer_and_no_responder() -> None:
    _, device, unit = chain()
    for authority in (device, unit):
        found = authority.certificate.extensions
        assert found.get_extension_for_class(x509.CRLDistributionPoints)
        methods = [one.access_method for one in found.get_extension_for_class(x509.AuthorityInformationAccess).value]
        assert methods == [AuthorityInformationAccessOID.CA_ISSUERS]
    assert unit.facts.path_length == 0
    assert unit.facts.permitted_dns == (UNIT,)
    assert (device.facts.excludes_addresses, unit.facts.excludes_addresses) == (True, False)


def test_unit_authorities_are_bound_to_their_subtree_and_inherit_the_addresses() -> None:
    _, device, unit = chain()
    above = device.certificate.extensions.get_extension_for_class(x509.NameConstraints)
    assert above.value.excluded_subtrees == [
        x509.IPAddress(ipaddress.ip_network("0.0.0.0/0")),
        x509.IPAddress(ipaddress.ip_network("::/0")),
    ]
    spec = unit.certificate.extensions.get_extension_for_class(x509.NameConstraints)
    assert spec.critical
    assert spec.value.permitted_subtrees == [
        x509.DNSName(UNIT),
        x509.RFC822Name("none.invalid"),
        x509.UniformResourceIdentifier("none.invalid"),
    ]
    assert spec.value.excluded_subtrees is None


def test_a_plan_may_bind_the_distinguished_name_too() -> None:
    fields = SubjectFields("Harbour General Hospital", "Intensive Care", "ignored", country="CH")
    spec = templates.device_subtree_constraints(UNIT, constrain_dn=fields)
    encoded = templates.encode_name_constraints(spec)
    expected = encode_subject(SubjectFields("Harbour General Hospital", "Intensive Care", country="CH"))
    assert der.encode_tlv(0xA4, expected) in encoded


def test_sdc_authorities_are_bound_in_hosts_and_addresses_and_free_in_uris() -> None:
    spec = templates.sdc_constraints([f"sdc.h1.{GROUP}"], ["10.7.0.0/16"])
    made = under(root(), "sdc-ca", "p256", 105, name_constraints=spec)
    found = made.certificate.extensions.get_extension_for_class(x509.NameConstraints).value
    assert found.permitted_subtrees == [
        x509.DNSName(f"sdc.h1.{GROUP}"),
        x509.RFC822Name("none.invalid"),
        x509.IPAddress(ipaddress.ip_network("10.7.0.0/16")),
    ]
    assert found.excluded_subtrees is None
    assert templates.sdc_constraints(["a.example"]).excluded_ip == ("0.0.0.0/0", "::/0")


def test_infrastructure_authorities_are_not_bound() -> None:
    made = under(root(), "infrastructure-ca", "p256", 103)
    with pytest.raises(x509.ExtensionNotFound):
        made.certificate.extensions.get_extension_for_class(x509.NameConstraints)


def test_a_server_certificate_names_hosts_and_addresses() -> None:
    found = certificate_of(contents("tls-server"), issuer_of("tls-server")).extensions
    names = found.get_extension_for_class(x509.SubjectAlternativeName).value
    assert names.get_values_for_type(x509.DNSName) == [f"gate.h1.{GROUP}"]
    assert names.get_values_for_type(x509.IPAddress) == [
        ipaddress.ip_address("10.3.7.21"),
        ipaddress.ip_address("2001:db8::7"),
    ]


def test_an_idevid_never_expires_and_names_its_module() -> None:
    wanted = contents("idevid")
    made = certificate_of(wanted, issuer_of("idevid"))
    assert made.not_valid_after_utc == datetime(9999, 12, 31, 23, 59, 59, tzinfo=UTC)
    assert b"\x18\x0f99991231235959Z" in made.tbs_certificate_bytes
    (name,) = made.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    assert isinstance(name, x509.OtherName)
    assert name.type_id.dotted_string == "1.3.6.1.5.5.7.8.4"
    assert name.value == der.sequence(der.object_identifier("1.3.6.1.4.1.32473.9.1"), der.octet_string(b"AIP3-000001"))
    with pytest.raises(x509.ExtensionNotFound):
        made.extensions.get_extension_for_class(x509.ExtendedKeyUsage)
    assert issuer_of("idevid").facts.not_after is None


def test_a_responder_is_trusted_unchecked_and_points_nowhere() -> None:
    found = certificate_of(contents("ocsp"), chain()[2]).extensions
    assert found.get_extension_for_class(x509.OCSPNoCheck)
    assert list(found.get_extension_for_class(x509.ExtendedKeyUsage).value) == [ExtendedKeyUsageOID.OCSP_SIGNING]
    with pytest.raises(x509.ExtensionNotFound):
        found.get_extension_for_class(x509.CRLDistributionPoints)
    methods = [one.access_method for one in found.get_extension_for_class(x509.AuthorityInformationAccess).value]
    assert AuthorityInformationAccessOID.OCSP not in methods


def test_a_short_lived_certificate_says_so_and_points_nowhere() -> None:
    profile = replace(pack().profiles["technician"], is_short_lived=True, has_crl_pointer=False, has_ocsp_pointer=False)
    made = certificate_of(replace(contents("technician", ca_issuers_url=None), profile=profile), chain()[2])
    found = made.extensions.get_extension_for_oid(x509.ObjectIdentifier("2.5.29.56"))
    assert not found.critical
    assert found.value.public_bytes() == der.NULL_DER
    present = {one.oid.dotted_string for one in made.extensions}
    assert not present & {oids.CRL_DISTRIBUTION_POINTS, oids.AUTHORITY_INFO_ACCESS}


# --- issuers ---------------------------------------------------------------------------------------------------------


def odd_name() -> bytes:
    """A name that no encoder of today writes: Teletex and Printable strings, two attributes in one RDN, BMPString."""

    def one(oid: str, tag: int, text: bytes) -> bytes:
        return der.sequence(der.object_identifier(oid), der.encode_tlv(tag, text))

    return der.sequence(
        der.set_of([one("2.5.4.6", 0x13, b"DE")]),
        der.set_of([one("2.5.4.10", 0x14, "Klinikum Süd".encode("latin-1")), one("2.5.4.11", 0x13, b"IT")]),
        der.set_of([one("2.5.4.3", 0x1E, "Root".encode("utf-16-be"))]),
    )


def test_the_issuer_name_is_copied_byte_for_byte_whatever_its_strings() -> None:
    top = root(subject=odd_name())
    assert top.facts.subject_der == odd_name()
    device = under(top, "device-ca", "p384", 101)
    fields = decode_tbs(device.certificate.tbs_certificate_bytes)
    assert fields.issuer_der == odd_name()
    assert fields.issuer_der == decode_tbs(top.certificate.tbs_certificate_bytes).subject_der


def foreign_root(*extensions: chains.Ext) -> x509.Certificate:
    """A root that others made, without key identifiers of its own."""
    made = chains.make(
        "O=Elsewhere,CN=Foreign Root",
        (chains.basic(), *extensions),
        private=chains.key("p384", 300),
        not_before=NOT_BEFORE,
        not_after=NOT_BEFORE + timedelta(days=8000),
        with_key_ids=False,
    )
    return x509.load_der_x509_certificate(made.der)


def signed(wanted: Contents, facts: templates.IssuerFacts, key: chains.Key) -> x509.Certificate:
    return x509.load_der_x509_certificate(hierarchy.signed(wanted, facts, key))


def test_the_key_identifier_of_an_imported_authority_is_copied() -> None:
    named = foreign_root(chains.Ext(oids.SUBJECT_KEY_IDENTIFIER, der.octet_string(b"\x01\x02\x03")))
    facts = issuer_facts(named, generation=3)
    assert (facts.key_identifier, facts.generation, facts.path_length) == (b"\x01\x02\x03", 3, None)
    bare = issuer_facts(foreign_root())
    assert len(bare.key_identifier) == 20
    wanted = contents("device-ca")
    check_tbs(build_tbs(wanted, facts), wanted.profile, facts)
    made = signed(wanted, facts, chains.key("p384", 300))
    found = made.extensions.get_extension_for_class(x509.AuthorityKeyIdentifier)
    assert found.value == x509.AuthorityKeyIdentifier(b"\x01\x02\x03", None, None)


@pytest.mark.parametrize(
    ("permitted", "expected"),
    [
        ([("dns", ".H1.example"), ("dns", "h2.example")], ("h1.example", "h2.example")),
        ([("dns", "")], ("",)),
        ([("email", "none.invalid")], ()),
    ],
)
def test_the_constraints_of_an_imported_authority_are_read_as_subtrees(
    permitted: list[tuple[str, str | bytes]], expected: tuple[str, ...]
) -> None:
    facts = issuer_facts(foreign_root(chains.constraints(permitted)))
    assert facts.permitted_dns == expected
    wanted = contents("bedside", dns_names=(f"{DEVICE}.icu.h1.example",))
    check_tbs(build_tbs(wanted, facts), wanted.profile, facts)


def test_an_issuer_may_sign_with_another_algorithm_of_its_key() -> None:
    key = chains.key("rsa3072", 301)
    public = decode_public_key(chains.spki(key))
    facts = self_issuer(encode_subject(SubjectFields("Old")), public, None, signature_algorithm=RSA_PSS_SHA256)
    loaded = signed(contents("bedside"), facts, key)
    verify_signature(public.spki_der, RSA_PSS_SHA256.identifier_der, loaded.signature, loaded.tbs_certificate_bytes)


@pytest.mark.parametrize("issuer_kind", ["p256", "p384", "rsa3072", "mldsa44", "mldsa65", "mldsa87"])
@pytest.mark.parametrize("subject_kind", ["p256", "rsa3072", "mldsa44", "mldsa65", "mldsa87"])
def test_every_kind_of_issuer_certifies_every_kind_of_key(issuer_kind: str, subject_kind: str) -> None:
    name = encode_subject(SubjectFields("Harbour General Hospital", "ICU", "ICU Issuing CA"))
    key = chains.key(issuer_kind, 302)
    public = decode_public_key(chains.spki(key))
    facts = self_issuer(name, public, NOT_BEFORE + timedelta(days=2000))
    wanted = contents("life-support", public_key=hierarchy.public_key(subject_kind))
    tbs = build_tbs(wanted, facts)
    check_tbs(tbs, wanted.profile, facts)
    loaded = signed(wanted, facts, key)
    verify_signature(public.spki_der, facts.signature_algorithm.identifier_der, loaded.signature, tbs)
    assert loaded.tbs_certificate_bytes == tbs
    assert loaded.public_key() == chains.key(subject_kind).public_key()


# --- the outside opinion of OpenSSL ----------------------------------------------------------------------------------


def pem(*certificates: bytes) -> bytes:
    return b"".join(x509.load_der_x509_certificate(one).public_bytes(Encoding.PEM) for one in certificates)


def openssl_verify(folder: Path, path: Sequence[hierarchy.Authority], leaf: Contents, *options: str) -> Result:
    top, device, unit = path
    for name, content in (("root", (top.der,)), ("chain", (device.der, unit.der)), ("leaf", (unit.issue(leaf),))):
        (folder / f"{name}.pem").write_bytes(pem(*content))
    at = str(int((NOT_BEFORE + timedelta(days=30)).timestamp()))
    files = ("-CAfile", "root.pem", "-untrusted", "chain.pem", "leaf.pem")
    return run("openssl", "verify", "-x509_strict", "-attime", at, *options, *files, cwd=folder)


@pytest.mark.parametrize(("kind", "root_kind"), [("p256", "p384"), ("p384", "p384"), ("rsa3072", "rsa3072")])
def test_openssl_verifies_the_chain_strictly(tmp_path: Path, kind: str, root_kind: str) -> None:
    done = openssl_verify(tmp_path, chain(kind, root_kind), contents("bedside"), "-purpose", "sslclient")
    assert (done.code, done.raw.strip()) == (0, b"leaf.pem: OK"), done.text


def test_openssl_refuses_a_leaf_of_another_unit(tmp_path: Path) -> None:
    foreign = contents("bedside", dns_names=(f"{DEVICE}.er.h1.{GROUP}",))
    done = openssl_verify(tmp_path, chain(), foreign)
    assert done.code != 0
    assert "permitted subtree violation" in done


# --- bad values ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "changes",
    [
        {"dns_names": ("pümp.example",)},
        {"dns_names": ("",)},
        {"dns_names": ("a b",)},
        {"ip_addresses": ("10.0.0",)},
        {"ip_addresses": ("10.0.0.0/8",)},
        {"crl_url": "http://ü/"},
        {"ocsp_url": ""},
        {"hardware_module": HardwareModule("1.2.3", b"")},
        {"hardware_module": HardwareModule("one.two", b"1")},
        {"name_constraints": NameConstraintSpec(permitted_ip=("10.0.0.1/8",))},
        {"name_constraints": NameConstraintSpec(permitted_dns=("ü",))},
    ],
)
def test_values_that_cannot_be_encoded_are_refused(changes: dict[str, object]) -> None:
    wanted = contents("bedside", **changes)
    reason = reason_of(build_tbs, wanted, chain()[2].facts, error=Malformed)
    assert reason in {Reason.NON_CANONICAL, Reason.BAD_ENCODING}


@given(
    names=st.lists(st.text(max_size=30), max_size=3),
    addresses=st.lists(st.one_of(st.ip_addresses().map(str), st.text(max_size=10)), max_size=2),
    serial=st.integers(min_value=-(1 << 170), max_value=1 << 170),
    seconds=st.integers(0, 10**9),
    url=st.one_of(st.none(), st.text(max_size=30)),
)
@settings(max_examples=150, deadline=None)
def test_whatever_is_built_reads_back_and_whatever_is_not_raises_ours(
    names: list[str], addresses: list[str], serial: int, seconds: int, url: str | None
) -> None:
    wanted = contents(
        "bedside",
        dns_names=tuple(names),
        ip_addresses=tuple(addresses),
        serial=serial,
        not_after=NOT_BEFORE + timedelta(seconds=seconds),
        crl_url=url,
    )
    try:
        tbs = build_tbs(wanted, chain()[2].facts)
    except VagusError:
        return
    fields = decode_tbs(tbs)
    assert (fields.serial, fields.not_before) == (serial, NOT_BEFORE)
    assert fields.not_after == NOT_BEFORE + timedelta(seconds=seconds)
    assert (fields.spki_der, fields.subject_der) == (wanted.public_key.spki_der, wanted.subject_der)
    assert fields.issuer_der == chain()[2].facts.subject_der
    assert (url is not None) is (oids.CRL_DISTRIBUTION_POINTS in fields.by_oid)


def test_the_keys_of_profiles_are_the_ones_that_templates_know() -> None:
    known = set(KeyAlgorithm)
    assert all(profile.key_algorithms <= known for profile in pack().profiles.values())
