"""Revocation is one commit of sequence, state, entry for later CRLs and ledger."""

from __future__ import annotations

import pytest

from tests.simulator.installation import ICU, Installation
from tests.simulator.orders import new_public_key
from tests.simulator.refusals import refuses
from vagus.authority.issuance import IssuedCertificate
from vagus.authority.revocation import Revoked, hold_device, release_device, revoke_device
from vagus.errors import Conflict, PolicyRefusal
from vagus.ledger.entries import Hold, KeyBlocked, Release, Revocation
from vagus.reasons import Reason
from vagus.records import authorities as authority_rows
from vagus.records import certificates as rows
from vagus.records.revocation import revocations as revocation_rows
from vagus.x509.crls.building import RevocationReason, encode_crl_entry

BY = "operator:alice"
COMPROMISE = RevocationReason.KEY_COMPROMISE


def certificate(built: Installation, issued: IssuedCertificate) -> rows.CertificateRow:
    built.settle()
    return built.find(rows.find_by_leaf, issued.leaf_index)


def entries(built: Installation) -> list[Revocation | Hold | Release | KeyBlocked]:
    return built.entries(Revocation, Hold, Release, KeyBlocked)


def test_one_commit_writes_sequence_entry_state_and_ledger(built: Installation) -> None:
    issued = built.issue()
    follower = built.follower()
    authority_id = issued.issuer.authority_id
    sequence = built.revocations.revoke(authority_id, issued.serial, RevocationReason.SUPERSEDED, by=BY).result()
    assert sequence == 1
    found = follower.find(authority_id, issued.serial)
    assert found is not None, "the gateways of this process know before the response leaves"
    assert (found.reason, found.is_hold) == (RevocationReason.SUPERSEDED, False)
    row = built.find(revocation_rows.find_revocation, issued.leaf_index)
    assert row.entry_der == encode_crl_entry(issued.serial, built.clock.now(), RevocationReason.SUPERSEDED)
    assert row.shard == certificate(built, issued).shard
    assert certificate(built, issued).state == rows.REVOKED
    (entry,) = entries(built)
    assert isinstance(entry, Revocation)
    assert (entry.authority, entry.serial, entry.reason, entry.sequence) == ("h1/icu#1", issued.serial, 4, 1)
    assert "alice" not in entry.by


def test_a_serial_that_was_never_issued_cannot_be_revoked(built: Installation) -> None:
    for act in (
        built.revocations.revoke(built.icu.authority_id, 4711, COMPROMISE, by=BY),
        built.revocations.hold(built.icu.authority_id, 4711, by=BY),
        built.revocations.release(99, 4711, by=BY),
    ):
        with refuses(Reason.NOT_ISSUED, Conflict):
            act.result()


def test_revoked_stays_revoked_and_again_changes_nothing(built: Installation) -> None:
    issued = built.issue()
    name = (issued.issuer.authority_id, issued.serial)
    first = built.revocations.revoke(*name, RevocationReason.SUPERSEDED, by=BY).result()
    assert built.revocations.revoke(*name, RevocationReason.CESSATION_OF_OPERATION, by=BY).result() == first
    for act in (built.revocations.hold(*name, by=BY), built.revocations.release(*name, by=BY)):
        with refuses(Reason.REVOKED, Conflict):
            act.result()
    assert len(entries(built)) == 1


def test_a_compromise_learnt_later_is_said_in_a_second_step(built: Installation) -> None:
    issued = built.issue()
    built.revoke(issued, RevocationReason.SUPERSEDED)
    assert built.revoke(issued, COMPROMISE) == 2
    assert built.revoke(issued, COMPROMISE) == 2
    assert built.find(revocation_rows.find_revocation, issued.leaf_index).reason == COMPROMISE


def test_a_hold_is_released_or_becomes_a_revocation(built: Installation) -> None:
    one, other = built.issue(), built.issue()
    follower = built.follower()
    for issued in (one, other):
        held = built.hold(issued)
        assert built.hold(issued) == held
        assert certificate(built, issued).state == rows.HELD
    built.release(one)
    built.revoke(other, COMPROMISE)
    assert certificate(built, one).state == rows.ISSUED
    assert certificate(built, other).state == rows.REVOKED
    assert follower.find(one.issuer.authority_id, one.serial) is None
    found = follower.find(other.issuer.authority_id, other.serial)
    assert found is not None
    assert not found.is_hold
    with refuses(Reason.NOT_FOUND, Conflict):
        built.release(one)
    assert [type(entry) for entry in entries(built)] == [Hold, Hold, Release, Revocation]


def test_a_device_goes_with_all_its_certificates(built: Installation) -> None:
    first = built.issue()
    device = certificate(built, first).device_id
    assert device is not None
    second = built.issue(device=device)
    bystander = built.issue()
    assert built.writer.submit(lambda batch: hold_device(batch, device, by=BY)).result() == Revoked(2, 2)
    assert built.writer.submit(lambda batch: release_device(batch, device, by=BY)).result() == Revoked(2, 4)
    assert built.writer.submit(lambda batch: revoke_device(batch, device, COMPROMISE, by=BY)).result() == Revoked(2, 6)
    assert built.writer.submit(lambda batch: hold_device(batch, device, by=BY)).result() == Revoked(0, 0)
    states = [certificate(built, one).state for one in (first, second, bystander)]
    assert states == [rows.REVOKED, rows.REVOKED, rows.ISSUED]
    assert built.writer.submit(lambda batch: revoke_device(batch, "nobody", COMPROMISE, by=BY)).result() == Revoked(
        0, 0
    )


def test_a_device_whose_certificates_are_past_leaves_nothing_to_revoke(built: Installation) -> None:
    device = certificate(built, built.issue()).device_id
    built.advance(days=731)
    assert built.writer.submit(lambda batch: revoke_device(batch, device or "", COMPROMISE, by=BY)).result() == Revoked(
        0, 0
    )


def test_a_blocked_key_is_certified_never_again_whether_anybody_showed_it_before_or_not(built: Installation) -> None:
    seen, unseen = new_public_key(), new_public_key()
    issued = built.issue(public_key=seen)
    device = certificate(built, issued).device_id
    for key in (seen, unseen):
        assert built.revocations.block_key(key.spki_sha256, by=BY).result() is True
        assert built.revocations.block_key(key.spki_sha256, by=BY).result() is False
        with refuses(Reason.KEY_BLOCKED, Conflict):
            built.issue(public_key=key, device=device)
    assert certificate(built, issued).state == rows.ISSUED
    told = [one.spki_sha256 for one in built.entries(KeyBlocked)]
    assert told == [seen.spki_sha256, unseen.spki_sha256]


def test_a_compromise_of_one_certificate_is_one_of_every_certificate_for_its_key(built: Installation) -> None:
    key = new_public_key()
    device = certificate(built, built.issue(public_key=key)).device_id
    one, other, released = (built.issue(public_key=key, device=device) for _ in range(3))
    bystander = built.issue(device=device)
    for held in (other, released):
        built.hold(held)
    built.release(released)
    built.revoke(one, COMPROMISE)
    states = [certificate(built, issued).state for issued in (one, other, released, bystander)]
    assert states == [rows.REVOKED, rows.REVOKED, rows.REVOKED, rows.ISSUED]
    told = built.entries(Revocation)
    assert sorted(entry.sequence for entry in told) == [4, 5, 6, 7]
    assert {entry.reason for entry in told} == {int(COMPROMISE)}
    assert len({entry.serial for entry in told}) == 4, "an entry of the ledger for each"
    built.revoke(other, COMPROMISE)
    assert len(entries(built)) == 7, "again changes nothing"


def test_other_reasons_than_a_compromise_leave_the_keys_other_certificates_good(built: Installation) -> None:
    key = new_public_key()
    one = built.issue(public_key=key)
    other = built.issue(public_key=key, device=certificate(built, one).device_id)
    built.revoke(one, RevocationReason.SUPERSEDED)
    assert certificate(built, other).state == rows.ISSUED


def test_a_revoked_authority_issues_nothing_from_that_commit_on(built: Installation) -> None:
    row = built.find(rows.find_by_request, "authority:h1/icu#1")
    built.revocations.revoke(row.authority_id, row.serial, RevocationReason.CA_COMPROMISE, by=BY).result()
    assert built.find(authority_rows.find_newest, ICU.name, state=None).state == authority_rows.REVOKED
    with refuses(Reason.AUTHORITY_IN_USE, Conflict):
        built.issue()


def test_authorities_are_not_held_and_roots_not_revoked(built: Installation) -> None:
    icu = built.find(rows.find_by_request, "authority:h1/icu#1")
    root = built.find(rows.find_by_request, "authority:root#1")
    for act in (
        built.revocations.hold(icu.authority_id, icu.serial, by=BY),
        built.revocations.revoke(root.authority_id, root.serial, COMPROMISE, by=BY),
    ):
        with refuses(Reason.POLICY_VIOLATION, PolicyRefusal):
            act.result()


@pytest.mark.parametrize("reason", [RevocationReason.CERTIFICATE_HOLD, RevocationReason.REMOVE_FROM_CRL])
def test_hold_and_remove_are_no_reasons_to_revoke(built: Installation, reason: RevocationReason) -> None:
    issued = built.issue()
    with refuses(Reason.POLICY_VIOLATION, PolicyRefusal):
        built.revoke(issued, reason)
    assert certificate(built, issued).state == rows.ISSUED


def test_the_sequence_has_no_gap_whatever_is_refused_between(built: Installation) -> None:
    issued = [built.issue() for _ in range(5)]
    futures = []
    for one in issued:
        name = (one.issuer.authority_id, one.serial)
        futures += [
            built.revocations.hold(*name, by=BY),
            built.revocations.revoke(name[0], 99, COMPROMISE, by=BY),
            built.revocations.revoke(*name, COMPROMISE, by=BY),
            built.revocations.hold(*name, by=BY),
        ]
    for future in futures:
        future.exception()
    events = built.read(revocation_rows.list_events, issued[0].issuer.authority_id, after=0)
    assert [event.sequence for event in events] == list(range(1, 11))
