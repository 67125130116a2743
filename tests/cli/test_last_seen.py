"""Who stopped talking: when devices were last admitted and refused, on the screens of operators."""

from __future__ import annotations

import time
from pathlib import Path

import pytest

from tests.simulator.issuing import device_name
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
    done(ward, "device", "state", device_name(3), "decommissioned")
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
