"""Making snapshots: numbers grow over restarts, the key signs nothing else, and each is in the ledger."""

from __future__ import annotations

import hashlib
from datetime import timedelta

from tests.simulator.installation import BY, Installation
from tests.simulator.refusals import refuses
from vagus.authority.snapshots import SNAPSHOT_KEYSTORE, SnapshotMaker, open_snapshot_key
from vagus.errors import NotAuthorised, PolicyRefusal
from vagus.keystore.signing import Purpose
from vagus.ledger.entries import OperatorAct
from vagus.reasons import Reason
from vagus.wire.snapshots import decode_snapshot


def snapshot_maker(built: Installation) -> SnapshotMaker:
    key = open_snapshot_key(built.keystore(SNAPSHOT_KEYSTORE), "log.group.example")
    return SnapshotMaker(built.database, built.writer, built.clock, built.entropy, key)


def test_numbers_grow_within_a_second_and_when_the_clock_was_set_back(installation: Installation) -> None:
    made = []
    for hours in (0, 0, -1):
        installation.advance(hours=hours)
        made.append(snapshot_maker(installation).make(one_in=100, lifetime=timedelta(hours=24), by=BY).facts)
    assert made[0].number < made[1].number < made[2].number
    assert len({one.salt for one in made}) == 3


def test_every_authority_is_covered(built: Installation) -> None:
    made = snapshot_maker(built).make(one_in=100, lifetime=timedelta(hours=1), by=BY)
    assert len(made.facts.issuers) == 6
    assert decode_snapshot(made.snapshot_der).facts == made.facts


def test_the_ledger_commits_to_the_snapshot(installation: Installation) -> None:
    made = snapshot_maker(installation).make(one_in=100, lifetime=timedelta(hours=1), by=BY)
    entry = installation.entries(object)[-1]
    assert isinstance(entry, OperatorAct)
    assert (entry.act, entry.detail_sha256) == ("snapshot-made", hashlib.sha256(made.snapshot_der).digest())


def test_the_key_signs_data_alone(installation: Installation) -> None:
    key, again = (open_snapshot_key(installation.keystore(SNAPSHOT_KEYSTORE), "log.group.example") for _ in range(2))
    assert key.spki_der == again.spki_der
    for purpose in set(Purpose) - {Purpose.DATA}:
        with refuses(Reason.PURPOSE_FORBIDDEN, NotAuthorised):
            key.sign(purpose, b"message")


def test_a_snapshot_lives_at_most_a_week(installation: Installation) -> None:
    for lifetime in (timedelta(), timedelta(hours=-1), timedelta(days=7, seconds=1)):
        with refuses(Reason.POLICY_VIOLATION, PolicyRefusal):
            snapshot_maker(installation).make(one_in=100, lifetime=lifetime, by=BY)
