"""`vagus cert find|show|export` as people use it."""

from __future__ import annotations

import csv
import io
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives.serialization import pkcs7

from tests.cli.test_foreign_authorities import NO_LIST, P384, apply, make_root
from tests.simulator.issuing import issue
from tests.simulator.running import denied, done, run
from vagus.operations.local_account import local_actor
from vagus.records.engine.tables import certificates
from vagus.wiring import Installation

PUMP = "Aorta IP3:AIP3-000001"


@pytest.fixture
def stocked(hospital: Path) -> Path:
    issue(hospital, 1)
    issue(hospital, 2)
    return hospital


def test_a_page_is_a_table_json_or_csv(stocked: Path) -> None:
    found = done(stocked, "cert", "find", "--unit", "h1/icu", "--json").facts
    assert len(found) == 2
    assert {one["state"] for one in found} == {"issued"}
    table = done(stocked, "cert", "find", "--unit", "h1/icu")
    assert all(one["serial"] in table.out for one in found)
    assert "More follow" not in table.out
    lines = list(csv.DictReader(io.StringIO(done(stocked, "cert", "find", "--unit", "h1/icu", "--csv").out)))
    assert [one["fingerprint"] for one in lines] == [one["fingerprint"] for one in found]


def test_a_spreadsheet_reads_no_cell_as_a_formula(stocked: Path) -> None:
    given = ("--unit", "h1/icu", "--model", "Aorta IP3", "--serial", "=1+1")
    made = done(stocked, "device", "add", *given, "--place", "@ward", "--json").facts
    with Installation.open(stocked) as installation, installation.database.writing() as connection:
        connection.execute(certificates.update().values(category="=1+1", unit=None))
        of_pump = certificates.c.profile == "bedside"
        connection.execute(certificates.update().where(of_pump).values(device_id=made["id"], unit="h1/icu"))
    (line, _) = csv.DictReader(io.StringIO(done(stocked, "cert", "find", "--unit", "h1/icu", "--csv").out))
    assert (line["category"], line["device"]) == ("'=1+1", made["id"])


def test_the_end_of_a_page_shows_the_option_for_the_next_one(stocked: Path) -> None:
    first = done(stocked, "cert", "find", "--unit", "h1/icu", "--limit", "1", "--json")
    assert first.err.startswith("More follow: --after leaf-")
    after = first.err.split("--after ")[1].split(",")[0]
    second = done(stocked, "cert", "find", "--unit", "h1/icu", "--limit", "1", "--json", "--after", after)
    assert second.err == ""
    assert first.facts[0]["id"] == after != second.facts[0]["id"]
    assert f"--after {after}" in done(stocked, "cert", "find", "--unit", "h1/icu", "--limit", "1").out


def test_an_empty_installation_has_no_certificates(fresh: Path) -> None:
    for options in (("--state", "issued"), ("--serial", "4a01"), ("--subject", "gw"), ("--expires-within", "60d")):
        assert done(fresh, "cert", "find", *options).out == "no certificates\n"
        assert done(fresh, "cert", "find", *options, "--json").facts == []


def test_a_search_for_nothing_or_for_everything_is_refused(stocked: Path) -> None:
    denied(stocked, 2, "BAD_ARGUMENT", "cert", "find", says=("--serial", "--expires-within", "--state"))
    denied(stocked, 2, "BAD_ARGUMENT", "cert", "find", "--subject", "*", says=("no wildcards",))
    denied(stocked, 2, "TOO_LARGE", "cert", "find", "--serial", "4" * 1_048_576, says=("at most 100",))
    both = run(stocked, "cert", "find", "--unit", "h1/icu", "--csv", "--json")
    assert (both.code, both.out, "give one of them" in both.err) == (2, "", True)
    for option in ("--issued-after", "--issued-before", "--expires-after", "--expires-before"):
        denied(stocked, 2, "BAD_ARGUMENT", "cert", "find", option, "yesterday", says=(option, "2027-03-01T12:00:00Z"))
    assert (
        done(stocked, "cert", "find", "--issued-after", "2020-01-01", "--expires-before", "2020-01-02", "--json").facts
        == []
    )
    denied(stocked, 2, "AUTHORITY_UNKNOWN", "cert", "find", "--issuer", "h1/none")


def test_show_names_everything_of_one_certificate(stocked: Path) -> None:
    done(stocked, "device", "revoke", PUMP, "--reason", "superseded", "--yes")
    (one,) = done(stocked, "cert", "find", "--device", PUMP, "--json").facts
    shown = done(stocked, "cert", "show", one["serial"], "--json").facts
    assert {name: shown[name] for name in one} == one
    assert (shown["revocation_reason"], shown["state"], shown["model"]) == ("superseded", "revoked", "Aorta IP3")
    assert shown["revoked_by"] == local_actor().id
    entry = done(stocked, "audit", "show", "--from", str(shown["ledger_entry"]), "--limit", "1", "--json").facts
    assert "revocation" in str(entry)
    text = done(stocked, "cert", "show", one["fingerprint"][:16]).out
    assert "revocation reason" in text
    assert "superseded" in text
    denied(stocked, 2, "NOT_FOUND", "cert", "show", "4a01", says=("vagus cert find",))


@pytest.mark.parametrize(("form", "count"), [("pem", 1), ("chain", 3), ("fullchain", 4), ("der", 1), ("p7b", 4)])
def test_each_form_has_its_certificates(stocked: Path, tmp_path: Path, form: str, count: int) -> None:
    (one,) = done(stocked, "cert", "find", "--device", PUMP, "--json").facts
    out = tmp_path / "out"
    done(stocked, "cert", "export", one["id"], "--form", form, "--out", str(out))
    raw = out.read_bytes()
    if form == "der":
        found = [x509.load_der_x509_certificate(raw)]
    elif form == "p7b":
        found = pkcs7.load_pem_pkcs7_certificates(raw)
    else:
        found = x509.load_pem_x509_certificates(raw)
    assert len(found) == count
    assert f"{found[0].serial_number:X}" == one["serial"] or form == "p7b"
    assert any(each.subject == each.issuer for each in found) is (count == 4)


def test_a_file_that_exists_is_replaced_on_request_alone(stocked: Path, tmp_path: Path) -> None:
    (one,) = done(stocked, "cert", "find", "--device", PUMP, "--json").facts
    assert done(stocked, "cert", "export", one["id"]).out.startswith("-----BEGIN CERTIFICATE-----")
    out = tmp_path / "out"
    out.write_text("a key, say")
    denied(stocked, 3, "ALREADY_EXISTS", "cert", "export", one["id"], "--out", str(out), says=("--replace",))
    assert out.read_text() == "a key, say"
    done(stocked, "cert", "export", one["id"], "--out", str(out), "--replace")
    assert out.read_bytes().startswith(b"-----BEGIN CERTIFICATE-----")
    nowhere = str(tmp_path / "none" / "out")
    denied(stocked, 2, "BAD_ARGUMENT", "cert", "export", one["id"], "--out", nowhere, says=("does not exist",))


def test_an_imported_root_is_found_and_shown_like_the_others(fresh: Path, tmp_path: Path) -> None:
    make_root(tmp_path, *P384)
    assert apply(fresh) == 3
    done(fresh, "ca", "import", "root", str(tmp_path / "root.pem"), str(tmp_path / "root.key"), *NO_LIST)
    (one,) = done(fresh, "cert", "find", "--subject", "a root of before", "--json").facts
    assert (one["profile"], one["key_algorithm"], one["id"].startswith("authority-")) == ("elsewhere", "p384", True)
    assert done(fresh, "cert", "find", "--algorithm", "P-384", "--state", "issued", "--json").facts == [one]
    assert done(fresh, "cert", "show", one["serial"], "--json").facts["fingerprint"] == one["fingerprint"]
    written = done(fresh, "cert", "export", one["fingerprint"][:16]).out
    assert x509.load_pem_x509_certificate(written.encode()).serial_number == int(one["serial"], 16)
    for other in (
        ("--unit", "h1/icu"),
        ("--issuer", "root"),
        ("--expires-within", "30d"),
        ("--san", "a root of before"),
    ):
        assert run(fresh, "cert", "find", *other, "--json").out == "[]\n"
