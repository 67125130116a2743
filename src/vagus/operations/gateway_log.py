"""The gateway log as an operator reads it: which peers were admitted and refused, and whether the ledger agrees."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from heapq import merge
from itertools import groupby
from typing import TYPE_CHECKING, Final

from vagus.errors import Malformed
from vagus.identifiers import DeviceId, read_serial
from vagus.ledger.entries import GatewayMinute, decode_entry
from vagus.ledger.gateway_lines import (
    FOLDER,
    GatewayLine,
    Outcome,
    Segment,
    SegmentReport,
    check_chain,
    decode_line,
    list_segments,
    read_backwards,
)
from vagus.operations.acts import Acts
from vagus.operations.certificate_queries import find_in_scope
from vagus.operations.roles import Act, check_may, check_scope
from vagus.reasons import Reason
from vagus.records.log import iterate_leaves, load_head

__all__ = ["GatewayCheck", "GatewayLine", "GatewayLog", "GatewayPage", "GatewayQuery"]

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping

    from vagus.operations.actor import Actor
    from vagus.records.engine.database import Connection

_PART: Final = 5_000
"""Leaves that are read at once on the way back from the ledger's end."""
_AT: Final = b'{"at":"'
_CLOCK_STEP: Final = timedelta(minutes=10)
"""How far a clock may have been set back while a gateway wrote: lines are in the order in which they were written."""
_MINUTE: Final = GatewayMinute.kind.encode()


@dataclass(frozen=True, slots=True)
class GatewayQuery:
    """Which decisions to show, as people write it; None does not narrow. `device` is an id or MODEL:SERIAL.

    A device or serial also finds the lines in which a certificate only claims it.
    """

    listener: str | None = None
    device: str | None = None
    serial: str | None = None
    outcome: str | None = None
    reason: str | None = None
    since: datetime | None = None
    until: datetime | None = None


@dataclass(slots=True)
class GatewayPage:
    """Decisions, the newest first, and how many lines on the way could not be read, with the place of the first."""

    lines: list[GatewayLine]
    listeners: tuple[str, ...] | None
    """Every listener that has a log here; None for an actor with a narrower scope, which gets no name of a file."""
    unreadable: int = 0
    unreadable_in: str | None = None


@dataclass(frozen=True, slots=True)
class GatewayCheck:
    """How files and ledger agree.

    `missing` are the moments (minutes since 1970 UTC) by listener whose last line is in no file although the file of
    that day is here; `absent` are the days of which the ledger knows and no file is here.
    """

    reports: tuple[SegmentReport, ...]
    missing: Mapping[str, tuple[int, ...]]
    absent: tuple[tuple[str, str], ...]
    is_shared: bool
    """Whether other processes may have files of these listeners too: a missing minute may be one of theirs."""
    is_whole: bool
    """Whether every file was checked, not only those since some day."""

    def findings_of(self, report: SegmentReport) -> tuple[str, ...]:
        """Sentences about one file, those of its `fault` first."""
        found = report.faults[:3]
        if lost := self._lost_of(report):
            whose = ": removed, changed, or of another process" if self.is_shared else ": lines were removed or changed"
            first = datetime.fromtimestamp(lost[0] * 60, UTC)
            found.append(f"the last lines of {len(lost)} minutes are in no file, the first of {first:%H:%M}{whose}")
        if report.is_beheaded and self.is_whole:
            found.append("its first line follows a line that is in no file: an earlier day, or its own beginning")
        return tuple(found)

    @property
    def fault(self) -> str | None:
        """A place where lines were changed, removed or inserted, with a sentence; None where all is sound."""
        broken = [one for one in self.reports if one.faults]
        if not self.is_shared:
            broken += [one for one in self.reports if self._lost_of(one)]
        return f"{FOLDER}/{broken[0].segment.name}: {self.findings_of(broken[0])[0]}" if broken else None

    def _lost_of(self, report: SegmentReport) -> list[int]:
        return [one for one in self.missing.get(report.segment.listener, ()) if _day(one) == report.segment.day]


class GatewayLog(Acts):
    """What an operator may do with the log of the gateways: it is read, never changed."""

    def read(self, actor: Actor, query: GatewayQuery, *, limit: int = 100) -> GatewayPage:
        """At most `limit` decisions, the newest first; no more of the files is read than they need.

        An actor with a narrower scope names a device of it. Raises Malformed(BAD_ARGUMENT, NON_CANONICAL) for a value
        that no line can have, NotAuthorised(NOT_IN_INVENTORY) for a device that is unknown or outside the scope.
        """
        check_may(actor, Act.READ_GATEWAY_LOG)
        device = None if query.device is None else self._find_device(actor, query.device)
        if device is None:
            check_scope(actor, None)
        fits = _Filter(query, device)
        segments = self._segments(actor, query.listener)
        listeners = tuple(dict.fromkeys(one.listener for one in segments))
        page = GatewayPage([], listeners if actor.scope is None else None)
        since, until = (None if at is None else f"{at:%Y-%m-%d}" for at in (query.since, query.until))
        days = [one for one in segments if (since or "") <= one.day <= (until or "9999")]
        newest_first = [
            _decode(reversed(list(some)), fits, page) for _, some in groupby(days, key=lambda one: one.listener)
        ]
        for line in merge(*newest_first, key=lambda line: line.at, reverse=True):
            if fits.takes(line):
                page.lines.append(line)
                if len(page.lines) == limit:
                    break
        if actor.scope is not None:
            page.unreadable_in = None
        return page

    def verify(self, actor: Actor, *, listener: str | None = None, since: datetime | None = None) -> GatewayCheck:
        """Check the hash chains of the files (from the day of `since` on) against the minutes in the ledger.

        Raises Malformed(BAD_ARGUMENT) for an unknown listener.
        """
        check_may(actor, Act.READ_GATEWAY_LOG)
        check_scope(actor, None)
        first_day = "" if since is None else f"{since:%Y-%m-%d}"
        segments = [one for one in self._segments(actor, listener) if one.day >= first_day]
        minutes: dict[str, dict[bytes, int]] = {}
        with self.components.database.reading(patience=None) as connection:
            for entry in _minutes(connection, first_day):
                if listener in {None, entry.gate}:
                    minutes.setdefault(entry.gate, {})[entry.root] = entry.minute
        reports: list[SegmentReport] = []
        missing: dict[str, tuple[int, ...]] = {}
        absent: set[tuple[str, str]] = set()
        for name in sorted({*minutes, *(one.listener for one in segments)}):
            own = [one for one in segments if one.listener == name]
            found, lost = check_chain(own, minutes.get(name, {}))
            reports += found
            days = {one.day for one in own}
            absent |= {(name, _day(minute)) for minute in lost if _day(minute) not in days}
            here = tuple(sorted(minute for minute in lost if _day(minute) in days))
            missing.update({name: here} if here else {})
        is_shared = not self.components.database.is_sqlite
        return GatewayCheck(tuple(reports), missing, tuple(sorted(absent)), is_shared, is_whole=since is None)

    def _find_device(self, actor: Actor, text: str) -> str:
        if ":" not in text and actor.scope is None:
            return str(DeviceId(text))  # strangers may claim a device that the inventory does not have
        return str(find_in_scope(self.components.database, actor, text).id)

    def _segments(self, actor: Actor, listener: str | None) -> list[Segment]:
        segments = list_segments(self.components.settings.folder / FOLDER)
        names = sorted({one.listener for one in segments})
        if listener is not None and listener not in names and actor.scope is None:
            msg = f"listener {listener!r} has no log here; there are {', '.join(names) or 'none'}"
            raise Malformed(Reason.BAD_ARGUMENT, msg, value=listener)
        return [one for one in segments if listener in {None, one.listener}]


class _Filter:
    """A query with its values checked. Raises Malformed(BAD_ARGUMENT)."""

    def __init__(self, query: GatewayQuery, device: str | None) -> None:
        self._query = query
        self._device = device
        # digits alone can be read in two ways, and a search takes both
        self._serials = () if query.serial is None else tuple(f"{one:x}" for one in read_serial(query.serial))
        for what, value, known in (("outcome", query.outcome, Outcome), ("reason", query.reason, Reason)):
            if value is not None and value not in set(known):
                hint = ", ".join(known) if known is Outcome else "a reason code as in REVOKED"
                raise Malformed(Reason.BAD_ARGUMENT, f"{what} {value[:80]!r} does not exist; write {hint}")
        if query.since is not None and query.until is not None and query.since > query.until:
            msg = f"the log is asked for from {query.since} until {query.until}, which is earlier; swap the two"
            raise Malformed(Reason.BAD_ARGUMENT, msg)

        self._earliest = b"" if query.since is None else _stamp(query.since - _CLOCK_STEP)
        self._latest = b"9" if query.until is None else _stamp(query.until + _CLOCK_STEP)
        wanted = (device, query.outcome, query.reason)
        self._words = tuple(word.encode() for word in wanted if word is not None)
        self._digits = tuple(one.encode() for one in self._serials) or (b"",)

    def is_past(self, raw: bytes) -> bool:
        """Whether this line and all before it are too old; by the bytes of its time, without decoding it."""
        return raw.startswith(_AT) and raw[len(_AT) :] < self._earliest

    def may_take(self, raw: bytes) -> bool:
        """Whether the line may fit, by its bytes: most lines of a large file need no decoding."""
        is_early = not raw.startswith(_AT) or raw[len(_AT) :] <= self._latest
        has_serial = not self._serials or any(serial.encode() in raw for serial in self._serials)
        return is_early and has_serial and all(word in raw for word in self._words)

    def takes(self, line: GatewayLine) -> bool:
        """Whether the line fits."""
        query = self._query
        return (
            (query.since is None or line.at >= query.since)
            and (query.until is None or line.at <= query.until)
            and query.outcome in {None, line.outcome}
            and query.reason in {None, line.reason}
            and (not self._serials or not {line.serial, line.claimed_serial}.isdisjoint(self._serials))
            and (self._device is None or self._device in {name.partition(".")[0] for name in line.named_devices})
        )


def _decode(segments: Iterable[Segment], fits: _Filter, page: GatewayPage) -> Iterator[GatewayLine]:
    """The lines of one listener that may fit, the newest first; notes in `page` what cannot be read."""
    for segment in segments:
        for raw in read_backwards(segment.path):
            if fits.is_past(raw):
                return
            if not fits.may_take(raw):
                continue
            try:
                yield decode_line(raw)
            except Malformed:
                page.unreadable += 1
                page.unreadable_in = page.unreadable_in or segment.name


def _stamp(at: datetime) -> bytes:
    """A moment as lines begin with it, which sorts like the moment."""
    return f"{at:%Y-%m-%dT%H:%M:%S}".encode()


def _minutes(connection: Connection, first_day: str) -> Iterator[GatewayMinute]:
    """The gateways' minutes from a day on, read from the ledger's end back: a long ledger is not read whole."""
    end = load_head(connection).size
    while end > 0:
        begin, at = max(0, end - _PART), None
        for leaf in iterate_leaves(connection, begin, end):
            if at is not None and _MINUTE not in leaf.entry:
                continue
            logged = decode_entry(leaf.entry)
            at = logged.at if at is None else at
            if isinstance(logged.entry, GatewayMinute) and _day(logged.entry.minute) >= first_day:
                yield logged.entry
        if at is not None and f"{datetime.fromtimestamp(at, UTC):%Y-%m-%d}" < first_day:
            return
        end = begin


def _day(minute: int) -> str:
    return f"{datetime.fromtimestamp(minute * 60, UTC):%Y-%m-%d}"
