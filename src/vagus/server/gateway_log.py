"""Keeps what gates decide: one JSON line each in a hash-chained segment, one ledger entry a minute; decides nothing.

A segment is a file of a gate's day. Each line carries the SHA-256 of the line before it, and the ledger's entry of a
minute commits to the last: a line that was changed or cut out afterwards no longer fits.
"""

from __future__ import annotations

import hashlib
import json
import logging
import os
import threading
from collections import Counter, deque
from collections.abc import Callable
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
from vagus.records.engine.writer import Writer

_LOG = logging.getLogger(__name__)
_GENESIS = bytes(32)
_TAIL = 65_536


@dataclass(slots=True)
class _Segment:
    """The open file of one gate."""

    day: str
    stream: IO[bytes]
    head: bytes
    counts: Counter[Outcome] = field(default_factory=Counter)
    minute: int = 0


class GatewayLog:
    """Records the decisions of every gate of this process. Safe to call from several threads."""

    def __init__(
        self, folder: Path, clock: Clock, writer: Writer, *, heard: Callable[[str], None] | None = None
    ) -> None:
        """`heard` is given each line as well, for a log stream."""
        self._folder = folder
        self._clock = clock
        self._writer = writer
        self._heard = heard
        self._turn = threading.Lock()
        self._segments: dict[str, _Segment] = {}
        # Of minutes that are over; periodic work and `close` alone touch them. The numbers are of open files.
        self._unsynced: deque[tuple[int, GatewayMinute]] = deque()
        self._untold: deque[GatewayMinute] = deque()

    def part(self) -> Part:
        """As the server runs it."""
        return Part("gateway-log", [Task("gates", 5.0, self.flush)], UPKEEP, close=self.close)

    def record(self, decision: ConnectionDecision) -> None:
        """Keep one decision; a full disk stops no gate, but is told of."""
        now = self._clock.now()
        with self._turn:
            try:
                segment = self._segment(decision.listener, now)
                line = _line(decision, now, segment.head)
                segment.stream.write(line)
                segment.head = hashlib.sha256(line).digest()
            except OSError as error:
                _LOG.error("a gate decision could not be kept: %s", error)
                return
            segment.counts[decision.outcome] += decision.count
        if self._heard is not None:
            self._heard(line.decode("ascii").rstrip("\n"))

    def flush(self) -> float | None:
        """Put lines on the disk, and the minutes that are over into the ledger; for periodic work.

        Raises what disk and database raise; minutes that the ledger could not take are offered again, the oldest first.
        """
        minute = int(self._clock.now().timestamp()) // 60
        with self._turn:
            for name, segment in self._segments.items():
                segment.stream.flush()
                if segment.minute < minute and segment.counts:
                    self._unsynced.append((os.dup(segment.stream.fileno()), _minute(name, segment)))
                    segment.counts.clear()
                segment.minute = minute
        self._sync()
        self._tell()
        return None

    def close(self) -> None:
        """Flush everything, the unfinished minute included."""
        with self._turn:
            self._untold += [_minute(name, one) for name, one in self._segments.items() if one.counts]
            for segment in self._segments.values():
                segment.stream.flush()
                os.fsync(segment.stream.fileno())
                segment.stream.close()
            self._segments.clear()
        self._sync()
        self._tell()

    def _sync(self) -> None:
        """Without the turn: a gate that waits for it cuts nobody off meanwhile, and a disk may take seconds."""
        while self._unsynced:
            number, over = self._unsynced.popleft()
            self._untold.append(over)
            try:
                os.fsync(number)
            finally:
                os.close(number)

    def _tell(self) -> None:
        while self._untold:
            self._writer.submit(partial(append, entry=self._untold[0])).result()
            self._untold.popleft()

    def _segment(self, name: str, now: datetime) -> _Segment:
        day = f"{now:%Y-%m-%d}"
        found = self._segments.get(name)
        if found is not None and found.day == day:
            return found
        head = _GENESIS if found is None else found.head
        if found is not None:
            found.stream.close()
        folder = self._folder / name
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        path = folder / f"{day}.jsonl"
        last = _last_line(path) if found is None and path.exists() else b""
        stream = os.fdopen(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600), "ab")
        if last:
            if not last.endswith(b"\n"):  # a power cut tore it: it stays, and the next one stands by itself
                stream.write(b"\n")
                last += b"\n"
            head = hashlib.sha256(last).digest()
        counts = Counter() if found is None else found.counts
        made = _Segment(day, stream, head, counts, int(now.timestamp()) // 60 if found is None else found.minute)
        self._segments[name] = made
        return made


def _last_line(path: Path) -> bytes:
    """The end of a file that may have gigabytes, behind its last line but one."""
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
    said: dict[str, object] = {
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
        "leaf_sha256": None if decision.leaf_sha256 is None else decision.leaf_sha256.hex(),
        "resumed": decision.resumed or None,
        "tls": decision.tls_version,
        "group": decision.group,
        "count": decision.count if decision.count != 1 else None,
        "detail": decision.detail or None,
    }
    said.update({name: value for name, value in optional.items() if value is not None})
    return (json.dumps(said, ensure_ascii=True, separators=(",", ":")) + "\n").encode("ascii")
