"""Certificates of a case, sorted into leaves and authorities, and chains that checks make for their twins."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime, timedelta
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding
from cryptography.x509.oid import ExtendedKeyUsageOID

from tests.cases.case import Case
from tests.simulator.certificates import Extension, key_usage, sign_certificate
from tests.simulator.orders import common_name, new_key


@dataclass(frozen=True, slots=True)
class Chain:
    """A leaf and every authority that came with it; the one that issued itself is the anchor."""

    leaf: x509.Certificate
    authorities: tuple[x509.Certificate, ...]

    def arguments(self, folder: Path, leaf_der: bytes | None = None) -> list[str]:
        """`validate LEAF CHAIN... --anchors ROOT` with the certificates in files of `folder`."""
        paths = []
        for number, each in enumerate((self.leaf, *self.authorities)):
            path = folder / f"{number}.der"
            path.write_bytes(each.public_bytes(Encoding.DER))
            paths.append((each, str(path)))
        if leaf_der is not None:
            Path(paths[0][1]).write_bytes(leaf_der)
        roots = [path for each, path in paths[1:] if each.issuer == each.subject]
        between = [path for each, path in paths[1:] if each.issuer != each.subject]
        return ["validate", paths[0][1], *between, *(word for root in roots for word in ("--anchors", root))]


def read_certificates(case: Case) -> tuple[list[x509.Certificate], list[x509.Certificate]]:
    """Leaves and authorities among the DER and PEM files; a file that is no certificate is passed over."""
    leaves: list[x509.Certificate] = []
    authorities: list[x509.Certificate] = []
    for content in case.matching(".der", ".pem", ".crt", ".cer").values():
        try:
            is_pem = content.lstrip().startswith(b"-----")
            found = x509.load_pem_x509_certificates(content) if is_pem else [x509.load_der_x509_certificate(content)]
        except ValueError:
            continue
        for each in found:
            (authorities if _is_authority(each) else leaves).append(each)
    return leaves, authorities


def _is_authority(certificate: x509.Certificate) -> bool:
    try:
        return certificate.extensions.get_extension_for_class(x509.BasicConstraints).value.ca
    except x509.ExtensionNotFound:
        return False


@dataclass(frozen=True, slots=True)
class MadeChain:
    """A root, a CA and a leaf whose keys are at hand."""

    root_key: ec.EllipticCurvePrivateKey
    ca_key: ec.EllipticCurvePrivateKey
    chain: Chain
    at: datetime

    def crl(self, number: int, *, is_revoked: bool) -> x509.CertificateRevocationList:
        """A CRL of the CA, newer the higher its number."""
        serial = self.chain.leaf.serial_number if is_revoked else None
        return _crl(self.chain.authorities[0], self.ca_key, number, self.at + timedelta(days=number), serial)

    def root_crl(self) -> x509.CertificateRevocationList:
        """A CRL of the root that revokes nothing."""
        return _crl(self.chain.authorities[1], self.root_key, 1, self.at, None)


def make_chain(at: datetime, *names: x509.GeneralName, is_server: bool = False) -> MadeChain:
    """A path that is valid for a year around `at`; the leaf has these names."""
    root_key, ca_key, key = new_key(), new_key(), new_key()
    root_name, ca_name = common_name("Twin Root"), common_name("Twin CA")
    ca = ((x509.BasicConstraints(ca=True, path_length=None), True), (key_usage("key_cert_sign", "crl_sign"), True))
    usage = ExtendedKeyUsageOID.SERVER_AUTH if is_server else ExtendedKeyUsageOID.CLIENT_AUTH
    leaf = (
        (x509.BasicConstraints(ca=False, path_length=None), True),
        (key_usage("digital_signature"), True),
        (x509.ExtendedKeyUsage([usage]), False),
        (x509.SubjectAlternativeName(names or [x509.DNSName("twin.example")]), False),
    )

    def sign(
        subject: x509.Name,
        key: ec.EllipticCurvePrivateKey,
        issuer: x509.Name,
        signer: ec.EllipticCurvePrivateKey,
        *extensions: Extension,
    ) -> x509.Certificate:
        public = key.public_key()
        return sign_certificate(
            subject,
            public,
            issuer,
            signer,
            *extensions,
            (x509.SubjectKeyIdentifier.from_public_key(public), False),
            (x509.AuthorityKeyIdentifier.from_issuer_public_key(signer.public_key()), False),
            not_before=at - timedelta(days=100),
            lifetime=timedelta(days=365),
        )

    root = sign(root_name, root_key, root_name, root_key, *ca)
    between = sign(ca_name, ca_key, root_name, root_key, *ca)
    end = sign(common_name("twin"), key, ca_name, ca_key, *leaf)
    return MadeChain(root_key, ca_key, Chain(end, (between, root)), at)


def _crl(
    issuer: x509.Certificate, key: ec.EllipticCurvePrivateKey, number: int, at: datetime, serial: int | None
) -> x509.CertificateRevocationList:
    builder = (
        x509.CertificateRevocationListBuilder()
        .issuer_name(issuer.subject)
        .last_update(at)
        .next_update(at + timedelta(days=90))
        .add_extension(x509.CRLNumber(number), critical=False)
        .add_extension(x509.AuthorityKeyIdentifier.from_issuer_public_key(key.public_key()), critical=False)
    )
    if serial is not None:
        revoked = x509.RevokedCertificateBuilder().serial_number(serial).revocation_date(at).build()
        builder = builder.add_revoked_certificate(revoked)
    return builder.sign(key, hashes.SHA256())
