"""Certificates: what an operator may read about those that this installation holds; finds, shows and exports them."""

from __future__ import annotations

import hashlib
from contextlib import suppress
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from vagus.errors import Conflict, LimitExceeded, Malformed, Unavailable, VagusError
from vagus.fleet.expiry import days_until, shown_state
from vagus.identifiers import DeviceId, UnitName
from vagus.ledger.entries import conceal
from vagus.ledger.revocation_entries import RevocationEntry, find_revocation_entry
from vagus.operations import certificate_queries as queries
from vagus.operations.acts import Acts
from vagus.operations.devices import Device, find_named
from vagus.operations.local_account import list_operators
from vagus.operations.roles import Act, check_may, check_scope, is_in_scope
from vagus.reasons import Reason
from vagus.records import authorities as authority_rows
from vagus.records import certificate_search as rows
from vagus.records.certificates import (
    HELD,
    INTENDED,
    ISSUED,
    NO_EXPIRY,
    REVOKED,
    CertificateRow,
    list_of_device,
    load_bytes,
)
from vagus.records.devices import find_device
from vagus.records.installation import load_salt
from vagus.records.revocation.revocations import RevocationRow, find_revocation
from vagus.x509.certificates import decode_certificate
from vagus.x509.crls.building import RevocationReason, read_entry_date
from vagus.x509.searchable import SearchFacts, read_search_facts, search_name

if TYPE_CHECKING:
    from collections.abc import Iterator

    from vagus.operations.actor import Actor
    from vagus.operations.certificate_queries import CertificateSearch
    from vagus.records.certificate_search import CertificateQuery, Place
    from vagus.records.engine.database import Connection

_LEAF, _AUTHORITY = "leaf-", "authority-"
_FOREIGN = "elsewhere"
"""The profile of an authority's certificate that a CA elsewhere signed."""


@dataclass(frozen=True, slots=True)
class DeviceCertificate:
    """A certificate of a device. `authority` is its issuer's reference, as in `h1/icu#2`; times are seconds since 1970.

    `state` is "expired" for one that has ended; `days_left` is below zero after the end. The last three
    are None unless it is revoked or held. `revoked_by` is a hash where no account of this machine has that name.
    """

    authority: str
    serial: int
    profile: str
    state: str
    not_after: int
    days_left: int | None
    reason: str | None
    revoked_at: int | None
    revoked_by: str | None


@dataclass(frozen=True, slots=True)
class Certificate:
    """One certificate, as operations return it.

    `issuer` is a reference as in `h1/icu#2`, of a CA elsewhere its subject; then `row` has no leaf and stands for none
    in the database. `state` is expired from notAfter on. `unit` and `category` are those that the device has now. `der`
    is None until it is signed, and where a restore lost its bytes.
    """

    row: CertificateRow
    issuer: str
    state: str
    facts: SearchFacts
    unit: str | None = None
    category: str | None = None
    der: bytes | None = field(repr=False, default=None)

    @property
    def id(self) -> str:
        """`leaf-12` by its entry in the ledger; `authority-3` where a CA elsewhere signed it for an authority here."""
        leaf = self.row.leaf_index
        return f"{_LEAF}{leaf}" if leaf >= 0 else f"{_AUTHORITY}{-leaf}"


@dataclass(frozen=True, slots=True)
class CertificatePage:
    """Certificates in the order of a search, and the id after which the next page begins; None at the end."""

    certificates: tuple[Certificate, ...]
    after: str | None


@dataclass(frozen=True, slots=True)
class CertificateRevocation:
    """How a certificate was revoked or held: reason (RFC 5280 5.3.1), time, who did it, and the ledger's entry."""

    reason: str
    at: int
    by: str | None
    ledger_entry: int | None


@dataclass(frozen=True, slots=True)
class CertificateDetails:
    """A certificate with its device and its revocation; `days_left` counts whole days, None where it never ends."""

    certificate: Certificate
    device: Device | None
    revocation: CertificateRevocation | None
    days_left: int | None


@dataclass(frozen=True, slots=True)
class CertificateFiles:
    """The DER of a certificate and of the CAs above it, nearest first; `root` is empty where it is not known here."""

    leaf: bytes
    above: tuple[bytes, ...]
    root: tuple[bytes, ...]


class Certificates(Acts):
    """What an operator may do with certificates."""

    def list_of_device(self, actor: Actor, device: str) -> tuple[Device, tuple[DeviceCertificate, ...]]:
        """A device and every certificate that it ever had, the one that ends last first. Raises as `find_named`."""
        check_may(actor, Act.READ_CERTIFICATES)
        found = find_named(self.components.database, device)
        check_scope(actor, found.unit)
        at = int(self.components.clock.now().timestamp())
        with self.components.database.reading() as connection:
            references = {row.id: row.reference for row in authority_rows.list_authorities(connection)}
            its_own = list_of_device(connection, str(found.id))
            return found, tuple(
                describe_row(connection, one, references.get(one.authority_id, "?"), actor, at) for one in its_own
            )

    def find_page(
        self, actor: Actor, search: CertificateSearch, *, after: str | None = None, limit: int = 100
    ) -> CertificatePage:
        """At most `limit` certificates that fit everything in `search`, those of an actor's units if it has a scope.

        They are sorted by end, or by begin where the search names issue dates. Raises as `check_search` and
        `decode_search`, and Malformed(BAD_ARGUMENT) for a serial whose two readings name different certificates.
        """
        check_may(actor, Act.READ_CERTIFICATES)
        queries.check_search(search)
        if search.unit is not None:
            check_scope(actor, UnitName.parse(search.unit))
        with self.components.database.reading() as connection:
            view = _View(connection, actor, self._now())
            readings = queries.decode_search(self.components, connection, actor, search, now=view.now)
            found = [page for one in readings if (page := view.page(one, search, after, limit)).certificates]
        if len(found) > 1:
            raise _ambiguous(search.serial or "", [page.certificates[0] for page in found])
        return found[0] if found else CertificatePage((), None)

    def show(self, actor: Actor, name: str) -> CertificateDetails:
        """The certificate that `name` means: its id, serial, `h1/icu#1:SERIAL`, SHA-256 or the first digits of it.

        Raises Malformed(BAD_ARGUMENT) for a name of several, Malformed(NOT_FOUND) for one of none, which a certificate
        outside the actor's scope is too.
        """
        check_may(actor, Act.READ_CERTIFICATES)
        with self.components.database.reading() as connection:
            view = _View(connection, actor, self._now())
            found = self._find(view, name)
            device = None
            if found.row.device_id is not None:
                device = find_device(connection, DeviceId(found.row.device_id))
            days_left = days_until(found.row.not_after, at=view.now)
            return CertificateDetails(found, device, view.revocation(found), days_left)

    def export(self, actor: Actor, name: str) -> CertificateFiles:
        """The DER of a certificate and of those above it. Raises as `show`, and Unavailable(UNSETTLED)."""
        check_may(actor, Act.READ_CERTIFICATES)
        with self.components.database.reading() as connection:
            view = _View(connection, actor, self._now())
            found = self._find(view, name)
            if found.der is None and found.row.state == INTENDED:
                msg = (
                    f"certificate {found.id} is not signed yet; start `vagus serve` for {found.issuer}, then try again"
                )
                raise Unavailable(Reason.UNSETTLED, msg)
            if found.der is None:
                msg = f"the bytes of certificate {found.id} are not here; only its device or a later backup has them"
                raise Conflict(Reason.NOT_FOUND, msg)
            above = view.above(found)
        roots = [one for one in above if decode_certificate(one).is_self_issued]
        return CertificateFiles(found.der, tuple(one for one in above if one not in roots), tuple(roots))

    def _now(self) -> int:
        return int(self.components.clock.now().timestamp())

    def _find(self, view: _View, name: str) -> Certificate:
        if len(name) > queries.LONGEST_TEXT:
            msg = f"the name has {len(name):,} characters, at most {queries.LONGEST_TEXT} are allowed; give a serial"
            raise LimitExceeded(Reason.TOO_LARGE, msg, limit=queries.LONGEST_TEXT, value=len(name))
        found = list({one.id: one for one in self._named(view, name)}.values())
        if len(found) > 1:
            raise _ambiguous(name, found)
        if not found:
            msg = f"{name!r} names no certificate here: give a serial, a SHA-256 or an id; see `vagus cert find`"
            raise Malformed(Reason.NOT_FOUND, msg, value=name)
        return found[0]

    def _named(self, view: _View, name: str) -> Iterator[Certificate]:
        by_id = view.by_id(name)
        if by_id is not None:
            yield by_id
            return
        for search in queries.readings_of_name(name):
            for one in queries.decode_search(self.components, view.connection, view.actor, search, now=view.now):
                yield from view.page(one, search, None, 2).certificates


class _View:
    """The certificates as one snapshot of the database has them, at one moment."""

    def __init__(self, connection: Connection, actor: Actor, now: int) -> None:
        self.connection = connection
        self.actor = actor
        self.now = now
        self._authorities = {row.id: row for row in authority_rows.list_authorities(connection)}
        self._foreign = tuple(self._read_foreign())

    def page(
        self, query: CertificateQuery, search: CertificateSearch, after: str | None, limit: int
    ) -> CertificatePage:
        """At most `limit` certificates of `query` that have the names of `search`, after the one of id `after`."""
        begin = None if after is None else self._place_after(query, after)
        found = [one for one in self._foreign if _fits(one, query) and _has_names(one, search)]
        found = [one for one in found if begin is None or rows.place_of(query, one.row) > begin]
        place, own = begin, 0
        while own <= limit:
            part = rows.find_certificates(self.connection, query, after=place, limit=limit + 1)
            named = [one for one in map(self._describe, part.certificates) if _has_names(one, search)]
            found, own = found + named, own + len(named)
            if part.rest_after is None:
                break
            place = part.rest_after
        found.sort(key=lambda one: rows.place_of(query, one.row))
        is_more = len(found) > limit
        return CertificatePage(tuple(found[:limit]), found[limit - 1].id if is_more else None)

    def by_id(self, text: str) -> Certificate | None:
        """The certificate of this id, if it is in the actor's scope."""
        number = text.removeprefix(_LEAF)
        if number != text and number.isascii() and number.isdigit() and len(number) < 19:
            row = rows.find_found(self.connection, int(number))
            found = None if row is None else self._describe(row)
        else:
            found = next((one for one in self._foreign if one.id == text), None)
        return found if found is not None and is_in_scope(self.actor, _unit(found)) else None

    def revocation(self, one: Certificate) -> CertificateRevocation | None:
        """How it was revoked or held."""
        row = find_revocation(self.connection, one.row.leaf_index)
        if row is None:
            return None
        entry = find_revocation_entry(self.connection, row.sequence, row.revoked_at)
        leaf, by = (None, None) if entry is None else (entry[0], _find_who(self.connection, entry[1], self.actor))
        return CertificateRevocation(RevocationReason(row.reason).spelling, _date(row), by, leaf)

    def above(self, one: Certificate) -> tuple[bytes, ...]:
        """The certificates above one, nearest first, as far as they are known."""
        issuer = self._authorities[one.row.authority_id]
        above = authority_rows.load_chain(self.connection, issuer)
        itself = () if issuer.certificate_der in {None, one.der} else (issuer.certificate_der or b"",)
        return (*itself, *above)

    def _place_after(self, query: CertificateQuery, text: str) -> Place:
        found = self.by_id(text)
        if found is None:
            msg = f"--after {text[:80]!r} is no id of a certificate here; copy it from the end of the page before"
            raise Malformed(Reason.BAD_ARGUMENT, msg, value=text[:80])
        return rows.place_of(query, found.row)

    def _describe(self, one: rows.FoundCertificate) -> Certificate:
        tbs_der, der = load_bytes(self.connection, one.row.leaf_index)
        issuer = self._authorities[one.row.authority_id].reference
        return Certificate(one.row, issuer, self._state(one.row), _facts(tbs_der), one.unit, one.category, der)

    def _state(self, row: CertificateRow) -> str:
        return shown_state(row.state, row.not_after, at=self.now)

    def _read_foreign(self) -> Iterator[Certificate]:
        """The certificates of authorities here that a CA elsewhere signed: no row of `certificates` has them."""
        certified = [one for one in self._authorities.values() if one.certificate_der is not None]
        held = {hashlib.sha256(one.certificate_der or b"").digest(): one for one in certified}
        for digest in held.keys() - rows.list_known(self.connection, tuple(held)):
            authority, decoded = held[digest], decode_certificate(held[digest].certificate_der or b"")
            facts = _facts(decoded.tbs_der)
            row = CertificateRow(
                leaf_index=-authority.id,
                authority_id=authority.id,
                serial=decoded.serial,
                owner=f"authority:{authority.reference}",
                device_id=None,
                profile=_FOREIGN,
                spki_sha256=authority.spki_sha256,
                request_id="",
                not_before=authority.not_before or 0,
                not_after=authority.not_after or NO_EXPIRY,
                shard=0,
                state=REVOKED if authority.state == authority_rows.REVOKED else ISSUED,
                fingerprint=digest,
                key_algorithm=facts.key_algorithm,
            )
            issuer = decoded.issuer.describe()
            yield Certificate(row, issuer, self._state(row), facts, der=authority.certificate_der)


def _facts(tbs_der: bytes) -> SearchFacts:
    with suppress(VagusError):
        return read_search_facts(tbs_der)
    return SearchFacts("")


def _unit(one: Certificate) -> UnitName | None:
    return None if one.unit is None else UnitName.parse(one.unit)


def _has_names(one: Certificate, search: CertificateSearch) -> bool:
    """Whether subject and subjectAltName are those of the search: it looks names up without their kind."""
    subjects, others = (one.facts.subject, *one.facts.subject_names), one.facts.alternative_names
    asked = ((search.subject, subjects), (search.san, others))
    return all(text is None or search_name(text) in map(search_name, names) for text, names in asked)


def _fits(one: Certificate, query: CertificateQuery) -> bool:
    """The conditions of `query` beside names on a certificate that is no row in the database."""
    row, prints = one.row, query.fingerprints
    return (
        not (query.device_id or query.units or query.category or query.profile or query.authority_ids)
        and query.serial in {None, row.serial}
        and (prints is None or prints[0] <= (row.fingerprint or b"") <= prints[1])
        and query.key_algorithm in {None, row.key_algorithm}
        and query.state in {None, row.state}
        and query.begins[0] <= row.not_before <= query.begins[1]
        and query.ends[0] <= row.not_after <= query.ends[1]
    )


def _ambiguous(text: str, found: list[Certificate]) -> Malformed:
    """The error for a text that names several certificates, with a name for each."""
    named = ((one.row.serial, one.issuer, one.id) for one in found[:4])
    each = "; ".join(f"0x{serial:x} (decimal {serial}) of {issuer}, id {name}" for serial, issuer, name in named)
    msg = f"{text!r} names different certificates: {each}; name one of them by its 0x serial or its id"
    return Malformed(Reason.BAD_ARGUMENT, msg, value=text)


def _date(row: RevocationRow) -> int:
    """The date that CRLs give, in seconds since 1970 UTC: of an imported CA's certificates that of the old CRL."""
    return int(read_entry_date(row.entry_der).timestamp())


def describe_row(
    connection: Connection, row: CertificateRow, authority: str, actor: Actor, at: int
) -> DeviceCertificate:
    """A certificate as it is at `at`; `authority` is its issuer's reference, `actor` who asks."""
    step = find_revocation(connection, row.leaf_index) if row.state in (REVOKED, HELD) else None
    found = None if step is None else find_revocation_entry(connection, step.sequence, step.revoked_at)
    return DeviceCertificate(
        authority=authority,
        serial=row.serial,
        profile=row.profile,
        state=shown_state(row.state, row.not_after, at=at),
        not_after=row.not_after,
        days_left=days_until(row.not_after, at=at),
        reason=None if step is None else RevocationReason(step.reason).spelling,
        revoked_at=None if step is None else _date(step),
        revoked_by=None if found is None else _find_who(connection, found[1], actor),
    )


def _find_who(connection: Connection, entry: RevocationEntry, actor: Actor) -> str:
    """Who revoked: by name if it was the actor or an account of this machine, else as the ledger writes it."""
    salt, who = load_salt(connection), entry.by
    return next((name for name in (actor.id, *list_operators()) if conceal(salt, name) == who), who)
