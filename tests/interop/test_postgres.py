"""The main path once more with everything in PostgreSQL: founded, served, enrolled, admitted, revoked, refused."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from cryptography import x509

from tests.postgres import fresh_database, postgres_server
from tests.simulator.programs import run, succeed
from tests.simulator.relying import Bearer, Hospital
from tests.simulator.relying import hospital as made_hospital
from tests.simulator.waiting import wait_until

pytestmark = pytest.mark.interop


@pytest.fixture(scope="module")
def on_postgres(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Hospital]:
    """A hospital without any SQLite file."""
    with (
        postgres_server() as server,
        fresh_database(server) as url,
        made_hospital(tmp_path_factory.mktemp("postgres"), database=url) as made,
    ):
        yield made


def through_the_gate(hospital: Hospital, who: Bearer) -> str:
    """Status and body of a request to the control gate."""
    name, port = "control.test.example", hospital.port("control")
    words = ("--max-time", "20", "-w", "%{http_code}", f"https://{name}:{port}/5")
    return run("curl", *hospital.curl_words(name, port, who), *words).raw.decode()


def test_the_main_path(on_postgres: Hospital) -> None:
    hospital = on_postgres
    assert not list(hospital.folder.glob("*.sqlite3"))
    pump, other = hospital.enrol("pump"), hospital.enrol("other")
    assert through_the_gate(hospital, pump) == "xxxxx200"
    assert through_the_gate(hospital, other) == "xxxxx200"

    hospital.revoke(pump)  # from another process, over the same database
    wait_until(lambda: "REVOKED" in through_the_gate(hospital, pump), "refused at the gate")
    assert through_the_gate(hospital, other) == "xxxxx200"

    lists = hospital.crls("icu", "root/0", "h1/0", "h1.icu/0", "h1.icu/1")
    words = ("-x509_strict", "-crl_check_all", "-CAfile", hospital.authority("root"), "-CRLfile", lists)
    succeed("openssl", "verify", *words, "-untrusted", other.chain, other.leaf)
    assert "certificate revoked" in run("openssl", "verify", *words, "-untrusted", pump.chain, pump.leaf)

    issuer = hospital.authority("h1/icu")
    ask = ("-url", f"{hospital.status}/ocsp", "-CAfile", issuer, "-partial_chain", "-issuer", issuer)
    for bearer, said in ((pump, "revoked"), (other, "good")):
        assert f"{bearer.leaf}: {said}" in succeed("openssl", "ocsp", *ask, "-cert", bearer.leaf)


def test_the_ledger_and_the_second_apply(on_postgres: Hospital, tmp_path: Path) -> None:
    hospital = on_postgres
    hospital.enrol("counted", "h1/er")
    checkpoint = tmp_path / "checkpoint"
    checkpoint.write_bytes(hospital.fetch("/log/checkpoint"))
    hospital.vagus("audit", "verify", "--against", str(checkpoint))
    before = hospital.vagus("export")
    hospital.vagus("plan", "apply", str(hospital.folder / "test-plan.toml"), "--yes")
    assert hospital.vagus("export") == before


def test_lists_and_numbers_agree_with_what_is_served(on_postgres: Hospital) -> None:
    hospital = on_postgres
    first = hospital.crl_at("/crl/h1.er/1/0.crl")
    hospital.revoke(hospital.enrol("numbered", "h1/er"))
    second = hospital.crl_at("/crl/h1.er/1/0.crl")
    numbers = [one.extensions.get_extension_for_class(x509.CRLNumber).value.crl_number for one in (first, second)]
    assert numbers[0] < numbers[1]
    file = hospital.folder / "published" / "crl" / "h1.er" / "1" / "0.crl"
    wait_until(lambda: file.read_bytes() == hospital.fetch("/crl/h1.er/1/0.crl"), "the file says what is served")
