"""A row that was changed by hand, and that says who may do what, is found and named, whatever table it stands in."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from dataclasses import replace
from datetime import timedelta

import pytest
from sqlalchemy import Connection, Table, func, select

from tests.ledger.test_verify import add, change, remove
from tests.simulator.log import SALT, LogFixture
from tests.simulator.queries import find_token
from tests.simulator.refusals import refuses
from vagus.authority.lot_locks import lock_lot
from vagus.authority.revocation import block_key
from vagus.errors import IntegrityFailure, VagusError
from vagus.fleet.devices import change_device_state, lock_out_device, set_hold, transfer_device
from vagus.fleet.lifecycle import DeviceState
from vagus.fleet.tokens import make_token, spend_token
from vagus.identifiers import DeviceId, UnitName
from vagus.ledger.append import append
from vagus.ledger.certificate_check import find_fault
from vagus.ledger.entries import AuthorityCertified, GapAccepted, PolicyAdopted
from vagus.ledger.verify import verify_log
from vagus.reasons import Reason
from vagus.records.audit_rows import iterate_recorded_certificates
from vagus.records.authorities import certify_authority
from vagus.records.engine.tables import (
    authorities,
    authority_chain,
    certificate_bytes,
    certificates,
    devices,
    installation,
    keys,
    log_leaves,
    lot_locks,
    maker_anchors,
    models,
    tokens,
)
from vagus.records.engine.writer import Batch
from vagus.records.installation import set_policy
from vagus.records.revocation.device_lots import DeviceLot
from vagus.records.units import UnitRow, put_unit
from vagus.x509 import der
from vagus.x509.crls.building import RevocationReason

BY = "operator:someone"
GOOD, LOCKED, WAITING = DeviceId("a" * 26), DeviceId("b" * 25 + "a"), DeviceId("c" * 25 + "a")
SPENT, UNUSED, ENDED = "spent" * 6 + "aa", "fresh" * 6 + "aa", "ended" * 6 + "aa"
LEAKED = hashlib.sha256(b"leaked").digest()
AUTHORITY_DER = b"certificate of h1/icu#1"


def digest(text: str) -> bytes:
    return hashlib.sha256(text.encode()).digest()


@pytest.fixture
def lived(log: LogFixture) -> LogFixture:
    """Devices in several states and units, tokens of every kind, a blocked key, a policy, a certified authority."""
    for device_id in (GOOD, LOCKED, WAITING):
        log.add_device(str(device_id), state="received" if device_id == WAITING else "in_service")
    serials = log.issue(12)
    log.change(serials[2], "hold")
    log.change(serials[3])

    def act(batch: Batch) -> None:
        for text, device_id in ((SPENT, GOOD), (UNUSED, WAITING), (ENDED, LOCKED)):
            make_token(batch, text, device_id, life=timedelta(days=7), by=BY)
        row = find_token(batch.connection, digest(SPENT))
        assert row is not None
        spend_token(batch, row, hashlib.sha256(b"its key").digest())
        put_unit(batch.connection, UnitRow(UnitName("h1", "lab"), "H", "L"))
        transfer_device(batch, GOOD, UnitName("h1", "lab"), by=BY, overlap=timedelta(days=1))
        change_device_state(batch, GOOD, DeviceState.ON_LOAN, by=BY)
        lock_out_device(batch, LOCKED, RevocationReason.SUPERSEDED, by=BY)
        set_hold(batch, WAITING, is_held=True, by=BY)
        lock_lot(batch, DeviceLot(model="m", first_serial="1", last_serial="8"), is_hold=True, by=BY)
        lock_lot(batch, DeviceLot(model="m", first_serial="1", last_serial="8"), is_hold=False, by=BY)
        block_key(batch, LEAKED, by=BY)
        set_policy(batch.connection, bytes(32))
        append(batch, PolicyAdopted("pack", "1", bytes(32), BY))
        certify_authority(batch.connection, 1, AUTHORITY_DER, not_before=0, not_after=1, parent_id=None)
        append(batch, AuthorityCertified("h1/icu#1", 1, hashlib.sha256(AUTHORITY_DER).digest(), None))

    log.writer.submit(act).result(30)
    return log


def refused(log: LogFixture) -> VagusError:
    with refuses(Reason.LOG_TAMPERED, IntegrityFailure) as caught:
        verify_log(log.database, public_key=log.key.public_key)
    return caught.value


def every(table: Table, **values: object) -> Callable[[Connection], object]:
    return lambda connection: connection.execute(table.update().values(**values))


def of(device_id: DeviceId, **values: object) -> Callable[[Connection], object]:
    return change(devices, devices.c.id == str(device_id), **values)


def token(text: str, **values: object) -> Callable[[Connection], object]:
    return change(tokens, tokens.c.token_sha256 == digest(text), **values)


def certificate(**values: object) -> Callable[[Connection], object]:
    return change(certificates, certificates.c.leaf_index == ISSUED, **values)


def signed(connection: Connection, **values: object) -> None:
    row = certificate_bytes.c.leaf_index == ISSUED
    other = select(certificate_bytes.c.certificate_der).where(certificate_bytes.c.leaf_index == ISSUED + 1)
    forged = bytes(connection.execute(other).scalar_one())
    connection.execute(certificate_bytes.update().where(row).values(certificate_der=forged))
    certificate(fingerprint=hashlib.sha256(forged).digest())(connection)


def hold_in_place_of_revocation(connection: Connection) -> None:
    """Everything that says "revoked" says "held": a release would bring the certificate back."""
    connection.execute(certificates.update().where(certificates.c.state == "revoked").values(state="held"))


def forget_waiting(connection: Connection) -> None:
    remove(tokens, tokens.c.device_id == str(WAITING))(connection)
    remove(devices, devices.c.id == str(WAITING))(connection)


ISSUED = 6  # the leaf of some certificate: four entries stand before the first, and the authority's
NEW_DEVICE = {
    "id": "d" * 25 + "a", "unit": "h1/icu", "model": "m", "profile": "bedside", "maker_serial": "9",
    "state": "in_service", "added_at": 0, "changed_at": 0,
}  # fmt: skip
NEW_TOKEN = {"token_sha256": bytes(32), "device_id": str(WAITING), "made_at": 0, "expires_at": 1 << 40}
NEW_AUTHORITY = {
    "id": 9, "name": "h1/er", "generation": 1, "kind": "issuing_ca", "is_offline": False, "state": "active",
    "key_id": "k", "keystore": "k", "spki_sha256": b"k" * 32, "constrain_dn": False,
}  # fmt: skip
NEW_CHAIN = {"authority_id": 1, "position": 0, "certificate_der": b"mine"}
NEW_ANCHOR = {"sha256": digest("x"), "maker": "maker", "certificate_der": b"x", "added_at": 0}

CHANGES: dict[str, tuple[str, Callable[[Connection], object]]] = {
    "a locked device let in again": (str(LOCKED), of(LOCKED, state="in_service")),
    "a device moved to another unit": (str(GOOD), of(GOOD, unit="h1/icu")),
    "a device under another profile": (str(GOOD), of(GOOD, profile="gateway")),
    "a device that may show itself as a server": (str(GOOD), of(GOOD, host_names='["enrol.h1.test"]')),
    "a device that another serial speaks for": (str(GOOD), of(GOOD, maker_serial="9")),
    "a device slipped in": ("d" * 25 + "a", add(devices, **NEW_DEVICE)),
    "a device taken out": ("inventory", forget_waiting),
    "a device on hold let in again": (str(WAITING), of(WAITING, held_at=None)),
    "a device put on hold": (str(GOOD), of(GOOD, held_at=1)),
    "a recalled lot forgotten": ("lot lock 2", remove(lot_locks, lot_locks.c.id == 2)),
    "a recalled lot made smaller": ("lot lock 2", change(lot_locks, lot_locks.c.id == 2, first_serial="2")),
    "a recall ended": ("lot lock 2", every(lot_locks, ended_at=1)),
    "a hold on a lot that has ended, begun again": ("lot lock 1", every(lot_locks, ended_at=None)),
    "a token slipped in": (str(WAITING), add(tokens, **NEW_TOKEN)),
    "a spent token made fresh": (str(GOOD), token(SPENT, bound_spki_sha256=None, used_at=None)),
    "a spent token for another key": (str(GOOD), token(SPENT, bound_spki_sha256=bytes(32))),
    "a spent token used later": (str(GOOD), token(SPENT, used_at=1 << 40)),
    "an ended token that lives": (str(LOCKED), token(ENDED, expires_at=1 << 40)),
    "an unused token that lives longer": (str(WAITING), token(UNUSED, expires_at=1 << 40)),
    "a token given to another device": (str(GOOD), token(UNUSED, device_id=str(GOOD))),
    "a token taken out": ("missing", remove(tokens, tokens.c.token_sha256 == digest(UNUSED))),
    "a blocked key that may be certified": (LEAKED.hex(), change(keys, keys.c.spki_sha256 == LEAKED, state="active")),
    "a blocked key forgotten": (LEAKED.hex(), remove(keys, keys.c.spki_sha256 == LEAKED)),
    "a key slipped in": ("key", add(keys, spki_sha256=b"n" * 32, owner="device:x", state="active", since=0)),
    "keys blocked": ("blocked", every(keys, state="blocked")),
    "a key given to another": ("owner", every(keys, owner="device:x")),
    "an anchor slipped in": (digest("x").hex(), add(maker_anchors, **NEW_ANCHOR)),
    "an anchor in place of another": ("another certificate", every(maker_anchors, certificate_der=b"mine")),
    "an anchor taken out": ("anchor", lambda c: c.execute(maker_anchors.delete())),
    "a model whose devices get another profile": ("model m", every(models, profile="gateway")),
    "a model under another anchor": ("model m", every(models, anchor_sha256=digest("x"))),
    "a model slipped in": ("model n", add(models, name="n", maker="m", category="c", profile="p")),
    "an authority's other certificate": ("certificate", every(authorities, certificate_der=b"mine")),
    "an authority retired": ("state retired", every(authorities, state="retired")),
    "an authority of another kind": ("kind", every(authorities, kind="sdc_ca")),
    "an authority with another key": ("key", every(authorities, spki_sha256=b"k" * 32)),
    "an authority that was offline": ("offline", every(authorities, is_offline=True)),
    "a certificate above an authority": ("chain", add(authority_chain, **NEW_CHAIN)),
    "an authority slipped in": ("h1/er#1", add(authorities, **NEW_AUTHORITY)),
    "another policy": ("policy", every(installation, policy_sha256=b"p" * 32)),
    "a revocation turned into a hold": ("state", hold_in_place_of_revocation),
    "a certificate that ends earlier, so that it is never revoked": ("validity", certificate(not_after=0)),
    "a certificate of another device": ("device", certificate(device_id=str(LOCKED))),
    "a certificate that is not signed": ("signed", certificate(state="intended")),
    "another fingerprint": ("fingerprint", certificate(fingerprint=bytes(32))),
    "another certificate's bytes": ("another certificate", signed),
}


def test_the_fixture_is_sound(lived: LogFixture) -> None:
    assert verify_log(lived.database, public_key=lived.key.public_key).certificates == 12


@pytest.mark.parametrize("what", CHANGES)
def test_a_row_changed_by_hand_is_found_and_named(lived: LogFixture, what: str) -> None:
    named, make = CHANGES[what]

    lived.writer.submit(lambda batch: make(batch.connection)).result(30)
    error = refused(lived)
    assert named in error.message, error.message


def test_a_move_that_the_log_never_saw_is_found_though_the_device_moved_on(lived: LogFixture) -> None:
    """Let in by hand, then moved by a command: the log would say where it is, and not how it came there."""

    def act(batch: Batch) -> None:
        of(LOCKED, state="in_service")(batch.connection)
        change_device_state(batch, LOCKED, DeviceState.ON_LOAN, by=BY)

    lived.writer.submit(act).result(30)
    assert "quarantined" in refused(lived).message


def test_a_certificate_moved_to_another_crl_is_found(lived: LogFixture) -> None:
    """Both rows say shard 7, the certificate itself points at shard 0: its revocation would never be seen."""
    with lived.database.reading() as connection:
        row = next(iter(iterate_recorded_certificates(connection)))
    assert row.tbs_der is not None
    pointer = der.octet_string(b"http://status.example/crl/h1.icu/1/0.crl")
    tbs_der = der.sequence(der.content_of(row.tbs_der, der.SEQUENCE), pointer)
    signed_der = der.sequence(tbs_der)
    fingerprint = hashlib.sha256(signed_der).digest()
    told = replace(row, tbs_der=tbs_der, certificate_der=signed_der, fingerprint=fingerprint, shard=0)
    assert find_fault(told, SALT) is None
    assert find_fault(replace(told, shard=7), SALT) == "its row has another CRL than its bytes"


def test_a_gap_that_an_operator_settled_excuses_what_was_lost_in_it_and_nothing_else(lived: LogFixture) -> None:
    with lived.database.reading() as connection:
        start = connection.execute(select(func.max(log_leaves.c.leaf_index))).scalar_one() + 1
    late = "later" * 6 + "aa"
    lived.add_device("e" * 26)
    lived.writer.submit(lambda batch: make_token(batch, late, GOOD, life=timedelta(days=1), by=BY)).result(30)

    def lose(batch: Batch) -> None:
        batch.connection.execute(devices.delete().where(devices.c.id == "e" * 26))
        batch.connection.execute(tokens.delete().where(tokens.c.token_sha256 == digest(late)))

    lived.writer.submit(lose).result(30)
    assert "missing" in refused(lived).message
    lived.writer.submit(lambda batch: append(batch, GapAccepted(start, start + 2, "accepted", BY))).result(30)
    verify_log(lived.database, public_key=lived.key.public_key)
    lived.writer.submit(lambda batch: of(LOCKED, state="in_service")(batch.connection)).result(30)
    assert str(LOCKED) in refused(lived).message
