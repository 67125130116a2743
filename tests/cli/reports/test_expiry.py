"""`vagus report expiry` and the screens that show a certificate's end, as a clinical engineer reads them."""

from __future__ import annotations

import csv
import io
import json
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from tests.simulator.issuing import device_name, issue
from tests.simulator.running import denied, done, findings, run
from vagus.authority.revocation import hold_device
from vagus.cli.output import csv_lines
from vagus.components import RealClock
from vagus.operations.local_account import find_operator
from vagus.wiring import Installation


def travel(monkeypatch: pytest.MonkeyPatch, days: float) -> None:
    """Let the clock of this process show a day to come."""
    monkeypatch.setattr(RealClock, "now", lambda _: datetime.now(UTC) + timedelta(days=days))


@pytest.fixture
def ward(hospital: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Half a day after three pumps came: one has a certificate for two years, one has it on hold, one has none."""
    issue(hospital, 1)
    issue(hospital, 2)
    done(hospital, "device", "hold", device_name(2))
    travel(monkeypatch, 0.5)
    return hospital


def situations(folder: Path, *more: str) -> list[tuple[str, str, int | None]]:
    rows = done(folder, "report", "expiry", "--json", *more).facts["devices"]
    return [(row["serial"], row["situation"], row["days_left"]) for row in rows]


def test_a_device_goes_from_good_to_due_to_overdue_to_expired(ward: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    others = [("AIP3-000002", "held", 729), ("AIP3-000003", "never enrolled", None)]
    assert situations(ward) == others
    travel(monkeypatch, 730 - 49.5)
    assert situations(ward)[0] == ("AIP3-000001", "renews by itself", 49)
    assert situations(ward, "--within", "30d")[0][0] == "AIP3-000002"
    travel(monkeypatch, 730 - 39.5)
    assert situations(ward)[0] == ("AIP3-000001", "overdue", 39)
    travel(monkeypatch, 731.5)
    assert situations(ward)[0] == ("AIP3-000001", "expired", -2)
    whole = done(ward, "report", "expiry", "--json").facts
    assert whole["totals"] == {"expired": 1, "held": 1, "never enrolled": 1}
    assert whole["devices"][0]["who_does_what"] == "biomedical engineering: hand it a token and enrol again"


def test_an_expired_certificate_is_expired_on_every_screen(ward: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    travel(monkeypatch, 731.5)
    (shown,) = done(ward, "device", "show", device_name(1), "--json").facts["certificates"]
    assert (shown["state"], shown["days_left"], shown["reason"]) == ("expired", -2, None)
    assert "expired" in done(ward, "device", "show", device_name(1)).out
    listed = {row["serial"]: row for row in done(ward, "device", "list", "--json").facts}
    assert [(row["certificate"], row["days_left"]) for row in listed.values()] == [
        ("expired", -2),
        ("expired", -2),
        (None, None),
    ]
    late = done(ward, "device", "list", "--expires-within", "30d", "--json").facts
    assert [row["serial"] for row in late] == ["AIP3-000001", "AIP3-000002"]
    ended = done(ward, "cert", "find", "--state", "expired", "--unit", "h1/icu", "--json").facts
    assert len(ended) == len(late)
    (finding,) = findings(ward, "devices")
    assert (finding["state"], finding["finding"]) == ("warning", "certificates have expired: 1 infusion-pump")
    assert "vagus report expiry" in finding["remedy"]


def test_a_device_whose_life_has_ended_is_late_on_no_screen(ward: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for state in ("recalled", "decommissioned"):
        done(ward, "device", "state", device_name(1), state, "--yes")
    travel(monkeypatch, 731.5)
    late = done(ward, "device", "list", "--expires-within", "30d", "--json").facts
    assert [row["serial"] for row in late] == ["AIP3-000002"]
    assert "AIP3-000001" not in [serial for serial, *_ in situations(ward)]
    asked = ("device", "list", "--expires-within", "30d", "--state", "decommissioned", "--json")
    assert [row["serial"] for row in done(ward, *asked).facts] == ["AIP3-000001"]


def test_an_authority_past_its_end_is_expired(ward: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert {row["state"] for row in done(ward, "ca", "list", "--json").facts} == {"active"}
    travel(monkeypatch, 365 * 60)
    assert {row["state"] for row in done(ward, "ca", "list", "--json").facts} == {"expired"}
    assert done(ward, "ca", "show", "h1/icu", "--json").facts["state"] == "expired"


def test_the_doctor_names_what_ends_soon_and_is_not_renewed(ward: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (finding,) = findings(ward, "devices")
    assert finding["state"] == "well"
    travel(monkeypatch, 730 - 20)
    (finding,) = findings(ward, "devices")
    assert finding["state"] == "warning"
    assert finding["finding"] == "certificates end within 30d and have not been renewed: 1 infusion-pump"


def test_a_revoked_device_shows_reason_time_and_who_did_it(ward: Path) -> None:
    done(ward, "device", "revoke", device_name(1), "--reason", "keyCompromise", "--yes")
    (shown,) = done(ward, "device", "show", device_name(1), "--json").facts["certificates"]
    assert (shown["state"], shown["reason"], shown["revoked_by"]) == ("revoked", "keyCompromise", find_operator())
    assert shown["revoked_at"].startswith(f"{RealClock().now():%Y-%m-%d}")
    (held,) = done(ward, "device", "show", device_name(2), "--json").facts["certificates"]
    assert (held["state"], held["reason"], held["revoked_by"]) == ("held", "certificateHold", find_operator())
    assert situations(ward)[0] == ("AIP3-000001", "locked out", None)


def test_who_revoked_from_another_machine_is_shown_as_the_ledger_has_it(ward: Path) -> None:
    with Installation.open(ward) as installation:
        devices = installation.operations.devices
        found = devices.find(installation.actor, device_name(1))
        installation.inventory.change_state(found.id, "recalled", by="operator:nobody-here").result()  # type: ignore[arg-type]
        installation.writer.submit(
            lambda batch: hold_device(batch, str(found.id), by="operator:from-elsewhere")
        ).result()
    (shown,) = done(ward, "device", "show", device_name(1), "--json").facts["certificates"]
    assert shown["revoked_by"].startswith("sha256:")


def test_people_get_a_table_with_totals_and_files_get_csv(ward: Path, tmp_path: Path) -> None:
    text = done(ward, "report", "expiry").out
    assert "Aorta IP3 AIP3-000003" in text
    assert text.splitlines()[-1] == "2 in all: 1 held, 1 never enrolled"
    file = tmp_path / "report.csv"
    assert done(ward, "report", "expiry", "--csv", "--out", str(file)).out == ""
    rows = list(csv.DictReader(file.read_text().splitlines()))
    assert [(row["serial"], row["situation"], row["days_left"]) for row in rows] == [
        ("AIP3-000002", "held", "729"),
        ("AIP3-000003", "never enrolled", ""),
    ]
    assert {path.name for path in tmp_path.iterdir() if "new" in path.name} == set()


def test_a_place_that_a_spreadsheet_would_run_is_text_in_csv(ward: Path) -> None:
    new = ("device", "add", "--unit", "h1/icu", "--model", "Aorta IP3", "--serial", "X1")
    done(ward, *new, "--place", '=HYPERLINK("http://evil.test")')
    (row,) = [row for row in csv.DictReader(io.StringIO(done(ward, "report", "expiry", "--csv").out)) if row["place"]]
    assert row["place"] == '\'=HYPERLINK("http://evil.test")'


@pytest.mark.parametrize("text", ["=1", "+1", "-1", "@x", "\t=1", "\r=1", "\uff1d1"])
def test_every_beginning_of_a_formula_is_guarded_and_numbers_stay_numbers(text: str) -> None:
    names, line = csv_lines(["a", "b", "c", "d"], [{"a": text, "b": -2, "c": None, "d": []}])
    assert names == "a,b,c,d\r\n"
    assert next(csv.reader(io.StringIO(line, newline=""))) == [f"'{text}", "-2", "", ""]


@pytest.mark.parametrize(
    "within", ["0d", "-1d", "60", "", "sixty", "1.5d", "101y", "999999y", "60d ", "\u0666\u0660d", "9" * 1_000_000]
)
def test_a_period_that_is_none_is_refused_with_what_is_possible(hospital: Path, within: str) -> None:
    refusal = denied(hospital, 2, "BAD_ARGUMENT", "report", "expiry", f"--within={within}", says=("60d", "100y"))
    assert len(refusal.err) < 400
    denied(hospital, 2, "BAD_ARGUMENT", "device", "list", f"--expires-within={within}")


@pytest.mark.parametrize("value", ["wards", "x" * 1_000_000, ""])
def test_a_profile_that_no_device_has_is_refused_with_those_that_there_are(hospital: Path, value: str) -> None:
    refusal = denied(hospital, 2, "BAD_ARGUMENT", "device", "list", f"--profile={value}", says=("bedside",))
    assert len(refusal.err) < 500


@pytest.mark.parametrize(("option", "known"), [("unit", "h1/icu"), ("hospital", "h1"), ("category", "infusion-pump")])
@pytest.mark.parametrize("value", ["h9/none", "x" * 1_000_000, ""])
def test_what_is_not_there_is_refused_with_what_is(hospital: Path, option: str, known: str, value: str) -> None:
    for command in (("report", "expiry"), ("device", "list")):
        reason = "NON_CANONICAL" if option == "unit" and "/" not in value else "BAD_ARGUMENT"
        refusal = denied(hospital, 2, reason, *command, f"--{option}={value}", says=(known,))
        assert len(refusal.err) < 500


def test_an_empty_installation_has_an_empty_report(fresh: Path) -> None:
    assert done(fresh, "report", "expiry").out.endswith(": none\n")
    assert done(fresh, "report", "expiry", "--json").facts["devices"] == []
    denied(fresh, 2, "BAD_ARGUMENT", "report", "expiry", "--unit", "h1/icu", says=("known are none",))


def test_two_formats_or_a_missing_folder_are_refused_and_nothing_is_written(hospital: Path, tmp_path: Path) -> None:
    refused = run(hospital, "report", "expiry", "--csv", "--json")
    assert (refused.code, json.loads(refused.err)["error"]["reason"]) == (2, "BAD_ARGUMENT")
    missing = tmp_path / "missing" / "report.csv"
    denied(hospital, 2, "BAD_ARGUMENT", "report", "expiry", "--csv", "--out", str(missing), says=("does not exist",))
    assert not missing.parent.exists()


def test_a_report_that_fails_leaves_the_file_before_it(
    ward: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = tmp_path / "report.csv"
    file.write_text("the one before")
    monkeypatch.setattr("vagus.fleet.expiry.list_devices", lambda *_, **__: (_ for _ in ()).throw(OSError("gone")))
    denied(ward, 4, "OS_ERROR", "report", "expiry", "--csv", "--out", str(file), "--replace")
    assert file.read_text() == "the one before"
    assert sorted(path.name for path in tmp_path.iterdir() if path.name.startswith((".report", "report"))) == [
        file.name
    ]


def test_a_list_is_in_the_order_of_units_models_and_serials_and_names_its_next_page(ward: Path) -> None:
    new = ("device", "add", "--unit", "h1/icu", "--model", "Aorta IP3", "--serial")
    for serial in ("AIP3-000000", "ZZ-1"):
        done(ward, *new, serial)
    serials = [row["serial"] for row in done(ward, "device", "list", "--json").facts]
    assert serials == ["AIP3-000000", "AIP3-000001", "AIP3-000002", "AIP3-000003", "ZZ-1"]
    page = done(ward, "device", "list", "--limit", "2").out
    after = page.splitlines()[-1].partition("--after ")[2].partition(",")[0]
    rest = done(ward, "device", "list", "--after", after, "--category", "infusion-pump", "--json").facts
    assert [row["serial"] for row in rest] == serials[2:]
    assert {row["category"] for row in rest} == {"infusion-pump"}
    denied(ward, 2, "NOT_IN_INVENTORY", "device", "list", "--after", "a" * 26)
