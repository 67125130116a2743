"""One query finds all that a revocation decides by."""

from __future__ import annotations

from dataclasses import replace

from tests.simulator.presence import present
from tests.simulator.rows import authority, certificate
from vagus.records.certificates import HELD, INTENDED, set_state
from vagus.records.engine.database import Connection, Database
from vagus.records.keys import ACTIVE, BLOCKED, block_key, insert_key
from vagus.records.revocation import revocations as rows
from vagus.records.revocation.candidates import Revocable, find_revocable, find_revocable_serial
from vagus.records.revocation.revocations import RevocationRow


def test_a_certificate_is_found_by_leaf_and_by_name_with_its_issuer(connection: Connection) -> None:
    authority(connection)
    second = authority(connection, generation=2)
    one = certificate(connection, second, 5)
    expected = Revocable(
        certificate=replace(one, state=INTENDED),
        reference="h1/icu#2",
        key_state=None,
        is_key_shared=False,
        sequence=None,
        reason=None,
    )
    assert find_revocable(connection, 5) == expected
    assert find_revocable_serial(connection, second, one.serial) == expected


def test_nothing_is_found_of_another_leaf_serial_or_authority(connection: Connection) -> None:
    ca, other = authority(connection), authority(connection, generation=2)
    one = certificate(connection, ca, 5)
    assert find_revocable(connection, 6) is None
    assert find_revocable_serial(connection, ca, one.serial + 1) is None
    assert find_revocable_serial(connection, other, one.serial) is None


def test_the_key_is_known_or_not_blocked_or_not_shared_or_not(database: Database) -> None:
    key = b"k" * 32
    with database.writing() as connection:
        ca = authority(connection)
        certificate(connection, ca, 5, spki_sha256=key)
        alone = present(find_revocable(connection, 5))
        insert_key(connection, key, "device:a", at=1)
        certificate(connection, authority(connection, generation=2), 9, spki_sha256=key)
        shared = present(find_revocable(connection, 5))
        block_key(connection, key, "device:a", at=2)
        blocked = present(find_revocable(connection, 9))
    assert [(one.key_state, one.is_key_shared) for one in (alone, shared, blocked)] == [
        (None, False),
        (ACTIVE, True),
        (BLOCKED, True),
    ]


def test_its_place_among_the_revoked_is_the_present_one(database: Database) -> None:
    with database.writing() as connection:
        one = certificate(connection, authority(connection), 5)
        stands = RevocationRow(
            leaf_index=5,
            sequence=3,
            authority_id=one.authority_id,
            serial=one.serial,
            shard=one.shard,
            reason=6,
            revoked_at=500,
            not_after=one.not_after,
            entry_der=b"entry",
        )
        rows.put_revocation(connection, stands)
        set_state(connection, 5, HELD)
        held = present(find_revocable(connection, 5))
        rows.put_revocation(connection, replace(stands, sequence=4, reason=1))
        revoked = present(find_revocable(connection, 5))
        rows.delete_revocation(connection, 5)
        released = present(find_revocable(connection, 5))
    assert (held.sequence, held.reason, held.certificate.state) == (3, 6, HELD)
    assert (revoked.sequence, revoked.reason) == (4, 1)
    assert (released.sequence, released.reason) == (None, None)
