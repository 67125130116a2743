"""Builds CRLs (certificate revocation lists) around entries that were encoded once; signs nothing, verifies nothing."""

from __future__ import annotations

from dataclasses import dataclass
from enum import IntEnum
from typing import TYPE_CHECKING

from vagus.errors import Malformed
from vagus.reasons import Reason
from vagus.x509 import der, oids
from vagus.x509.certificates import read_signed
from vagus.x509.templates import extension

if TYPE_CHECKING:
    from collections.abc import Sequence
    from datetime import datetime

    from vagus.x509.algorithms import SignatureAlgorithm
    from vagus.x509.templates import IssuerFacts


_VERSION_2 = der.integer(1)
_LARGEST_NUMBER = 1 << 159  # RFC 5280 5.2.3: a CRL number is positive and has at most 20 bytes


class RevocationReason(IntEnum):
    """RFC 5280 5.3.1. The values that a person may choose are all but removeFromCRL, which deltas alone carry."""

    UNSPECIFIED = 0
    KEY_COMPROMISE = 1
    CA_COMPROMISE = 2
    AFFILIATION_CHANGED = 3
    SUPERSEDED = 4
    CESSATION_OF_OPERATION = 5
    CERTIFICATE_HOLD = 6
    REMOVE_FROM_CRL = 8
    PRIVILEGE_WITHDRAWN = 9
    AA_COMPROMISE = 10

    @classmethod
    def parse(cls, text: str) -> RevocationReason:
        """The reason that `text` names as RFC 5280 spells it (keyCompromise). Raises Malformed(BAD_ARGUMENT)."""
        for name, reason in _NAMES.items():
            if name.lower() == text.lower():
                return reason
        known = ", ".join(_NAMES)
        raise Malformed(
            Reason.BAD_ARGUMENT, f"revocation reason {text!r} is unknown; choose one of {known}", value=text
        )

    @property
    def is_compromise(self) -> bool:
        """Whether another party may hold the key, so that it must never be certified again."""
        return self.name.endswith("_COMPROMISE")

    @property
    def spelling(self) -> str:
        """As RFC 5280 spells it."""
        return next(name for name, reason in _NAMES.items() if reason is self)


_NAMES = {
    "unspecified": RevocationReason.UNSPECIFIED,
    "keyCompromise": RevocationReason.KEY_COMPROMISE,
    "cACompromise": RevocationReason.CA_COMPROMISE,
    "affiliationChanged": RevocationReason.AFFILIATION_CHANGED,
    "superseded": RevocationReason.SUPERSEDED,
    "cessationOfOperation": RevocationReason.CESSATION_OF_OPERATION,
    "certificateHold": RevocationReason.CERTIFICATE_HOLD,
    "removeFromCRL": RevocationReason.REMOVE_FROM_CRL,
    "privilegeWithdrawn": RevocationReason.PRIVILEGE_WITHDRAWN,
    "aACompromise": RevocationReason.AA_COMPROMISE,
}


def read_entry_date(entry_der: bytes) -> datetime:
    """The revocationDate of an entry that `encode_crl_entry` made. Raises Malformed(NON_DER)."""
    start, end = der.read_whole(entry_der, der.SEQUENCE, "a CRL entry")
    _, _, after_serial = der.read_element(entry_der, start, end)
    return der.read_time(entry_der, after_serial, end, "revocationDate")[0]


def encode_crl_entry(serial: int, revoked_at: datetime, reason: RevocationReason) -> bytes:
    """One element of revokedCertificates (RFC 5280 5.1.2.6), encoded once for every CRL that will hold it.

    5.3.1: the reason extension is absent rather than unspecified.
    """
    reasons = b""
    if reason is not RevocationReason.UNSPECIFIED:
        reasons = der.sequence(extension(oids.REASON_CODE, der.encode_tlv(der.ENUMERATED, bytes((reason,)))))
    return der.sequence(der.integer(serial), der.time(revoked_at), reasons)


@dataclass(frozen=True, slots=True, kw_only=True)
class CrlContents:
    """What one CRL says. `shard_url` None: the complete CRL, without IssuingDistributionPoint.

    `base_number` makes it a delta over the CRL of that number (RFC 5280 5.2.4); `freshest_url` is where a full
    CRL's deltas are (5.2.6).
    """

    number: int
    this_update: datetime
    next_update: datetime
    entries: Sequence[bytes]
    shard_url: str | None = None
    base_number: int | None = None
    freshest_url: str | None = None


def build_crl_tbs(contents: CrlContents, issuer: IssuerFacts) -> bytes:
    """The DER TBSCertList (RFC 5280 5.1.2), the issuer's name byte for byte as in its certificate.

    Raises Malformed(BAD_ARGUMENT) for a number that needs more than 20 bytes or updates in the wrong order.
    """
    if not 0 < contents.number < _LARGEST_NUMBER or contents.next_update <= contents.this_update:
        msg = (
            f"CRL number {contents.number} or the dates {contents.this_update} to {contents.next_update} are impossible"
        )
        raise Malformed(Reason.BAD_ARGUMENT, msg)
    extensions = [
        # RFC 5280 5.2.1: authorityKeyIdentifier MUST be in every CRL.
        extension(oids.AUTHORITY_KEY_IDENTIFIER, der.sequence(der.implicit(0, issuer.key_identifier))),
        extension(oids.CRL_NUMBER, der.integer(contents.number)),  # RFC 5280 5.2.3: CRL number
    ]
    if contents.base_number is not None:  # RFC 5280 5.2.4: deltaCRLIndicator is critical
        extensions.append(extension(oids.DELTA_CRL_INDICATOR, der.integer(contents.base_number), is_critical=True))
    # RFC 5280 5.2.5: issuingDistributionPoint is critical, and has the same URL as the certificates of the shard.
    if contents.shard_url is not None:
        point = der.explicit(0, _full_name(contents.shard_url))
        extensions.append(extension(oids.ISSUING_DISTRIBUTION_POINT, der.sequence(point), is_critical=True))
    # RFC 5280 5.2.6: freshestCRL is never in a delta CRL
    if contents.freshest_url is not None and contents.base_number is None:
        point = der.sequence(der.sequence(der.explicit(0, _full_name(contents.freshest_url))))
        extensions.append(extension(oids.FRESHEST_CRL, point))
    head = b"".join(
        (
            _VERSION_2,
            issuer.signature_algorithm.identifier_der,
            issuer.subject_der,
            der.time(contents.this_update),
            der.time(contents.next_update),
        )
    )
    tail = der.explicit(0, der.sequence(*extensions))
    # RFC 5280 5.1.2.6: without a revoked certificate, revokedCertificates is absent. The entries are joined once: a
    # million take 53 MB.
    size = sum(map(len, contents.entries))
    entries_head = _header(der.SEQUENCE, size) if size else b""
    whole = len(head) + len(entries_head) + size + len(tail)
    return b"".join((_header(der.SEQUENCE, whole), head, entries_head, *contents.entries, tail))


def assemble_crl(tbs_der: bytes, algorithm: SignatureAlgorithm, signature: bytes) -> bytes:
    """The DER CertificateList around a TBS and the signature over it (RFC 5280 5.1.1)."""
    tail = algorithm.identifier_der + der.bit_string(signature)
    return b"".join((_header(der.SEQUENCE, len(tbs_der) + len(tail)), tbs_der, tail))


def split_crl(crl_der: bytes) -> tuple[bytes, bytes, bytes]:
    """TBS, AlgorithmIdentifier and signature of a CRL, each as bytes of its own. Raises Malformed(NON_DER)."""
    (start, _, end), algorithm, signature = read_signed(crl_der, "a CertificateList", "tbsCertList")
    return crl_der[start:end], algorithm, signature


def next_crl_number(previous: int, at: datetime) -> int:
    """Grows by time, and past the newest known number when a clock went back or a backup was restored."""
    return max(previous + 1, int(at.timestamp() * 1000))


def _full_name(url: str) -> bytes:
    """DistributionPointName { [0] fullName { [6] URI } }."""
    try:
        return der.encode_tlv(0xA0, der.implicit(6, url.encode("ascii")))
    except UnicodeEncodeError:
        msg = f"CRL URL {url!r} is not ASCII; write it in its ASCII form"
        raise Malformed(Reason.NON_CANONICAL, msg, value=url) from None


def _header(tag: int, size: int) -> bytes:
    """Tag and shortest length (X.690 10.1), the content apart: no copy of what follows."""
    if size < 0x80:
        return bytes((tag, size))
    width = (size.bit_length() + 7) // 8
    return bytes((tag, 0x80 | width)) + size.to_bytes(width, "big")
