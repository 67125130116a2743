"""Whether a certificate of the installation is valid, and what happens when its status cannot be known."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from datetime import timedelta

import pytest
from sqlalchemy import delete, select, update

from tests.simulator.enrolment import Site, new_site
from tests.simulator.installation import GROUP, pack
from tests.simulator.presence import present
from tests.simulator.refusals import reason_of
from tests.simulator.stock import BY
from vagus.errors import NotTrusted
from vagus.fleet.database_status import DatabaseStatus, bounds_for
from vagus.identifiers import serial_bytes
from vagus.policy.values import Function
from vagus.reasons import Reason
from vagus.records.engine.commit_facts import RevocationEvent
from vagus.records.engine.tables import certificate_bytes, certificates
from vagus.records.lost_certificates import LOST
from vagus.records.revocation.revocations import REVOKE
from vagus.trust.anchors import AnchorSet
from vagus.trust.status import UnsafeNoStatus
from vagus.trust.validation import AcceptedIdentity, Expectation, Role, Validator
from vagus.x509.certificates import PathCertificate, decode_certificate
from vagus.x509.crls.building import RevocationReason


@pytest.fixture
def hospital() -> Iterator[Site]:
    with new_site() as built:
        yield built


def _pair(hospital: Site) -> tuple[PathCertificate, PathCertificate]:
    """A device's certificate and its issuer's."""
    issued = hospital.enrol(hospital.stock.add("SN-1"))
    return decode_certificate(issued.der), decode_certificate(issued.issuer.certificate_der)


def _status(hospital: Site, **more: object) -> DatabaseStatus:
    bound = timedelta(hours=1)
    return DatabaseStatus(hospital.stock.database, hospital.follower, bound=bound, **more)  # type: ignore[arg-type]


def _identity(hospital: Site, status: DatabaseStatus) -> AcceptedIdentity:
    """A device below unit, hospital and root, as a validator accepted it."""
    leaf, issuer = _pair(hospital)
    validator = Validator(AnchorSet.from_der((hospital.root.der,)), status)
    expectation = Expectation(role=Role.CLIENT, group_domain=GROUP)
    return validator.validate(leaf.der, (issuer.der, hospital.h1.der), expectation, hospital.stock.clock.now())


def _at_sight(status: DatabaseStatus, identity: AcceptedIdentity) -> Reason | None:
    try:
        status.check_accepted(identity)
    except NotTrusted as refusal:
        return refusal.reason
    return None


def test_a_known_path_is_checked_by_the_sequence_alone(hospital: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    status = _status(hospital)
    identity = _identity(hospital, status)
    authority_id = hospital.issuers["h1/icu"].authority_id
    monkeypatch.setattr(status, "_database", None)
    assert _at_sight(status, identity) is None
    hospital.revocations.hold(authority_id, identity.serial, by=BY).result(10)
    assert _at_sight(status, identity) is Reason.ON_HOLD
    hospital.revocations.release(authority_id, identity.serial, by=BY).result(10)
    assert _at_sight(status, identity) is None
    hospital.revocations.revoke(authority_id, identity.serial, RevocationReason.UNSPECIFIED, by=BY).result(10)
    assert _at_sight(status, identity) is Reason.REVOKED
    assert _at_sight(_status(hospital), identity) is None, "who never judged a path knows nothing of it"


@pytest.mark.parametrize("place", [1, 2])
def test_a_revoked_authority_is_found_anywhere_in_an_accepted_path(hospital: Site, place: int) -> None:
    status = _status(hospital)
    identity = _identity(hospital, status)
    above = (hospital.h1, hospital.root)[place - 1]
    step, serial = hospital.follower.position + 1, identity.path[place].serial
    hospital.follower._apply([RevocationEvent(step, above.authority_id, serial, REVOKE, 5, 0)], step)
    assert _at_sight(status, identity) is Reason.REVOKED_CA


def _reason(status: DatabaseStatus, leaf: PathCertificate, issuer: PathCertificate, hospital: Site) -> Reason:
    return reason_of(status.check_status, leaf, issuer, hospital.stock.clock.now(), error=NotTrusted)


def test_an_issued_certificate_is_valid_until_it_is_revoked(hospital: Site) -> None:
    leaf, issuer = _pair(hospital)
    status, at = _status(hospital), hospital.stock.clock.now()
    for _ in range(2):  # the second time from memory
        status.check_status(leaf, issuer, at)
    authority_id = hospital.issuers["h1/icu"].authority_id
    hospital.revocations.hold(authority_id, leaf.serial, by=BY).result(10)
    assert _reason(status, leaf, issuer, hospital) is Reason.ON_HOLD
    hospital.revocations.revoke(authority_id, leaf.serial, RevocationReason.UNSPECIFIED, by=BY).result(10)
    assert _reason(status, leaf, issuer, hospital) is Reason.REVOKED


def test_after_a_restore_lost_its_bytes_a_certificate_is_valid_by_its_ledger_entry(hospital: Site) -> None:
    leaf, issuer = _pair(hospital)
    forged = replace(leaf, tbs_der=leaf.tbs_der + b"x", sha256=bytes(32))
    with hospital.stock.database.writing() as connection:
        at = certificates.c.serial == serial_bytes(leaf.serial)
        index = connection.execute(select(certificates.c.leaf_index).where(at)).scalar_one()
        connection.execute(update(certificates).where(at).values(fingerprint=LOST))
        connection.execute(delete(certificate_bytes).where(certificate_bytes.c.leaf_index == index))
    assert _reason(_status(hospital), forged, issuer, hospital) is Reason.NOT_ISSUED
    _status(hospital).check_status(leaf, issuer, hospital.stock.clock.now())


def test_a_certificate_counts_before_the_row_of_its_signature_is_written(hospital: Site) -> None:
    leaf, issuer = _pair(hospital)
    with hospital.stock.database.writing() as connection:
        connection.exec_driver_sql("UPDATE certificates SET fingerprint = NULL WHERE device_id IS NOT NULL")
    _status(hospital).check_status(leaf, issuer, hospital.stock.clock.now())


def test_the_same_serial_with_other_contents_is_not_ours(hospital: Site) -> None:
    leaf, issuer = _pair(hospital)
    shadow = decode_certificate(hospital.forge.copy(leaf.der, hospital.units["h1/icu"]))
    assert shadow.serial == leaf.serial
    assert _reason(_status(hospital), shadow, issuer, hospital) is Reason.NOT_ISSUED
    with hospital.stock.database.writing() as connection:
        connection.exec_driver_sql("UPDATE certificates SET fingerprint = NULL WHERE device_id IS NOT NULL")
    other = decode_certificate(hospital.forge.copy(leaf.der, hospital.units["h1/icu"], lifetime=timedelta(days=9)))
    assert _reason(_status(hospital), other, issuer, hospital) is Reason.NOT_ISSUED


def test_a_serial_that_was_never_given_is_not_ours(hospital: Site) -> None:
    leaf, issuer = _pair(hospital)
    stolen = decode_certificate(hospital.forge.copy(leaf.der, hospital.units["h1/icu"], serial=12345))
    assert _reason(_status(hospital), stolen, issuer, hospital) is Reason.NOT_ISSUED


def test_a_sequence_that_cannot_be_read_proves_nothing(hospital: Site) -> None:
    leaf, issuer = _pair(hospital)
    status = _status(hospital)
    hospital.stock.clock.advance(minutes=59)
    status.check_status(leaf, issuer, hospital.stock.clock.now())
    hospital.stock.clock.advance(minutes=2)
    assert _reason(status, leaf, issuer, hospital) is Reason.SEQUENCE_LOST
    hospital.follower.catch_up()
    status.check_status(leaf, issuer, hospital.stock.clock.now())


def test_another_source_decides_for_a_foreign_issuer(hospital: Site) -> None:
    birth, _ = hospital.forge.birth_certificate(hospital.line, "SN-1")
    leaf, issuer = decode_certificate(birth), decode_certificate(hospital.line.der)
    assert _reason(_status(hospital), leaf, issuer, hospital) is Reason.STATUS_UNAVAILABLE
    _status(hospital, elsewhere=UnsafeNoStatus()).check_status(leaf, issuer, hospital.stock.clock.now())


def test_bounds_follow_the_policy_of_the_function() -> None:
    assert bounds_for(pack(), None) == bounds_for(pack(), Function.CONTROL)
    assert bounds_for(pack(), Function.CONTROL) == (timedelta(hours=24), timedelta())
    assert bounds_for(pack(), Function.TELEMETRY) == (timedelta(days=7), timedelta(hours=24))


def test_a_grace_lets_connections_go_on_longer_and_reports_it(hospital: Site) -> None:
    leaf, issuer = _pair(hospital)
    status = _status(hospital, grace=timedelta(minutes=30))
    hospital.stock.clock.advance(minutes=59)
    assert status.find_lapse(hospital.stock.clock.now()) is None
    hospital.stock.clock.advance(minutes=2)
    status.check_status(leaf, issuer, hospital.stock.clock.now())
    assert present(status.find_lapse(hospital.stock.clock.now())).reason is Reason.SEQUENCE_LOST
    stolen = decode_certificate(hospital.forge.copy(leaf.der, hospital.units["h1/icu"], serial=12346))
    assert _reason(status, stolen, issuer, hospital) is Reason.NOT_ISSUED, "a grace passes over age alone"
    hospital.stock.clock.advance(minutes=30)
    assert _reason(status, leaf, issuer, hospital) is Reason.SEQUENCE_LOST
    hospital.follower.catch_up()
    assert status.find_lapse(hospital.stock.clock.now()) is None
