"""A small authority for tests of the gate: real keys, real certificates, no policy."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from functools import cache
from ipaddress import ip_address

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec, mldsa
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from vagus.tls import Credential

_HOUR = timedelta(hours=1)
_NOW = datetime.now(UTC)

Key = ec.EllipticCurvePrivateKey | mldsa.MLDSA65PrivateKey


def pem_key(key: Key) -> bytes:
    """Unencrypted PKCS#8."""
    return key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )


@dataclass(frozen=True)
class Issued:
    """A certificate with its key and what stands above it."""

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
        return Credential(b"".join(each.public_bytes(serialization.Encoding.PEM) for each in shown), pem_key(self.key))


def _sign(name: str, key: Key, issuer: Issued | None, *, is_ca: bool, dns: str | None = None) -> Issued:
    subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])
    builder = (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(issuer.certificate.subject if issuer else subject)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(_NOW - _HOUR)
        .not_valid_after(_NOW + 24 * _HOUR)
        .add_extension(x509.BasicConstraints(ca=is_ca, path_length=None), critical=True)
    )
    if not is_ca:
        names: list[x509.GeneralName] = [x509.DNSName(dns or name)]
        if name == "localhost":
            names.append(x509.IPAddress(ip_address("127.0.0.1")))
        builder = builder.add_extension(x509.SubjectAlternativeName(names), critical=False).add_extension(
            x509.ExtendedKeyUsage([ExtendedKeyUsageOID.CLIENT_AUTH, ExtendedKeyUsageOID.SERVER_AUTH]), critical=False
        )
    signer = issuer.key if issuer else key
    digest = hashes.SHA256() if isinstance(signer, ec.EllipticCurvePrivateKey) else None
    above = () if issuer is None else (issuer.certificate, *issuer.above)
    return Issued(builder.sign(signer, digest), key, above)


class TestAuthority:
    """Root and one issuing authority below it."""

    __test__ = False

    def __init__(self, name: str = "Root") -> None:
        self.root = _sign(name, ec.generate_private_key(ec.SECP256R1()), None, is_ca=True)
        self.issuing = _sign(f"{name} issuing", ec.generate_private_key(ec.SECP256R1()), self.root, is_ca=True)

    def issue(self, name: str, *, key: Key | None = None) -> Issued:
        """A certificate for both sides of TLS."""
        return _sign(name, key or ec.generate_private_key(ec.SECP256R1()), self.issuing, is_ca=False)

    def issue_below_root(self, name: str) -> Issued:
        """A certificate with no intermediate."""
        return _sign(name, ec.generate_private_key(ec.SECP256R1()), self.root, is_ca=False)

    def issuing_again(self) -> Issued:
        """Another issuing authority under the same root."""
        return _sign("Second issuing", ec.generate_private_key(ec.SECP256R1()), self.root, is_ca=True)


@cache
def authority() -> TestAuthority:
    """The authority that most tests share."""
    return TestAuthority()


@cache
def stranger() -> TestAuthority:
    """A look-alike: same names, other keys."""
    return TestAuthority()


@cache
def server_credential() -> Credential:
    """For `localhost` and 127.0.0.1."""
    return authority().issue("localhost").credential


@cache
def pump() -> Issued:
    """A device's certificate."""
    return authority().issue("pump.icu.h1.test")
