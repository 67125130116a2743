"""Which device gets a certificate, by which evidence, with which names; and what a refusal records."""

from __future__ import annotations

import base64
import hashlib
from datetime import timedelta
from typing import Any

import pytest
from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec

from tests.simulator.enrolment import Site, request, wish
from tests.simulator.installation import GROUP, pack
from tests.simulator.orders import new_key, signing_request, spki
from tests.simulator.presence import present
from tests.simulator.queries import list_tokens_of
from tests.simulator.refusals import reason_of
from tests.simulator.stock import BY, ER, ICU
from vagus.authority.issuance import Issuance, IssuanceOrder, IssuedCertificate, Prepared
from vagus.authority.issuers import Issuer
from vagus.fleet.admission import Admitted, ListenerRules
from vagus.fleet.devices import NewDevice, load_device
from vagus.fleet.enrolment.enrol import Enrolment, EnrolmentRequest, Kind
from vagus.fleet.enrolment.evidence import read_evidence
from vagus.fleet.lifecycle import DeviceState
from vagus.fleet.tokens import draw_token
from vagus.ledger.entries import AuthenticatedRefusal, IssuanceRecorded, TokenSpent
from vagus.reasons import Reason
from vagus.records.certificates import find_by_request
from vagus.records.devices import DeviceRow, set_device_host_names
from vagus.records.installation import set_restored, set_settled
from vagus.records.models import ModelRow, put_model
from vagus.testing import SeededEntropy
from vagus.x509.crls.building import RevocationReason
from vagus.x509.oids import SDC_PROVIDER
from vagus.x509.requests import CertificateRequest, decode_request

_SERIALS = iter(range(1_000_000))


@pytest.fixture
def device(hospital: Site) -> DeviceRow:
    return hospital.stock.add(f"SN-{next(_SERIALS)}")


def _enrol(hospital: Site, kind: Kind = Kind.ENROL, **what: Any) -> IssuedCertificate:
    evidence = read_evidence(*(what.pop(name, None) for name in ("peer", "token", "user")))
    wanted = EnrolmentRequest(**{"csr": request(), "kind": kind, "evidence": evidence, "protocol": "est", **what})
    return hospital.enrolment.enrol(wanted, hospital.stock.clock.now())


def _refused(hospital: Site, kind: Kind = Kind.ENROL, **what: Any) -> Reason:
    return reason_of(_enrol, hospital, kind, **what)


def _refusals(hospital: Site) -> list[str]:
    """The reasons of all refusals in the ledger, once everything submitted before is written."""
    hospital.stock.settle()
    return [entry.reason for entry in hospital.stock.entries() if isinstance(entry, AuthenticatedRefusal)]


def _enrolled(hospital: Site, device: DeviceRow) -> tuple[IssuedCertificate, ec.EllipticCurvePrivateKey, Admitted]:
    key = new_key()
    issued = _enrol(hospital, csr=request(key), token=hospital.token(device))
    return issued, key, hospital.admit_device(issued)


def _dns_names(der: bytes) -> list[str]:
    return _names(der).get_values_for_type(x509.DNSName)


def _names(der: bytes) -> x509.SubjectAlternativeName:
    return x509.load_der_x509_certificate(der).extensions.get_extension_for_class(x509.SubjectAlternativeName).value


def test_a_token_buys_what_the_inventory_says_not_what_the_request_says(hospital: Site, device: DeviceRow) -> None:
    csr = request(dns_names=("er.h1.group.example", "evil.test"))
    issued = _enrol(hospital, csr=csr, token=hospital.token(device), user="device")
    certificate = x509.load_der_x509_certificate(issued.der)
    assert _dns_names(issued.der) == [hospital.name(device)]
    assert certificate.subject.rfc4514_string() == f"CN={device.id},OU=Intensive Care,O=Hospital h1"
    assert certificate.issuer == present(hospital.issuers["h1/icu"].certificate).subject
    with hospital.stock.database.reading() as connection:
        assert load_device(connection, device.id).state == "commissioned"
        (token,) = list_tokens_of(connection, device.id)
    assert token.certificate_leaf_index == issued.leaf_index
    assert [type(entry) for entry in hospital.stock.entries()[-3:-1]] == [IssuanceRecorded, TokenSpent]


def test_the_same_token_and_key_get_the_same_certificate_for_an_hour(hospital: Site, device: DeviceRow) -> None:
    key, token = new_key(), hospital.token(device)
    first = _enrol(hospital, csr=request(key), token=token)
    hospital.stock.clock.advance(minutes=59)
    assert _enrol(hospital, csr=request(key), token=token).der == first.der
    hospital.stock.clock.advance(minutes=2)
    assert _refused(hospital, csr=request(key), token=token) is Reason.TOKEN_EXPIRED


def test_nothing_is_enrolled_while_a_restore_is_unsettled(hospital: Site, device: DeviceRow) -> None:
    token, stock = hospital.token(device), hospital.stock
    issued, key, peer = _enrolled(hospital, known := stock.add("SN-unsettled"))
    renewal = request(key, subject=issued.der, dns_names=(hospital.name(known),))
    entries = len(stock.entries())
    stock.writer.submit(lambda batch: set_restored(batch.connection, 1, size=1, backup_sha256=bytes(32))).result(10)
    assert _refused(hospital, token=token) is Reason.RESTORE_UNSETTLED
    assert _refused(hospital, Kind.RENEW, csr=renewal, peer=peer) is Reason.RESTORE_UNSETTLED
    stock.writer.submit(lambda batch: set_settled(batch.connection)).result(10)
    assert len(stock.entries()) == entries, "not even the refusal is written down"
    _enrol(hospital, token=token)


def test_another_key_with_a_used_token_is_refused_and_raises_an_entry(hospital: Site, device: DeviceRow) -> None:
    token = hospital.token(device)
    _enrol(hospital, token=token)
    before = _refusals(hospital).count("TOKEN_REUSED")
    assert _refused(hospital, token=token) is Reason.TOKEN_REUSED
    assert _refusals(hospital).count("TOKEN_REUSED") == before + 1


@pytest.mark.parametrize("is_patient", [False, True])
def test_two_keys_race_for_one_token_and_one_wins(hospital: Site, device: DeviceRow, *, is_patient: bool) -> None:
    token, at = hospital.token(device), hospital.stock.clock.now()
    both = [wish(token), wish(token)]  # made first: the second must begin before the first is committed
    pending = [hospital.enrolment.begin(one, at, is_patient=is_patient) for one in both]
    hospital.enrolment.hurry()
    assert pending[0].committed.exception(10) is None
    assert reason_of(pending[1].committed.result, 10) is Reason.TOKEN_REUSED
    assert pending[0].finish().der
    with hospital.stock.database.reading() as connection:
        rows = connection.exec_driver_sql("SELECT COUNT(*) FROM certificates WHERE device_id = ?", (str(device.id),))
        assert rows.scalar_one() == 1


def test_a_refused_intent_leaves_the_token_unspent(hospital: Site, device: DeviceRow) -> None:
    other = hospital.stock.add(f"SN-{next(_SERIALS)}")
    key, token = new_key(), hospital.token(device)
    _enrol(hospital, csr=request(key), token=hospital.token(other))
    assert _refused(hospital, csr=request(key), token=token) is Reason.KEY_REUSE
    assert "KEY_REUSE" in _refusals(hospital)
    with hospital.stock.database.reading() as connection:
        assert list_tokens_of(connection, device.id)[0].used_at is None
    assert _enrol(hospital, token=token).der


def test_an_unknown_token_is_refused_and_leaves_no_entry(hospital: Site) -> None:
    before = len(_refusals(hospital))
    assert _refused(hospital, token=draw_token(SeededEntropy(500))) is Reason.TOKEN_INVALID
    assert _refused(hospital, token="short") is Reason.TOKEN_INVALID
    assert len(_refusals(hospital)) == before


def test_without_evidence_nothing_is_issued(hospital: Site) -> None:
    assert _refused(hospital) is Reason.CREDENTIAL_MISSING
    assert _refused(hospital, peer=hospital.admit(None)) is Reason.CREDENTIAL_MISSING
    assert _refused(hospital, Kind.RENEW) is Reason.CREDENTIAL_MISSING


def test_a_birth_certificate_enrols_its_own_device(hospital: Site, device: DeviceRow) -> None:
    assert _dns_names(_enrol(hospital, peer=hospital.admit_born(device)).der) == [hospital.name(device)]


def test_a_birth_certificate_renews_nothing(hospital: Site, device: DeviceRow) -> None:
    peer = hospital.admit_born(device)
    _enrol(hospital, peer=peer)
    assert _refused(hospital, Kind.RENEW, peer=peer) is Reason.NOT_RENEWABLE


def test_the_same_request_by_the_same_certificate_issues_once(hospital: Site, device: DeviceRow) -> None:
    peer, csr = hospital.admit_born(device), request()
    first = _enrol(hospital, peer=peer, csr=csr)
    assert _enrol(hospital, peer=peer, csr=csr).der == first.der
    assert _enrol(hospital, peer=peer, csr=request()).der != first.der
    hospital.stock.clock.advance(hours=1)
    assert _enrol(hospital, peer=peer, csr=csr).der != first.der, "a CSR file that is used again is a new wish"


def test_a_renewal_keeps_its_names_and_may_change_its_key(hospital: Site, device: DeviceRow) -> None:
    issued, _, peer = _enrolled(hospital, device)
    key = new_key()
    csr = request(key, subject=issued.der, dns_names=(hospital.name(device),))
    renewed = _enrol(hospital, Kind.RENEW, peer=peer, csr=csr)
    assert _dns_names(renewed.der) == _dns_names(issued.der)
    assert x509.load_der_x509_certificate(renewed.der).public_key() == key.public_key()


@pytest.mark.parametrize("names", [(), ("evil.test",), ("{own}", "evil.test")])
def test_a_renewal_with_other_names_is_refused(hospital: Site, device: DeviceRow, names: tuple[str, ...]) -> None:
    issued, _, peer = _enrolled(hospital, device)
    csr = request(subject=issued.der, dns_names=tuple(name.format(own=hospital.name(device)) for name in names))
    assert _refused(hospital, Kind.RENEW, peer=peer, csr=csr) is Reason.NAMES_CHANGED
    csr = request(dns_names=(hospital.name(device),))
    assert _refused(hospital, Kind.RENEW, peer=peer, csr=csr) is Reason.NAMES_CHANGED, "another subject"
    assert "NAMES_CHANGED" in _refusals(hospital)


def test_a_transferred_device_enrols_in_its_new_unit_and_renews_nothing_old(hospital: Site, device: DeviceRow) -> None:
    issued, _, _ = _enrolled(hospital, device)
    hospital.stock.inventory.transfer(device.id, ER, by=BY).result(10)
    peer = hospital.admit_device(issued)
    csr = request(subject=issued.der, dns_names=(hospital.name(device),))
    assert _refused(hospital, Kind.RENEW, peer=peer, csr=csr) is Reason.NAMES_CHANGED
    assert _dns_names(_enrol(hospital, peer=peer).der) == [hospital.name(device, ER)]


def test_a_token_renews_nothing(hospital: Site, device: DeviceRow) -> None:
    assert _refused(hospital, Kind.RENEW, token=hospital.token(device)) is Reason.NOT_RENEWABLE


def test_a_token_beside_another_devices_certificate_or_name_is_refused(hospital: Site, device: DeviceRow) -> None:
    _, _, peer = _enrolled(hospital, device)
    other = hospital.stock.add(f"SN-{next(_SERIALS)}")
    assert _refused(hospital, peer=peer, token=hospital.token(other)) is Reason.IDENTITY_AMBIGUOUS
    assert _refused(hospital, user=str(device.id), token=hospital.token(other)) is Reason.IDENTITY_AMBIGUOUS
    assert _enrol(hospital, user=str(other.id), token=hospital.token(other)).der


def test_a_registration_authority_needs_a_device_token_each_time(hospital: Site, device: DeviceRow) -> None:
    issued, _, _ = _enrolled(hospital, device)
    rules = ListenerRules(function=None, group_domain=GROUP, registration_authorities=frozenset({device.id}))
    peer = hospital.admit_device(issued, rules)
    assert peer.is_registration_authority
    other = hospital.stock.add(f"SN-{next(_SERIALS)}")
    assert _dns_names(_enrol(hospital, peer=peer, token=hospital.token(other)).der) == [hospital.name(other)]
    assert _refused(hospital, peer=peer) is Reason.CREDENTIAL_MISSING
    own = request(subject=issued.der, dns_names=(hospital.name(device),))
    assert _dns_names(_enrol(hospital, Kind.RENEW, peer=peer, csr=own).der) == [hospital.name(device)]


def test_a_token_works_at_the_listeners_of_its_own_compartment_alone(hospital: Site, device: DeviceRow) -> None:
    only_er = ListenerRules(function=None, group_domain=GROUP, needs_certificate=False, units=frozenset({"h1/er"}))
    token = hospital.token(device)
    assert _refused(hospital, peer=hospital.admit(None, rules=only_er), token=token) is Reason.WRONG_COMPARTMENT
    assert _enrol(hospital, peer=hospital.admit(None), token=token).der


@pytest.mark.parametrize("state", [DeviceState.QUARANTINED, DeviceState.RECALLED, DeviceState.DECOMMISSIONED])
def test_a_device_that_left_service_obtains_nothing(hospital: Site, device: DeviceRow, state: DeviceState) -> None:
    issued, _, peer = _enrolled(hospital, device)
    token = hospital.token(device)
    hospital.stock.inventory.change_state(device.id, state, by=BY).result(10)
    csr = request(subject=issued.der, dns_names=(hospital.name(device),))
    assert _refused(hospital, Kind.RENEW, peer=peer, csr=csr) is Reason.DEVICE_STATE
    assert _refused(hospital, peer=peer) is Reason.DEVICE_STATE
    assert _refused(hospital, token=token) in {Reason.DEVICE_STATE, Reason.TOKEN_EXPIRED}
    assert "DEVICE_STATE" in _refusals(hospital)


@pytest.mark.parametrize("change", ["recall", "transfer"])
def test_what_changes_between_preparation_and_commit_counts(hospital: Site, device: DeviceRow, change: str) -> None:
    inventory = hospital.stock.inventory

    class Interrupted(Issuance):
        """An operator changes the inventory just after the certificate was prepared."""

        def prepare(self, order: IssuanceOrder, issuer: Issuer) -> Prepared:
            prepared = super().prepare(order, issuer)
            if change == "recall":
                inventory.change_state(device.id, DeviceState.RECALLED, by=BY).result(10)
            else:
                inventory.transfer(device.id, ER, by=BY).result(10)
            return prepared

    stock = hospital.stock
    issuance = Interrupted(pack(), stock.writer, stock.clock, SeededEntropy(77))
    enrolment = Enrolment(stock.database, stock.writer, issuance, hospital.issuers, group_domain=GROUP)
    refused = reason_of(enrolment.enrol, wish(hospital.token(device)), stock.clock.now())
    assert refused is (Reason.DEVICE_STATE if change == "recall" else Reason.OVERLOADED)
    with stock.database.reading() as connection:
        assert list_tokens_of(connection, device.id)[0].used_at is None


def test_a_locked_out_device_does_not_come_back_with_its_birth_certificate(hospital: Site, device: DeviceRow) -> None:
    _enrol(hospital, peer=hospital.admit_born(device))
    assert hospital.stock.inventory.lock_out(device.id, RevocationReason.KEY_COMPROMISE, by=BY).result(10).count == 1
    assert reason_of(hospital.admit_born, device) is Reason.DEVICE_STATE


def test_a_repeated_request_whose_certificate_was_revoked_is_refused(hospital: Site, device: DeviceRow) -> None:
    token, key = hospital.token(device), new_key()
    issued = _enrol(hospital, token=token, csr=request(key))
    issuer = issued.issuer.authority_id
    hospital.revocations.revoke(issuer, issued.serial, RevocationReason.SUPERSEDED, by=BY).result(10)
    assert _refused(hospital, token=token, csr=request(key)) is Reason.REVOKED


def test_a_gateway_gets_what_it_shows_as_a_server_from_the_infrastructure(hospital: Site) -> None:
    gateway = hospital.stock.add(f"SN-{next(_SERIALS)}", host_names=("gw.h1.group.example", "10.1.0.9"))
    issued = _enrol(hospital, token=hospital.token(gateway), label="server")
    assert [str(name.value) for name in _names(issued.der)] == ["gw.h1.group.example", "10.1.0.9"]
    assert issued.issuer.name == "h1/infra"


def test_labels_without_a_certificate_are_refused(hospital: Site, device: DeviceRow) -> None:
    issued, _, peer = _enrolled(hospital, device)
    assert _refused(hospital, peer=peer, label="server") is Reason.NOT_FOUND, "it has no host name"
    csr = request(subject=issued.der, dns_names=(hospital.name(device),))
    assert _refused(hospital, Kind.RENEW, peer=peer, csr=csr, label="server") is Reason.NOT_RENEWABLE


def _server(hospital: Site, *names: str) -> tuple[DeviceRow, IssuedCertificate, Admitted]:
    gateway = hospital.stock.add(f"SN-{next(_SERIALS)}", host_names=names)
    issued = hospital.enrol(gateway, label="server")
    return gateway, issued, hospital.admit(issued.der, issued.issuer.certificate_der)


def _copy_of(issued: IssuedCertificate) -> CertificateRequest:
    """A CSR with the subject and the names of a certificate, as RFC 7030 4.2.2 wants it."""
    certificate = x509.load_der_x509_certificate(issued.der)
    return decode_request(signing_request(new_key(), certificate.subject, _names(issued.der)))


def test_a_server_certificate_renews_itself_under_its_label(hospital: Site) -> None:
    gateway, issued, peer = _server(hospital, "gw2.h1.group.example", "10.1.0.10", "2001:db8::10")
    renewed = _enrol(hospital, Kind.RENEW, peer=peer, csr=_copy_of(issued), label="server")
    assert _names(renewed.der) == _names(issued.der)
    assert (renewed.issuer.name, renewed.serial != issued.serial) == ("h1/infra", True)
    with hospital.stock.database.reading() as connection:
        rows = connection.exec_driver_sql(
            "SELECT profile, state FROM certificates WHERE device_id = ?", (str(gateway.id),)
        )
        assert {tuple(row) for row in rows} <= {("tls-server", "issued"), ("tls-server", "intended")}


def test_a_server_certificate_is_evidence_for_nothing_but_its_own_renewal(hospital: Site, device: DeviceRow) -> None:
    gateway, issued, peer = _server(hospital, "gw3.h1.group.example")
    assert _refused(hospital, peer=peer, label="server") is Reason.CREDENTIAL_MISSING
    assert _refused(hospital, peer=peer) is Reason.CREDENTIAL_MISSING
    assert _refused(hospital, Kind.RENEW, peer=peer, csr=_copy_of(issued)) is Reason.NOT_RENEWABLE
    other = request(subject=issued.der, dns_names=("gw4.h1.group.example",))
    assert _refused(hospital, Kind.RENEW, peer=peer, csr=other, label="server") is Reason.NAMES_CHANGED
    assert _refused(hospital, peer=peer, token=hospital.token(device)) is Reason.IDENTITY_AMBIGUOUS
    assert _enrol(hospital, peer=peer, token=hospital.token(gateway)).issuer.name == "h1/icu"


def test_one_token_may_serve_both_certificates_of_a_server_once_each(hospital: Site) -> None:
    gateway = hospital.stock.add(f"SN-{next(_SERIALS)}", host_names=("gw8.h1.group.example",))
    token = hospital.stock.tokens.make(gateway.id, by=BY, is_for_both=True).result(10).text
    keys = new_key(), new_key()
    server = _enrol(hospital, csr=request(keys[0]), token=token, label="server")
    own = _enrol(hospital, csr=request(keys[1]), token=token)
    assert (server.issuer.name, own.issuer.name) == ("h1/infra", "h1/icu")
    assert _enrol(hospital, csr=request(keys[0]), token=token, label="server").der == server.der
    for label in ("server", None):
        assert _refused(hospital, token=token, label=label) is Reason.TOKEN_REUSED
    assert _refused(hospital, csr=request(keys[1]), token=token, label="server") is Reason.TOKEN_REUSED


def test_a_plain_token_serves_one_certificate_and_only_servers_get_the_other_kind(
    hospital: Site, device: DeviceRow
) -> None:
    gateway = hospital.stock.add(f"SN-{next(_SERIALS)}", host_names=("gw9.h1.group.example",))
    token, key = hospital.token(gateway), new_key()
    _enrol(hospital, csr=request(key), token=token, label="server")
    assert _refused(hospital, csr=request(key), token=token) is Reason.TOKEN_SPENT
    made = hospital.stock.tokens.make(device.id, by=BY, is_for_both=True)
    assert reason_of(made.result, 10) is Reason.BAD_ARGUMENT


def test_a_server_whose_host_names_changed_enrols_anew(hospital: Site) -> None:
    gateway, issued, peer = _server(hospital, "gw5.h1.group.example")
    hospital.stock.writer.submit(
        lambda batch: set_device_host_names(batch.connection, gateway.id, ("gw6.h1.group.example",), at=batch.at)
    ).result(10)
    assert _refused(hospital, Kind.RENEW, peer=peer, csr=_copy_of(issued), label="server") is Reason.NAMES_CHANGED


def test_a_server_certificate_that_is_revoked_meanwhile_renews_nothing(hospital: Site) -> None:
    _, issued, peer = _server(hospital, "gw7.h1.group.example")
    issuer = issued.issuer.authority_id
    hospital.revocations.revoke(issuer, issued.serial, RevocationReason.SUPERSEDED, by=BY).result(10)
    assert _refused(hospital, Kind.RENEW, peer=peer, csr=_copy_of(issued), label="server") is Reason.REVOKED


def test_a_device_gets_what_it_shows_to_sdc_peers_from_the_sdc_authority(hospital: Site) -> None:
    pump = hospital.stock.add("SN-sdc")
    own = hospital.enrol(pump)
    peer = hospital.admit_device(own)
    issued = _enrol(hospital, peer=peer, label="sdc")
    certificate = x509.load_der_x509_certificate(issued.der)
    purposes = certificate.extensions.get_extension_for_class(x509.ExtendedKeyUsage).value
    assert issued.issuer.name == "h1/sdc"
    assert SDC_PROVIDER in {purpose.dotted_string for purpose in purposes}
    assert _dns_names(issued.der) == [hospital.name(pump)]
    csr = request(subject=issued.der, dns_names=(hospital.name(pump),))
    assert _refused(hospital, Kind.RENEW, peer=peer, csr=csr, label="sdc") is Reason.NOT_RENEWABLE
    assert _enrol(hospital, peer=peer, label="sdc").serial != issued.serial, "it enrols anew instead"


def test_a_device_whose_rule_has_no_sdc_profile_gets_none(hospital: Site) -> None:
    with hospital.stock.database.writing() as connection:
        put_model(connection, ModelRow("scanner", "Acme", "ct-scanner", "imaging"))
    new = NewDevice(unit=ICU, model="scanner", maker_serial="SN-scanner")
    scanner = hospital.stock.inventory.add(new, by=BY).result(10)
    assert _refused(hospital, token=hospital.token(scanner), label="sdc") is Reason.NOT_FOUND


def test_a_unit_that_is_not_open_here_is_unavailable(hospital: Site, device: DeviceRow) -> None:
    token = hospital.token(device)
    elsewhere = Enrolment(hospital.stock.database, hospital.stock.writer, hospital.issuance, {}, group_domain=GROUP)
    assert reason_of(elsewhere.enrol, wish(token), hospital.stock.clock.now()) is Reason.KEY_NOT_OPEN
    assert _enrol(hospital, token=token).der


def test_refusals_of_one_device_for_one_reason_are_one_entry_a_minute(hospital: Site, device: DeviceRow) -> None:
    _, _, peer = _enrolled(hospital, device)
    hospital.stock.inventory.change_state(device.id, DeviceState.QUARANTINED, by=BY).result(10)
    before = len(_refusals(hospital))
    for _ in range(5):
        assert _refused(hospital, peer=peer) is Reason.DEVICE_STATE
    assert len(_refusals(hospital)) == before + 1


def test_a_request_never_shows_its_token(hospital: Site) -> None:
    assert "tttt" not in repr(wish("t" * 32))


def test_the_key_in_the_certificate_is_the_key_in_the_request(hospital: Site, device: DeviceRow) -> None:
    key = new_key()
    assert spki(key) in _enrol(hospital, csr=request(key), token=hospital.token(device)).der


def test_the_lifetime_is_the_profiles(hospital: Site, device: DeviceRow) -> None:
    issued = _enrol(hospital, token=hospital.token(device))
    certificate = x509.load_der_x509_certificate(issued.der)
    assert certificate.not_valid_after_utc - certificate.not_valid_before_utc <= timedelta(days=730, hours=1)


def test_a_request_id_of_an_older_release_still_means_the_same_request(hospital: Site, device: DeviceRow) -> None:
    key, token = new_key(), hospital.token(device)
    issued = _enrol(hospital, csr=request(key), token=token)
    what = [str(device.id), "h1/icu", device.profile, issued.issuer.reference, "enrol"]
    credential = hashlib.sha256(token.encode()).digest() + hashlib.sha256(spki(key)).digest()
    digest = hashlib.sha256("\0".join(what).encode() + credential).digest()
    with hospital.stock.database.reading() as connection:
        found = present(find_by_request(connection, "est-" + base64.b32encode(digest).decode().rstrip("=").lower()))
    assert found.leaf_index == issued.leaf_index


def test_one_token_buys_nothing_more_over_a_second_protocol(hospital: Site, device: DeviceRow) -> None:
    csr, token = request(), hospital.token(device)
    first, second = (wish(token, csr=csr, protocol=protocol) for protocol in ("est", "cmp"))
    hospital.enrolment.enrol(first, hospital.stock.clock.now())
    assert reason_of(hospital.enrolment.enrol, second, hospital.stock.clock.now()) is Reason.TOKEN_SPENT


def test_a_device_on_hold_gets_no_first_certificate_until_it_is_released(hospital: Site, device: DeviceRow) -> None:
    inventory, other = hospital.stock.inventory, hospital.stock.add(f"SN-{next(_SERIALS)}")
    token = hospital.token(device)
    inventory.hold(device.id, by=BY).result(10)
    assert _refused(hospital, token=token) is Reason.ON_HOLD
    assert _refused(hospital, peer=hospital.admit_born(device)) is Reason.ON_HOLD
    _enrol(hospital, token=hospital.token(other))
    inventory.release(device.id, by=BY).result(10)
    _enrol(hospital, token=token)


def test_a_hold_does_not_end_with_the_certificate_that_it_suspended(hospital: Site, device: DeviceRow) -> None:
    issued, _, _ = _enrolled(hospital, device)
    hospital.stock.inventory.hold(device.id, by=BY).result(10)
    hospital.stock.clock.advance(days=740)
    ends = x509.load_der_x509_certificate(issued.der).not_valid_after_utc
    assert ends < hospital.stock.clock.now()
    assert _refused(hospital, token=hospital.token(device)) is Reason.ON_HOLD
    hospital.stock.inventory.lock_out(device.id, RevocationReason.KEY_COMPROMISE, by=BY).result(10)
    with hospital.stock.database.reading() as connection:
        now = load_device(connection, device.id)
    assert (now.state, now.held_at) == ("quarantined", None), "a revocation takes the place of the hold"
