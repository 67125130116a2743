"""One query finds what four would find, and shows which part is missing."""

from __future__ import annotations

import hashlib

import pytest

from tests.simulator.presence import present
from tests.simulator.rows import authority, certificate
from tests.simulator.stock import ICU, device
from vagus.identifiers import DeviceId
from vagus.records import certificates
from vagus.records.applicants import ApplicantNow, ApplicantRow, find_by_device, find_by_token, recheck_applicant
from vagus.records.devices import insert_devices, set_device_state
from vagus.records.engine.database import Connection, Database
from vagus.records.models import ModelRow, put_model
from vagus.records.tokens import TokenRow, bind_token, insert_token
from vagus.records.units import UnitRow, put_unit

HASH = hashlib.sha256(b"token").digest()
UNIT = UnitRow(ICU, "Hospital h1", "ICU")
DEVICE = device(1)
TOKEN = TokenRow(HASH, DEVICE.id, 100, 200)


@pytest.fixture
def database(database: Database) -> Database:
    with database.writing() as connection:
        put_unit(connection, UNIT)
        put_model(connection, ModelRow("pump", "Acme", "infusion-pump", "bedside"))
        for number in (1, 2):
            insert_devices(connection, [device(number)])
        insert_token(connection, TOKEN)
    return database


def _now(
    connection: Connection, *, of: DeviceId = DEVICE.id, shown: bytes | None = None, at: int = 150
) -> ApplicantNow:
    return recheck_applicant(connection, of, token_sha256=HASH, shown_sha256=shown, at=at)


def test_a_token_leads_to_its_device_and_unit(database: Database) -> None:
    assert find_by_token(database, HASH) == ApplicantRow(DEVICE, UNIT, TOKEN)
    assert find_by_token(database, b"other") is None


def test_a_device_leads_to_its_unit(database: Database) -> None:
    assert find_by_device(database, device(2).id) == ApplicantRow(device(2), UNIT)
    assert find_by_device(database, device(3).id) == ApplicantRow(None, None)


def test_the_recheck_sees_what_the_batch_has_changed(connection: Connection) -> None:
    assert _now(connection) == ApplicantNow(DEVICE, TOKEN, is_held=False, shown_state=None)
    assert bind_token(connection, HASH, b"key", request_id=None, at=150)
    assert set_device_state(connection, DEVICE.id, before="received", after="recalled", at=150)
    seen = _now(connection)
    assert present(seen.device).state == "recalled"
    assert present(seen.token).bound_spki_sha256 == b"key"


def test_a_missing_token_hides_no_device_and_a_missing_device_hides_all(connection: Connection) -> None:
    bare = recheck_applicant(connection, DEVICE.id, token_sha256=None, shown_sha256=None, at=150)
    assert bare == ApplicantNow(DEVICE, None, is_held=False, shown_state=None)
    assert _now(connection, of=device(3).id) == ApplicantNow(None, None, is_held=False, shown_state=None)


def test_a_hold_counts_for_its_own_device_until_the_certificate_ends(connection: Connection) -> None:
    row = certificate(connection, authority(connection), 5, device_id=DEVICE.id.text, not_after=300)
    certificates.set_state(connection, row.leaf_index, certificates.HELD)
    assert _now(connection, at=299).is_held
    assert not _now(connection, at=300).is_held
    assert not _now(connection, of=device(2).id, at=299).is_held


@pytest.mark.parametrize("state", [certificates.ISSUED, certificates.REVOKED, certificates.HELD])
def test_the_state_of_the_presented_certificate_is_found_for_any_owner(connection: Connection, state: str) -> None:
    certificate(connection, authority(connection), 5, device_id=device(2).id.text)
    certificates.note_signature(connection, 5, b"der", b"1" * 32)
    certificates.set_state(connection, 5, state)
    assert _now(connection, shown=b"1" * 32).shown_state == state
    assert _now(connection, shown=b"2" * 32).shown_state is None
