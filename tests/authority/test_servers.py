"""Several servers over one database, and one server again after a restart: numbers grow, nothing is lost."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import cast

import pytest
from cryptography import x509

from tests.simulator.installation import BY, Installation, new_installation
from tests.simulator.queries import list_key_ids
from tests.simulator.refusals import refuses
from vagus.authority.crls.publisher import CrlPublisher, forget_future_dates
from vagus.authority.issuers import Issuer
from vagus.authority.ocsp.responders import OCSP_KEYSTORE, ResponderRenewal
from vagus.errors import Unavailable
from vagus.events.revocations import RevocationFollower
from vagus.keystore.signing import Purpose, SigningKey
from vagus.ledger.entries import CrlPublished
from vagus.reasons import Reason
from vagus.records import publications as rows
from vagus.records.engine.database import open_database
from vagus.records.revocation import revocations as revocation_rows
from vagus.x509.crls.building import RevocationReason


@pytest.fixture
def first(tmp_path: Path, database_url: str) -> Iterator[Installation]:
    """The first process of an installation with its whole hierarchy."""
    with new_installation(tmp_path / "installation", database_url) as made:
        made.build()
        yield made


@contextmanager
def again(first: Installation) -> Iterator[Installation]:
    """Another process of the same installation: its own connections, writer and keystores."""
    url = first.database.url.render_as_string(hide_password=False)
    other = Installation(first.folder, open_database(url), first.clock, first.entropy)
    with other.writer:
        yield other
    other.database.close()


def server(installation: Installation, holder: str | None) -> CrlPublisher:
    parts = (installation.pack, installation.database, installation.writer, installation.clock)
    return CrlPublisher(*parts, folder=None, holder=holder)


def renewal(installation: Installation, holder: str) -> ResponderRenewal:
    parts = (installation.database, installation.writer, installation.clock, installation.issuance())
    return ResponderRenewal(*parts, installation.keystore(OCSP_KEYSTORE), holder=holder)


def revoke_one(installation: Installation) -> None:
    """So that a CRL of the ICU is due."""
    installation.revoke(installation.issue(), RevocationReason.SUPERSEDED)


def published(built: Installation) -> dict[tuple[str, int], list[CrlPublished]]:
    found: dict[tuple[str, int], list[CrlPublished]] = {}
    for entry in built.entries(CrlPublished):
        found.setdefault((entry.authority, entry.shard), []).append(entry)
    return found


def take_lease(first: Installation, issuer: Issuer) -> None:
    """A server that is called "one" renews the responder of `issuer` for a minute."""
    name = f"ocsp:{issuer.authority_id}"
    first.writer.submit(lambda batch: rows.take_lease(batch.connection, name, "one", at=batch.at, seconds=60)).result()


def assert_all_grow(built: Installation) -> None:
    for said in published(built).values():
        for values in ([one.number for one in said], [one.this_update for one in said]):
            assert values == sorted(set(values)), "strictly"
        assert [one.sequence for one in said] == sorted(one.sequence for one in said)


def test_after_a_restart_everything_goes_on(first: Installation) -> None:
    issuers = first.issuers("h1/icu")
    issued = first.issue(issuers)
    first.publisher.publish_all(issuers["h1/icu"])
    with again(first) as second:
        second.advance(seconds=1)
        reopened = second.issuers("h1/icu")
        assert second.issuance().settle(reopened).signed == ()
        second.revoke(issued, RevocationReason.SUPERSEDED, by=BY)
        second.publisher.publish_due(reopened["h1/icu"])
        listed = x509.load_der_x509_crl((first.folder / "published" / "crl" / "h1.icu" / "1" / "0.crl").read_bytes())
        assert [entry.serial_number for entry in listed] == [issued.serial]
        assert_all_grow(second)
    second.database.close()


def test_two_servers_issue_revoke_and_publish_together(first: Installation) -> None:
    revoked: list[int] = []

    def serve(installation: Installation) -> None:
        issuers = installation.issuers("h1/icu")
        publisher = server(installation, None)
        for turn in range(8):
            issued = installation.issue(issuers)
            if turn % 2:
                installation.revoke(issued, RevocationReason.SUPERSEDED)
                revoked.append(issued.serial)
            installation.advance(seconds=1)
            publisher.publish_due(issuers["h1/icu"])

    with again(first) as second:
        with ThreadPoolExecutor(2) as pool:
            assert list(pool.map(serve, (first, second))) == [None, None]
        first.advance(seconds=1)
        issuer = first.icu
        first.publisher.publish_due(issuer)
        assert_all_grow(first)
        newest = first.find(rows.find_publication, issuer.authority_id, 0)
        events = first.read(revocation_rows.list_events, issuer.authority_id, after=0)
        assert {entry.serial_number for entry in x509.load_der_x509_crl(newest.crl_der)} == set(revoked)
        assert [event.sequence for event in events] == list(range(1, len(revoked) + 1))
        assert RevocationFollower(second.database, second.clock).position == len(revoked)


def test_one_holder_publishes_until_its_lease_ends(first: Installation) -> None:
    issuer = first.icu
    assert server(first, "one").publish_due(issuer)
    revoke_one(first)
    first.advance(seconds=9)
    assert server(first, "two").publish_due(issuer) == ()
    first.advance(seconds=1)
    assert server(first, "two").publish_due(issuer), "the first may have died"


def test_a_lease_holder_that_died_with_a_clock_ahead_delays_no_other_server(first: Installation) -> None:
    """Its clock was 30 days ahead and is set right: nothing of the next days may wait for the end of its lease."""
    issuer = first.icu
    one, two = server(first, "one"), server(first, "two")
    first.advance(days=30)
    assert one.publish_due(issuer)
    take_lease(first, issuer)
    first.advance(days=-30)
    assert forget_future_dates(first.writer, by=BY)
    revoke_one(first)
    first.advance(seconds=1)
    assert [done.shard for done in two.publish_due(issuer)] == [0, rows.COMPLETE]
    assert renewal(first, "two").renew_due(issuer)


def test_two_servers_that_renew_a_responder_at_the_same_moment_make_one(first: Installation) -> None:
    """A server without the lease leaves the work; when it checks next, the work is done."""
    ready = threading.Barrier(2)

    def renew(installation: Installation, holder: str) -> bool:
        issuer, due = installation.issuers("h1/icu")["h1/icu"], renewal(installation, holder)
        ready.wait(30)
        return due.renew_due(issuer)

    folder = first.keystore(OCSP_KEYSTORE).folder
    with again(first) as second, ThreadPoolExecutor(2) as pool:
        for life in (1, 2, 3):
            assert sorted(pool.map(renew, (first, second), ("serve-0", "serve-1"))) == [False, True]
            kept = range(max(1, life - 1), life + 1)  # the one before stays for one more term
            assert list_key_ids(folder) == [f"h1.icu.1.{one}" for one in kept]
            first.advance(days=8)


def test_a_server_whose_turn_it_is_not_leaves_a_responder_alone(first: Installation) -> None:
    issuer = first.icu
    take_lease(first, issuer)
    assert not renewal(first, "two").renew_due(issuer)
    first.advance(seconds=60)
    assert renewal(first, "two").renew_due(issuer), "the first may have died"


def test_a_holder_that_ends_in_order_gives_its_lease_back(first: Installation) -> None:
    issuer = first.icu
    one, two = server(first, "one"), server(first, "two")
    assert one.publish_due(issuer)
    revoke_one(first)
    first.advance(seconds=1)
    one.release(issuer)
    assert two.publish_due(issuer)


@dataclass(frozen=True)
class KeyAway:
    """A signing key whose module was unplugged."""

    present: SigningKey

    @property
    def spki_der(self) -> bytes:
        return self.present.spki_der

    def sign(self, purpose: Purpose, message: bytes) -> bytes:
        raise Unavailable(Reason.KEY_NOT_OPEN, f"no module signs {len(message)} octets for {purpose}")


def without_key(issuer: Issuer) -> Issuer:
    return replace(issuer, key=cast("SigningKey", KeyAway(issuer.key)))


def test_a_server_without_the_key_leaves_the_crls_to_one_with_the_key(first: Installation) -> None:
    issuer, broken = first.icu, without_key(first.icu)
    one, two = server(first, "one"), server(first, "two")
    with refuses(Reason.KEY_NOT_OPEN, Unavailable):
        one.publish_due(broken)
    first.advance(seconds=1)
    with refuses(Reason.KEY_NOT_OPEN, Unavailable):
        one.publish_due(broken)  # as long as something is due it is raised
    assert [done.shard for done in two.publish_due(issuer)] == [0, rows.COMPLETE], "at its very next check"
    assert one.publish_due(broken) == (), "nothing is due any more"


def test_a_server_that_is_alone_tries_again_when_its_key_is_back(first: Installation) -> None:
    publisher = server(first, "one")
    with pytest.raises(Unavailable):
        publisher.publish_due(without_key(first.icu))
    first.advance(seconds=5)
    assert publisher.publish_due(first.icu)
