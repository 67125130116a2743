"""Reads what a person knows of a certificate (serial, names, dates, state ...) as one query; finds nothing itself."""

from __future__ import annotations

import re
from contextlib import suppress
from dataclasses import dataclass, fields, replace
from typing import TYPE_CHECKING

from vagus.errors import LimitExceeded, Malformed, NotAuthorised, VagusError
from vagus.fleet.expiry import EXPIRED
from vagus.identifiers import UnitName, read_serial
from vagus.operations.devices import Device, check_known, find_named
from vagus.operations.roles import is_in_scope
from vagus.reasons import Reason
from vagus.records.authorities import list_authorities
from vagus.records.certificate_search import CertificateQuery
from vagus.records.certificates import HELD, INTENDED, ISSUED, NO_EXPIRY, REVOKED
from vagus.records.models import list_models
from vagus.x509.algorithms import KeyAlgorithm
from vagus.x509.searchable import search_name

if TYPE_CHECKING:
    from datetime import datetime, timedelta

    from vagus.components import Components
    from vagus.operations.actor import Actor
    from vagus.records.engine.database import Connection, Database

STATES = (INTENDED, ISSUED, REVOKED, HELD, EXPIRED)
"""A certificate past its end is expired, whatever its row says."""

LONGEST_TEXT = 300
LONGEST_SERIAL = 100
"""Characters: a serial of 20 bytes has 61 as `0x` and hexadecimal pairs with colons, 49 as a decimal number."""
SHORTEST_FINGERPRINT = 8
_WILDCARDS = re.compile(r"[*?%]")
_NAMES_IN_SUBJECT = re.compile(
    r"(?:^|, |\+)(?:CN|serialNumber)=(.+?)(?=, [A-Za-z.0-9]+=|\+[A-Za-z.0-9]+=|$)", re.IGNORECASE
)


@dataclass(frozen=True, slots=True)
class CertificateSearch:
    """What is known, as people write it; everything that is given narrows.

    `serial` is as `read_serial` takes it. `subject` is a common name, a serial number or
    the whole subject as it is printed; `san` one name of the subjectAltName. `fingerprint` is the SHA-256 of the DER or
    its first digits. Of the moments, `_after` includes the moment, `_before` excludes it; `_within` is
    counted from now.
    """

    serial: str | None = None
    subject: str | None = None
    san: str | None = None
    device: str | None = None
    unit: str | None = None
    category: str | None = None
    profile: str | None = None
    algorithm: str | None = None
    issuer: str | None = None
    fingerprint: str | None = None
    issued_after: datetime | None = None
    issued_before: datetime | None = None
    expires_after: datetime | None = None
    expires_before: datetime | None = None
    expires_within: timedelta | None = None
    state: str | None = None


def check_search(search: CertificateSearch) -> None:
    """Raises Malformed(BAD_ARGUMENT) for nothing, an empty text or a wildcard, LimitExceeded(TOO_LARGE)."""
    given = {field.name: getattr(search, field.name) for field in fields(search)}
    if all(value is None for value in given.values()):
        options = ", ".join(f"--{field.name.replace('_', '-')}" for field in fields(search))
        msg = f"nothing says which certificates to find; give at least one of {options}"
        raise Malformed(Reason.BAD_ARGUMENT, msg)
    for name, value in given.items():
        if not isinstance(value, str):
            continue
        option, limit = f"--{name.replace('_', '-')}", LONGEST_SERIAL if name == "serial" else LONGEST_TEXT
        if len(value) > limit:
            msg = f"{option} has {len(value):,} characters, at most {limit} are allowed; give the value alone"
            raise LimitExceeded(Reason.TOO_LARGE, msg, limit=limit, value=len(value))
        if not value.strip() or _WILDCARDS.search(value):
            msg = (
                f"{option} {value!r} is no whole value: there are no wildcards; narrow by --unit, --profile or --issuer"
            )
            raise Malformed(Reason.BAD_ARGUMENT, msg, value=value)


def decode_fingerprint(text: str) -> tuple[bytes, bytes]:
    """The least and the greatest SHA-256 that begin with the digits of `text`. Raises Malformed(BAD_ARGUMENT)."""
    digits = text.strip().lower().removeprefix("sha256:").replace(":", "")
    if not re.fullmatch(f"[0-9a-f]{{{SHORTEST_FINGERPRINT},64}}", digits):
        msg = f"{text!r} is no SHA-256 of a certificate; write {SHORTEST_FINGERPRINT} to 64 hexadecimal digits of it"
        raise Malformed(Reason.BAD_ARGUMENT, msg, value=text)
    return bytes.fromhex(digits.ljust(64, "0")), bytes.fromhex(digits.ljust(64, "f"))


def find_in_scope(database: Database, actor: Actor, text: str) -> Device:
    """As `find_named`; a device outside the actor's scope is as one that is not here."""
    try:
        found = find_named(database, text)
    except NotAuthorised:
        found = None
    if found is None or not is_in_scope(actor, found.unit):
        msg = f"no device {text[:80]!r} is in the inventory; see `vagus device list`"
        raise NotAuthorised(Reason.NOT_IN_INVENTORY, msg)
    return found


def names_sought(search: CertificateSearch) -> tuple[str, ...]:
    """The folded names under which the certificates of `subject` and `san` are looked up.

    Raises Malformed(BAD_ARGUMENT) for a whole subject that has neither common name nor serial number.
    """
    found: list[str] = []
    if search.subject is not None:
        inside = _NAMES_IN_SUBJECT.findall(search.subject)
        if "=" in search.subject and not inside:
            msg = f"subject {search.subject!r} has no CN and no serialNumber; a subject is found by one of them"
            raise Malformed(Reason.BAD_ARGUMENT, msg, value=search.subject)
        found += [search_name(one) for one in inside or [search.subject]]
    if search.san is not None:
        found.append(search_name(search.san))
    return tuple(dict.fromkeys(found))


def decode_search(
    components: Components, connection: Connection, actor: Actor, search: CertificateSearch, *, now: int
) -> tuple[CertificateQuery, ...]:
    """The query, twice where the serial can be read in two ways; what is unknown is refused with what is known.

    It is of the actor's units alone, where it has a scope; none for an empty one. Raises Malformed(BAD_ARGUMENT,
    NON_CANONICAL), Malformed(AUTHORITY_UNKNOWN), and as `find_in_scope` for a device.
    """
    query = CertificateQuery(
        device_id=None if search.device is None else find_in_scope(components.database, actor, search.device).id.text,
        fingerprints=None if search.fingerprint is None else decode_fingerprint(search.fingerprint),
        names=names_sought(search),
        units=tuple(sorted(map(str, actor.scope or ()))) if search.unit is None else (_unit(connection, search.unit),),
        category=_choice(search.category, "category", _categories(components, connection)),
        profile=_choice(search.profile, "profile", set(components.pack.profiles)),
        key_algorithm=_algorithm(search.algorithm),
        authority_ids=_issuers(connection, search.issuer),
        begins=_span(search.issued_after, search.issued_before),
        ends=_span(search.expires_after, search.expires_before),
        is_by_begin=search.issued_after is not None or search.issued_before is not None,
    )
    if search.expires_within is not None:
        query = _ending(query, now, now + int(search.expires_within.total_seconds()))
    state = _choice(search.state, "state", set(STATES))
    if state == EXPIRED:
        query = _ending(query, 0, now - 1)
    elif state is not None:
        query = replace(_ending(query, now, NO_EXPIRY), state=state)
    if actor.scope is not None and not query.units:
        return ()
    if search.serial is None:
        return (query,)
    return tuple(replace(query, serial=one) for one in read_serial(search.serial))


def _ending(query: CertificateQuery, first: int, last: int) -> CertificateQuery:
    return replace(query, ends=(max(query.ends[0], first), min(query.ends[1], last)))


def _span(after: datetime | None, before: datetime | None) -> tuple[int, int]:
    first = 0 if after is None else int(after.timestamp())
    return max(first, 0), NO_EXPIRY if before is None else int(before.timestamp()) - 1


def _unit(connection: Connection, text: str) -> str:
    unit = str(UnitName.parse(text))
    check_known(connection, unit=unit)
    return unit


def _categories(components: Components, connection: Connection) -> set[str]:
    planned = {one for rule in components.pack.rules.values() for one in rule.categories}
    return planned | {one.category for one in list_models(connection)}


def _choice(text: str | None, what: str, known: set[str]) -> str | None:
    """A value of a closed set: a misspelt one must not look like one without certificates."""
    if text is not None and text not in known:
        msg = f"{what} {text!r} is unknown; choose one of {', '.join(sorted(known))}"
        raise Malformed(Reason.BAD_ARGUMENT, msg, value=text)
    return text


def _algorithm(text: str | None) -> str | None:
    """A kind of key, also as people write it: P-256, RSA-3072, ML-DSA-65."""
    plain = None if text is None else text.lower().replace("-", "").replace(" ", "")
    return _choice(plain, "key algorithm", {one.value for one in KeyAlgorithm})


def _issuers(connection: Connection, text: str | None) -> tuple[int, ...]:
    """The ids of the authority's generations, of one where the text names it. Raises Malformed(AUTHORITY_UNKNOWN)."""
    if text is None:
        return ()
    known = list_authorities(connection)
    found = tuple(one.id for one in known if text in {one.name, one.reference})
    if not found:
        msg = f"authority {text!r} does not exist; write h1/icu or h1/icu#2, see `vagus ca list`"
        raise Malformed(Reason.AUTHORITY_UNKNOWN, msg, authority=text)
    return found


def readings_of_name(text: str) -> list[CertificateSearch]:
    """What `text` may mean as the name of one certificate: a serial number, or a fingerprint.

    Raises Malformed(BAD_ARGUMENT) for an authority without a serial.
    """
    found: list[CertificateSearch] = []
    issuer, colon, digits = text.partition(":")
    if "#" in issuer and colon and not digits:
        msg = f"{text[:80]!r} has no serial after the colon; write {issuer[:80]}:0x4a01, see `vagus cert find`"
        raise Malformed(Reason.BAD_ARGUMENT, msg, value=text[:80])
    if "#" in issuer and colon:
        return [CertificateSearch(issuer=issuer, serial=digits)]
    with suppress(VagusError):
        read_serial(text)
        found.append(CertificateSearch(serial=text))
    with suppress(VagusError):
        decode_fingerprint(text)
        found.append(CertificateSearch(fingerprint=text))
    return found
