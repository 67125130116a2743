"""`vagus gateway log`: what gateways decided, found again and checked; files that are broken, missing or changed."""

from __future__ import annotations

import csv
import io
import json
import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from tests.simulator.issuing import device_name
from tests.simulator.running import denied, done, run
from vagus.endpoints.gateway.decisions import ConnectionDecision, Outcome
from vagus.reasons import Reason
from vagus.server.gateway_log import GatewayLog
from vagus.testing import FrozenClock
from vagus.wiring import Installation

NOON = datetime(2026, 6, 1, 12, tzinfo=UTC)


@contextmanager
def gateway(folder: Path, at: datetime = NOON) -> Iterator[tuple[GatewayLog, FrozenClock]]:
    """The log of a process that serves, with a clock that is set by hand."""
    with Installation.open(folder, passphrase_sources=["env:TEST_PASSPHRASE"]) as installation:
        clock = FrozenClock()
        clock.set(at)
        log = GatewayLog(folder / "gates", clock, installation.writer)
        yield log, clock
        log.close()


def device_id(folder: Path, number: int) -> str:
    return str(done(folder, "device", "show", device_name(number), "--json").facts["device"]["id"])


def decision(
    outcome: Outcome = Outcome.ADMITTED, reason: Reason | None = None, *, listener: str = "telemetry", **more: Any
) -> ConnectionDecision:
    return ConnectionDecision(listener, "192.0.2.1", outcome, reason, "" if reason is None else "a sentence", **more)


@pytest.fixture
def logged(hospital: Path) -> Path:
    """Three days: a device comes in, is revoked and refused; strangers claim to be it."""
    pump, other = (f"{device_id(hospital, number)}.icu.h1.test.example" for number in (1, 2))
    with gateway(hospital) as (log, clock):
        log.record(decision(device=pump, serial=0xABC))
        log.record(decision(device=other, serial=0xDEF, listener="control"))
        clock.advance(minutes=1)
        log.flush()
        clock.advance(days=1)
        log.record(decision(Outcome.CLOSED, Reason.REVOKED, device=pump, serial=0xABC))
        log.flush()
        clock.advance(minutes=1)
        log.record(decision(Outcome.REFUSED, Reason.NO_PATH, claimed_device=pump, claimed_serial=0xBAD))
        log.record(decision(Outcome.REFUSED, Reason.OVERLOADED, count=250))
        clock.advance(days=1)
        log.record(decision(Outcome.REFUSED, Reason.REVOKED, device=pump, serial=0xABC, listener="control"))
    return hospital


def found(folder: Path, *arguments: str) -> list[tuple[str, str, str | None]]:
    lines = done(folder, "gateway", "log", "--json", *arguments).facts
    return [(line["listener"], line["outcome"], line["reason"]) for line in lines]


def test_the_newest_decision_of_all_listeners_comes_first(logged: Path) -> None:
    every = found(logged)
    assert every[:4] == [
        ("control", "refused", "REVOKED"),
        ("telemetry", "refused", "OVERLOADED"),
        ("telemetry", "refused", "NO_PATH"),
        ("telemetry", "closed", "REVOKED"),
    ]
    assert sorted(every[4:]) == [("control", "admitted", None), ("telemetry", "admitted", None)], "of one moment"
    assert found(logged, "--limit", "2") == every[:2]
    assert "--until 2026-06-02T12:02:00" in done(logged, "gateway", "log", "--limit", "2").out


@pytest.mark.parametrize("form", [(), ("--json",), ("--csv",)])
def test_pages_of_one_second_lose_no_line(hospital: Path, form: tuple[str, ...]) -> None:
    with gateway(hospital) as (log, clock):
        for serial in range(1, 6):
            log.record(decision(serial=serial))
            clock.advance(milliseconds=200)
    seen: set[str] = set()
    until: tuple[str, ...] = ()
    for _ in range(4):
        page = done(hospital, "gateway", "log", "--limit", "2", *form, *until)
        seen |= {line["serial"] for line in done(hospital, "gateway", "log", "--limit", "2", "--json", *until).facts}
        hint = page.err if form else page.out
        until = ("--until", hint.split("--until ")[1].split(",")[0])
        assert "--until" not in (page.out if form else page.err), "a program reads lines alone"
    assert seen == {"1", "2", "3", "4", "5"}
    assert until == ("--until", "2026-06-01T12:00:00.000")
    assert "--until" not in done(hospital, "gateway", "log", *form).err


@pytest.mark.parametrize("form", ["--json", "--csv"])
def test_a_program_that_pages_by_the_time_of_the_last_line_loses_none(hospital: Path, form: str) -> None:
    with gateway(hospital) as (log, clock):
        for serial in range(1, 6):
            log.record(decision(serial=serial))
            clock.advance(milliseconds=200)
    seen: set[str] = set()
    until: tuple[str, ...] = ()
    for _ in range(4):
        page = done(hospital, "gateway", "log", "--limit", "2", form, *until)
        lines = json.loads(page.out) if form == "--json" else list(csv.DictReader(io.StringIO(page.out)))
        seen |= {line["serial"] for line in lines}
        until = ("--until", lines[-1]["at"])
    assert seen == {"1", "2", "3", "4", "5"}
    assert until == ("--until", "2026-06-01T12:00:00.000Z")
    assert "12:00:00Z" in done(hospital, "gateway", "log").out, "people read whole seconds"


@pytest.mark.parametrize(
    ("narrow", "count"),
    [
        (("--listener", "control"), 2),
        (("--outcome", "refused"), 3),
        (("--reason", "revoked"), 2),
        (("--serial", "AB:C"), 3),
        (("--serial", "0x0abc"), 3),
        (("--serial", "bad"), 1),
        (("--serial", str(0xABC)), 3),
        (("--serial", str(0xABC + 1)), 0),
        (("--serial", "dec:2748"), 3),
        (("--serial", "2748"), 3),
        (("--serial", "0x2748"), 0),
        (("--device", device_name(1)), 4),
        (("--device", device_name(2)), 1),
        (("--device", device_name(3)), 0),
        (("--since", "2026-06-02T12:01:30"), 3),
        (("--until", "2026-06-01T13:00:00+01:00"), 2),
        (("--since", "2026-06-02", "--until", "2026-06-02T12:01"), 1),
        (("--since", "1h"), 0),
        (("--outcome", "refused", "--device", device_name(1), "--listener", "control"), 1),
    ],
)
def test_every_narrowing_finds_what_it_names(logged: Path, narrow: tuple[str, ...], count: int) -> None:
    assert len(found(logged, *narrow)) == count


def test_a_claim_is_shown_as_one_to_people_and_apart_to_programs(logged: Path) -> None:
    pump = f"{device_id(logged, 1)}.icu.h1.test.example"
    text = done(logged, "gateway", "log", "--reason", "NO_PATH").out
    assert f"claimed: {pump}" in text
    assert "claimed: bad" in text
    (line,) = done(logged, "gateway", "log", "--reason", "NO_PATH", "--json").facts
    assert (line["device"], line["serial"]) == (None, None)
    assert (line["claimed_device"], line["claimed_serial"]) == (pump, "bad")
    rows = list(csv.DictReader(io.StringIO(done(logged, "gateway", "log", "--csv").out)))
    assert [row["claimed_serial"] for row in rows if row["claimed_serial"]] == ["bad"]
    assert [row["count"] for row in rows] == ["1", "250", "1", "1", "1", "1"]


def test_a_device_that_only_strangers_name_can_be_searched_by_its_id(logged: Path) -> None:
    assert found(logged, "--device", "a" * 26) == []


@pytest.mark.parametrize(
    ("wrong", "says"),
    [
        (("--listener", "door"), "there are control, telemetry"),
        (("--outcome", "sent"), "write admitted, refused, closed, degraded, failed"),
        (("--reason", "BECAUSE"), "as in REVOKED"),
        (("--serial", "xyz"), "hexadecimal"),
        (("--serial", "a" * 41), "at most 20 bytes"),
        (("--since", "yesterday"), "--since 'yesterday' is no moment"),
        (("--until", "2026-13-01"), "--until"),
        (("--since", "2026-06-02", "--until", "2026-06-01"), "earlier"),
        (("--verify", "--outcome", "refused"), "--listener and --since only"),
        (("--verify", "--csv"), "--listener and --since only"),
        (("--limit", "0"), "--limit"),
    ],
)
def test_a_value_that_no_line_can_have_is_named_with_the_remedy(
    logged: Path, wrong: tuple[str, ...], says: str
) -> None:
    denied(logged, 2, "BAD_ARGUMENT", "gateway", "log", *wrong, says=(says,))


def test_csv_and_json_are_two_formats(logged: Path) -> None:
    outcome = run(logged, "gateway", "log", "--csv", "--json")
    assert (outcome.code, outcome.out) == (2, "")
    assert "give one of them" in json.loads(outcome.err)["error"]["message"]


def test_an_unknown_device_is_not_a_device_without_decisions(logged: Path) -> None:
    denied(logged, 2, "NOT_IN_INVENTORY", "gateway", "log", "--device", "Aorta IP3:AIP3-999999")
    denied(logged, 2, "NON_CANONICAL", "gateway", "log", "--device", "pump")


def test_a_folder_without_gates_is_no_error(hospital: Path) -> None:
    assert "no file below gates/" in done(hospital, "gateway", "log").out
    assert done(hospital, "gateway", "log", "--json").facts == []
    assert done(hospital, "gateway", "log", "--verify", "--json").facts == []
    denied(hospital, 2, "BAD_ARGUMENT", "gateway", "log", "--listener", "door", says=("there are none",))


def test_broken_lines_are_counted_and_hide_no_other(logged: Path) -> None:
    file = logged / "gates" / "telemetry" / "2026-06-02.jsonl"
    file.write_bytes(b"torn\n\x00\xff\n" + file.read_bytes() + b'{"at":"20')
    outcome = done(logged, "gateway", "log", "--json")
    assert len(outcome.facts) == 6
    assert "2 lines could not be read, the newest of them in gates/telemetry/2026-06-02.jsonl" in outcome.err


def test_a_file_that_cannot_be_read_is_named(logged: Path) -> None:
    if os.geteuid() == 0:
        (logged / "gates" / "control" / "2026-06-03.jsonl").unlink()
        (logged / "gates" / "control" / "2026-06-03.jsonl").mkdir()
        assert len(found(logged)) == 5, "a folder is no file of a day"
        return
    (logged / "gates" / "control" / "2026-06-03.jsonl").chmod(0)
    outcome = run(logged, "gateway", "log")
    assert outcome.code == 4
    assert "2026-06-03.jsonl" in outcome.err


# against the ledger


def checked(folder: Path, *more: str) -> list[tuple[str, str, int, int, int]]:
    rows = done(folder, "gateway", "log", "--verify", "--json", *more).facts
    return [(row["listener"], row["day"][-2:], row["lines"], row["covered"], row["torn"]) for row in rows]


def test_every_line_of_a_process_that_ended_is_covered(logged: Path) -> None:
    assert checked(logged) == [
        ("control", "01", 1, 1, 0),
        ("control", "03", 1, 1, 0),
        ("telemetry", "01", 1, 1, 0),
        ("telemetry", "02", 3, 3, 0),
    ]
    assert checked(logged, "--listener", "telemetry", "--since", "2026-06-02") == [("telemetry", "02", 3, 3, 0)]


def test_lines_without_a_later_minute_are_not_covered_yet(logged: Path) -> None:
    with gateway(logged, NOON + timedelta(days=1, hours=1)) as (log, _):
        log.record(decision())
        log.flush()
        assert checked(logged)[-1] == ("telemetry", "02", 4, 3, 0)
    assert checked(logged)[-1] == ("telemetry", "02", 4, 4, 0)


def _change(file: Path) -> None:
    file.write_bytes(file.read_bytes().replace(b'"REVOKED"', b'"ON_HOLD"'))


def _remove(file: Path) -> None:
    file.write_bytes(b"".join(file.read_bytes().splitlines(keepends=True)[:-1]))


def _insert(file: Path) -> None:
    first, *rest = file.read_bytes().splitlines(keepends=True)
    file.write_bytes(b"".join((first, first, *rest)))


@pytest.mark.parametrize("spoil", [_change, _remove, _insert])
def test_a_changed_a_removed_and_an_inserted_line_end_with_exit_code_5(
    logged: Path, spoil: Callable[[Path], None]
) -> None:
    spoil(logged / "gates" / "telemetry" / "2026-06-02.jsonl")
    outcome = run(logged, "gateway", "log", "--verify")
    assert (outcome.code, outcome.reason) == (5, "LOG_TAMPERED"), outcome
    assert "gates/telemetry/2026-06-02.jsonl" in outcome.err
    assert "secure the host" in outcome.err
    assert checked(logged, "--listener", "control")


def test_a_day_whose_file_is_gone_is_named_and_changes_no_other(logged: Path) -> None:
    (logged / "gates" / "telemetry" / "2026-06-01.jsonl").unlink()
    rows = done(logged, "gateway", "log", "--verify", "--json").facts
    findings = {(row["listener"], row["day"]): row["finding"] for row in rows if row["finding"]}
    assert findings.keys() == {("telemetry", "2026-06-01"), ("telemetry", "2026-06-02")}
    assert "its file is not here" in findings["telemetry", "2026-06-01"]
    assert "follows a line that is in no file" in findings["telemetry", "2026-06-02"]


# after a restore


def test_a_restore_brings_the_log_back_and_the_ledger_still_proves_it(logged: Path, tmp_path: Path) -> None:
    before = {path.relative_to(logged): path.read_bytes() for path in (logged / "gates").rglob("*.jsonl")}
    torn = logged / "gates" / "telemetry" / "2026-06-02.jsonl"
    with torn.open("ab") as stream:
        stream.write(b'{"at":"a line that is being written')
    (logged / "gates" / "notes.txt").write_text("not ours")
    done(logged, "backup", str(tmp_path / "backup.tar"))
    back = tmp_path / "back"
    done(back, "restore", str(tmp_path / "backup.tar"))
    after = {path.relative_to(back): path.read_bytes() for path in (back / "gates").rglob("*") if path.is_file()}
    assert after == before
    assert [row[2:] for row in checked(back)] == [(1, 1, 0), (1, 1, 0), (1, 1, 0), (3, 3, 0)]
    assert len(found(back)) == 6


def test_the_order_in_a_file_counts_where_a_clock_was_set_back(hospital: Path) -> None:
    with gateway(hospital) as (log, clock):
        log.record(decision(serial=1))
        clock.set(NOON - timedelta(seconds=30))
        log.record(decision(serial=2))
    lines = done(hospital, "gateway", "log", "--json", "--since", "2026-06-01T12:00").facts
    assert [line["serial"] for line in lines] == ["1"]


def test_a_large_file_is_read_from_its_end_alone(hospital: Path) -> None:
    with gateway(hospital) as (log, _):
        log.record(decision(serial=1))
    (file,) = (hospital / "gates").rglob("*.jsonl")
    line = file.read_bytes()
    with file.open("wb") as stream:
        stream.truncate(1 << 34)  # a hole of 16 GiB, which takes minutes to read
        stream.seek(0, os.SEEK_END)
        stream.write(b"\n" + line)
    (shown,) = done(hospital, "gateway", "log", "--json", "--limit", "1").facts
    assert shown["serial"] == json.loads(line)["serial"]
