"""The file index.txt in which `openssl ca` notes what it issued and revoked (openssl-ca(1)); decides nothing."""

from __future__ import annotations

import string
from dataclasses import dataclass
from datetime import datetime
from typing import NoReturn

from vagus.errors import Malformed
from vagus.reasons import Reason
from vagus.x509 import der
from vagus.x509.crls.building import RevocationReason

_COLUMNS = 6
_REASONS = {one.spelling.lower(): one for one in RevocationReason} | {
    "": RevocationReason.UNSPECIFIED,
    "holdinstruction": RevocationReason.CERTIFICATE_HOLD,
    "keytime": RevocationReason.KEY_COMPROMISE,
    "cakeytime": RevocationReason.CA_COMPROMISE,
}
"""openssl's own words beside those of RFC 5280 5.3.1."""


@dataclass(frozen=True, slots=True)
class IndexLine:
    """One certificate: its serial and end, and since when and why it is revoked, if it is."""

    serial: int
    not_after: datetime
    revoked_at: datetime | None = None
    reason: RevocationReason = RevocationReason.UNSPECIFIED


def decode_index(raw: bytes) -> tuple[IndexLine, ...]:
    """Every line of an index. Raises Malformed(BAD_ENCODING) with the number of a line that is none.

    No line is left out, because it could be a revocation.
    """
    return tuple(_decode_line(line, number) for number, line in enumerate(raw.split(b"\n"), 1) if line.strip())


def _decode_line(line: bytes, number: int) -> IndexLine:
    columns = line.decode("utf-8", "replace").rstrip("\r").split("\t")
    if len(columns) != _COLUMNS:
        _refuse(number, f"{len(columns)} columns, and it has {_COLUMNS} with tabs between them")
    state, end, revoked, digits, *_ = columns
    if not 0 < len(digits) <= 40 or not set(digits) <= set(string.hexdigits):
        _refuse(number, f"{digits[:50]!r} for a serial in hexadecimal")
    not_after = _moment(end, number)
    if state in {"V", "E"} and not revoked:
        return IndexLine(int(digits, 16), not_after)
    date, _, words = revoked.partition(",")
    reason = _REASONS.get(words.partition(",")[0].lower())
    if state != "R" or reason in {None, RevocationReason.REMOVE_FROM_CRL}:
        _refuse(number, f"{state!r} and {revoked[:50]!r} for a state (V, E, R) and a date with a reason")
    return IndexLine(int(digits, 16), not_after, _moment(date, number), reason)


def _moment(text: str, number: int) -> datetime:
    raw = text.encode()
    tag = der.UTC_TIME if len(raw) == len("YYMMDDHHMMSSZ") else der.GENERALIZED_TIME
    try:
        return der.time_value(raw, tag, 0, len(raw), "a date")
    except Malformed:
        _refuse(number, f"{text[:50]!r} for a date")


def _refuse(number: int, found: str) -> NoReturn:
    msg = f"line {number} of the index has {found}; give the index.txt of `openssl ca` as it is"
    raise Malformed(Reason.BAD_ENCODING, msg, line=number)
