"""Builds OCSP responses (RFC 6960) from known status, with each CertID as it was requested; signs nothing."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from functools import lru_cache
from typing import TYPE_CHECKING

from vagus.errors import Malformed
from vagus.reasons import Reason
from vagus.x509 import der
from vagus.x509.keys import key_bytes
from vagus.x509.templates import extension

if TYPE_CHECKING:
    from collections.abc import Sequence
    from datetime import datetime

    from vagus.x509.crls.building import RevocationReason

NONCE = "1.3.6.1.5.5.7.48.1.2"
LONGEST_NONCE = 128  # RFC 9654 2.1: bytes of the longest OCSP nonce
_LONGEST_VALUE = len(der.octet_string(bytes(LONGEST_NONCE)))
_BASIC_RESPONSE = der.object_identifier("1.3.6.1.5.5.7.48.1.1")
_SUCCESSFUL = der.encode_tlv(der.ENUMERATED, b"\x00")
_GOOD = b"\x80\x00"
_UNKNOWN = b"\x82\x00"
_HASHES = {
    "sha1": (der.sequence(der.object_identifier("1.3.14.3.2.26"), der.NULL_DER), 20),
    "sha256": (der.sequence(der.object_identifier("2.16.840.1.101.3.4.2.1"), der.NULL_DER), 32),
}


@dataclass(frozen=True, slots=True, kw_only=True)
class SingleStatus:
    """The status of one certificate. `cert_id_der` is the CertID as it was requested, byte for byte.

    `is_known` False: this authority never issued it. `revoked_at` None: good.
    """

    cert_id_der: bytes
    is_known: bool
    revoked_at: datetime | None
    reason: RevocationReason | None
    this_update: datetime
    next_update: datetime


def cert_id(issuer_subject_der: bytes, issuer_spki_der: bytes, serial: int, hash_name: str = "sha1") -> bytes:
    """The CertID that common clients ask with (RFC 6960 4.1.1), hash parameters NULL."""
    identifier, _ = _HASHES[hash_name]
    name_hash, key_hash = issuer_hashes(issuer_subject_der, issuer_spki_der, hash_name)
    return der.sequence(identifier, der.octet_string(name_hash), der.octet_string(key_hash), der.integer(serial))


@lru_cache(maxsize=1024)
def issuer_hashes(issuer_subject_der: bytes, issuer_spki_der: bytes, hash_name: str) -> tuple[bytes, bytes]:
    """The hashes of an issuer's Name and of its key's BIT STRING content, as a CertID has them."""
    digest = hashlib.new(hash_name, usedforsecurity=False)
    digest.update(issuer_subject_der)
    key = hashlib.new(hash_name, usedforsecurity=False)
    key.update(key_bytes(issuer_spki_der))
    return digest.digest(), key.digest()


def build_response_tbs(
    singles: Sequence[SingleStatus], responder_key_hash: bytes, produced_at: datetime, nonce: bytes | None
) -> bytes:
    """The DER ResponseData (RFC 6960 4.2.1); the responder is named by the SHA-1 of its key.

    `nonce` is what the request had in the extnValue: an OCTET STRING, or bare bytes as older clients write it. It
    comes back byte for byte, because each client compares it with what it sent (4.4.1).
    Raises Malformed(OCSP_NONCE) for one that has not 1-128 bytes (RFC 9654 2.1).
    """
    extensions = b""
    if nonce is not None:
        if not 1 <= len(nonce) <= _LONGEST_VALUE:
            msg = f"an OCSP nonce has 1-{LONGEST_NONCE} bytes (RFC 9654), this one {len(nonce)} as sent; send 32"
            raise Malformed(Reason.OCSP_NONCE, msg, octets=len(nonce))
        extensions = _before_nonce(len(nonce)) + nonce
    responses = der.encode_tlv(der.SEQUENCE, b"".join(map(_single, singles)))
    return der.encode_tlv(der.SEQUENCE, _begin(responder_key_hash, produced_at) + responses + extensions)


@lru_cache(maxsize=4096)
def _begin(responder_key_hash: bytes, produced_at: datetime) -> bytes:
    """The responderID byKey, and the time."""
    return der.explicit(2, der.octet_string(responder_key_hash)) + der.generalized_time(produced_at)


@lru_cache(maxsize=_LONGEST_VALUE)
def _before_nonce(size: int) -> bytes:
    """The responseExtensions up to the nonce, which ends them."""
    return der.explicit(1, der.sequence(extension(NONCE, bytes(size))))[:-size]


def wrap_signed(signed: bytes, responder_certificate_der: bytes) -> bytes:
    """The whole successful OCSPResponse, the delegated responder's certificate inside.

    `signed` is the TBS, the algorithm's identifier and the signature's BIT STRING, one after the other.
    """
    basic = der.encode_tlv(der.SEQUENCE, signed + _certificates(responder_certificate_der))
    typed = der.encode_tlv(der.SEQUENCE, _BASIC_RESPONSE + der.octet_string(basic))
    return der.encode_tlv(der.SEQUENCE, _SUCCESSFUL + der.explicit(0, typed))


@lru_cache(maxsize=1024)
def _certificates(responder_certificate_der: bytes) -> bytes:
    return der.explicit(0, der.sequence(responder_certificate_der))


def _single(single: SingleStatus) -> bytes:
    times = _times(single.this_update, single.next_update)
    return der.encode_tlv(der.SEQUENCE, single.cert_id_der + _status(single) + times)


def _status(single: SingleStatus) -> bytes:
    """CertStatus: good [0] NULL, revoked [1] RevokedInfo, unknown [2] NULL, all IMPLICIT."""
    if not single.is_known:
        return _UNKNOWN
    if single.revoked_at is None:
        return _GOOD
    info = der.generalized_time(single.revoked_at)
    if single.reason:  # reason unspecified (0) is left out of OCSP responses, as of CRLs
        info += der.explicit(0, der.encode_tlv(der.ENUMERATED, bytes((single.reason,))))
    return der.encode_tlv(0xA1, info)


@lru_cache(maxsize=4096)
def _times(this_update: datetime, next_update: datetime) -> bytes:
    """One round of pre-signing writes the same two into every response."""
    return der.generalized_time(this_update) + der.explicit(0, der.generalized_time(next_update))
