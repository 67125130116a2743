"""What the doctor says of published status, and of the lists that rest sealed for the day a key is stolen."""

from __future__ import annotations

import shutil
import time
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from cryptography import x509

from tests.simulator.orders import order_for
from tests.simulator.presence import present
from tests.simulator.processes import serving
from tests.simulator.running import denied, done, findings, run
from vagus.records.authorities import find_generation, list_authorities
from vagus.records.devices import DeviceFilter, list_devices
from vagus.records.engine.database import open_database
from vagus.records.publications import list_publications, put_publication
from vagus.records.work import add_work
from vagus.wiring import Installation, RealClock
from vagus.x509.certificates import decode_certificate
from vagus.x509.crls.building import RevocationReason

SOURCES = ("env:TEST_PASSPHRASE",)


def test_nobody_at_the_status_url_is_a_warning_with_what_to_do(hospital: Path) -> None:
    (one,) = findings(hospital, "published")
    assert (one["state"], "127.0.0.1:1" in one["finding"]) == ("warning", True)
    assert "--status-address" in one["remedy"]


@pytest.mark.parametrize("address", ["127.0.0.1:2", "[::1]:2"])
def test_nobody_at_the_address_that_was_given_is_reported_with_that_address(hospital: Path, address: str) -> None:
    (one,) = findings(hospital, "published", "--status-address", address)
    assert one["state"] == "warning"
    assert one["finding"].startswith(f"no server responds at {address}, which was asked in place of http://127.0.0.1:1")
    assert one["remedy"].startswith("vagus serve; --status-address names")


@pytest.mark.parametrize("address", ["127.0.0.1", ":80", "host:0", "host:99999", "host:x"])
def test_an_address_that_is_none_is_refused(hospital: Path, address: str) -> None:
    denied(hospital, 2, "BAD_ARGUMENT", "doctor", "--status-address", address)


def test_sealed_lists_are_counted_after_a_ceremony(hospital: Path) -> None:
    (one,) = findings(hospital, "emergency lists")
    assert (one["state"], one["finding"]) == ("well", "4 authorities can be revoked without the key above")


def test_a_missing_sealed_list_is_reported_with_the_ceremony_that_makes_it(hospital: Path) -> None:
    (hospital / "keystores" / "h1" / "emergency" / "h1.icu.1.sealed").unlink()
    missing, ready = findings(hospital, "emergency lists")
    assert (missing["state"], "h1/icu#1" in missing["finding"]) == ("warning", True)
    assert missing["remedy"] == "vagus ceremony --passphrase-source emergency=fd:N"
    assert ready["finding"].startswith("3 ")
    done(hospital, "ceremony", "--yes")
    (one,) = findings(hospital, "emergency lists")
    assert one["finding"].startswith("4 ")


def test_a_sealed_list_is_published_without_any_offline_key(hospital: Path) -> None:
    envelope = hospital / "keystores" / "root" / "emergency" / "h1.1.sealed"
    elsewhere = hospital.parent / "carried.sealed"
    shutil.copy2(envelope, elsewhere)
    for name in ("root", "h1"):  # the safe is far away: nothing but the envelope was brought
        shutil.move(hospital / "keystores" / name, hospital.parent / f"safe-{name}")
    assert done(hospital, "ca", "emergency", str(elsewhere), "--yes", "--json").facts["revoked"] == "h1#1"
    root = x509.load_pem_x509_certificate(done(hospital, "ca", "export", "root").out.encode())
    stolen = x509.load_pem_x509_certificate(done(hospital, "ca", "export", "h1#1").out.encode())
    for name in ("0", "complete"):
        crl = x509.load_der_x509_crl((hospital / "published" / "crl" / "root" / "1" / f"{name}.crl").read_bytes())
        assert crl.is_signature_valid(root.public_key())  # type: ignore[arg-type]
        entry = present(crl.get_revoked_certificate_by_serial_number(stolen.serial_number))
        assert entry.extensions.get_extension_for_class(x509.CRLReason).value.reason is x509.ReasonFlags.ca_compromise


def test_lists_from_the_future_are_followed_once_the_operator_says_what_time_it_is(hospital: Path) -> None:
    database = open_database(f"sqlite:///{hospital}/vagus.sqlite3")
    with database.writing() as connection:
        root = next(row for row in list_authorities(connection) if row.name == "root")
        for one in list_publications(connection, root.id):
            put_publication(connection, replace(one, this_update=one.this_update + 30 * 86_400))
        add_work(connection, "supersede", "no device:h1/icu", run_after=int(time.time()) + 30 * 86_400)
    database.close()
    assert run(hospital, "ceremony", "--yes").reason == "CLOCK_ROLLBACK"
    facts = done(hospital, "ca", "forget-dates", "--yes", "--json").facts
    assert (facts["lists"], facts["jobs"]) == (["root#1/complete", "root#1/0"], 1)
    done(hospital, "ceremony", "--yes")
    assert done(hospital, "ca", "forget-dates", "--yes", "--json").facts == {"lists": [], "jobs": 0}
    done(hospital, "audit", "verify")


def test_after_one_sealed_list_was_used_the_others_of_its_issuer_ask_for_a_ceremony(hospital: Path) -> None:
    folder = hospital / "keystores" / "root" / "emergency"
    crl = hospital / "published" / "crl" / "root" / "1" / "0.crl"
    before = crl.read_bytes()
    done(hospital, "ca", "emergency", str(folder / "h1.1.sealed"), "--yes")
    assert crl.read_bytes() != before
    outdated = next(one for one in findings(hospital, "emergency lists") if "newer CRLs" in one["finding"])
    remedy = "vagus ceremony --passphrase-source emergency=fd:N"
    assert (outdated["state"], outdated["remedy"]) == ("warning", remedy)
    denied(hospital, 3, "CEREMONY_NEEDED", "ca", "emergency", str(folder / "h1.sdc.1.sealed"), "--yes")


def revoke_beneath(folder: Path, name: str, reason: RevocationReason) -> None:
    """What `vagus revoke --serial h1#1:HEX` does once two have approved: `name` hangs beneath an offline authority."""
    with Installation.open(folder) as installation, installation.database.reading() as connection:
        below = present(find_generation(connection, name, 1))
        serial = decode_certificate(present(below.certificate_der)).serial
        installation.revocations.revoke(present(below.parent_id), serial, reason, by="operator:test").result()


def lacking(folder: Path) -> list[dict[str, Any]]:
    return [one for one in findings(folder, "CRL") if "is in no CRL yet" in one["finding"]]


@pytest.mark.parametrize("reason", [RevocationReason.CA_COMPROMISE, RevocationReason.CESSATION_OF_OPERATION])
def test_an_authority_revoked_by_an_offline_one_waits_for_a_ceremony(hospital: Path, reason: RevocationReason) -> None:
    envelope = hospital / "keystores" / "h1" / "emergency" / "h1.icu.1.sealed"
    assert (lacking(hospital), done(hospital, "ceremony", "--dry-run", "--json").facts) == ([], [])
    revoke_beneath(hospital, "h1/icu", reason)
    (waiting,) = done(hospital, "ceremony", "--dry-run", "--json").facts
    assert waiting["authority"] == "h1#1"
    assert waiting["waits_for"].startswith("its CRLs, which lack what was revoked since 2")
    (one,) = lacking(hospital)
    assert (one["state"], "h1#1" in one["finding"]) == ("failing", True)
    # the sealed CRL calls it a compromise: for another reason it is not offered
    emergency = f"vagus ca emergency {envelope}, or " if reason is RevocationReason.CA_COMPROMISE else ""
    assert one["remedy"] == f"{emergency}vagus ceremony"
    time.sleep(1.1)  # at most one list a second
    done(hospital, "ceremony", "--yes")
    assert (lacking(hospital), done(hospital, "ceremony", "--dry-run", "--json").facts) == ([], [])


def test_a_plan_that_is_applied_with_a_ceremony_signs_what_waits(hospital: Path) -> None:
    revoke_beneath(hospital, "h1/sdc", RevocationReason.CA_COMPROMISE)
    assert len(lacking(hospital)) == 1
    time.sleep(1.1)
    run(hospital, "plan", "apply", str(hospital.parent / "plan.toml"), "--yes", "--ceremony")
    assert lacking(hospital) == []


def test_nothing_waits_any_more_once_the_sealed_list_is_out(hospital: Path) -> None:
    revoke_beneath(hospital, "h1/icu", RevocationReason.CA_COMPROMISE)
    done(hospital, "ca", "emergency", lacking(hospital)[0]["remedy"].split()[3].rstrip(","), "--yes")
    assert lacking(hospital) == []
    done(hospital, "audit", "verify")


def test_a_revocation_that_a_fetched_crl_lacks_has_this_remedy(hospital: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    revoke_beneath(hospital, "h1/icu", RevocationReason.CESSATION_OF_OPERATION)
    later = datetime.now(UTC) + timedelta(seconds=200)
    with serving(hospital, "--role", "status") as served:
        monkeypatch.setattr(RealClock, "now", lambda _: later)
        found = findings(hospital, "published", "--status-address", f"127.0.0.1:{served.port('status')}")
    lacks = [one for one in found if "revocations older than" in one["finding"]]
    places = {one["finding"].partition(": ")[0].partition("/crl/")[2] for one in lacks}
    assert places == {"h1/1/0.crl", "h1/1/complete.crl"}
    assert {one["remedy"] for one in lacks} == {"vagus ceremony"}


@pytest.mark.parametrize("age", [50, 70])
def test_a_certificate_without_a_signature_for_over_a_minute_is_a_warning_that_names_the_server(
    hospital: Path, monkeypatch: pytest.MonkeyPatch, age: int
) -> None:
    """Its commit had no outcome, or its process lives no more. A server that issues for it signs it."""
    began = datetime.now(UTC)
    with monkeypatch.context() as patch, Installation.open(hospital, passphrase_sources=SOURCES) as opened:
        patch.setattr(RealClock, "now", lambda _: began - timedelta(seconds=age))
        issuer = opened.open_issuers(["h1/icu"])["h1/icu"]
        with opened.database.reading() as connection:
            device = list_devices(connection, DeviceFilter())[0]
        order = order_for(device.id, "no-outcome", profile=device.profile)
        opened.issuance.commit(opened.issuance.prepare(order, issuer)).result()
    found = [(one["state"], one["finding"], one["remedy"]) for one in findings(hospital, "signatures")]
    finding = "1 certificates of h1/icu#1 have had no signature for over 60 s; OCSP responds tryLater for them"
    assert found == ([("warning", finding, "vagus serve --issue-for h1/icu")] if age > 60 else [])
    with Installation.open(hospital, passphrase_sources=SOURCES) as opened:
        opened.issuance.settle(opened.open_issuers(["h1/icu"]))
    assert findings(hospital, "signatures") == []


def test_the_doctor_says_where_no_folder_for_temporary_files_can_be_written(
    hospital: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert [one["state"] for one in findings(hospital, "database")] == ["well"]
    monkeypatch.setattr("vagus.operations.doctor.host_checks.has_temporary_folder", lambda: False)
    durable, found = findings(hospital, "database")
    assert (durable["state"], found["state"], "SQLITE_TMPDIR" in found["remedy"]) == ("well", "warning", True)
