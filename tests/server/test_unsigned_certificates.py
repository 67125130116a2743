"""Intents that stay open are settled by a server that can, and are reported by every process while they last."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.simulator.installation import Installation, new_installation
from vagus.authority.issuance import Issuance
from vagus.authority.issuers import OpenIssuers
from vagus.authority.open_intents import find_old, load_open
from vagus.jobs.part import Parts
from vagus.records import authorities as authority_rows
from vagus.records import certificates as rows
from vagus.server.health import Health
from vagus.server.metrics import encode_metrics
from vagus.server.unsigned_certificates import UnsignedCertificates


@pytest.fixture
def built(tmp_path: Path) -> Iterator[Installation]:
    with new_installation(tmp_path) as made:
        made.build()
        yield made


class Server:
    """The part of one process, its clock set by hand."""

    def __init__(
        self, built: Installation, issuers: OpenIssuers, *, may_settle: bool = True, is_status_node: bool = False
    ) -> None:
        self.now, self.issuance = 1000.0, built.issuance()
        issuance = None if is_status_node else self.issuance
        self.watch = UnsignedCertificates(
            built.database, issuance, issuers, lambda: may_settle, seconds=lambda: self.now
        )
        self.health = Health(Parts(self.watch.parts()))

    def check_after(self, seconds: float) -> str:
        """The status on /health."""
        self.now += seconds
        self.watch.check()
        return str(self.health.report()[1]["status"])

    def measured(self, name: str) -> str:
        return next(
            line.rsplit(" ", 1)[1]
            for line in encode_metrics(self.health).decode().splitlines()
            if line.startswith(name)
        )


def intend(built: Installation, issuance: Issuance | None = None) -> int:
    """A certificate that was recorded, and never signed: its commit had no outcome."""
    maker = issuance or built.issuance()
    maker.commit(maker.prepare(built.order(request_id=f"r{built.entropy(6).hex()}"), built.icu)).result()
    return built.read(rows.list_intended)[-1].leaf_index


def state(built: Installation, leaf: int) -> str:
    return built.find(rows.find_by_leaf, leaf).state


def test_a_server_that_has_the_key_settles_it_and_stays_well(built: Installation) -> None:
    server, leaf = Server(built, built.units), intend(built)
    assert [server.check_after(0), server.check_after(19)] == ["well", "well"]
    assert state(built, leaf) == rows.INTENDED, "its own process may be about to sign it"
    assert (server.check_after(1), state(built, leaf)) == ("well", rows.ISSUED)
    assert load_open(built.database).rows == ()


def test_what_no_process_can_settle_degrades_each_of_them_until_it_is_signed(built: Installation) -> None:
    servers = [
        Server(built, OpenIssuers(())),
        Server(built, built.units, may_settle=False),
        Server(built, OpenIssuers(()), is_status_node=True),
    ]
    leaf = intend(built)
    for server in servers:
        assert [server.check_after(0), server.check_after(60)] == ["well", "well"]
        assert server.check_after(1) == "degraded"
        text = server.watch.lacks["unsigned certificates"]
        assert text.startswith("1 certificates of h1/icu#1 have had no signature for over 60 s")
        assert text.endswith("vagus serve --issue-for h1/icu")
        assert server.measured("vagus_certificates_unsigned ") == "1.0"
    built.issuance().settle(built.units)
    assert state(built, leaf) == rows.ISSUED
    assert [server.check_after(10) for server in servers] == ["well"] * 3
    assert servers[0].measured("vagus_certificates_unsigned ") == "0.0"


def test_many_that_come_and_go_degrade_nothing(built: Installation) -> None:
    server = Server(built, OpenIssuers(()))
    for _ in range(4):
        intend(built)
        assert server.check_after(50) == "well"
        built.issuance().settle(built.units)


def test_a_clock_that_is_set_back_changes_no_age(built: Installation) -> None:
    server = Server(built, OpenIssuers(()))
    intend(built)
    server.check_after(0)
    built.clock.set(built.clock.now().replace(year=2001))
    assert server.check_after(61) == "degraded"


def test_rows_that_wait_are_measured_and_written_by_the_task(built: Installation) -> None:
    server = Server(built, built.units)
    leaf = intend(built)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(built.writer, "_open_batch", lambda _: 1 / 0)
        server.issuance._signature_rows.add(leaf, b"signed")
        with pytest.raises(Exception, match="division"):
            built.writer.submit(lambda _: None).result()
        assert server.measured("vagus_signature_rows_waiting ") == "1.0"
    server.issuance.write_rows()
    built.settle()
    assert (state(built, leaf), server.measured("vagus_signature_rows_waiting ")) == (rows.ISSUED, "0.0")


def test_the_ledger_dates_an_intent_for_one_who_asks_once(built: Installation) -> None:
    """As `vagus doctor`: it has no memory of an earlier look."""
    intend(built)
    at = built.clock.now().timestamp()
    found = load_open(built.database)
    ages = {seconds: len(find_old(built.database, found, at + seconds)) for seconds in (0, 60, 61, -60, -61)}
    assert ages == {0: 0, 60: 0, 61: 1, -60: 0, -61: 1}


def test_one_of_a_revoked_authority_is_not_reported(built: Installation) -> None:
    intend(built)
    with built.database.writing() as connection:
        authority_rows.set_authority_state(connection, built.icu.authority_id, authority_rows.REVOKED)
    assert load_open(built.database).rows == ()
