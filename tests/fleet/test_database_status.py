"""Whether a certificate of the house stands, and what is said when nobody can know."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from datetime import timedelta

import pytest
from sqlalchemy import delete, select, update

from tests.simulator.enrolment import GROUP, House, house, pack, request
from tests.simulator.stock import BY
from vagus.errors import NotTrusted
from vagus.fleet.database_status import DatabaseStatus, bounds_for
from vagus.fleet.enrolment.enrol import EnrolmentRequest, Kind
from vagus.fleet.enrolment.evidence import OneTimeToken
from vagus.identifiers import serial_bytes
from vagus.policy.values import Function
from vagus.reasons import Reason
from vagus.records.engine.tables import certificate_bytes, certificates
from vagus.records.lost_certificates import LOST
from vagus.records.revocation.revocations import REVOKE, RevocationEvent
from vagus.trust.anchors import AnchorSet
from vagus.trust.status import UnsafeNoStatus
from vagus.trust.validation import AcceptedIdentity, Expectation, Role, Validator
from vagus.x509.certificates import PathCertificate, decode_certificate
from vagus.x509.crls.building import RevocationReason


@pytest.fixture
def standing() -> Iterator[House]:
    with house() as built:
        yield built


def _pair(standing: House) -> tuple[PathCertificate, PathCertificate]:
    """A device's certificate and its issuer's."""
    device = standing.stock.add("SN-1")
    wish = EnrolmentRequest(
        csr=request(), kind=Kind.ENROL, protocol="est", evidence=OneTimeToken(standing.token(device))
    )
    issued = standing.enrolment.enrol(wish, standing.stock.clock.now())
    standing.stock.writer.submit(lambda _: None).result(10)  # the row of the signature is written
    return decode_certificate(issued.der), decode_certificate(issued.issuer.certificate_der)


def _status(standing: House, **more: object) -> DatabaseStatus:
    bound = timedelta(hours=1)
    return DatabaseStatus(standing.stock.database, standing.follower, bound=bound, **more)  # type: ignore[arg-type]


def _identity(standing: House, status: DatabaseStatus) -> AcceptedIdentity:
    """A device below unit, hospital and root, as a validator accepted it."""
    leaf, issuer = _pair(standing)
    validator = Validator(AnchorSet.from_der((standing.root.der,)), status)
    expectation = Expectation(role=Role.CLIENT, group_domain=GROUP)
    return validator.validate(leaf.der, (issuer.der, standing.h1.der), expectation, standing.stock.clock.now())


def _at_sight(status: DatabaseStatus, identity: AcceptedIdentity) -> Reason | None:
    try:
        status.check_accepted(identity)
    except NotTrusted as refusal:
        return refusal.reason
    return None


def test_a_look_at_a_known_path_sees_what_the_sequence_says_and_asks_no_database(
    standing: House, monkeypatch: pytest.MonkeyPatch
) -> None:
    status = _status(standing)
    identity = _identity(standing, status)
    authority_id = standing.issuers["h1/icu"].authority_id
    monkeypatch.setattr(status, "_database", None)
    assert _at_sight(status, identity) is None
    standing.revocations.hold(authority_id, identity.serial, by=BY).result(10)
    assert _at_sight(status, identity) is Reason.ON_HOLD
    standing.revocations.release(authority_id, identity.serial, by=BY).result(10)
    assert _at_sight(status, identity) is None
    standing.revocations.revoke(authority_id, identity.serial, RevocationReason.UNSPECIFIED, by=BY).result(10)
    assert _at_sight(status, identity) is Reason.REVOKED
    assert _at_sight(_status(standing), identity) is None, "who never judged a path knows nothing of it"


@pytest.mark.parametrize("place", [1, 2])
def test_a_look_sees_a_revoked_authority_wherever_it_stands(standing: House, place: int) -> None:
    status = _status(standing)
    identity = _identity(standing, status)
    above = (standing.h1, standing.root)[place - 1]
    event = RevocationEvent(
        standing.follower.position + 1, above.authority_id, identity.path[place].serial, REVOKE, 5, 0
    )
    standing.follower._apply([event], event.sequence)
    assert _at_sight(status, identity) is Reason.REVOKED_CA


def _reason(status: DatabaseStatus, leaf: PathCertificate, issuer: PathCertificate, standing: House) -> Reason:
    with pytest.raises(NotTrusted) as caught:
        status.check_status(leaf, issuer, standing.stock.clock.now())
    return caught.value.reason


def test_what_was_issued_stands_until_it_is_revoked(standing: House) -> None:
    leaf, issuer = _pair(standing)
    status, at = _status(standing), standing.stock.clock.now()
    for _ in range(2):  # the second time from memory
        status.check_status(leaf, issuer, at)
    authority_id = standing.issuers["h1/icu"].authority_id
    standing.revocations.hold(authority_id, leaf.serial, by=BY).result(10)
    assert _reason(status, leaf, issuer, standing) is Reason.ON_HOLD
    standing.revocations.revoke(authority_id, leaf.serial, RevocationReason.UNSPECIFIED, by=BY).result(10)
    assert _reason(status, leaf, issuer, standing) is Reason.REVOKED


def test_a_certificate_whose_bytes_a_restore_lost_stands_by_its_entry_in_the_ledger(standing: House) -> None:
    leaf, issuer = _pair(standing)
    forged = replace(leaf, tbs_der=leaf.tbs_der + b"x", sha256=bytes(32))
    with standing.stock.database.writing() as connection:
        at = certificates.c.serial == serial_bytes(leaf.serial)
        index = connection.execute(select(certificates.c.leaf_index).where(at)).scalar_one()
        connection.execute(update(certificates).where(at).values(fingerprint=LOST))
        connection.execute(delete(certificate_bytes).where(certificate_bytes.c.leaf_index == index))
    assert _reason(_status(standing), forged, issuer, standing) is Reason.NOT_ISSUED
    _status(standing).check_status(leaf, issuer, standing.stock.clock.now())


def test_a_certificate_counts_before_the_row_of_its_signature_is_written(standing: House) -> None:
    leaf, issuer = _pair(standing)
    with standing.stock.database.writing() as connection:
        connection.exec_driver_sql("UPDATE certificates SET fingerprint = NULL WHERE device_id IS NOT NULL")
    _status(standing).check_status(leaf, issuer, standing.stock.clock.now())


def test_the_same_serial_with_other_contents_is_not_ours(standing: House) -> None:
    leaf, issuer = _pair(standing)
    shadow = decode_certificate(standing.forge.copy(leaf.der, standing.units["h1/icu"]))
    assert shadow.serial == leaf.serial
    assert _reason(_status(standing), shadow, issuer, standing) is Reason.NOT_ISSUED
    with standing.stock.database.writing() as connection:
        connection.exec_driver_sql("UPDATE certificates SET fingerprint = NULL WHERE device_id IS NOT NULL")
    other = decode_certificate(standing.forge.copy(leaf.der, standing.units["h1/icu"], lifetime=timedelta(days=9)))
    assert _reason(_status(standing), other, issuer, standing) is Reason.NOT_ISSUED


def test_a_serial_that_was_never_given_is_not_ours(standing: House) -> None:
    leaf, issuer = _pair(standing)
    stolen = decode_certificate(standing.forge.copy(leaf.der, standing.units["h1/icu"], serial=12345))
    assert _reason(_status(standing), stolen, issuer, standing) is Reason.NOT_ISSUED


def test_a_sequence_out_of_sight_proves_nothing(standing: House) -> None:
    leaf, issuer = _pair(standing)
    status = _status(standing)
    standing.stock.clock.advance(minutes=59)
    status.check_status(leaf, issuer, standing.stock.clock.now())
    standing.stock.clock.advance(minutes=2)
    assert _reason(status, leaf, issuer, standing) is Reason.SEQUENCE_LOST
    standing.follower.catch_up()
    status.check_status(leaf, issuer, standing.stock.clock.now())


def test_a_foreign_issuer_is_somebody_elses_to_judge(standing: House) -> None:
    birth, _ = standing.forge.birth_certificate(standing.line, "SN-1")
    leaf, issuer = decode_certificate(birth), decode_certificate(standing.line.der)
    assert _reason(_status(standing), leaf, issuer, standing) is Reason.STATUS_UNAVAILABLE
    _status(standing, elsewhere=UnsafeNoStatus()).check_status(leaf, issuer, standing.stock.clock.now())


def test_bounds_follow_the_policy_of_the_function() -> None:
    assert bounds_for(pack(), None) == bounds_for(pack(), Function.CONTROL)
    assert bounds_for(pack(), Function.CONTROL) == (timedelta(hours=24), timedelta())
    assert bounds_for(pack(), Function.TELEMETRY) == (timedelta(days=7), timedelta(hours=24))


def test_a_grace_lets_pass_a_while_longer_and_says_so(standing: House) -> None:
    leaf, issuer = _pair(standing)
    status = _status(standing, grace=timedelta(minutes=30))
    standing.stock.clock.advance(minutes=59)
    assert status.find_lapse(standing.stock.clock.now()) is None
    standing.stock.clock.advance(minutes=2)
    status.check_status(leaf, issuer, standing.stock.clock.now())
    lapse = status.find_lapse(standing.stock.clock.now())
    assert lapse is not None
    assert lapse.reason is Reason.SEQUENCE_LOST
    stolen = decode_certificate(standing.forge.copy(leaf.der, standing.units["h1/icu"], serial=12346))
    assert _reason(status, stolen, issuer, standing) is Reason.NOT_ISSUED, "a grace passes over age alone"
    standing.stock.clock.advance(minutes=30)
    assert _reason(status, leaf, issuer, standing) is Reason.SEQUENCE_LOST
    standing.follower.catch_up()
    assert status.find_lapse(standing.stock.clock.now()) is None
