"""Reads the decisions of gateways from their files, the newest first, and checks their hash chains; writes none.

A file is `gates/LISTENER/DAY.jsonl`. Each line carries the SHA-256 of the line before it, and the ledger entry of a
minute holds that of the minute's last line (`entries.GatewayMinute`). Files may have gigabytes, and a process may write
to the last one meanwhile: they are read in parts, and an unfinished last line is left out.
"""

from __future__ import annotations

import hashlib
import json
import os
import re
from dataclasses import dataclass, field
from datetime import UTC, datetime
from enum import StrEnum, unique
from typing import TYPE_CHECKING, Any, Final

from vagus.errors import Malformed
from vagus.reasons import Reason

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence
    from pathlib import Path

FOLDER: Final = "gates"
"""The folder of the files, in the folder of the installation."""
GENESIS: Final = bytes(32)
_PART: Final = 65_536
_LONGEST: Final = 16_384  # bytes of the longest line that is read: ours have less than 3,000
_FILE: Final = re.compile(r"[0-9]{4}-[0-9]{2}-[0-9]{2}\.jsonl\Z")
_BEFORE: Final = re.compile(rb'\{"at":"[^"]{1,40}","before":"([0-9a-f]{64})"')


@unique
class Outcome(StrEnum):
    """What a gateway decided. Stable codes: rules and reports match on them."""

    ADMITTED = "admitted"
    REFUSED = "refused"
    CLOSED = "closed"
    """An open connection was cut because its verdict no longer holds."""
    DEGRADED = "degraded"
    """An open connection goes on, marked, because the policy of its function wants that."""
    FAILED = "failed"
    """Neither side's right was in question: time-outs, broken handshakes, an upstream that is away."""


@dataclass(frozen=True, slots=True)
class GatewayLine:
    """One decision as its line has it. `claimed_...` is what a certificate says for which no anchor of ours vouches."""

    at: datetime
    listener: str
    outcome: str
    reason: str | None
    device: str | None
    serial: str | None
    claimed_device: str | None
    claimed_serial: str | None
    source: str
    leaf_sha256: str | None
    resumed: bool
    count: int
    detail: str | None

    @property
    def named_devices(self) -> tuple[str, ...]:
        """The names of devices in the line, the claimed one too."""
        return tuple(name for name in (self.device, self.claimed_device) if name is not None)


@dataclass(frozen=True, slots=True)
class Segment:
    """The file of one listener and one day (YYYY-MM-DD)."""

    listener: str
    day: str
    path: Path

    @property
    def name(self) -> str:
        """Its name below the folder `gates`."""
        return f"{self.listener}/{self.path.name}"


@dataclass(slots=True)
class SegmentReport:
    """What a check found in one file. `covered` lines have a later minute of the ledger that commits to them."""

    segment: Segment
    lines: int = 0
    covered: int = 0
    torn: int = 0
    """Lines that cannot be read: a power cut leaves one."""
    is_beheaded: bool = False
    """Whether its first line follows one of which no file is given: an earlier day, or a removed beginning."""
    faults: list[str] = field(default_factory=list)
    """Where the chain is broken: a line was changed, removed or inserted there."""


def list_segments(folder: Path) -> tuple[Segment, ...]:
    """Every file below `folder` (the installation's `gates`), by listener and day; none where there is no folder."""
    found = (path for path in folder.glob("*/*.jsonl") if _FILE.match(path.name) and path.is_file())
    return tuple(Segment(path.parent.name, path.stem, path) for path in sorted(found))


def decode_line(line: bytes) -> GatewayLine:
    """Raises Malformed(BAD_ENCODING). What a terminal would obey in a text (control characters) becomes a ?."""
    try:
        found: Any = json.loads(line)
        texts = {name: value for name, value in found.items() if isinstance(value, str)}
        at = datetime.fromisoformat(texts["at"]).astimezone(UTC)
    except (ValueError, KeyError, AttributeError, RecursionError, OverflowError) as error:
        raise Malformed(Reason.BAD_ENCODING, "a line of the gateway log cannot be read") from error
    shown = {name: "".join(one if one.isprintable() else "?" for one in value) for name, value in texts.items()}
    count = found.get("count", 1)
    return GatewayLine(
        at=at,
        listener=shown.get("listener", ""),
        outcome=shown.get("outcome", ""),
        reason=shown.get("reason"),
        device=shown.get("device"),
        serial=shown.get("serial"),
        claimed_device=shown.get("claimed_device"),
        claimed_serial=shown.get("claimed_serial"),
        source=shown.get("source", ""),
        leaf_sha256=shown.get("leaf_sha256"),
        resumed=found.get("resumed") is True,
        count=count if type(count) is int else 1,
        detail=shown.get("detail"),
    )


def read_backwards(path: Path) -> Iterator[bytes]:
    """The finished lines of a file, the last one first, without their ends. A line above 16,384 bytes comes cut."""
    with path.open("rb") as stream:
        at, rest, is_first = stream.seek(0, os.SEEK_END), b"", True
        while at > 0:
            size = min(at, _PART)
            at -= size
            stream.seek(at)
            rest, *lines = (stream.read(size) + rest).split(b"\n")
            # keep no more of a line without an end than shows that it is none of ours
            rest = rest[: _LONGEST + 1]
            if is_first and lines:
                del lines[-1]  # what follows the last end of a line: nothing, or an unfinished line
                is_first = False
            elif is_first:
                rest = b""
            yield from reversed(lines)
        if not is_first:
            yield rest


def finished_size(path: Path) -> int:
    """How many bytes of the file its finished lines have."""
    with path.open("rb") as stream:
        at = stream.seek(0, os.SEEK_END)
        while at > 0:
            size = min(at, _PART)
            at -= size
            stream.seek(at)
            end = stream.read(size).rfind(b"\n")
            if end >= 0:
                return at + end + 1
    return 0


def check_chain(segments: Sequence[Segment], roots: Mapping[bytes, int]) -> tuple[list[SegmentReport], set[int]]:
    """Follow the hash chain through the files of one listener, in the order of their days.

    `roots` are the hashes of the last lines of minutes, from the ledger. Returns a report for each file, and the
    minutes whose last line is in none of them. A chain may begin anew with a file: a process that starts finds no line
    of the day.
    """
    reports: list[SegmentReport] = []
    missing = set(roots.values())
    open_lines: list[SegmentReport] = []  # the report of each line since the last one to which the ledger commits
    head: bytes | None = None
    for segment in segments:
        report = SegmentReport(segment)
        reports.append(report)
        for digest, before in _read_links(segment.path):
            report.lines += 1
            begins = report.lines == 1 and (before == GENESIS or head is None)
            report.is_beheaded |= begins and before != GENESIS
            if before is None:
                report.torn += 1
            elif before != head and not begins:
                report.faults.append(f"line {report.lines} does not follow the line before it")
            if before != head:  # no later line commits to those before this one
                open_lines.clear()
            head = digest
            open_lines.append(report)
            if digest in roots:
                missing.discard(roots[digest])
                for one in open_lines:
                    one.covered += 1
                open_lines.clear()
    return reports, missing


def _read_links(path: Path) -> Iterator[tuple[bytes, bytes | None]]:
    """The SHA-256 of each finished line, and the hash of the line before that it names; None in a torn line."""
    with path.open("rb") as stream:
        while line := stream.readline(_LONGEST):
            digest, found = hashlib.sha256(line), _BEFORE.match(line)
            while not line.endswith(b"\n"):
                line = stream.readline(_LONGEST)
                if not line:
                    return
                digest.update(line)
            yield digest.digest(), None if found is None else bytes.fromhex(found[1].decode())
