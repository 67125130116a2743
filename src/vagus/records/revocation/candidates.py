"""Reads in one query all rows about one certificate that is to be revoked, held or released; decides nothing."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from sqlalchemy import bindparam, func, select

from vagus.identifiers import serial_bytes
from vagus.records.certificates import CERTIFICATE, CertificateRow
from vagus.records.engine.database import Connection
from vagus.records.engine.query_hints import hidden
from vagus.records.engine.statements import Statement
from vagus.records.engine.tables import authorities, certificates, keys, revocations


@dataclass(frozen=True, slots=True, kw_only=True)
class Revocable:
    """A certificate, who issued it, the state of its key and its present place among the revoked.

    `key_state` is None for a key that is not on record; `sequence` and `reason` (RFC 5280 5.3.1 code) are None unless
    the certificate is revoked or on hold.
    """

    certificate: CertificateRow
    reference: str
    key_state: str | None
    is_key_shared: bool
    """Whether other certificates, of any issuer, are for the same key."""
    sequence: int | None
    reason: int | None


_OTHERS = certificates.alias("others")
_QUERY = (
    select(
        certificates,
        authorities.c.name.label("issuer_name"),
        authorities.c.generation.label("issuer_generation"),
        keys.c.state.label("key_state"),
        revocations.c.sequence.label("step"),
        revocations.c.reason.label("reason"),
        select(func.count())
        .select_from(_OTHERS)
        .where(_OTHERS.c.spki_sha256 == certificates.c.spki_sha256, _OTHERS.c.leaf_index != certificates.c.leaf_index)
        .scalar_subquery()
        .label("others"),
    )
    .join(authorities, authorities.c.id == certificates.c.authority_id)
    .outerjoin(keys, keys.c.spki_sha256 == certificates.c.spki_sha256)
    .outerjoin(revocations, revocations.c.leaf_index == certificates.c.leaf_index)
)
_BY_LEAF = Statement(_QUERY.where(certificates.c.leaf_index == bindparam("leaf")))
_BY_SERIAL = Statement(
    _QUERY.where(
        certificates.c.serial == bindparam("number"), hidden(certificates.c.authority_id == bindparam("authority"))
    )
)


def find_revocable(connection: Connection, leaf_index: int) -> Revocable | None:
    """The certificate of this issuance entry."""
    return _read(_BY_LEAF.find(connection, leaf=leaf_index))


def find_revocable_serial(connection: Connection, authority_id: int, serial: int) -> Revocable | None:
    """The certificate that (issuer, serial) names."""
    return _read(_BY_SERIAL.find(connection, authority=authority_id, number=serial_bytes(serial)))


def _read(found: Any | None) -> Revocable | None:
    if found is None:
        return None
    return Revocable(
        certificate=CERTIFICATE.read(found),
        reference=f"{found.issuer_name}#{found.issuer_generation}",
        key_state=found.key_state,
        is_key_shared=found.others > 0,
        sequence=found.step,
        reason=found.reason,
    )
