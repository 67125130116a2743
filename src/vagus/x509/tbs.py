"""Splits a TBSCertificate's DER into raw fields, with every byte accounted for; judges none of them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated, NamedTuple

from cryptography.hazmat import asn1
from cryptography.x509 import ObjectIdentifier

from vagus.errors import Malformed
from vagus.reasons import Reason
from vagus.x509 import der

if TYPE_CHECKING:
    from collections.abc import Mapping
    from datetime import datetime

LARGEST_TBS = 64 * 1024


@asn1.sequence
class _Extension:
    oid: ObjectIdentifier
    critical: Annotated[bool, asn1.Default(False)]
    value: bytes


@asn1.sequence
class _Validity:
    not_before: asn1.UTCTime | asn1.GeneralizedTime
    not_after: asn1.UTCTime | asn1.GeneralizedTime


@asn1.sequence
class _TbsCertificate:
    version: Annotated[int, asn1.Explicit(0), asn1.Default(0)]
    serial: int
    signature: asn1.TLV
    issuer: asn1.TLV
    validity: _Validity
    subject: asn1.TLV
    spki: asn1.TLV
    issuer_id: Annotated[asn1.BitString | None, asn1.Implicit(1)]
    subject_id: Annotated[asn1.BitString | None, asn1.Implicit(2)]
    extensions: Annotated[list[_Extension] | None, asn1.Explicit(3)]


# a NamedTuple, because a certificate has ten extensions, and a tuple takes a third of a dataclass's time
class TbsExtension(NamedTuple):
    """One extension: dotted OID, criticality, and the DER inside its OCTET STRING."""

    oid: str
    is_critical: bool
    value: bytes


@dataclass(slots=True)  # not frozen: made anew for each certificate, and freezing doubles the time
class TbsFields:
    """The fields of RFC 5280 4.1.2 as they are written; whole elements where the name ends in `_der`.

    `version` counts as the encoding does (2 is v3). `by_oid` keeps the first of repeated extensions.
    """

    version: int
    serial: int
    signature_der: bytes
    issuer_der: bytes
    not_before: datetime
    not_after: datetime
    is_not_before_generalized: bool
    is_not_after_generalized: bool
    subject_der: bytes
    spki_der: bytes
    has_unique_ids: bool
    extensions: tuple[TbsExtension, ...]
    by_oid: Mapping[str, TbsExtension]


def _whole(element: asn1.TLV) -> bytes:
    """The element with its header: DER has one spelling of it, and the decoder took no other."""
    tag = element.tag_bytes
    if len(tag) != 1:
        raise Malformed(Reason.NON_DER, "the TBSCertificate has a tag number above 30; build it anew")
    return der.encode_tlv(tag[0], bytes(element.data))


def decode_tbs(tbs_der: bytes) -> TbsFields:
    """The fields of a DER TBSCertificate (RFC 5280 4.1). Raises Malformed(NON_DER or TOO_LARGE)."""
    if len(tbs_der) > LARGEST_TBS:
        msg = f"TBSCertificate has {len(tbs_der)} bytes, more than the {LARGEST_TBS} allowed; send a smaller one"
        raise Malformed(Reason.TOO_LARGE, msg, octets=len(tbs_der))
    try:
        raw = asn1.decode_der(_TbsCertificate, tbs_der)
        extensions = tuple(
            [TbsExtension(one.oid.dotted_string, one.critical, one.value) for one in raw.extensions or ()]
        )
    except (ValueError, OverflowError) as fault:
        raise Malformed(Reason.NON_DER, f"the TBSCertificate is not DER ({fault}); build it anew") from fault
    validity = raw.validity
    return TbsFields(
        version=raw.version,
        serial=raw.serial,
        signature_der=_whole(raw.signature),
        issuer_der=_whole(raw.issuer),
        not_before=validity.not_before.as_datetime(),
        not_after=validity.not_after.as_datetime(),
        is_not_before_generalized=isinstance(validity.not_before, asn1.GeneralizedTime),
        is_not_after_generalized=isinstance(validity.not_after, asn1.GeneralizedTime),
        subject_der=_whole(raw.subject),
        spki_der=_whole(raw.spki),
        has_unique_ids=raw.issuer_id is not None or raw.subject_id is not None,
        extensions=extensions,
        by_oid={one.oid: one for one in reversed(extensions)},
    )
