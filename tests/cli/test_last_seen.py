"""Who stopped talking: when devices were last admitted and refused, on the screens of operators."""

from __future__ import annotations

import time
from pathlib import Path

import pytest

from tests.simulator.certificates import stranger
from tests.simulator.issuing import device_name, write_credential
from tests.simulator.orders import key_pem
from tests.simulator.processes import connect, serving
from tests.simulator.running import denied, done
from vagus.records.device_contacts import Contact, save_contacts
from vagus.wiring import Installation

DAY = 86_400


@pytest.fixture
def ward(hospital: Path) -> Path:
    """Of three pumps one was seen two hours ago, one ten days ago and refused since; one never came."""
    now = int(time.time())
    ids = [done(hospital, "device", "show", device_name(number), "--json").facts["device"]["id"] for number in (1, 2)]
    contacts = {
        ids[0]: Contact(seen=(now - 7200, "telemetry")),
        ids[1]: Contact((now - 10 * DAY, "control"), (now - 9 * DAY, "telemetry", "EXPIRED")),
    }
    with Installation.open(hospital) as installation:
        installation.writer.submit(lambda batch: save_contacts(batch.connection, contacts)).result()
    return hospital


def silent(folder: Path, *more: str) -> list[str]:
    return [row["serial"][-1] for row in done(folder, "device", "list", "--json", *more).facts]


def test_a_listing_names_who_was_not_seen_for_so_long_or_ever(ward: Path) -> None:
    assert silent(ward) == ["1", "2", "3"]
    assert silent(ward, "--not-seen-for", "7d") == ["2", "3"]
    assert silent(ward, "--not-seen-for", "2w") == ["3"]
    assert silent(ward, "--not-seen-for", "1h", "--unit", "h1/icu", "--limit", "1") == ["1"]
    assert silent(ward, "--not-seen-for", "7d", "--after", device_name(2)) == ["3"]
    assert silent(ward, "--not-seen-for", "7d", "--expires-within", "60d") == []
    assert silent(ward, "--not-seen-for", "7d", "--category", "infusion-pump") == ["2", "3"]


def test_a_device_whose_life_has_ended_need_not_talk(ward: Path) -> None:
    done(ward, "device", "state", device_name(3), "decommissioned", "--yes")
    assert silent(ward, "--not-seen-for", "7d") == ["2"]
    assert silent(ward, "--not-seen-for", "7d", "--state", "decommissioned") == ["3"]


def test_a_device_shows_its_last_admission_and_its_last_refusal(ward: Path) -> None:
    shown = done(ward, "device", "show", device_name(2), "--json").facts["device"]
    assert (shown["seen_by"], shown["refused_by"], shown["refusal_reason"]) == ("control", "telemetry", "EXPIRED")
    assert shown["last_seen"] < shown["last_refused"]
    text = done(ward, "device", "show", device_name(2)).out
    assert f"last seen       {shown['last_seen']}" in text
    never = done(ward, "device", "show", device_name(3), "--json").facts["device"]
    names = ("last_seen", "seen_by", "last_refused", "refused_by", "refusal_reason")
    assert [never[name] for name in names] == [None] * 5
    listed = {row["serial"][-1]: row["last_seen"] for row in done(ward, "device", "list", "--json").facts}
    assert listed["2"] == shown["last_seen"]
    assert listed["3"] is None


@pytest.mark.parametrize("period", ["0d", "7", "week", "-7d", "101y"])
def test_a_period_that_is_none_is_refused_with_what_is_possible(hospital: Path, period: str) -> None:
    denied(hospital, 2, "BAD_ARGUMENT", "device", "list", f"--not-seen-for={period}", says=("--not-seen-for", "60d"))


@pytest.mark.process
def test_what_a_process_that_serves_has_seen_is_stored_and_a_stranger_accuses_no_device(
    hospital: Path, tmp_path: Path
) -> None:
    good, bad = (write_credential(hospital, number, tmp_path / f"{number}.pem") for number in (1, 2))
    ids = [done(hospital, "device", "show", device_name(number), "--json").facts["device"]["id"] for number in (1, 2)]
    done(hospital, "device", "revoke", device_name(2), "--yes")
    anchors, forged = tmp_path / "anchors.pem", tmp_path / "forged.pem"
    done(hospital, "ca", "export", "h1/infra", "--out", str(anchors))
    made_up = stranger().issue(f"{ids[0]}.icu.h1.test.example")
    forged.write_bytes(key_pem(made_up.key) + made_up.pem)
    with serving(hospital, "--issue-for", "h1/icu,h1/infra") as served:
        for credential in (good, bad, *[forged] * 50):
            with connect(served, "enrol", credential, anchors) as connection:
                connection.sendall(b"GET / HTTP/1.1\r\nhost: enrol\r\nconnection: close\r\n\r\n")
                while connection.recv(65_536):
                    pass
        assert served.stop() == 0, served.log()
    shown = [done(hospital, "device", "show", device_name(number), "--json").facts["device"] for number in (1, 2)]
    assert [(one["seen_by"], one["refusal_reason"]) for one in shown] == [("enrol", None), (None, "REVOKED")]
    lines = done(hospital, "gateway", "log", "--json", "--device", ids[0]).facts
    assert [line["outcome"] for line in lines] == ["refused"] * 50 + ["admitted"]
    assert {(line["device"], line["claimed_serial"]) for line in lines[:50]} == {(None, f"{made_up.serial:x}")}
    assert done(hospital, "gateway", "log", "--verify", "--json").facts[0]["not_covered"] == 0
