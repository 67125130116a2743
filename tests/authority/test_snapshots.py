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


def maker(built: Installation) -> SnapshotMaker:
    key = open_snapshot_key(built.keystore(SNAPSHOT_KEYSTORE), "log.group.example")
    return SnapshotMaker(built.database, built.writer, built.clock, built.entropy, key)


def test_numbers_grow_within_a_second_and_when_the_clock_was_set_back(installation: Installation) -> None:
    built = installation
    day = timedelta(hours=24)
    first = maker(built).make(one_in=100, lifetime=day, by=BY)
    second = maker(built).make(one_in=100, lifetime=day, by=BY)
    built.advance(hours=-1)
    third = maker(built).make(one_in=100, lifetime=day, by=BY)
    assert first.facts.number < second.facts.number < third.facts.number
    assert len({one.facts.salt for one in (first, second, third)}) == 3


def test_every_authority_is_covered(built: Installation) -> None:
    made = maker(built).make(one_in=100, lifetime=timedelta(hours=1), by=BY)
    assert len(made.facts.issuers) == 6
    assert decode_snapshot(made.snapshot_der).facts == made.facts


def test_the_ledger_commits_to_the_snapshot(installation: Installation) -> None:
    built = installation
    made = maker(built).make(one_in=100, lifetime=timedelta(hours=1), by=BY)
    entry = built.entries(object)[-1]
    assert isinstance(entry, OperatorAct)
    assert (entry.act, entry.detail_sha256) == ("snapshot-made", hashlib.sha256(made.snapshot_der).digest())


def test_the_key_signs_data_alone(installation: Installation) -> None:
    built = installation
    key = open_snapshot_key(built.keystore(SNAPSHOT_KEYSTORE), "log.group.example")
    again = open_snapshot_key(built.keystore(SNAPSHOT_KEYSTORE), "log.group.example")
    assert key.spki_der == again.spki_der
    for purpose in set(Purpose) - {Purpose.DATA}:
        with refuses(Reason.PURPOSE_FORBIDDEN, NotAuthorised):
            key.sign(purpose, b"message")


def test_a_snapshot_lives_at_most_a_week(installation: Installation) -> None:
    for lifetime in (timedelta(), timedelta(hours=-1), timedelta(days=7, seconds=1)):
        with refuses(Reason.POLICY_VIOLATION, PolicyRefusal):
            maker(installation).make(one_in=100, lifetime=lifetime, by=BY)
