"""Who may have a certificate, by which evidence, with which names; and what a refusal leaves behind."""

from __future__ import annotations

import base64
import hashlib
from collections.abc import Iterator
from datetime import timedelta
from typing import Any

import pytest
from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import ExtensionOID

from tests.simulator.enrolment import GROUP, House, house, pack, request
from tests.simulator.orders import new_key, spki
from tests.simulator.queries import list_tokens_of
from tests.simulator.stock import BY, ER
from vagus.authority.issuance import Issuance, IssuanceOrder, IssuedCertificate, Prepared
from vagus.authority.issuers import Issuer
from vagus.errors import VagusError
from vagus.fleet.admission import Admitted, ListenerRules
from vagus.fleet.devices import load_device
from vagus.fleet.enrolment.enrol import Enrolment, EnrolmentRequest, Kind
from vagus.fleet.enrolment.evidence import OneTimeToken, read_evidence
from vagus.fleet.lifecycle import DeviceState
from vagus.fleet.tokens import draw_token
from vagus.ledger.entries import AuthenticatedRefusal, IssuanceRecorded, TokenSpent
from vagus.reasons import Reason
from vagus.records.certificates import find_by_request
from vagus.records.devices import DeviceRow
from vagus.records.installation import set_restored, set_settled
from vagus.testing import SeededEntropy
from vagus.x509.crls.building import RevocationReason


@pytest.fixture(scope="module")
def standing() -> Iterator[House]:
    with house() as built:
        yield built


_SERIALS = iter(range(1_000_000))


@pytest.fixture
def device(standing: House) -> DeviceRow:
    return standing.stock.add(f"SN-{next(_SERIALS)}")


def _enrol(standing: House, kind: Kind = Kind.ENROL, **what: Any) -> IssuedCertificate:
    evidence = read_evidence(what.get("peer"), what.get("token"), what.get("user"))
    wanted = EnrolmentRequest(
        csr=what.get("csr") or request(), kind=kind, evidence=evidence, protocol="est", label=what.get("label")
    )
    return standing.enrolment.enrol(wanted, standing.stock.clock.now())


def _refused(standing: House, kind: Kind = Kind.ENROL, **what: Any) -> Reason:
    with pytest.raises(VagusError) as caught:
        _enrol(standing, kind, **what)
    return caught.value.reason


def _refusals(standing: House) -> list[str]:
    """The reasons of all refusals in the ledger, once everything submitted before is written."""
    standing.stock.writer.submit(lambda _: None).result(10)
    return [entry.reason for entry in standing.stock.entries() if isinstance(entry, AuthenticatedRefusal)]


def _enrolled(standing: House, device: DeviceRow) -> tuple[IssuedCertificate, ec.EllipticCurvePrivateKey, Admitted]:
    key = new_key()
    issued = _enrol(standing, csr=request(key), token=standing.token(device))
    return issued, key, standing.admit_device(issued)


def _dns_names(der: bytes) -> list[str]:
    names = x509.load_der_x509_certificate(der).extensions.get_extension_for_oid(ExtensionOID.SUBJECT_ALTERNATIVE_NAME)
    assert isinstance(names.value, x509.SubjectAlternativeName)
    return names.value.get_values_for_type(x509.DNSName)


def test_a_token_buys_what_the_inventory_says_and_nothing_that_the_request_says(
    standing: House, device: DeviceRow
) -> None:
    key = new_key()
    csr = request(key, dns_names=("er.h1.group.test", "evil.test"))
    issued = _enrol(standing, csr=csr, token=standing.token(device), user="device")
    certificate = x509.load_der_x509_certificate(issued.der)
    assert _dns_names(issued.der) == [standing.name(device)]
    assert certificate.subject.rfc4514_string() == f"CN={device.id},OU=Intensive Care,O=Hospital h1"
    assert standing.issuers["h1/icu"].certificate is not None
    assert certificate.issuer == standing.issuers["h1/icu"].certificate.subject
    with standing.stock.database.reading() as connection:
        assert load_device(connection, device.id).state == "commissioned"
        (token,) = list_tokens_of(connection, device.id)
    assert token.certificate_leaf_index == issued.leaf_index
    kinds = [type(entry) for entry in standing.stock.entries()[-3:]]
    assert kinds[:2] == [IssuanceRecorded, TokenSpent]


def test_the_same_token_and_key_get_the_same_certificate_for_an_hour(standing: House, device: DeviceRow) -> None:
    key, token = new_key(), standing.token(device)
    first = _enrol(standing, csr=request(key), token=token)
    standing.stock.clock.advance(minutes=59)
    assert _enrol(standing, csr=request(key), token=token).der == first.der
    standing.stock.clock.advance(minutes=2)
    assert _refused(standing, csr=request(key), token=token) is Reason.TOKEN_EXPIRED


def test_nothing_is_enrolled_while_a_restore_is_unsettled(standing: House, device: DeviceRow) -> None:
    token, stock = standing.token(device), standing.stock
    issued, key, peer = _enrolled(standing, known := stock.add("SN-unsettled"))
    renewal = request(key, subject=issued.der, dns_names=(standing.name(known),))
    entries = len(stock.entries())
    restore = stock.writer.submit(lambda batch: set_restored(batch.connection, 1, size=1, backup_sha256=bytes(32)))
    restore.result(10)
    assert _refused(standing, token=token) is Reason.RESTORE_UNSETTLED
    assert _refused(standing, Kind.RENEW, csr=renewal, peer=peer) is Reason.RESTORE_UNSETTLED
    stock.writer.submit(lambda batch: set_settled(batch.connection)).result(10)
    assert len(stock.entries()) == entries, "not even the refusal is written down"
    _enrol(standing, token=token)


def test_another_key_with_a_used_token_is_refused_and_raises_an_entry(standing: House, device: DeviceRow) -> None:
    token = standing.token(device)
    _enrol(standing, token=token)
    before = _refusals(standing).count("TOKEN_REUSED")
    assert _refused(standing, token=token) is Reason.TOKEN_REUSED
    assert _refusals(standing).count("TOKEN_REUSED") == before + 1


@pytest.mark.parametrize("is_patient", [False, True])
def test_two_keys_race_for_one_token_and_one_wins(standing: House, device: DeviceRow, *, is_patient: bool) -> None:
    token, at = standing.token(device), standing.stock.clock.now()
    wishes = [
        EnrolmentRequest(csr=request(), kind=Kind.ENROL, protocol="est", evidence=OneTimeToken(token)) for _ in range(2)
    ]
    pending = [standing.enrolment.begin(wish, at, is_patient=is_patient) for wish in wishes]
    standing.enrolment.hurry()
    errors = [one.committed.exception(10) for one in pending]
    assert errors[0] is None
    assert isinstance(errors[1], VagusError)
    assert errors[1].reason is Reason.TOKEN_REUSED
    assert pending[0].finish().der
    with standing.stock.database.reading() as connection:
        rows = connection.exec_driver_sql("SELECT COUNT(*) FROM certificates WHERE device_id = ?", (str(device.id),))
        assert rows.scalar_one() == 1


def test_a_refused_intent_leaves_the_token_unspent(standing: House, device: DeviceRow) -> None:
    other = standing.stock.add(f"SN-{next(_SERIALS)}")
    key, token = new_key(), standing.token(device)
    _enrol(standing, csr=request(key), token=standing.token(other))
    assert _refused(standing, csr=request(key), token=token) is Reason.KEY_REUSE
    assert "KEY_REUSE" in _refusals(standing)
    with standing.stock.database.reading() as connection:
        assert list_tokens_of(connection, device.id)[0].used_at is None
    assert _enrol(standing, token=token).der


def test_an_unknown_token_is_refused_and_leaves_no_entry(standing: House) -> None:
    before = len(_refusals(standing))
    assert _refused(standing, token=draw_token(SeededEntropy(500))) is Reason.TOKEN_INVALID
    assert _refused(standing, token="short") is Reason.TOKEN_INVALID
    assert len(_refusals(standing)) == before


def test_without_evidence_nothing_is_issued(standing: House) -> None:
    assert _refused(standing) is Reason.CREDENTIAL_MISSING
    assert _refused(standing, peer=standing.admit(None)) is Reason.CREDENTIAL_MISSING
    assert _refused(standing, Kind.RENEW) is Reason.CREDENTIAL_MISSING


def test_a_birth_certificate_enrols_its_own_device(standing: House, device: DeviceRow) -> None:
    idevid, _ = standing.forge.birth_certificate(standing.line, device.maker_serial)
    issued = _enrol(standing, peer=standing.admit(idevid, standing.line.der))
    assert _dns_names(issued.der) == [standing.name(device)]


def test_a_birth_certificate_renews_nothing(standing: House, device: DeviceRow) -> None:
    idevid, _ = standing.forge.birth_certificate(standing.line, device.maker_serial)
    peer = standing.admit(idevid, standing.line.der)
    _enrol(standing, peer=peer)
    assert _refused(standing, Kind.RENEW, peer=peer) is Reason.NOT_RENEWABLE


def test_the_same_request_by_the_same_certificate_is_answered_once(standing: House, device: DeviceRow) -> None:
    idevid, _ = standing.forge.birth_certificate(standing.line, device.maker_serial)
    peer, csr = standing.admit(idevid, standing.line.der), request()
    first = _enrol(standing, peer=peer, csr=csr)
    assert _enrol(standing, peer=peer, csr=csr).der == first.der
    assert _enrol(standing, peer=peer, csr=request()).der != first.der
    standing.stock.clock.advance(hours=1)
    assert _enrol(standing, peer=peer, csr=csr).der != first.der, "a CSR file that is used again is a new wish"


def test_a_renewal_keeps_its_names_and_may_change_its_key(standing: House, device: DeviceRow) -> None:
    issued, _, peer = _enrolled(standing, device)
    key = new_key()
    renewed = _enrol(
        standing, Kind.RENEW, peer=peer, csr=request(key, subject=issued.der, dns_names=(standing.name(device),))
    )
    assert _dns_names(renewed.der) == _dns_names(issued.der)
    certificate = x509.load_der_x509_certificate(renewed.der)
    assert certificate.public_key() == key.public_key()


@pytest.mark.parametrize("names", [(), ("evil.test",), ("{own}", "evil.test")])
def test_a_renewal_with_other_names_is_refused(standing: House, device: DeviceRow, names: tuple[str, ...]) -> None:
    issued, _, peer = _enrolled(standing, device)
    asked = tuple(name.format(own=standing.name(device)) for name in names)
    csr = request(subject=issued.der, dns_names=asked)
    assert _refused(standing, Kind.RENEW, peer=peer, csr=csr) is Reason.NAMES_CHANGED
    csr = request(dns_names=(standing.name(device),))
    assert _refused(standing, Kind.RENEW, peer=peer, csr=csr) is Reason.NAMES_CHANGED, "another subject"
    assert "NAMES_CHANGED" in _refusals(standing)


def test_a_transferred_device_enrols_in_its_new_compartment_and_does_not_renew_the_old(
    standing: House, device: DeviceRow
) -> None:
    issued, _, _ = _enrolled(standing, device)
    standing.stock.inventory.transfer(device.id, ER, by=BY).result(10)
    peer = standing.admit_device(issued)
    csr = request(subject=issued.der, dns_names=(standing.name(device),))
    assert _refused(standing, Kind.RENEW, peer=peer, csr=csr) is Reason.NAMES_CHANGED
    moved = _enrol(standing, peer=peer)
    assert _dns_names(moved.der) == [standing.name(device, ER)]


def test_a_token_renews_nothing(standing: House, device: DeviceRow) -> None:
    assert _refused(standing, Kind.RENEW, token=standing.token(device)) is Reason.NOT_RENEWABLE


def test_a_token_beside_another_devices_certificate_or_name_is_refused(standing: House, device: DeviceRow) -> None:
    _, _, peer = _enrolled(standing, device)
    other = standing.stock.add(f"SN-{next(_SERIALS)}")
    assert _refused(standing, peer=peer, token=standing.token(other)) is Reason.IDENTITY_AMBIGUOUS
    assert _refused(standing, user=str(device.id), token=standing.token(other)) is Reason.IDENTITY_AMBIGUOUS
    assert _enrol(standing, user=str(other.id), token=standing.token(other)).der


def test_a_registration_authority_carries_tokens_of_other_devices_and_needs_one_each_time(
    standing: House, device: DeviceRow
) -> None:
    issued, _, _ = _enrolled(standing, device)
    rules = ListenerRules(function=None, group_domain=GROUP, registration_authorities=frozenset({device.id}))
    peer = standing.admit_device(issued, rules)
    assert peer.is_registration_authority
    other = standing.stock.add(f"SN-{next(_SERIALS)}")
    brought = _enrol(standing, peer=peer, token=standing.token(other))
    assert _dns_names(brought.der) == [standing.name(other)]
    assert _refused(standing, peer=peer) is Reason.CREDENTIAL_MISSING
    own = request(subject=issued.der, dns_names=(standing.name(device),))
    assert _dns_names(_enrol(standing, Kind.RENEW, peer=peer, csr=own).der) == [standing.name(device)]


def test_a_token_works_at_the_doors_of_its_own_compartment_alone(standing: House, device: DeviceRow) -> None:
    only_er = ListenerRules(function=None, group_domain=GROUP, needs_certificate=False, units=frozenset({"h1/er"}))
    token = standing.token(device)
    stranger = standing.admit(None, rules=only_er)
    assert _refused(standing, peer=stranger, token=token) is Reason.WRONG_COMPARTMENT
    assert _enrol(standing, peer=standing.admit(None), token=token).der


@pytest.mark.parametrize("state", [DeviceState.QUARANTINED, DeviceState.RECALLED, DeviceState.DECOMMISSIONED])
def test_a_device_that_left_service_obtains_nothing(standing: House, device: DeviceRow, state: DeviceState) -> None:
    issued, _, peer = _enrolled(standing, device)
    token = standing.token(device)
    standing.stock.inventory.change_state(device.id, state, by=BY).result(10)
    csr = request(subject=issued.der, dns_names=(standing.name(device),))
    assert _refused(standing, Kind.RENEW, peer=peer, csr=csr) is Reason.DEVICE_STATE
    assert _refused(standing, peer=peer) is Reason.DEVICE_STATE
    assert _refused(standing, token=token) in {Reason.DEVICE_STATE, Reason.TOKEN_EXPIRED}
    assert "DEVICE_STATE" in _refusals(standing)


@pytest.mark.parametrize("change", ["recall", "transfer"])
def test_what_changes_between_preparation_and_commit_counts(standing: House, device: DeviceRow, change: str) -> None:
    inventory = standing.stock.inventory

    class Interrupted(Issuance):
        """Somebody changes the inventory just after the certificate was prepared."""

        def prepare(self, order: IssuanceOrder, issuer: Issuer) -> Prepared:
            prepared = super().prepare(order, issuer)
            if change == "recall":
                inventory.change_state(device.id, DeviceState.RECALLED, by=BY).result(10)
            else:
                inventory.transfer(device.id, ER, by=BY).result(10)
            return prepared

    stock = standing.stock
    issuance = Interrupted(pack(), stock.writer, stock.clock, SeededEntropy(77))
    enrolment = Enrolment(stock.database, stock.writer, issuance, standing.issuers, group_domain=GROUP)
    wish = EnrolmentRequest(
        csr=request(), kind=Kind.ENROL, protocol="est", evidence=OneTimeToken(standing.token(device))
    )
    with pytest.raises(VagusError) as caught:
        enrolment.enrol(wish, stock.clock.now())
    assert caught.value.reason is (Reason.DEVICE_STATE if change == "recall" else Reason.OVERLOADED)
    with stock.database.reading() as connection:
        assert list_tokens_of(connection, device.id)[0].used_at is None


def test_a_locked_out_device_does_not_come_back_with_its_birth_certificate(standing: House, device: DeviceRow) -> None:
    idevid, _ = standing.forge.birth_certificate(standing.line, device.maker_serial)
    _enrol(standing, peer=standing.admit(idevid, standing.line.der))
    revoked = standing.stock.inventory.lock_out(device.id, RevocationReason.KEY_COMPROMISE, by=BY).result(10)
    assert revoked.count == 1
    with pytest.raises(VagusError) as caught:
        standing.admit(idevid, standing.line.der)
    assert caught.value.reason is Reason.DEVICE_STATE


def test_a_repeated_request_whose_certificate_was_revoked_is_refused(standing: House, device: DeviceRow) -> None:
    token, key = standing.token(device), new_key()
    issued = _enrol(standing, token=token, csr=request(key))
    by_serial = standing.revocations.revoke(
        issued.issuer.authority_id, issued.serial, RevocationReason.SUPERSEDED, by=BY
    )
    by_serial.result(10)
    assert _refused(standing, token=token, csr=request(key)) is Reason.REVOKED


def test_a_gateway_gets_what_it_shows_as_a_server_from_the_infrastructure(standing: House) -> None:
    gateway = standing.stock.add(f"SN-{next(_SERIALS)}", host_names=("gw.h1.group.test", "10.1.0.9"))
    issued = _enrol(standing, token=standing.token(gateway), label="server")
    certificate = x509.load_der_x509_certificate(issued.der)
    names = certificate.extensions.get_extension_for_oid(ExtensionOID.SUBJECT_ALTERNATIVE_NAME).value
    assert isinstance(names, x509.SubjectAlternativeName)
    assert [str(name.value) for name in names] == ["gw.h1.group.test", "10.1.0.9"]
    assert issued.issuer.name == "h1/infra"


def test_labels_without_a_certificate_are_refused(standing: House, device: DeviceRow) -> None:
    issued, _, peer = _enrolled(standing, device)
    assert _refused(standing, peer=peer, label="server") is Reason.NOT_FOUND, "it has no host name"
    csr = request(subject=issued.der, dns_names=(standing.name(device),))
    assert _refused(standing, Kind.RENEW, peer=peer, csr=csr, label="server") is Reason.NOT_RENEWABLE


def test_a_unit_that_is_not_open_here_is_unavailable(standing: House) -> None:
    device = standing.stock.add(f"SN-{next(_SERIALS)}")
    token = standing.token(device)
    elsewhere = Enrolment(standing.stock.database, standing.stock.writer, standing.issuance, {}, group_domain=GROUP)
    with pytest.raises(VagusError) as caught:
        elsewhere.enrol(
            EnrolmentRequest(csr=request(), kind=Kind.ENROL, protocol="est", evidence=OneTimeToken(token)),
            standing.stock.clock.now(),
        )
    assert caught.value.reason is Reason.KEY_NOT_OPEN
    assert _enrol(standing, token=token).der


def test_refusals_of_one_device_for_one_reason_are_one_entry_a_minute(standing: House, device: DeviceRow) -> None:
    _, _, peer = _enrolled(standing, device)
    standing.stock.inventory.change_state(device.id, DeviceState.QUARANTINED, by=BY).result(10)
    before = len(_refusals(standing))
    for _ in range(5):
        assert _refused(standing, peer=peer) is Reason.DEVICE_STATE
    assert len(_refusals(standing)) == before + 1


def test_a_request_never_shows_its_token(standing: House) -> None:
    wish = EnrolmentRequest(csr=request(), kind=Kind.ENROL, protocol="est", evidence=OneTimeToken("t" * 32))
    assert "tttt" not in repr(wish)


def test_the_key_in_the_certificate_is_the_key_in_the_request(standing: House, device: DeviceRow) -> None:
    key = new_key()
    issued = _enrol(standing, csr=request(key), token=standing.token(device))
    assert spki(key) in issued.der


def test_the_lifetime_is_the_profiles(standing: House, device: DeviceRow) -> None:
    issued = _enrol(standing, token=standing.token(device))
    certificate = x509.load_der_x509_certificate(issued.der)
    life = certificate.not_valid_after_utc - certificate.not_valid_before_utc
    assert life <= timedelta(days=730, hours=1)


def test_a_request_id_of_an_older_release_still_means_the_same_request(standing: House, device: DeviceRow) -> None:
    key, token = new_key(), standing.token(device)
    issued = _enrol(standing, csr=request(key), token=token)
    what = [str(device.id), "h1/icu", device.profile, issued.issuer.reference, "enrol"]
    credential = hashlib.sha256(token.encode()).digest() + hashlib.sha256(spki(key)).digest()
    digest = hashlib.sha256("\0".join(what).encode() + credential).digest()
    with standing.stock.database.reading() as connection:
        found = find_by_request(connection, "est-" + base64.b32encode(digest).decode().rstrip("=").lower())
    assert found is not None
    assert found.leaf_index == issued.leaf_index


def test_one_token_buys_nothing_more_over_a_second_protocol(standing: House, device: DeviceRow) -> None:
    csr, token = request(), standing.token(device)
    first, second = (
        EnrolmentRequest(csr=csr, kind=Kind.ENROL, protocol=protocol, evidence=OneTimeToken(token))
        for protocol in ("est", "cmp")
    )
    standing.enrolment.enrol(first, standing.stock.clock.now())
    with pytest.raises(VagusError) as caught:
        standing.enrolment.enrol(second, standing.stock.clock.now())
    assert caught.value.reason is Reason.TOKEN_SPENT
