"""Makes, loads and checks the device's private keys, signs its certificate requests, reads PEM; sends nothing."""

from __future__ import annotations

from enum import StrEnum
from typing import TYPE_CHECKING, TypeAlias

from cryptography import x509
from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec, mldsa
from cryptography.x509.oid import NameOID

from vagus.durable_files import PRIVATE_FILE
from vagus.errors import IntegrityFailure, Malformed, NotAuthorised
from vagus.reasons import Reason
from vagus.x509.pem import CERTIFICATE, decode_pem

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

PrivateKey: TypeAlias = ec.EllipticCurvePrivateKey | mldsa.MLDSA44PrivateKey | mldsa.MLDSA65PrivateKey


class DeviceKeyAlgorithm(StrEnum):
    """The keys that a device can make. P-256 unless its plan says otherwise."""

    P256 = "p256"
    P384 = "p384"
    MLDSA44 = "mldsa44"
    MLDSA65 = "mldsa65"


_MAKERS: dict[DeviceKeyAlgorithm, Callable[[], PrivateKey]] = {
    DeviceKeyAlgorithm.P256: lambda: ec.generate_private_key(ec.SECP256R1()),
    DeviceKeyAlgorithm.P384: lambda: ec.generate_private_key(ec.SECP384R1()),
    DeviceKeyAlgorithm.MLDSA44: mldsa.MLDSA44PrivateKey.generate,
    DeviceKeyAlgorithm.MLDSA65: mldsa.MLDSA65PrivateKey.generate,
}


def make_key(algorithm: DeviceKeyAlgorithm) -> bytes:
    """A new private key as PKCS#8 PEM, drawn from OpenSSL's own generator."""
    return _MAKERS[algorithm]().private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )


def decode_key(pem: bytes) -> PrivateKey:
    """The private key in `pem`. Raises IntegrityFailure(KEYSTORE_DAMAGED) when it is none that this agent makes."""
    try:
        key = serialization.load_pem_private_key(pem, None)
    except (ValueError, TypeError) as error:
        msg = f"the private key file does not decode ({error}); restore the state folder or enrol again"
        raise IntegrityFailure(Reason.KEYSTORE_DAMAGED, msg) from None
    if isinstance(key, ec.EllipticCurvePrivateKey | mldsa.MLDSA44PrivateKey | mldsa.MLDSA65PrivateKey):
        return key
    msg = f"the private key is {type(key).__name__}; this agent uses EC P-256, P-384, ML-DSA-44 and ML-DSA-65"
    raise IntegrityFailure(Reason.KEYSTORE_DAMAGED, msg)


def load_private(path: Path) -> bytes:
    """The content of a file that only its owner may read.

    Raises NotAuthorised(PERMISSIONS_TOO_OPEN) where others may read it too.
    """
    mode = path.stat().st_mode & 0o777
    if mode & 0o077:
        msg = f"key file {path} has mode {mode:04o}, at most {PRIVATE_FILE:04o} is allowed; chmod 600, replace the key"
        raise NotAuthorised(Reason.PERMISSIONS_TOO_OPEN, msg, path=str(path), mode=f"{mode:04o}")
    return path.read_bytes()


def algorithm_of(key: PrivateKey) -> DeviceKeyAlgorithm | None:
    """Which of our algorithms the key is; None for another curve."""
    if isinstance(key, ec.EllipticCurvePrivateKey):
        return {"secp256r1": DeviceKeyAlgorithm.P256, "secp384r1": DeviceKeyAlgorithm.P384}.get(key.curve.name)
    return DeviceKeyAlgorithm.MLDSA44 if isinstance(key, mldsa.MLDSA44PrivateKey) else DeviceKeyAlgorithm.MLDSA65


def public_key_der(key: PrivateKey) -> bytes:
    """The DER SubjectPublicKeyInfo of the key."""
    return key.public_key().public_bytes(serialization.Encoding.DER, serialization.PublicFormat.SubjectPublicKeyInfo)


def certified_key_der(certificate: x509.Certificate) -> bytes:
    """The DER SubjectPublicKeyInfo that the certificate certifies.

    Raises Malformed(UNSUPPORTED_ALGORITHM) for a kind of key that the library does not read.
    """
    try:
        key = certificate.public_key()
    except (ValueError, UnsupportedAlgorithm) as error:
        msg = f"the certificate's public key does not decode ({error}); have the certificate issued again"
        raise Malformed(Reason.UNSUPPORTED_ALGORITHM, msg) from None
    return key.public_bytes(serialization.Encoding.DER, serialization.PublicFormat.SubjectPublicKeyInfo)


def build_request(key: PrivateKey, current: x509.Certificate | None) -> bytes:
    """A PKCS#10 request for the key, DER, signed with it.

    With `current` it repeats that certificate's subject and alternative names (RFC 7030 4.2.2: the names of a
    simplereenroll equal those of the certificate). Without, it names nothing: the inventory decides.
    """
    builder = x509.CertificateSigningRequestBuilder().subject_name(
        x509.Name([]) if current is None else current.subject
    )
    if current is not None:
        try:
            names = current.extensions.get_extension_for_class(x509.SubjectAlternativeName)
        except x509.ExtensionNotFound:
            names = None
        if names is not None:
            builder = builder.add_extension(names.value, critical=names.critical)
    return builder.sign(key, _hash_for(key)).public_bytes(serialization.Encoding.DER)


def build_idevid_request(key: PrivateKey, serial: str) -> bytes:
    """The request of a device on its maker's line, PEM: the key, and the serial number as subject (802.1AR 8.6)."""
    subject = x509.Name([x509.NameAttribute(NameOID.SERIAL_NUMBER, serial)])
    request = x509.CertificateSigningRequestBuilder().subject_name(subject).sign(key, _hash_for(key))
    return request.public_bytes(serialization.Encoding.PEM)


def decode_certificates(pem: bytes, what: str) -> tuple[x509.Certificate, ...]:
    """Every certificate in a PEM file, in order. Raises Malformed(BAD_ENCODING) for none or a broken one."""
    try:
        return tuple(x509.load_der_x509_certificate(der) for der in decode_pem(pem, CERTIFICATE))
    except (Malformed, ValueError, x509.InvalidVersion) as error:
        msg = f"file {what} has no readable PEM certificate ({error}); give a file of BEGIN CERTIFICATE blocks"
        raise Malformed(Reason.BAD_ENCODING, msg) from None


def encode_certificates(certificates: tuple[x509.Certificate, ...]) -> bytes:
    """The certificates as PEM, in order."""
    return b"".join(certificate.public_bytes(serialization.Encoding.PEM) for certificate in certificates)


def _hash_for(key: PrivateKey) -> hashes.SHA256 | hashes.SHA384 | None:
    if isinstance(key, ec.EllipticCurvePrivateKey):
        return hashes.SHA384() if key.curve.key_size > 256 else hashes.SHA256()
    return None  # ML-DSA hashes the data by itself (FIPS 204)
