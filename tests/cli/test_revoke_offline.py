"""`vagus revoke` of what an offline authority issued: in no list before a ceremony, and it says so."""

from __future__ import annotations

from pathlib import Path

import pytest
from sqlalchemy import update

from tests.cli.revocation.test_commands import second_person
from tests.simulator.running import answer, done, run
from vagus.records.authorities import list_authorities
from vagus.records.engine.tables import crl_publications
from vagus.wiring import Installation
from vagus.x509.certificates import decode_certificate


def serial_of(folder: Path, name: str) -> str:
    with Installation.open(folder) as installation, installation.database.reading() as connection:
        (der,) = [one.certificate_der for one in list_authorities(connection) if one.name == name]
    return f"{decode_certificate(der or b'').serial:x}"


def let_lists_be_older(folder: Path) -> None:
    """The policy's shortest interval between two lists of a shard passes."""
    a_minute_ago = update(crl_publications).values(this_update=crl_publications.c.this_update - 60)
    with Installation.open(folder) as installation:
        installation.writer.submit(lambda batch: batch.connection.execute(a_minute_ago)).result()


def test_what_an_offline_authority_revokes_needs_a_ceremony(hospital: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    named = ("revoke", "--serial", f"h1#1:{serial_of(hospital, 'h1/icu')}", "--reason", "cACompromise")
    dry = done(hospital, *named, "--dry-run", "--json").facts
    assert (dry["certificates"], dry["ocsp_answers_signed_anew"], dry["waits_for_ceremony"]) == (1, 0, ["h1#1"])
    words = "in no CRL before `vagus ceremony`, for h1#1 is offline and signs none before it"
    asked = answer(hospital, "y\n", *named)
    assert asked.code == 3
    assert words in " ".join(asked.err.split())
    assert "vagus ca emergency ENVELOPE" in " ".join(asked.err.split())
    with monkeypatch.context() as other:
        second_person(hospital, other)
        done(hospital, "revoke", "approve", "1", "--yes")
    ended = run(hospital, "revoke", "run", "1", "--json")
    assert (ended.code, ended.facts["state"], ended.facts["waits_for_ceremony"]) == (3, "done", ["h1#1"])
    assert f"what plan 1 did is {words}" in ended.err
    assert words in done(hospital, "revoke", "show", "1").err
    let_lists_be_older(hospital)
    done(hospital, "ceremony", "--yes")
    shown = done(hospital, "revoke", "show", "1", "--json")
    assert (shown.facts["waits_for_ceremony"], shown.err) == ([], "")


def test_what_a_sealed_list_names_waits_for_no_ceremony(hospital: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    named = ("revoke", "--serial", f"h1#1:{serial_of(hospital, 'h1/icu')}", "--reason", "cACompromise")
    run(hospital, *named, "--yes")
    with monkeypatch.context() as other:
        second_person(hospital, other)
        done(hospital, "revoke", "approve", "1", "--yes")
    assert run(hospital, "revoke", "run", "1").code == 3
    done(hospital, "ca", "emergency", str(hospital / "keystores" / "h1" / "emergency" / "h1.icu.1.sealed"), "--yes")
    shown = done(hospital, "revoke", "show", "1", "--json")
    assert (shown.facts["waits_for_ceremony"], shown.err) == ([], "")
