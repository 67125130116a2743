"""Decisions of gateways form a chain of lines, and the ledger has the hash of each minute's last line."""

from __future__ import annotations

import errno
import hashlib
import json
import os
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import closing
from dataclasses import replace
from itertools import pairwise
from pathlib import Path
from threading import Event

import pytest

from tests.simulator.installation import memory_database
from vagus.endpoints.gateway.decisions import ConnectionDecision, Outcome
from vagus.errors import Unavailable
from vagus.ledger.entries import GatewayMinute, decode_entry
from vagus.reasons import Reason
from vagus.records.engine.writer import Writer
from vagus.records.log import iterate_leaves
from vagus.server.gateway_log import GatewayLog
from vagus.testing import FrozenClock


def decision(outcome: Outcome = Outcome.ADMITTED, reason: Reason | None = None) -> ConnectionDecision:
    return ConnectionDecision("telemetry", "192.0.2.1", outcome, reason, "what the gate said", serial=0xABC)


@pytest.fixture
def clock() -> FrozenClock:
    return FrozenClock()


@pytest.fixture
def writer(clock: FrozenClock) -> Iterator[Writer]:
    with memory_database() as database, Writer(database, clock) as made:
        yield made


@pytest.fixture
def log(tmp_path: Path, clock: FrozenClock, writer: Writer) -> GatewayLog:
    return GatewayLog(tmp_path, clock, writer)


def minutes(writer: Writer) -> list[GatewayMinute]:
    with writer.database.reading() as connection:
        entries = [decode_entry(leaf.entry).entry for leaf in iterate_leaves(connection)]
    return [entry for entry in entries if isinstance(entry, GatewayMinute)]


def lines_of(folder: Path) -> list[bytes]:
    (path,) = (folder / "telemetry").iterdir()
    return path.read_bytes().splitlines(keepends=True)


def test_lines_are_a_chain_and_the_minute_commits_to_the_last(
    log: GatewayLog, tmp_path: Path, clock: FrozenClock, writer: Writer
) -> None:
    log.record(decision())
    log.record(decision(Outcome.REFUSED, Reason.REVOKED))
    log.flush()
    assert minutes(writer) == [], "a minute that is not over is not told yet"
    clock.advance(minutes=1)
    log.flush()
    lines = lines_of(tmp_path)
    head = bytes(32)
    for line in lines:
        assert json.loads(line)["before"] == head.hex()
        head = hashlib.sha256(line).digest()
    (entry,) = minutes(writer)
    assert (entry.root, entry.admitted, entry.refused) == (head, 1, 1)
    log.close()
    assert len(minutes(writer)) == 1


def test_a_line_says_what_was_decided_and_why(log: GatewayLog, tmp_path: Path) -> None:
    log.record(decision(Outcome.REFUSED, Reason.REVOKED))
    log.close()
    (file,) = tmp_path.rglob("*.jsonl")
    facts = json.loads(file.read_text())
    said = {"outcome": "refused", "reason": "REVOKED", "serial": "abc", "source": "192.0.2.1"}
    assert said.items() <= facts.items()


def test_a_claim_is_written_as_a_claim_and_a_sentence_has_an_end(log: GatewayLog, tmp_path: Path) -> None:
    refused = decision(Outcome.REFUSED, Reason.NO_PATH)
    log.record(replace(refused, serial=None, claimed_serial=0xDEF, claimed_device="a.icu.h1", detail="x" * 100_000))
    log.close()
    (file,) = tmp_path.rglob("*.jsonl")
    facts = json.loads(file.read_text())
    assert (facts["claimed_device"], facts["claimed_serial"]) == ("a.icu.h1", "def")
    assert not facts.keys() & {"device", "serial"}
    assert len(file.read_bytes()) < 2_000


def test_the_unfinished_minute_is_recorded_at_the_end(log: GatewayLog, writer: Writer) -> None:
    log.record(decision())
    log.close()
    assert [entry.admitted for entry in minutes(writer)] == [1]


def refuse(_act: object) -> Future[None]:
    """A writer whose database is away."""
    answer: Future[None] = Future()
    answer.set_exception(Unavailable(Reason.DATABASE_UNAVAILABLE, "away"))
    return answer


def test_minutes_in_which_the_database_was_away_are_recorded_once_it_is_back(
    log: GatewayLog, clock: FrozenClock, writer: Writer, monkeypatch: pytest.MonkeyPatch
) -> None:
    with monkeypatch.context() as patch:
        patch.setattr(writer, "submit", refuse)
        for count in (1, 2):
            for _ in range(count):
                log.record(decision())
            clock.advance(minutes=1)
            with pytest.raises(Unavailable):
                log.flush()
    log.record(decision(Outcome.REFUSED, Reason.REVOKED))
    clock.advance(minutes=1)
    log.flush()
    told = minutes(writer)
    assert [(entry.admitted, entry.refused) for entry in told] == [(1, 0), (2, 0), (0, 1)]
    assert [entry.minute - told[0].minute for entry in told] == [0, 1, 2]
    log.close()
    assert minutes(writer) == told


def test_no_gateway_waits_for_the_disk_of_its_log(
    log: GatewayLog, tmp_path: Path, clock: FrozenClock, writer: Writer, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A device that is revoked meanwhile is cut off, and the decision recorded."""
    log.record(decision())
    clock.advance(minutes=1)
    slow, done = Event(), Event()
    sync = os.fsync

    def wait(number: int) -> None:
        slow.set()
        assert done.wait(10)
        sync(number)

    with monkeypatch.context() as patch, ThreadPoolExecutor(2) as threads:
        patch.setattr(os, "fsync", wait)
        try:
            flushed = threads.submit(log.flush)
            assert slow.wait(10)
            threads.submit(log.record, decision(Outcome.CLOSED, Reason.REVOKED)).result(5)
        finally:
            done.set()
        flushed.result(10)
    assert len(lines_of(tmp_path)) == 1, "the second one waits for the next flush"
    log.close()
    assert [(entry.admitted, entry.refused) for entry in minutes(writer)] == [(1, 0), (0, 1)]


def test_a_disk_that_fails_is_reported_and_leaves_no_file_open(
    log: GatewayLog, clock: FrozenClock, writer: Writer, monkeypatch: pytest.MonkeyPatch
) -> None:
    log.record(decision())
    clock.advance(minutes=1)
    numbers = []

    def fail(number: int) -> None:
        numbers.append(number)
        raise OSError(errno.EIO, "broken")

    with monkeypatch.context() as patch:
        patch.setattr(os, "fsync", fail)
        with pytest.raises(OSError, match="broken"):
            log.flush()
    with pytest.raises(OSError, match="Bad file descriptor"):
        os.fstat(numbers[0])
    log.flush()
    assert len(minutes(writer)) == 1
    log.close()


def test_the_chain_goes_on_after_a_restart_and_over_midnight(
    tmp_path: Path, clock: FrozenClock, writer: Writer
) -> None:
    for _ in range(2):
        with closing(GatewayLog(tmp_path, clock, writer)) as log:
            log.record(decision())
    first, second = lines_of(tmp_path)
    assert json.loads(second)["before"] == hashlib.sha256(first).hexdigest()
    with closing(GatewayLog(tmp_path, clock, writer)) as log:
        log.record(decision())
        clock.advance(days=1)
        log.record(decision())
    older, newer = sorted((tmp_path / "telemetry").iterdir())
    last = older.read_bytes().splitlines(keepends=True)[-1]
    assert json.loads(newer.read_bytes())["before"] == hashlib.sha256(last).hexdigest()


def test_a_line_that_a_power_cut_cut_short_stays_and_the_next_begins_a_new_line(
    tmp_path: Path, clock: FrozenClock, writer: Writer
) -> None:
    for size in (None, 1, 70_000):  # a torn line longer than what is read at once
        with closing(GatewayLog(tmp_path, clock, writer)) as log:
            log.record(decision())
        (file,) = (tmp_path / "telemetry").iterdir()
        before = file.read_bytes().splitlines(keepends=True)
        for older, newer in pairwise(before):
            assert b"torn" in newer or json.loads(newer)["before"] == hashlib.sha256(older).hexdigest()
        if size is not None:
            with file.open("ab") as stream:
                stream.write(b"torn" * size)
    with closing(GatewayLog(tmp_path, clock, writer)) as log:
        log.record(decision())
    *_, torn, last = file.read_bytes().splitlines(keepends=True)
    assert torn == b"torn" * 70_000 + b"\n"
    assert json.loads(last)["before"] == hashlib.sha256(torn).hexdigest()


def test_a_day_of_gigabytes_is_not_read_for_its_last_line(log: GatewayLog, tmp_path: Path, clock: FrozenClock) -> None:
    (tmp_path / "telemetry").mkdir()
    file = tmp_path / "telemetry" / f"{clock.now():%Y-%m-%d}.jsonl"
    with file.open("wb") as stream:
        stream.truncate(1 << 34)  # a hole of 16 GiB, read back as zeros
        stream.seek(0, os.SEEK_END)
        stream.write(b"\nthe last line\n")
    log.record(decision())
    log.close()
    with file.open("rb") as stream:
        stream.seek(-2000, os.SEEK_END)
        last = stream.read().splitlines()[-1]
    assert json.loads(last)["before"] == hashlib.sha256(b"the last line\n").hexdigest()


def test_a_full_disk_stops_no_gateway(log: GatewayLog, tmp_path: Path, writer: Writer) -> None:
    (tmp_path / "telemetry").write_text("a file where a folder should be")
    log.record(decision())
    log.close()
    assert minutes(writer) == []
