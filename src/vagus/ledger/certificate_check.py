"""Compares the row of one certificate with the bytes that the log commits to; knows nothing of other rows."""

from __future__ import annotations

import hashlib

from vagus.errors import Malformed
from vagus.ledger.entries import conceal
from vagus.records.audit_rows import RecordedCertificate
from vagus.records.authorities import slug_of
from vagus.records.certificates import EARLIER, INTENDED, ISSUED
from vagus.x509.der import SEQUENCE, fail, read_children, read_whole, time_value

_NO_KEY = bytes(32)
# the index of validity among a TBSCertificate's fields, after version, serial number, signature algorithm and issuer
# (RFC 5280 4.1)
_VALIDITY = 4


def find_fault(row: RecordedCertificate, salt: bytes) -> str | None:
    """How a certificate's row differs from its TBS, whose hash the caller found in the log; None: it does not."""
    # 1. Compare whose key the certificate has, and which device owns it.
    if row.spki_sha256 != _NO_KEY and not _is_same(row.key_owner, row.owner, salt):
        return "the tables know no such key, or another owner of it"
    device_id = row.owner.removeprefix("device:") if row.owner.startswith("device:") else None
    if row.device_id != device_id:
        return "its row names another device than its owner"
    if not row.tbs_der:
        return None  # a restore has lost the certificate's bytes: nothing more can be compared
    # 2. Compare the columns that the program reads in place of the bytes: the validity, and the shard of the CRL that
    # would name the certificate.
    try:
        ends = _validity(row.tbs_der)
    except Malformed:
        return "its bytes are no TBSCertificate"
    if (row.not_before, row.not_after) != ends:
        return "its row has another validity than its bytes"
    if row.request_id.startswith(EARLIER):
        return _find_signed_fault(row, row.tbs_der)  # the CRL that it names is the old operator's
    name, _, generation = row.authority.rpartition("#")
    crl_path = f"/crl/{slug_of(name)}/{generation}/"
    if b".crl" in row.tbs_der and f"{crl_path}{row.shard}.crl".encode() not in row.tbs_der:
        return "its row has another CRL than its bytes"
    return _find_signed_fault(row, row.tbs_der)


def _is_same(key_owner: str | None, owner: str, salt: bytes) -> bool:
    """Owners that came back from the log are known by their hash alone."""
    return key_owner == owner or (key_owner is not None and conceal(salt, key_owner) == conceal(salt, owner))


def _find_signed_fault(row: RecordedCertificate, tbs_der: bytes) -> str | None:
    """The signed bytes are those of this TBS, and are there as soon as the state says so."""
    if row.certificate_der is None:
        return "its signed bytes are missing" if row.state == ISSUED or row.fingerprint else None
    if row.state == INTENDED:
        return "it is signed, and its row says that it is not"
    if row.fingerprint != hashlib.sha256(row.certificate_der).digest():
        return "its fingerprint is not that of its signed bytes"
    try:
        start, _ = read_whole(row.certificate_der, SEQUENCE, "a certificate")
    except Malformed:
        return "its signed bytes are no certificate"
    if row.certificate_der[start : start + len(tbs_der)] != tbs_der:
        return "its signed bytes are another certificate's"
    return None


def _validity(tbs_der: bytes) -> tuple[int, int]:
    """First and last second of its life, since 1970 UTC. Raises Malformed(NON_DER)."""
    start, end = read_whole(tbs_der, SEQUENCE, "a TBSCertificate")
    parts = read_children(tbs_der, start, end)
    if len(parts) <= _VALIDITY:
        fail("a TBSCertificate without validity")
    moments = read_children(tbs_der, *parts[_VALIDITY][2:])
    if len(moments) != 2:
        fail("a validity of other than two moments")
    first, last = (int(time_value(tbs_der, tag, at, to, "a validity").timestamp()) for tag, _, at, to in moments)
    return first, last
