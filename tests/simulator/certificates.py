"""A small authority for tests of the gate: real keys, real certificates, no policy."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from functools import cache
from ipaddress import ip_address
from typing import Any

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec, mldsa
from cryptography.x509.oid import ExtendedKeyUsageOID

from tests.simulator.orders import common_name, key_pem, new_key
from vagus.tls import Credential

_HOUR = timedelta(hours=1)
_NOW = datetime.now(UTC)

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
    """A certificate with its key and the chain above it."""

    certificate: x509.Certificate
    key: Key
    above: tuple[x509.Certificate, ...]

    @property
    def der(self) -> bytes:
        return self.certificate.public_bytes(serialization.Encoding.DER)

    @property
    def serial(self) -> int:
        return self.certificate.serial_number

    @property
    def credential(self) -> Credential:
        """Chain without the root, and key, as a listener or a client loads them."""
        shown = (self.certificate, *(each for each in self.above if each.issuer != each.subject))
        return Credential(b"".join(each.public_bytes(serialization.Encoding.PEM) for each in shown), key_pem(self.key))


def _sign(name: str, key: Key, issuer: Issued | None, *, is_ca: bool) -> Issued:
    extensions: list[Extension] = [(x509.BasicConstraints(ca=is_ca, path_length=None), True)]
    if not is_ca:
        names: list[x509.GeneralName] = [x509.DNSName(name)]
        if name == "localhost":
            names.append(x509.IPAddress(ip_address("127.0.0.1")))
        both = [ExtendedKeyUsageOID.CLIENT_AUTH, ExtendedKeyUsageOID.SERVER_AUTH]
        extensions += [(x509.SubjectAlternativeName(names), False), (x509.ExtendedKeyUsage(both), False)]
    subject = common_name(name)
    certificate = sign_certificate(
        subject,
        key.public_key(),
        issuer.certificate.subject if issuer else subject,
        issuer.key if issuer else key,
        *extensions,
        not_before=_NOW - _HOUR,
        lifetime=25 * _HOUR,
    )
    return Issued(certificate, key, () if issuer is None else (issuer.certificate, *issuer.above))


class TestAuthority:
    """Root and one issuing authority below it."""

    __test__ = False

    def __init__(self, name: str = "Root") -> None:
        self.root = _sign(name, new_key(), None, is_ca=True)
        self.issuing = _sign(f"{name} issuing", new_key(), self.root, is_ca=True)

    def issue(self, name: str, *, key: Key | None = None) -> Issued:
        """A certificate for both sides of TLS."""
        return _sign(name, key or new_key(), self.issuing, is_ca=False)

    def issue_below_root(self, name: str) -> Issued:
        """A certificate with no intermediate."""
        return _sign(name, new_key(), self.root, is_ca=False)


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
