"""Which kind of evidence a request carries, and what no kind may do."""

from __future__ import annotations

import pytest

from tests.simulator.enrolment import Site
from tests.simulator.installation import GROUP
from tests.simulator.orders import new_key, spki
from tests.simulator.refusals import reason_of, refuses
from vagus.authority.issuance import IssuedCertificate
from vagus.fleet.admission import ListenerRules
from vagus.fleet.enrolment.evidence import (
    CurrentCertificate,
    MakerCertificate,
    OneTimeToken,
    RelayedToken,
    find_applicant,
    read_evidence,
)
from vagus.fleet.tokens import REPEAT
from vagus.reasons import Reason
from vagus.records.devices import DeviceRow


@pytest.fixture(scope="module")
def device(hospital: Site) -> DeviceRow:
    return hospital.stock.add("SN-1")


@pytest.fixture(scope="module")
def issued(hospital: Site, device: DeviceRow) -> IssuedCertificate:
    return hospital.enrol(device)


def test_a_request_carries_one_kind_of_evidence(hospital: Site, device: DeviceRow, issued: IssuedCertificate) -> None:
    own = hospital.admit_device(issued)
    rules = ListenerRules(function=None, group_domain=GROUP, registration_authorities=frozenset({device.id}))
    authority = hospital.admit_device(issued, rules)
    idevid, _ = hospital.forge.birth_certificate(hospital.line, device.maker_serial)
    maker = hospital.admit(idevid, hospital.line.der)
    assert read_evidence(own) == CurrentCertificate(own)
    assert read_evidence(maker) == MakerCertificate(maker)
    assert read_evidence(None, "t", "name") == OneTimeToken("t", "name")
    assert read_evidence(own, "t") == OneTimeToken("t", None, own), "a token outranks the connection"
    assert read_evidence(authority, "t") == RelayedToken("t", None, authority)
    for anonymous in (None, hospital.admit(None)):
        assert reason_of(read_evidence, anonymous) is Reason.CREDENTIAL_MISSING


def test_only_a_registration_authority_relays_other_devices_tokens(hospital: Site, issued: IssuedCertificate) -> None:
    """A protocol that builds the wrong kind of evidence gains nothing."""
    evidence = RelayedToken(hospital.token(hospital.stock.add("SN-2")), None, hospital.admit_device(issued))
    at, key = hospital.stock.clock.now(), spki(new_key())
    with refuses(Reason.IDENTITY_AMBIGUOUS):
        find_applicant(hospital.stock.database, evidence, key, at, is_renewal=False, token_repeat=REPEAT)


def test_a_connection_without_a_device_is_no_certificate_of_one(hospital: Site) -> None:
    evidence, at = CurrentCertificate(hospital.admit(None)), hospital.stock.clock.now()
    with refuses(Reason.CREDENTIAL_MISSING):
        find_applicant(hospital.stock.database, evidence, bytes(32), at, is_renewal=True, token_repeat=REPEAT)


def test_evidence_never_shows_its_token(hospital: Site, issued: IssuedCertificate) -> None:
    assert "tttt" not in repr(OneTimeToken("t" * 32))
    assert "tttt" not in repr(RelayedToken("t" * 32, None, hospital.admit_device(issued)))
