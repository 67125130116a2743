"""Certificates that an operator approves for a device: the same path, checks and names as an enrolment's."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import rsa

from tests.simulator.enrolment import Site, request, wish
from tests.simulator.installation import GROUP, pack
from tests.simulator.orders import common_name, new_key, signing_request
from tests.simulator.presence import present
from tests.simulator.refusals import reason_of
from tests.simulator.stock import BY
from vagus.authority.issuance import Issuance, IssuedCertificate
from vagus.fleet.admission import ListenerRules
from vagus.fleet.devices import load_device
from vagus.fleet.enrolment.approvals import PROTOCOL, find_occasion
from vagus.fleet.enrolment.enrol import Enrolment, EnrolmentRequest, Kind
from vagus.fleet.enrolment.evidence import OperatorApproval
from vagus.fleet.lifecycle import DeviceState
from vagus.ledger.entries import IssuanceRecorded, OperatorAct
from vagus.policy.values import Function
from vagus.reasons import Reason
from vagus.records.certificates import BY_OPERATOR, find_by_leaf
from vagus.records.devices import DeviceRow, set_device_host_names
from vagus.testing import SeededEntropy
from vagus.x509.algorithms import KeyAlgorithm
from vagus.x509.crls.building import RevocationReason
from vagus.x509.requests import CertificateRequest, decode_request

_SERIALS = iter(range(1_000_000))
ANNA = "operator:anna"


@pytest.fixture
def device(hospital: Site) -> DeviceRow:
    return hospital.stock.add(f"AN-{next(_SERIALS)}")


def approve(
    hospital: Site,
    device: DeviceRow,
    csr: CertificateRequest,
    *,
    label: str | None = None,
    enrolment: Enrolment | None = None,
    **more: Any,
) -> IssuedCertificate:
    """What `vagus device certify` does with the request."""
    hospital.stock.settle()
    at, key = hospital.stock.clock.now(), csr.public_key.spki_sha256
    with hospital.stock.database.reading() as connection:
        now = load_device(connection, device.id)
        occasion = find_occasion(connection, now, key, pack(), label=label, at=at)
    evidence = OperatorApproval(device_id=device.id, by=ANNA, occasion=occasion, **more)
    wanted = EnrolmentRequest(csr=csr, kind=Kind.ENROL, evidence=evidence, protocol=PROTOCOL, label=label)
    return (enrolment or hospital.enrolment).enrol(wanted, at)


def approvals(hospital: Site) -> list[OperatorAct]:
    hospital.stock.settle()
    acts = [entry for entry in hospital.stock.entries() if isinstance(entry, OperatorAct)]
    return [entry for entry in acts if entry.act == "device-certified"]


def weak_request() -> CertificateRequest:
    key: Any = rsa.generate_private_key(65537, 2048)
    return decode_request(signing_request(key, common_name("old printer")))


@pytest.fixture
def lenient(hospital: Site) -> Enrolment:
    """Enrolment under a pack that allows RSA-2048 for bedside devices."""
    stock, known = hospital.stock, pack()
    bedside = known.profiles["bedside"]
    allowed = replace(bedside, key_algorithms=bedside.key_algorithms | {KeyAlgorithm.RSA2048})
    own = replace(known, profiles={**known.profiles, "bedside": allowed})
    issuance = Issuance(own, stock.writer, stock.clock, SeededEntropy(77))
    return Enrolment(stock.database, stock.writer, issuance, hospital.issuers, group_domain=GROUP)


def test_an_approval_gets_what_the_inventory_says_and_the_ledger_says_who_gave_it(
    hospital: Site, device: DeviceRow
) -> None:
    before = len(approvals(hospital))
    csr = request(dns_names=("er.h1.group.example", "evil.test"))
    issued = approve(hospital, device, csr)
    certificate = x509.load_der_x509_certificate(issued.der)
    names = certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    assert names.get_values_for_type(x509.DNSName) == [hospital.name(device)]
    assert hospital.admit_device(issued).device == replace(device, state="commissioned")
    (entry,) = approvals(hospital)[before:]
    assert (entry.detail_sha256, entry.reason) == (csr.public_key.spki_sha256, None)
    with hospital.stock.database.reading() as connection:
        assert load_device(connection, device.id).state == DeviceState.COMMISSIONED
        assert present(find_by_leaf(connection, issued.leaf_index)).request_id.startswith(BY_OPERATOR)
    every = hospital.stock.entries()
    before_it = every[every.index(entry) - 1]
    assert isinstance(before_it, IssuanceRecorded)
    assert before_it.spki_sha256 == entry.detail_sha256


def test_a_key_gets_its_certificate_again_until_the_time_to_renew_and_then_the_next_one(
    hospital: Site, device: DeviceRow
) -> None:
    key = new_key()
    first = approve(hospital, device, request(key))
    entries = len(approvals(hospital))
    assert approve(hospital, device, request(key)).der == first.der, "another request for the same key"
    hospital.stock.clock.advance(days=600)
    assert approve(hospital, device, request(key)).der == first.der
    assert len(approvals(hospital)) == entries
    hospital.stock.clock.advance(days=80)
    second = approve(hospital, device, request(key))
    assert second.serial != first.serial
    assert approve(hospital, device, request(key)).der == second.der
    assert len(approvals(hospital)) == entries + 1
    assert approve(hospital, device, request()).serial not in {first.serial, second.serial}


def test_a_server_whose_host_names_changed_is_certified_anew(hospital: Site) -> None:
    pacs = hospital.stock.add(f"AN-{next(_SERIALS)}", host_names=("pacs.h1.group.example",))
    key = new_key()
    first = approve(hospital, pacs, request(key), label="server")
    assert first.issuer.name == "h1/infra"
    assert approve(hospital, pacs, request(key), label="server").der == first.der
    own = approve(hospital, pacs, request(key))
    assert own.issuer.name == "h1/icu", "the two certificates of a server may have one key"
    names = ("pacs-2.h1.group.example",)
    hospital.stock.writer.submit(
        lambda batch: set_device_host_names(batch.connection, pacs.id, names, at=batch.at)
    ).result(10)
    assert approve(hospital, pacs, request(key), label="server").serial != first.serial
    assert approve(hospital, pacs, request(key)).der == own.der


def test_an_approval_is_no_way_around_a_state_a_hold_or_a_revocation(hospital: Site, device: DeviceRow) -> None:
    key, inventory = new_key(), hospital.stock.inventory
    issued = approve(hospital, device, request(key))
    inventory.hold(device.id, by=BY).result(10)
    assert reason_of(approve, hospital, device, request()) is Reason.ON_HOLD
    inventory.release(device.id, by=BY).result(10)
    assert approve(hospital, device, request(key)).der == issued.der
    hospital.revocations.revoke(issued.issuer.authority_id, issued.serial, RevocationReason.SUPERSEDED, by=BY).result(
        10
    )
    assert reason_of(approve, hospital, device, request(key)) is Reason.REVOKED
    approve(hospital, device, request())
    inventory.lock_out(device.id, RevocationReason.KEY_COMPROMISE, by=BY).result(10)
    before = len(approvals(hospital))
    assert reason_of(approve, hospital, device, request()) is Reason.DEVICE_STATE
    assert len(approvals(hospital)) == before


def test_a_key_of_another_device_is_refused_whatever_an_operator_says(hospital: Site, device: DeviceRow) -> None:
    key, other = new_key(), hospital.stock.add(f"AN-{next(_SERIALS)}")
    approve(hospital, device, request(key))
    assert reason_of(approve, hospital, other, request(key)) is Reason.KEY_REUSE
    approve(hospital, other, request())


def test_rsa_2048_needs_a_pack_that_allows_it_and_an_operator_who_says_why(
    hospital: Site, device: DeviceRow, lenient: Enrolment
) -> None:
    csr, why = weak_request(), "firmware 2.1 makes no other key (ersetzt: März 2027)"
    before = len(approvals(hospital))
    assert reason_of(approve, hospital, device, csr, weak_key_reason=why) is Reason.UNSUPPORTED_ALGORITHM
    assert reason_of(approve, hospital, device, csr, enrolment=lenient) is Reason.WEAK_KEY
    token = wish(hospital.token(device), csr=csr)
    assert reason_of(lenient.enrol, token, hospital.stock.clock.now()) is Reason.WEAK_KEY
    assert len(approvals(hospital)) == before
    issued = approve(hospital, device, csr, enrolment=lenient, weak_key_reason=why)
    (entry,) = approvals(hospital)[before:]
    assert (entry.detail_sha256, entry.reason) == (csr.public_key.spki_sha256, why)
    rules = ListenerRules(function=Function.TELEMETRY, group_domain=GROUP, units=frozenset({"h1/icu"}))
    assert present(hospital.admit_device(issued, rules).device).id == device.id, "gateways admit it"


def test_a_server_enrols_with_rsa_2048_as_ever_and_an_operator_gives_a_reason_for_it(hospital: Site) -> None:
    pacs = hospital.stock.add(f"AN-{next(_SERIALS)}", host_names=("old-pacs.h1.group.example",))
    csr = weak_request()
    assert reason_of(approve, hospital, pacs, csr, label="server") is Reason.WEAK_KEY
    issued = approve(hospital, pacs, csr, label="server", weak_key_reason="its web server has no other")
    hospital.stock.settle()
    anew = wish(hospital.token(pacs), csr=weak_request(), label="server")
    assert hospital.enrolment.enrol(anew, hospital.stock.clock.now()).serial != issued.serial
