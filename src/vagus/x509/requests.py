"""A PKCS#10 request as a checked value: its key is taken, the names in it enter no certificate."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from vagus.errors import LimitExceeded, Malformed, NotTrusted
from vagus.reasons import Reason
from vagus.x509 import der, oids
from vagus.x509.algorithms import explain_refusal, find_request_algorithm
from vagus.x509.keys import PublicKey, check_signature, open_public_key
from vagus.x509.names.distinguished import read_attributes

LARGEST_REQUEST = 64 * 1024
_MOST_ATTRIBUTES = 32
_Elements = Sequence[tuple[int, bytes, bytes]]
_EXTENSION_REQUEST = "1.2.840.113549.1.9.14"


@dataclass(frozen=True, slots=True)
class CertificateRequest:
    """A request whose signature verified.

    `subject_der` and `alternative_names_der` (the extension's value) exist so that a renewal can be compared with the
    certificate that it renews (RFC 7030 4.2.2). Nothing of them enters a certificate.
    """

    der: bytes
    public_key: PublicKey
    subject_der: bytes
    alternative_names_der: bytes | None


def decode_request(request_der: bytes) -> CertificateRequest:
    """A DER CertificationRequest (RFC 2986), at most 64 kB, whose own signature proves possession of the key.

    Raises LimitExceeded(TOO_LARGE), Malformed(NON_DER, BAD_ENCODING, BAD_VERSION or EC_PARAMS),
    PolicyRefusal(WEAK_KEY or UNSUPPORTED_ALGORITHM) and NotTrusted(POP_FAILED).
    """
    # 1. Check the size first, so that no part of an oversized request is read.
    if len(request_der) > LARGEST_REQUEST:
        msg = f"the certificate request has {len(request_der)} bytes, {LARGEST_REQUEST} are allowed; send the key alone"
        raise LimitExceeded(Reason.TOO_LARGE, msg, octets=len(request_der))
    # 2. RFC 2986 4.2: CertificationRequestInfo, signatureAlgorithm, signature, and no byte after them.
    outer = der.split_elements(der.content_of(request_der, der.SEQUENCE))
    if [tag for tag, _, _ in outer] != [der.SEQUENCE, der.SEQUENCE, der.BIT_STRING] or outer[2][1][:1] != b"\x00":
        msg = f"the body is {_name_object(outer)}; send a PKCS#10 request in DER (RFC 2986 4.2)"
        raise Malformed(Reason.BAD_ENCODING, msg)
    (_, info, info_der), (_, _, algorithm_der), (_, signature_bits, _) = outer
    # 3. RFC 2986 4.1: version 0, subject, subjectPKInfo, attributes [0].
    fields = der.split_elements(info)
    if [tag for tag, _, _ in fields] not in ([2, 0x30, 0x30, 0xA0], [2, 0x30, 0x30]):
        msg = f"the body is {_name_object(outer, fields)}; send a PKCS#10 request (RFC 2986 4.1)"
        raise Malformed(Reason.BAD_ENCODING, msg)
    if fields[0][1] != b"\x00":
        msg = f"the certificate request has version {fields[0][1].hex()}, only 0 (v1) exists (RFC 2986 4.1)"
        raise Malformed(Reason.BAD_VERSION, msg)
    # 4. Decode the public key strictly: named curves, no weak sizes.
    public_key, key = open_public_key(fields[2][2])
    # 5. Verify the request's signature with its own key: proof of possession.
    algorithm = find_request_algorithm(algorithm_der)
    if algorithm is None:
        raise NotTrusted(Reason.POP_FAILED, f"the request is signed with {explain_refusal(algorithm_der)}")
    try:
        check_signature(key, algorithm, signature_bits[1:], info_der)
    except NotTrusted as fault:
        msg = "the request's signature does not verify with its own key; sign the request with the key that it carries"
        raise NotTrusted(Reason.POP_FAILED, msg, algorithm=algorithm.name) from fault
    # 6. Require the subject and attributes to be readable. Nothing in them enters a certificate.
    subject_der = fields[1][2]
    read_attributes(subject_der)
    alternative = _find_alternative_names(fields[3][1]) if len(fields) == 4 else None
    return CertificateRequest(bytes(request_der), public_key, subject_der, alternative)


def _name_object(outer: _Elements, fields: _Elements = ()) -> str:
    """What clients send in place of a request, for a message."""
    tags, inner = [tag for tag, _, _ in outer], [tag for tag, _, _ in fields]
    if tags[:3] == [der.INTEGER, der.SEQUENCE, der.OCTET_STRING] or tags[:2] == [der.INTEGER, der.OCTET_STRING]:
        return "a private key, which must not leave its device: make a new key pair"
    if tags == [der.SEQUENCE, der.BIT_STRING]:
        return "a public key alone, which proves no possession"
    if tags[:1] == [der.OBJECT_IDENTIFIER]:
        return "a CMS or PKCS#7 object"
    if inner[:2] == [0xA0, der.INTEGER] or inner[:4] == [der.INTEGER, der.SEQUENCE, der.SEQUENCE, der.SEQUENCE]:
        return "a certificate"
    return "no CertificationRequest"


def _find_alternative_names(attributes: bytes) -> bytes | None:
    """The value of the subjectAltName in the extensionRequest, which may be nonsense; None where there is none."""
    alternative: bytes | None = None
    found = der.split_elements(attributes)
    if len(found) > _MOST_ATTRIBUTES:
        msg = f"the certificate request has {len(found)} attributes, {_MOST_ATTRIBUTES} are allowed; send fewer"
        raise LimitExceeded(Reason.TOO_MANY, msg, attributes=len(found))
    for tag, content, _ in found:
        parts = der.split_elements(content) if tag == der.SEQUENCE else []
        if [part[0] for part in parts] != [der.OBJECT_IDENTIFIER, der.SET]:
            raise Malformed(
                Reason.BAD_ENCODING, "an attribute of the request is not type and values; follow RFC 2986 4.1"
            )
        oid = der.decode_object_identifier(parts[0][1])
        values = der.split_elements(parts[1][1])
        if oid == _EXTENSION_REQUEST and len(values) == 1 and alternative is None:
            alternative = _read_extensions(values[0][2])
    return alternative


def _read_extensions(extensions_der: bytes) -> bytes | None:
    alternative: bytes | None = None
    for _, content, _ in der.split_elements(der.content_of(extensions_der, der.SEQUENCE)):
        parts = der.split_elements(content)
        if len(parts) not in {2, 3} or parts[0][0] != der.OBJECT_IDENTIFIER or parts[-1][0] != der.OCTET_STRING:
            raise Malformed(Reason.BAD_ENCODING, "an extension of the request is not id and value (RFC 5280 4.1.2.9)")
        if der.decode_object_identifier(parts[0][1]) == oids.SUBJECT_ALT_NAME and alternative is None:
            alternative = parts[-1][1]
    return alternative
