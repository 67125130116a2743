"""Small authorities for tests of listeners and of the agent: real keys, real certificates, no policy."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from functools import cache
from ipaddress import ip_address
from typing import Any

from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec, mldsa
from cryptography.hazmat.primitives.serialization import Encoding
from cryptography.x509.oid import ExtendedKeyUsageOID

from tests.simulator import orders
from tests.simulator.orders import key_pem, new_key
from vagus.testing import NOON
from vagus.tls import Credential

_HOUR = timedelta(hours=1)
_NOW = datetime.now(UTC)
CLIENT_AUTH, SERVER_AUTH = ExtendedKeyUsageOID.CLIENT_AUTH, ExtendedKeyUsageOID.SERVER_AUTH

Key = ec.EllipticCurvePrivateKey | mldsa.MLDSA65PrivateKey
Extension = tuple[x509.ExtensionType, bool]
"""An extension, and whether it is critical."""

_USAGES = ("digital_signature", "content_commitment", "key_encipherment", "data_encipherment", "key_agreement")


def key_usage(*bits: str) -> x509.KeyUsage:
    """A keyUsage with these bits, named as the library names them."""
    every = (*_USAGES, "key_cert_sign", "crl_sign", "encipher_only", "decipher_only")
    return x509.KeyUsage(**{name: name in bits for name in every})


def sign_certificate(
    subject: x509.Name,
    public: Any,
    issuer: x509.Name,
    signer: Key,
    *extensions: Extension,
    not_before: datetime,
    lifetime: timedelta,
    serial: int | None = None,
) -> x509.Certificate:
    """A v3 certificate with just these extensions."""
    builder = x509.CertificateBuilder().subject_name(subject).issuer_name(issuer).public_key(public)
    builder = builder.serial_number(serial or x509.random_serial_number())
    builder = builder.not_valid_before(not_before).not_valid_after(not_before + lifetime)
    for extension, is_critical in extensions:
        builder = builder.add_extension(extension, is_critical)
    return builder.sign(signer, hashes.SHA256() if isinstance(signer, ec.EllipticCurvePrivateKey) else None)


@dataclass(frozen=True)
class Issued:
    """A certificate with its key and the chain above it: of an authority, or of what it certifies."""

    certificate: x509.Certificate
    key: Key
    above: tuple[x509.Certificate, ...] = ()

    @property
    def der(self) -> bytes:
        return self.certificate.public_bytes(Encoding.DER)

    @property
    def pem(self) -> bytes:
        return self.certificate.public_bytes(Encoding.PEM)

    @property
    def serial(self) -> int:
        return self.certificate.serial_number

    @property
    def credential(self) -> Credential:
        """Chain without the root, and key, as a listener or a client loads them."""
        shown = (self.certificate, *(each for each in self.above if each.issuer != each.subject))
        return Credential(b"".join(each.public_bytes(Encoding.PEM) for each in shown), key_pem(self.key))

    def certify(
        self,
        key: x509.CertificateSigningRequest | Key,
        *,
        common_name: str = "leaf",
        dns_names: tuple[str, ...] = (),
        addresses: tuple[str, ...] = (),
        roles: tuple[x509.ObjectIdentifier, ...] = (CLIENT_AUTH,),
        not_before: datetime = NOON - _HOUR,
        lifetime: timedelta = timedelta(days=365),
        crl_url: str | None = None,
        critical: x509.UnrecognizedExtension | None = None,
    ) -> x509.Certificate:
        """A leaf certificate for the key."""
        names: list[x509.GeneralName] = [x509.DNSName(name) for name in dns_names]
        names += [x509.IPAddress(ip_address(address)) for address in addresses]
        extensions: list[Extension] = [(x509.SubjectAlternativeName(names), False)] if names else []
        if roles:
            extensions.append((x509.ExtendedKeyUsage(roles), False))
        if crl_url is not None:
            point = x509.DistributionPoint([x509.UniformResourceIdentifier(crl_url)], None, None, None)
            extensions.append((x509.CRLDistributionPoints([point]), False))
        if critical is not None:
            extensions.append((critical, True))
        return sign_certificate(
            orders.common_name(common_name),
            key.public_key(),
            self.certificate.subject,
            self.key,
            *extensions,
            not_before=not_before,
            lifetime=lifetime,
        )

    def issue(self, name: str, *, key: Key | None = None) -> Issued:
        """A certificate of now for both sides of TLS, with its key."""
        key = key or new_key()
        leaf = self.certify(
            key,
            common_name=name,
            dns_names=(name,),
            addresses=("127.0.0.1",) if name == "localhost" else (),
            roles=(CLIENT_AUTH, SERVER_AUTH),
            not_before=_NOW - _HOUR,
            lifetime=25 * _HOUR,
        )
        return Issued(leaf, key, (self.certificate, *self.above))

    def crl(self, at: datetime, revoked: tuple[int, ...] = (), *, is_delta: bool = False) -> bytes:
        """A CRL signed at `at`."""
        builder = x509.CertificateRevocationListBuilder().issuer_name(self.certificate.subject)
        builder = builder.last_update(at).next_update(at + timedelta(days=7))
        if is_delta:
            builder = builder.add_extension(x509.DeltaCRLIndicator(1), critical=True)
        for serial in revoked:
            entry = x509.RevokedCertificateBuilder().serial_number(serial).revocation_date(at).build()
            builder = builder.add_revoked_certificate(entry)
        return builder.sign(self.key, hashes.SHA256()).public_bytes(Encoding.DER)


def make_authority(
    name: str,
    parent: Issued | None = None,
    *,
    path_length: int | None = None,
    is_ca: bool = True,
    now: datetime = NOON,
) -> Issued:
    """A new authority, self-signed without a parent."""
    key, subject = new_key(), orders.common_name(name)
    extensions: list[Extension] = [(x509.BasicConstraints(is_ca, path_length), True)]
    if is_ca:
        extensions.append((key_usage("key_cert_sign", "crl_sign"), True))
    issuer, signer = (subject, key) if parent is None else (parent.certificate.subject, parent.key)
    begin, lifetime = now - timedelta(days=30), timedelta(days=3680)
    certificate = sign_certificate(
        subject, key.public_key(), issuer, signer, *extensions, not_before=begin, lifetime=lifetime
    )
    return Issued(certificate, key, () if parent is None else (parent.certificate, *parent.above))


class TestAuthority:
    """Root and one issuing authority below it."""

    __test__ = False

    def __init__(self) -> None:
        self.root = make_authority("Root", now=_NOW)
        self.issuing = make_authority("Root issuing", self.root, now=_NOW)
        self.issue = self.issuing.issue


@cache
def authority() -> TestAuthority:
    """The authority that most tests share."""
    return TestAuthority()


@cache
def stranger() -> TestAuthority:
    """An authority with the same names and other keys."""
    return TestAuthority()


@cache
def server_credential() -> Credential:
    """For `localhost` and 127.0.0.1."""
    return authority().issue("localhost").credential


@cache
def pump() -> Issued:
    """A device's certificate."""
    return authority().issue("pump.icu.h1.test")
