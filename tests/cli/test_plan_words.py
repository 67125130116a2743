"""What `plan check` and `plan apply` say for people: totals, what waits, and devices that no plan names."""

from __future__ import annotations

from pathlib import Path

from sqlalchemy import update

from tests.simulator.running import PLAN, done, run
from vagus.records.engine.tables import devices
from vagus.wiring import Installation

NEW = ("--unit", "h1/icu", "--model", "Aorta IP3", "--serial")


def checked(folder: Path, plan: str = PLAN) -> str:
    file = folder.parent / "again.toml"
    file.write_text(plan)
    return " ".join(done(folder, "plan", "check", str(file)).out.split())


def test_totals_end_the_table_and_a_long_wait_is_counted(fresh: Path) -> None:
    assert "In all: add 5 authorities, add 1 unit, add 1 model, add 3 devices." in checked(fresh)
    applied = run(fresh, "plan", "apply", str(fresh.parent / "again.toml"), "--yes")
    facts = {line.split("  ")[0].strip(): line.split("  ")[-1].strip() for line in applied.out.splitlines()}
    assert (facts["authorities"], facts["devices"]) == ("5", "3"), "those that the ceremony makes count too"
    assert facts["waiting"].startswith("5 (")
    assert "In all: add 2 authorities." in checked(fresh), "their keys are made in the ceremony"


def test_devices_that_were_never_in_a_plan_are_lawful_and_a_dropped_one_is_named(hospital: Path) -> None:
    assert "Note" not in checked(hospital)
    done(hospital, "device", "add", *NEW, "EXTRA-1")
    done(hospital, "device", "add", *NEW, "EXTRA-2")
    said = checked(hospital)
    assert "by manifest or `vagus device add`, which no plan need name: 2; they stay" in said
    assert "decommission" not in said
    smaller = PLAN.replace("count = 3", "count = 2")
    assert smaller != PLAN
    said = checked(hospital, smaller)
    assert "a plan added and this one does not name: 1 (Aorta IP3 AIP3-000003); they stay" in said
    assert "decommission" not in said
    done(hospital, "device", "state", "Aorta IP3:AIP3-000003", "decommissioned", "--yes")
    assert "a plan added" not in checked(hospital, smaller), "the end of a device is no news"


def test_what_an_earlier_release_added_is_not_called_dropped(hospital: Path) -> None:
    with Installation.open(hospital) as installation:
        forget = update(devices).values(origin=None)
        installation.writer.submit(lambda batch: batch.connection.execute(forget)).result()
    said = checked(hospital, PLAN.replace("count = 3", "count = 1"))
    assert "what added them is not on record: 2; they stay" in said
