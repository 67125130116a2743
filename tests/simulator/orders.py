"""What an issuance is asked for: keys of devices, signing requests, and orders for bedside devices."""

from __future__ import annotations

from typing import Any

from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat, PublicFormat
from cryptography.x509.oid import NameOID

from vagus.authority.issuance import IssuanceOrder
from vagus.x509.keys import PublicKey, decode_public_key
from vagus.x509.names.distinguished import SubjectFields


def new_key() -> ec.EllipticCurvePrivateKey:
    """A device's key."""
    return ec.generate_private_key(ec.SECP256R1())


def spki(key: ec.EllipticCurvePrivateKey) -> bytes:
    """The public key as DER."""
    return key.public_key().public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)


def key_pem(key: Any) -> bytes:
    """The private key as PKCS#8 PEM, not encrypted."""
    pem: bytes = key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
    return pem


def public_key_of(private: ec.EllipticCurvePrivateKey) -> PublicKey:
    """The public half as our value."""
    return decode_public_key(spki(private))


def new_public_key() -> PublicKey:
    """A public key of its own for each call."""
    return public_key_of(new_key())


def common_name(text: str) -> x509.Name:
    """A name of one attribute."""
    return x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, text)])


def signing_request(
    key: ec.EllipticCurvePrivateKey, subject: x509.Name, names: x509.SubjectAlternativeName | None = None
) -> bytes:
    """A CSR in DER."""
    builder = x509.CertificateSigningRequestBuilder().subject_name(subject)
    if names is not None:
        builder = builder.add_extension(names, critical=False)
    return builder.sign(key, hashes.SHA256()).public_bytes(Encoding.DER)


def order_for(device_id: object, request_id: str, **changes: Any) -> IssuanceOrder:
    """A bedside device of the ICU in `tests.simulator.running.PLAN`; `changes` name other fields of the order."""
    fields: dict[str, Any] = {
        "request_id": request_id,
        "profile": "bedside",
        "owner": f"device:{device_id}",
        "device_id": str(device_id),
        "subject": SubjectFields("First Hospital", "Intensive Care", str(device_id)),
        "dns_names": (f"{device_id}.icu.h1.test.example",),
        **changes,
    }
    return IssuanceOrder(public_key=fields.pop("public_key", None) or new_public_key(), **fields)
