"""Authorities are requested, imported as others made them, certified elsewhere, and re-keyed beside the old."""

from __future__ import annotations

import shutil
from collections.abc import Sequence
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec, rsa

from tests.simulator.certificates import key_usage
from tests.simulator.installation import BY, H1, ICU, ROOT, Installation, new_installation
from tests.simulator.orders import public_key_of
from tests.simulator.programs import run
from tests.simulator.queries import list_key_ids
from tests.simulator.refusals import reason_of, refuses
from vagus.errors import Conflict, NotTrusted, Refused
from vagus.keystore.passphrases import Passphrase
from vagus.policy.plans import PlannedAuthority
from vagus.reasons import Reason
from vagus.records import authorities as rows
from vagus.x509.pem import encode_block
from vagus.x509.requests import decode_request

PRIVATE = (serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
OTHER = Passphrase("staple correct horse")


# requests


def test_a_request_is_a_key_a_row_and_a_file(installation: Installation) -> None:
    requested = installation.hierarchy.request(ROOT, by=BY)
    csr = x509.load_pem_x509_csr((installation.folder / "requests" / "root.1.csr").read_bytes())
    assert csr.is_signature_valid
    assert csr.public_bytes(serialization.Encoding.DER) == requested.request_der
    assert csr.subject.rfc4514_string() == "CN=Group Root,O=Group"
    assert (
        decode_request(requested.request_der).public_key.spki_der == installation.keystore("root").load("ca-1").spki_der
    )


def test_a_repeated_request_is_the_same_request(installation: Installation) -> None:
    first = installation.hierarchy.request(ROOT, by=BY)
    (installation.folder / "requests" / "root.1.csr").unlink()
    assert installation.hierarchy.request(ROOT, by=BY) == first
    assert (installation.folder / "requests" / "root.1.csr").exists()


def test_a_key_that_a_crash_left_is_used(installation: Installation) -> None:
    installation.hierarchy.request(ROOT, by=BY)
    left = installation.keystore("h1")
    key = installation.hierarchy._key("h1", 1, installation.hierarchy.rule(H1.kind).key_algorithm)
    requested = installation.hierarchy.request(H1, by=BY)
    assert decode_request(requested.request_der).public_key.spki_der == key.spki_der
    assert list_key_ids(left.folder) == ["ca-1"]


def test_an_existing_authority_is_not_requested_again(built: Installation) -> None:
    with refuses(Reason.ALREADY_EXISTS, Conflict):
        built.hierarchy.request(ICU, by=BY)


# rollover


def test_after_a_rollover_both_generations_live_and_the_newest_issues(built: Installation) -> None:
    old = built.issue(built.issuers("h1/icu"))
    built.advance(days=900)
    built.hierarchy.request(ICU, by=BY, is_rekey=True)
    assert built.ceremony().hold().certified == ("h1/icu#2",)
    issuers = built.issuers("h1/icu")
    assert [one.reference for one in issuers.every()] == ["h1/icu#1", "h1/icu#2"]
    assert issuers["h1/icu"].reference == "h1/icu#2"
    assert issuers["h1/icu#1"].reference == "h1/icu#1"
    new = built.issue(issuers)
    for issued, generation in ((old, 1), (new, 2)):
        issuer = x509.load_der_x509_certificate(issuers[f"h1/icu#{generation}"].certificate_der)
        x509.load_der_x509_certificate(issued.der).verify_directly_issued_by(issuer)
    subjects = {one.facts.subject_der for one in issuers.every()}
    assert len(subjects) == 2, "one generation's CRL never covers the other's certificates"
    for issuer_of_both in issuers.every():
        assert built.publisher.publish_all(issuer_of_both)


def test_a_retired_generation_still_signs_crls_and_nothing_else(built: Installation) -> None:
    built.hierarchy.request(ICU, by=BY, is_rekey=True)
    built.ceremony().hold()
    built.hierarchy.retire("h1/icu", 1, by=BY)
    issuers = built.issuers("h1/icu")
    built.advance(seconds=2)
    assert built.publisher.publish_all(issuers["h1/icu#1"])
    with refuses(Reason.AUTHORITY_IN_USE, Conflict):
        built.issuance().issue_now(built.order(), issuers["h1/icu#1"])
    with refuses(Reason.AUTHORITY_UNKNOWN, Conflict):
        built.hierarchy.retire("h1/icu", 1, by=BY)


def test_a_root_rolls_over_too(built: Installation) -> None:
    built.hierarchy.request(ROOT, by=BY, is_rekey=True)
    assert built.ceremony().hold().certified == ("root#2",)
    built.hierarchy.request(replace(H1, name="h2"), by=BY)
    assert built.ceremony().hold().certified == ("h2#1",)
    parents = [built.find(rows.find_newest, name).parent_id or 0 for name in ("h1", "h2")]
    assert [built.find(rows.find_by_id, one).reference for one in parents] == ["root#1", "root#2"]


# a root that lives elsewhere


class Elsewhere:
    """A CA of another operator."""

    def __init__(self, at: datetime) -> None:
        self.at = at
        self.key = ec.generate_private_key(ec.SECP384R1())
        self.name = x509.Name([x509.NameAttribute(x509.NameOID.ORGANIZATION_NAME, "Elsewhere")])
        self.root = self.certify(self.name, self.key.public_key(), path_length=3)

    def certify(
        self,
        subject: x509.Name,
        public: ec.EllipticCurvePublicKey,
        *,
        path_length: int | None = 1,
        is_ca: bool = True,
        can_revoke: bool = True,
        odd: bool = False,
        days: int = 4000,
    ) -> x509.Certificate:
        usage = key_usage("key_cert_sign", *(["crl_sign"] if can_revoke else []))
        builder = (
            x509.CertificateBuilder(self.name, subject, public, x509.random_serial_number())
            .not_valid_before(self.at - timedelta(days=1))
            .not_valid_after(self.at + timedelta(days=days))
            .add_extension(x509.BasicConstraints(ca=is_ca, path_length=path_length if is_ca else None), critical=True)
            .add_extension(usage, critical=True)
            .add_extension(x509.SubjectKeyIdentifier.from_public_key(public), critical=False)
        )
        if odd:
            foreign = x509.UnrecognizedExtension(x509.ObjectIdentifier("1.3.6.1.4.1.99999.1"), b"\x05\x00")
            builder = builder.add_extension(foreign, critical=True)
        return builder.sign(self.key, hashes.SHA384())

    def make(self, name: str) -> tuple[ec.EllipticCurvePrivateKey, x509.Certificate]:
        """An authority below its root, with its key."""
        key = ec.generate_private_key(ec.SECP384R1())
        subject = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, name)])
        return key, self.certify(subject, key.public_key())

    def pem(self, *certificates: x509.Certificate) -> bytes:
        return b"".join(one.public_bytes(serialization.Encoding.PEM) for one in (*certificates, self.root))


FOREIGN, FOREIGN_UNIT = replace(H1, parent=None), replace(ICU, parent=None)


def import_pair(
    installation: Installation,
    pem: bytes,
    key: ec.EllipticCurvePrivateKey | rsa.RSAPrivateKey,
    planned: PlannedAuthority = FOREIGN_UNIT,
    *,
    crls: Sequence[bytes] = (),
) -> str:
    """Take over an authority of another operator with its key; its reference."""
    pkcs8 = key.private_bytes(*PRIVATE)
    return installation.hierarchy.import_authority(planned, pem, pkcs8, None, crls=crls, by=BY)[0]


@pytest.fixture
def elsewhere(installation: Installation) -> Elsewhere:
    return Elsewhere(installation.clock.now())


def request_foreign(installation: Installation) -> tuple[x509.CertificateSigningRequest, ec.EllipticCurvePublicKey]:
    """The request that goes out for h1, with its key."""
    installation.hierarchy.request(FOREIGN, by=BY)
    csr = x509.load_pem_x509_csr((installation.folder / "requests" / "h1.1.csr").read_bytes())
    public = csr.public_key()
    assert isinstance(public, ec.EllipticCurvePublicKey)
    return csr, public


def test_a_certificate_comes_in_for_a_request_that_went_out(installation: Installation, elsewhere: Elsewhere) -> None:
    csr, public = request_foreign(installation)
    assert installation.ceremony().find_pending() == (), "no ceremony here can certify it"
    made = elsewhere.certify(csr.subject, public)
    assert installation.hierarchy.accept_certificate("h1", elsewhere.pem(made), by=BY) == "h1#1"
    installation.hierarchy.request(ICU, by=BY)
    assert installation.ceremony().hold().certified == ("h1/icu#1",)
    issuer = installation.issuers("h1/icu")["h1/icu"]
    assert [x509.load_der_x509_certificate(one) for one in issuer.chain_der] == [made, elsewhere.root]
    assert installation.issue(installation.issuers("h1/icu")).der
    with refuses(Reason.ALREADY_EXISTS, Conflict):
        installation.hierarchy.accept_certificate("h1", elsewhere.pem(made), by=BY)


def test_a_certificate_that_is_not_ours_to_use_does_not_come_in(
    installation: Installation, elsewhere: Elsewhere
) -> None:
    csr, public = request_foreign(installation)
    stranger = Elsewhere(installation.clock.now())
    good = elsewhere.certify(csr.subject, public)
    later = good.public_bytes(serialization.Encoding.DER).replace(b"\xa0\x03\x02\x01\x02", b"\xa0\x03\x02\x01\x17")
    cases: list[tuple[bytes, Reason]] = [
        (elsewhere.pem(elsewhere.certify(csr.subject, stranger.key.public_key())), Reason.KEY_MISMATCH),
        (elsewhere.pem(elsewhere.certify(csr.subject, public, is_ca=False)), Reason.NOT_A_CA),
        (elsewhere.pem(elsewhere.certify(csr.subject, public, can_revoke=False)), Reason.KEY_USAGE),
        (elsewhere.pem(elsewhere.certify(csr.subject, public, odd=True)), Reason.UNKNOWN_CRITICAL),
        (elsewhere.pem(elsewhere.certify(csr.subject, public, days=0)), Reason.EXPIRED_CA),
        (stranger.pem(good), Reason.BAD_SIGNATURE),
        (elsewhere.pem(good, stranger.certify(csr.subject, public)), Reason.NAME_CHAINING),
        (b"nothing", Reason.BAD_ENCODING),
        (encode_block(later, "CERTIFICATE"), Reason.BAD_ENCODING),  # of version 24
    ]
    for pem, reason in cases:
        assert reason_of(installation.hierarchy.accept_certificate, "h1", pem, by=BY) is reason
    with refuses(Reason.AUTHORITY_UNKNOWN, Conflict):
        installation.hierarchy.accept_certificate("h9", elsewhere.pem(good), by=BY)
    assert installation.hierarchy.accept_certificate("h1", elsewhere.pem(good), by=BY) == "h1#1"


def test_no_device_gets_the_key_of_a_foreign_root(installation: Installation, elsewhere: Elsewhere) -> None:
    key, made = elsewhere.make("Ours")
    import_pair(installation, elsewhere.pem(made), key)
    with refuses(Reason.KEY_BLOCKED, Conflict):
        installation.issuance().issue_now(
            installation.order(public_key=public_key_of(elsewhere.key)), installation.issuers("h1/icu")["h1/icu"]
        )


# import


def test_a_pair_that_does_not_match_is_not_imported(installation: Installation, elsewhere: Elsewhere) -> None:
    _, made = elsewhere.make("Ours")
    wrong = ec.generate_private_key(ec.SECP384R1())
    with refuses(Reason.KEY_MISMATCH, Conflict):
        import_pair(installation, elsewhere.pem(made), wrong)
    assert not (installation.folder / "keystores").exists(), "no key was stored"
    weak = rsa.generate_private_key(65537, 2048)
    small = x509.CertificateBuilder(
        made.subject, made.subject, weak.public_key(), 5, made.not_valid_before_utc, made.not_valid_after_utc
    )
    small = small.add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
    pem = small.sign(weak, hashes.SHA256()).public_bytes(serialization.Encoding.PEM)
    with refuses(Reason.UNSUPPORTED_ALGORITHM, Refused):
        import_pair(installation, pem, weak)


OPENSSL_CONFIG = """
[req]
distinguished_name = dn
prompt = no
string_mask = {mask}
[dn]
C = DE
O = Klinik am See
OU = Alt-CA
CN = Issuing CA 2019
[ca]
basicConstraints = critical,CA:TRUE,pathlen:0
keyUsage = critical,keyCertSign,cRLSign,digitalSignature
subjectKeyIdentifier = hash
nsComment = "made by hand"
certificatePolicies = 1.3.6.1.4.1.99999.7,@cps
1.3.6.1.4.1.99999.42 = ASN1:UTF8String:foreign
[cps]
policyIdentifier = 1.3.6.1.4.1.99999.8
CPS.1 = "https://klinik.example/cps"
"""

needs_openssl = pytest.mark.skipif(not shutil.which("openssl"), reason="needs the openssl command")


@needs_openssl
@pytest.mark.parametrize(
    ("algorithm", "mask"),
    [
        (["-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-384", "-sha384"], "utf8only"),
        (["-newkey", "rsa:3072", "-sha256"], "nombstr"),  # T61String and PrintableString names, as old CAs have them
    ],
)
def test_a_ca_made_by_openssl_is_imported_with_its_name_byte_for_byte(
    tmp_path: Path, algorithm: list[str], mask: str
) -> None:
    (tmp_path / "ca.cnf").write_text(OPENSSL_CONFIG.format(mask=mask))
    how = ("req", "-x509", "-config", "ca.cnf", "-extensions", "ca", "-days", "3650", *algorithm)
    files = ("-keyout", "ca.key", "-out", "ca.pem", "-passout", "pass:staple correct horse")
    assert run("openssl", *how, *files, cwd=tmp_path).code == 0
    pem = (tmp_path / "ca.pem").read_bytes()
    theirs = x509.load_pem_x509_certificate(pem)
    with new_installation(tmp_path / "installation") as installation:
        installation.clock.set(datetime.now(UTC))
        reference, revoked = installation.hierarchy.import_authority(
            replace(ICU, parent=None), pem, (tmp_path / "ca.key").read_bytes(), OTHER, crls=[], by=BY
        )
        assert (reference, revoked) == ("h1/icu#1", 0)
        issuers = installation.issuers("h1/icu")
        issued = installation.issue(issuers)
        ours = x509.load_der_x509_certificate(issued.der)
        assert ours.issuer.public_bytes() == theirs.subject.public_bytes()
        ours.verify_directly_issued_by(theirs)
        identifier = theirs.extensions.get_extension_for_class(x509.SubjectKeyIdentifier).value.digest
        pointer = ours.extensions.get_extension_for_class(x509.AuthorityKeyIdentifier).value
        assert pointer.key_identifier == identifier
        assert issuers["h1/icu"].certificate_der == theirs.public_bytes(serialization.Encoding.DER)
        assert installation.publisher.publish_all(issuers["h1/icu"])
        (tmp_path / "leaf.pem").write_bytes(ours.public_bytes(serialization.Encoding.PEM))
        lists = (installation.folder / "published" / "crl" / "h1.icu" / "1" / "0.crl").read_bytes()
        (tmp_path / "list.pem").write_bytes(x509.load_der_x509_crl(lists).public_bytes(serialization.Encoding.PEM))
    shown = ("-CAfile", "ca.pem", "-CRLfile", "list.pem", "leaf.pem")
    verified = run("openssl", "verify", "-x509_strict", "-crl_check", *shown, cwd=tmp_path)
    assert verified.raw == b"leaf.pem: OK\n", verified.text


def test_an_import_beside_a_waiting_request_is_refused(installation: Installation, elsewhere: Elsewhere) -> None:
    installation.hierarchy.request(FOREIGN, by=BY)
    with refuses(Reason.ALREADY_EXISTS, Conflict):
        import_pair(installation, elsewhere.pem(), elsewhere.key, FOREIGN)


def test_a_chain_out_of_order_is_refused(installation: Installation, elsewhere: Elsewhere) -> None:
    key, made = elsewhere.make("Ours")
    backwards = b"".join(one.public_bytes(serialization.Encoding.PEM) for one in (elsewhere.root, made))
    with refuses(Reason.NAME_CHAINING, NotTrusted):
        import_pair(installation, backwards, key)
