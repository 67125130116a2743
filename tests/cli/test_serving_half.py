"""A process that was given too few passphrases says what it leaves undone: at its start, on /health, to the doctor."""

from __future__ import annotations

import fcntl
import json
import os
import signal
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import update

from tests.simulator.processes import Served, serving
from tests.simulator.running import denied, done, findings
from tests.simulator.waiting import wait_until
from vagus.records.authorities import list_authorities
from vagus.records.engine.database import open_database
from vagus.records.engine.tables import authorities
from vagus.records.publications import list_publications, put_publication

pytestmark = pytest.mark.process

PAIR = ("--issue-for", "h1/icu,h1/infra")
NAMED = [f"--passphrase-source={name}=env:TEST_PASSPHRASE" for name in ("h1/icu", "h1/infra", "ocsp", "gate")]
ALL = ("--passphrase-source", "env:TEST_PASSPHRASE")


@pytest.fixture
def watched(hospital: Path) -> Path:
    with (hospital / "vagus.toml").open("a") as settings:
        settings.write('health = "127.0.0.1:0"\nprobe = "off"\n')
    return hospital


def ask(served: Served, path: str) -> str:
    return served.get(path, "health").decode()


def ask_failing(served: Served) -> Any:
    """What /health says of a process that must be taken out of service."""
    status, body = served.request("GET", "/health", listener="health")
    assert status == 503
    return json.loads(body)


def test_serving_without_the_ledgers_passphrase_is_reported_everywhere(watched: Path) -> None:
    with serving(watched, *PAIR, *NAMED) as served:
        said = ask(served, "/health")
        assert '"status": "degraded"' in said
        assert "--passphrase-source log=" in said
        assert 'vagus_lacks{what="checkpoints"} 1.0' in ask(served, "/metrics")
        assert not (watched / "log" / "checkpoint").exists()
    assert "checkpoints: no passphrase source names keystore log" in served.log()


def test_serving_with_every_passphrase_lacks_nothing(watched: Path) -> None:
    with serving(watched, *PAIR, *ALL) as served:
        assert '"lacks"' not in ask(served, "/health")
        assert "vagus_lacks{" not in ask(served, "/metrics")
    assert "does without" not in served.log()
    assert (watched / "log" / "checkpoint").exists()


def test_an_authority_whose_lists_cannot_be_signed_keeps_no_process_from_starting(watched: Path) -> None:
    with serving(watched, *PAIR, *ALL):
        pass
    database = open_database(f"sqlite:///{watched}/vagus.sqlite3")
    with database.writing() as connection:
        icu = next(row for row in list_authorities(connection) if row.name == "h1/icu")
        for one in list_publications(connection, icu.id):  # as a clock that ran ahead leaves them
            put_publication(connection, replace(one, this_update=one.this_update + 30 * 86_400))
    database.close()
    infra = watched / "published" / "crl" / "h1.infra" / "1" / "0.crl"
    infra.unlink()
    with serving(watched, *PAIR, *ALL) as served:
        work = ask_failing(served)["work"]
        assert (work["lists"]["last_error"], work["files"]["failures"]) == ("CLOCK_ROLLBACK", 0)
        assert work["clock"] == {"runs": 1, "failures": 0, "last_error": None}
        assert infra.exists()
    assert "the newest CRL of h1/icu#1 is dated" in served.log()


def test_an_authority_that_has_ended_and_whose_key_is_gone_keeps_no_process_from_starting(watched: Path) -> None:
    database = open_database(f"sqlite:///{watched}/vagus.sqlite3")
    with database.writing() as connection:
        icu = update(authorities).where(authorities.c.name == "h1/icu")
        connection.execute(icu.values(not_after=int(time.time()) - 60))
    database.close()
    (key,) = (watched / "keystores" / "h1.icu").glob("ca*")
    key.unlink()
    with serving(watched, *PAIR, *ALL) as served:
        assert served.ready["issuers"] == ["h1/infra#1"]
        assert "it has ended" in json.loads(ask(served, "/health"))["waits"]["authority h1/icu#1"]
    assert "authority h1/icu#1: it has ended" in served.log()


def test_another_process_that_hangs_in_the_logs_folder_keeps_no_list_waiting(watched: Path) -> None:
    (watched / "log").mkdir(exist_ok=True)
    held = os.open(watched / "log" / ".lock", os.O_RDWR | os.O_CREAT)
    fcntl.flock(held, fcntl.LOCK_EX)
    with serving(watched, *PAIR, *ALL) as served:
        work = ask_failing(served)["work"]
        assert (work["ledger"]["last_error"], work["lists"]["failures"]) == ("DATABASE_UNAVAILABLE", 0)
        assert (watched / "published" / "crl" / "h1.icu" / "1" / "0.crl").exists()
        os.close(held)
        wait_until((watched / "log" / "checkpoint").exists, "a checkpoint")


def test_the_doctor_reports_entries_that_wait_for_a_checkpoint(hospital: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Entries that were written after the newest checkpoint, by a process that publishes none."""
    with serving(hospital, "--issue-for", "h1/infra"):
        pass
    done(hospital, "token", "make", done(hospital, "device", "list", "--json").facts[0]["id"])
    assert [one["state"] for one in findings(hospital, "ledger")] == ["well"], "a moment ago is no delay"
    monkeypatch.setattr("vagus.operations.doctor.record_checks._PUBLISH_PATIENCE", -1)
    (late,) = findings(hospital, "ledger")
    assert (late["state"], "in no checkpoint" in late["finding"]) == ("warning", True)
    assert "log=" in late["remedy"]


def test_a_bad_list_of_a_maker_stops_no_start_and_is_reported_until_it_is_gone(watched: Path) -> None:
    bad = watched / "makers" / "acme.crl"
    bad.parent.mkdir()
    bad.write_bytes(b"no list")
    with serving(watched, *PAIR, *ALL) as served:
        assert "neither DER nor a PEM block" in json.loads(ask(served, "/health"))["waits"]["makers/acme.crl"]
        bad.unlink()
        served.process.send_signal(signal.SIGHUP)
        wait_until(lambda: "waits" not in json.loads(ask(served, "/health")), "nothing to wait for")
    assert served.log().count("makers/acme.crl: the file has neither") == 1


def test_a_plan_in_force_with_another_status_url_is_neither_taken_nor_served(watched: Path) -> None:
    """As somebody who edits the file beside `plan apply` would have it."""
    adopted = watched / "plan.toml"
    with serving(watched, *PAIR, *ALL) as served:
        adopted.write_text(adopted.read_text().replace("http://127.0.0.1:1", "http://crl.moved.example"))
        served.process.send_signal(signal.SIGHUP)
        wait_until(lambda: "Keep http://127.0.0.1:1" in ask(served, "/health"), "the refusal on /health")
    for how in (("--issue-for", "h1/icu"), ("--role", "status")):
        denied(watched, 3, "AUTHORITY_IN_USE", "serve", *how, *ALL)
    (finding,) = findings(watched, "published")
    assert (finding["state"], "cannot become http://crl.moved.example" in finding["finding"]) == ("failing", True)
