"""Which devices lose their certificate soon or have none, in what situation, and who does what; changes nothing."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from enum import StrEnum, unique
from types import MappingProxyType
from typing import TYPE_CHECKING, Final

from vagus.fleet.lifecycle import HAS_ENDED, DeviceState
from vagus.fleet.renewal import window_between
from vagus.records.certificates import HELD, INTENDED, ISSUED, NO_EXPIRY, REVOKED
from vagus.records.devices import DeviceFilter, DeviceRow, list_devices, place_of
from vagus.records.expiry import FIRST, CertifiedDevice, list_counting, list_ends, list_newest

if TYPE_CHECKING:
    from vagus.policy.values import PolicyPack
    from vagus.records.engine.database import Connection, Database

EXPIRED: Final = "expired"
"""How a certificate past its end is shown, whatever its row says."""
PAGE: Final = 50
"""Certificates or devices that one page reads."""

_DAY: Final = 86_400
_LOCKS_OUT: Final = frozenset({DeviceState.QUARANTINED, DeviceState.RECALLED})
_NOT_HERE: Final = frozenset({DeviceState.MANUFACTURED, DeviceState.SHIPPED})


@unique
class Situation(StrEnum):
    """How a device stands with its certificate."""

    RENEWS = "renews by itself"
    BY_HAND = "renewed by hand"
    OVERDUE = "overdue"
    EXPIRED = "expired"
    NEVER_ENROLLED = "never enrolled"
    HELD = "held"
    REVOKED = "revoked"
    LOCKED_OUT = "locked out"


_ACTIONS: Final = MappingProxyType(
    {
        Situation.RENEWS: "none: the device renews by itself",
        Situation.OVERDUE: "biomedical engineering: check that it is on, reaches its enrolment server and has the time",
        Situation.EXPIRED: "biomedical engineering: hand it a token and enrol again",
        Situation.NEVER_ENROLLED: "biomedical engineering: enrol it by the maker's certificate or a token",
        Situation.HELD: "security officer: release it or revoke it",
        Situation.REVOKED: "biomedical engineering: hand it a token and enrol again if it shall go on",
        Situation.LOCKED_OUT: "security officer: clear it by its state, or decommission it",
        Situation.BY_HAND: "PKI team: certify it again in time (vagus device certify or pkcs12)",
    }
)
_OVERDUE_BY_HAND: Final = "PKI team and biomedical engineering: certify it again now (vagus device certify or pkcs12)"
_RENEWAL_IS_OVER: Final = frozenset({Situation.OVERDUE, Situation.EXPIRED})
_ARRIVES: Final = "stores: set it to received when it arrives; then biomedical engineering enrols it"


@dataclass(frozen=True, slots=True)
class Expiry:
    """One device of the report.

    `not_after` (seconds since 1970 UTC) is the end of its certificate that is issued or held, None without one.
    `days_left` counts whole days, below zero after the end. `kind` is one of `KINDS` of `records.expiry`.
    """

    device: DeviceRow
    category: str
    not_after: int | None
    days_left: int | None
    situation: Situation
    who_does_what: str
    kind: str = "device"


def shown_state(state: str, not_after: int, *, at: int) -> str:
    """The state of a certificate as every screen shows it: `EXPIRED` for one that ended before `at`."""
    return EXPIRED if not_after < at else state


def days_until(not_after: int | None, *, at: int) -> int | None:
    """Whole days from `at` to the end, below zero after it; None for what never ends or has no end."""
    return None if not_after is None or not_after >= NO_EXPIRY else (not_after - at) // _DAY


def judge(found: CertifiedDevice, pack: PolicyPack, *, at: int) -> Situation:
    """How a device stands at the time `at`; being locked out comes before all else."""
    newest = found.newest
    if DeviceState(found.device.state) in _LOCKS_OUT:
        return Situation.LOCKED_OUT
    if newest is None or newest.state == INTENDED:
        return Situation.NEVER_ENROLLED
    if newest.state in (HELD, REVOKED):
        return Situation.HELD if newest.state == HELD else Situation.REVOKED
    if newest.not_after < at:
        return Situation.EXPIRED
    window = window_between(_moment(newest.not_before), _moment(newest.not_after), pack)
    if window is not None and _moment(at) >= window.renew_by:
        return Situation.OVERDUE
    return Situation.BY_HAND if newest.is_by_operator else Situation.RENEWS


def describe(found: CertifiedDevice, pack: PolicyPack, *, at: int, kind: str = "device") -> Expiry:
    """A device as the report shows it."""
    newest, situation = found.newest, judge(found, pack, at=at)
    end = newest.not_after if newest is not None and newest.state in (ISSUED, HELD) else None
    is_away = situation is Situation.NEVER_ENROLLED and DeviceState(found.device.state) in _NOT_HERE
    action = _ARRIVES if is_away else _ACTIONS[situation]
    if newest is not None and newest.is_by_operator and situation in _RENEWAL_IS_OVER:
        action = _OVERDUE_BY_HAND
    return Expiry(found.device, found.category, end, days_until(end, at=at), situation, action, kind)


def iterate_expiring(
    database: Database, pack: PolicyPack, *, at: int, until: int, narrow: DeviceFilter
) -> Iterator[Expiry]:
    """Devices in use whose certificate has ended or ends at `until` or earlier, by its end, a page in memory at a time.

    A gateway may come twice: for its device certificate and for its server certificate. What was renewed is left out.
    """
    place: tuple[int, int] | None = FIRST
    while place is not None:
        with database.reading() as connection:
            page, place = list_expiring(connection, pack, at=at, until=until, narrow=narrow, after=place)
        yield from page


def list_expiring(
    connection: Connection,
    pack: PolicyPack,
    *,
    at: int,
    until: int,
    narrow: DeviceFilter,
    after: tuple[int, int] = FIRST,
) -> tuple[list[Expiry], tuple[int, int] | None]:
    """One page of `iterate_expiring`, and the place after which the next begins; None at the end.

    A page reads `PAGE` certificates, however few of them count, so each costs the same.
    """
    ends = list_ends(connection, until=until, after=after, count=PAGE)
    counting = list_counting(connection, ends, at=at, narrow=narrow)
    page = [
        describe(found, pack, at=at, kind=end.kind)
        for end in ends
        if (found := counting.get(end.leaf_index)) is not None and DeviceState(found.device.state) not in HAS_ENDED
    ]
    return page, None if len(ends) < PAGE else (ends[-1].not_after, ends[-1].leaf_index)


def iterate_certified(
    database: Database, *, at: int, narrow: DeviceFilter, after: DeviceRow | None = None, page: int = PAGE
) -> Iterator[CertifiedDevice]:
    """Devices by unit, model and serial, each with its certificate that counts, `page` of them in memory at a time."""
    place = None if after is None else place_of(after)
    while True:
        with database.reading() as connection:
            listed = list_devices(connection, narrow, after=place, limit=page)
            found = list_newest(connection, [one.id.text for one in listed], at=at) if listed else {}
        yield from (found[one.id.text] for one in listed if one.id.text in found)
        if len(listed) < page:
            return
        place = place_of(listed[-1])


def iterate_without(database: Database, pack: PolicyPack, *, at: int, narrow: DeviceFilter) -> Iterator[Expiry]:
    """Devices in use whose certificate that counts is held, revoked or missing, by unit, model and serial."""
    for one in iterate_certified(database, at=at, narrow=narrow):
        is_issued = one.newest is not None and one.newest.state == ISSUED
        if not is_issued and DeviceState(one.device.state) not in HAS_ENDED:
            yield describe(one, pack, at=at)


def _moment(seconds: int) -> datetime:
    return datetime.fromtimestamp(seconds, UTC)
