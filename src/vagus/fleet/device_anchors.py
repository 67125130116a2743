"""Which authorities a hospital's listeners trust for the certificates of devices, and what each may vouch for."""

from __future__ import annotations

from collections.abc import Collection, Iterable
from dataclasses import replace

from vagus.identifiers import UnitName
from vagus.records.authorities import AuthorityRow
from vagus.trust.anchors import Anchor, AnchorSet
from vagus.x509.certificates import decode_certificate


def device_anchors(
    authorities: Iterable[AuthorityRow], hospital: str, units: Collection[str], group_domain: str
) -> tuple[AnchorSet, tuple[bytes, ...]]:
    """The anchors of a listener that serves these units of a hospital, and its unit CAs as DER certificates.

    An anchor is the hospital's own device CA, so that a certificate of another hospital has no path here. A CA that was
    certified elsewhere is an anchor too, in place of its root: that root may certify others, which are unknown here. It
    vouches for its own hospital or unit alone and, as a unit CA, for no CA beneath it, whatever its certificate says.
    """
    anchors: list[Anchor] = []
    known: list[bytes] = []
    for row in authorities:
        is_device_ca, is_unit_ca = row.name == hospital, row.name in units
        if row.certificate_der is None or not (is_device_ca or is_unit_ca):
            continue
        if is_unit_ca:
            known.append(row.certificate_der)
        is_from_elsewhere = row.parent_id is None
        if is_device_ca or is_from_elsewhere:
            anchor = Anchor.from_certificate(decode_certificate(row.certificate_der))
            if is_from_elsewhere:
                own = f"{hospital}.{group_domain}" if is_device_ca else UnitName.parse(row.name).domain(group_domain)
                anchor = replace(anchor, domain=own, path_length=1 if is_device_ca else 0)
            anchors.append(anchor)
    return AnchorSet(anchors), tuple(known)


def server_anchors(authorities: Iterable[AuthorityRow], hospital: str) -> AnchorSet:
    """The anchors for server certificates of a hospital, which come to renew themselves: its infrastructure CA."""
    found = (one for one in authorities if one.name == f"{hospital}/infra" and one.certificate_der is not None)
    anchors = (Anchor.from_certificate(decode_certificate(one.certificate_der or b"")) for one in found)
    return AnchorSet(replace(anchor, path_length=0) for anchor in anchors)
