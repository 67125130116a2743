"""Writes gateway decisions as JSON lines in hash-chained segment files, and one ledger entry each minute.

A segment is the file of one gateway and one day. Each line carries, as `before`, the SHA-256 of the line before it. The
chain goes on from day to day, and after a restart from the last line of the day's file; where there is none it begins
with zeros. The ledger entry of a minute holds the SHA-256 of the minute's last line. So the ledger commits to every
line up to there: a line that is changed, removed or inserted later no longer fits.

Threads: the gateways' event loop calls `record`; the upkeep thread calls `flush`, and after both have ended `close` is
called. `_turn` guards the segments. It is held for buffered writes only, never for an fsync: a disk may take seconds,
and a gateway that waits for it cannot cut off a revoked device meanwhile. `_unsynced` and `_unrecorded` belong to the
caller of `flush` and `close`, except that `flush` fills `_unsynced` under `_turn`.
"""

from __future__ import annotations

import hashlib
import json
import logging
import os
import threading
from collections import Counter, deque
from dataclasses import dataclass, field
from datetime import datetime
from functools import partial
from pathlib import Path
from typing import IO

from vagus.clock import Clock
from vagus.endpoints.gateway.decisions import ConnectionDecision, Outcome
from vagus.jobs.part import UPKEEP, Part
from vagus.jobs.periodic import Task
from vagus.ledger.append import append
from vagus.ledger.entries import GatewayMinute
from vagus.ledger.gateway_lines import GENESIS
from vagus.records.engine.writer import Writer

_LOG = logging.getLogger(__name__)
_TAIL = 65_536
_LONGEST_DETAIL = 1_000
"""Characters of the sentence in a line: it may quote names, and a certificate of 131,072 bytes has long ones."""


@dataclass(slots=True)
class _Segment:
    """The open file of one gateway."""

    day: str
    stream: IO[bytes]
    head: bytes
    """The SHA-256 of the last line."""
    counts: Counter[Outcome] = field(default_factory=Counter)
    """The decisions of the present minute."""
    minute: int = 0
    """Minutes since 1970 UTC."""


@dataclass(slots=True)
class GatewayLog:
    """Records the decisions of every gateway of this process. Safe to call from several threads."""

    folder: Path
    clock: Clock
    writer: Writer
    _turn: threading.Lock = field(default_factory=threading.Lock)
    _segments: dict[str, _Segment] = field(default_factory=dict)
    # Finished minutes and finished segments that still need their ledger entry, oldest first; the numbers are those of
    # open files.
    _unsynced: deque[tuple[int, GatewayMinute]] = field(default_factory=deque)
    _unrecorded: deque[GatewayMinute] = field(default_factory=deque)

    def part(self) -> Part:
        """As the server runs it."""
        return Part("gateway-log", [Task("gates", 5.0, self.flush)], UPKEEP, close=self.close)

    def record(self, decision: ConnectionDecision) -> None:
        """Record one decision. A full disk stops no gateway; it is logged."""
        now = self.clock.now()
        with self._turn:
            try:
                segment = self._segment(decision.listener, now)
                line = _line(decision, now, segment.head)
                segment.stream.write(line)
                segment.head = hashlib.sha256(line).digest()
            except OSError as error:
                _LOG.error("a gateway decision could not be recorded: %s", error)
                return
            segment.counts[decision.outcome] += decision.count

    def flush(self) -> float | None:
        """Put lines on the disk, and the minutes that are over into the ledger; for a periodic task.

        Raises what disk and database raise. Minutes that the ledger could not take are offered again, the oldest first.
        """
        minute = int(self.clock.now().timestamp()) // 60
        with self._turn:
            for name, segment in self._segments.items():
                segment.stream.flush()
                if segment.minute < minute and segment.counts:
                    self._unsynced.append((os.dup(segment.stream.fileno()), _minute(name, segment)))
                    segment.counts.clear()
                segment.minute = minute
        self._sync()
        self._record_minutes()
        return None

    def close(self) -> None:
        """Flush everything, the unfinished minute included."""
        with self._turn:
            self._unrecorded += [_minute(name, one) for name, one in self._segments.items() if one.counts]
            for segment in self._segments.values():
                segment.stream.flush()
                os.fsync(segment.stream.fileno())
                segment.stream.close()
            self._segments.clear()
        self._sync()
        self._record_minutes()

    def _sync(self) -> None:
        """Without `_turn`. The lines of a minute are on the disk before the ledger has their hash."""
        while self._unsynced:
            number, over = self._unsynced.popleft()
            self._unrecorded.append(over)
            try:
                os.fsync(number)
            finally:
                os.close(number)

    def _record_minutes(self) -> None:
        while self._unrecorded:
            self.writer.submit(partial(append, entry=self._unrecorded[0])).result()
            self._unrecorded.popleft()

    def _segment(self, name: str, now: datetime) -> _Segment:
        day = f"{now:%Y-%m-%d}"
        found = self._segments.get(name)
        if found is not None and found.day == day:
            return found
        head = GENESIS if found is None else found.head
        if found is not None:
            found.stream.close()
        folder = self.folder / name
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        path = folder / f"{day}.jsonl"
        last = _last_line(path) if found is None and path.exists() else b""
        stream = os.fdopen(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600), "ab")
        if last:
            # a power cut left an incomplete last line in the segment: it stays as evidence, and the next line begins
            # after it
            if not last.endswith(b"\n"):
                stream.write(b"\n")
                last += b"\n"
            head = hashlib.sha256(last).digest()
        counts = Counter() if found is None else found.counts
        made = _Segment(day, stream, head, counts, int(now.timestamp()) // 60 if found is None else found.minute)
        self._segments[name] = made
        return made


def _last_line(path: Path) -> bytes:
    """The last line of a file that may have gigabytes, read from its end."""
    with path.open("rb") as stream:
        at, tail = stream.seek(0, os.SEEK_END), b""
        while at > 0 and b"\n" not in tail[:-1]:
            at, size = max(0, at - _TAIL), min(at, _TAIL)
            stream.seek(at)
            tail = stream.read(size) + tail
    return tail[tail[:-1].rfind(b"\n") + 1 :]


def _minute(name: str, segment: _Segment) -> GatewayMinute:
    admitted = segment.counts[Outcome.ADMITTED]
    refused = sum(count for outcome, count in segment.counts.items() if outcome is not Outcome.ADMITTED)
    return GatewayMinute(name, segment.minute, segment.head, admitted, refused)


def _line(decision: ConnectionDecision, now: datetime, before: bytes) -> bytes:
    facts: dict[str, object] = {
        "at": now.isoformat(timespec="milliseconds").replace("+00:00", "Z"),
        "before": before.hex(),
        "listener": decision.listener,
        "source": decision.source,
        "outcome": decision.outcome.value,
    }
    optional: dict[str, object | None] = {
        "reason": None if decision.reason is None else decision.reason.value,
        "device": decision.device,
        "serial": None if decision.serial is None else f"{decision.serial:x}",
        "claimed_device": decision.claimed_device,
        "claimed_serial": None if decision.claimed_serial is None else f"{decision.claimed_serial:x}",
        "leaf_sha256": None if decision.leaf_sha256 is None else decision.leaf_sha256.hex(),
        "resumed": decision.resumed or None,
        "tls": decision.tls_version,
        "group": decision.group,
        "count": decision.count if decision.count != 1 else None,
        "detail": decision.detail[:_LONGEST_DETAIL] or None,
    }
    facts.update({name: value for name, value in optional.items() if value is not None})
    return (json.dumps(facts, ensure_ascii=True, separators=(",", ":")) + "\n").encode("ascii")
