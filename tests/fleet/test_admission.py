"""Which peers a listener admits, through all checks: chain, names, status, inventory, policy."""

from __future__ import annotations

from dataclasses import replace
from datetime import timedelta
from itertools import count
from pathlib import Path

import pytest
from cryptography import x509

from tests.simulator.enrolment import ENROLMENT, Forge, Site, peer
from tests.simulator.installation import GROUP, pack
from tests.simulator.orders import new_public_key
from tests.simulator.presence import present
from tests.simulator.refusals import reason_of
from tests.simulator.stock import BY, ER
from vagus.authority.issuance import IssuanceOrder, IssuedCertificate
from vagus.errors import VagusError
from vagus.fleet.admission import Admission, ListenerRules, PeerCredential
from vagus.fleet.database_status import DatabaseStatus
from vagus.fleet.devices import NewDevice
from vagus.fleet.lifecycle import DeviceState
from vagus.policy.values import Function, SessionOnRevocation
from vagus.reasons import Reason
from vagus.records.devices import DeviceRow
from vagus.x509.certificates import decode_certificate
from vagus.x509.crls.building import RevocationReason
from vagus.x509.names.distinguished import SubjectFields
from vagus.x509.templates import device_subtree_constraints

TELEMETRY = ListenerRules(function=Function.TELEMETRY, group_domain=GROUP)
_SERIALS = count()


def _enrolled(hospital: Site, **more: object) -> tuple[DeviceRow, IssuedCertificate]:
    device = hospital.stock.add(f"SN-{next(_SERIALS)}", **more)
    return device, hospital.enrol(device)


def _refused(hospital: Site, leaf: bytes | None, *chain: bytes, rules: ListenerRules = TELEMETRY) -> Reason:
    return reason_of(hospital.admit, leaf, *chain, rules=rules)


def test_an_enrolled_device_passes_and_is_known(hospital: Site) -> None:
    device, issued = _enrolled(hospital)
    admitted = hospital.admit_device(issued, TELEMETRY)
    assert admitted.credential is PeerCredential.LDEVID
    assert (present(admitted.device).id, admitted.unit) == (device.id, "h1/icu")
    assert str(present(admitted.identity).device_name) == hospital.name(device)
    assert admitted.session_on_revocation == "close"
    assert not admitted.is_registration_authority


def test_no_peer_passes_without_a_certificate_where_one_is_wanted(hospital: Site) -> None:
    assert _refused(hospital, None) is Reason.CREDENTIAL_MISSING
    assert hospital.admit(None, rules=ENROLMENT).credential is PeerCredential.NONE


def test_a_device_of_another_unit_is_refused(hospital: Site) -> None:
    _, issued = _enrolled(hospital)
    rules = ListenerRules(function=Function.TELEMETRY, group_domain=GROUP, units=frozenset({"h1/er"}))
    assert reason_of(hospital.admit_device, issued, rules) is Reason.WRONG_COMPARTMENT


def test_a_revoked_a_held_and_a_released_device(hospital: Site) -> None:
    _, issued = _enrolled(hospital)
    authority = issued.issuer.authority_id
    hospital.revocations.hold(authority, issued.serial, by=BY).result(10)
    assert reason_of(hospital.admit_device, issued, TELEMETRY) is Reason.ON_HOLD
    hospital.revocations.release(authority, issued.serial, by=BY).result(10)
    assert hospital.admit_device(issued, TELEMETRY).device
    hospital.revocations.revoke(authority, issued.serial, RevocationReason.KEY_COMPROMISE, by=BY).result(10)
    for rules in (TELEMETRY, ENROLMENT):
        assert reason_of(hospital.admit_device, issued, rules) is Reason.REVOKED


def test_a_root_of_the_same_name_with_another_key_is_foreign(hospital: Site, tmp_path: Path) -> None:
    device, issued = _enrolled(hospital)
    rogue = Forge(tmp_path / "rogue", seed=99)
    genuine = hospital.units["h1/icu"]
    root = rogue.authority("root", "root", None, like=hospital.root)
    h1 = rogue.authority("h1", "device-ca", root, device_subtree_constraints(f"h1.{GROUP}"), like=hospital.h1)
    icu = rogue.authority("h1/icu", "issuing-ca", h1, device_subtree_constraints(f"icu.h1.{GROUP}"), like=genuine)
    assert icu.facts.subject_der == genuine.facts.subject_der
    copy = rogue.copy(issued.der, icu)
    assert _refused(hospital, copy, icu.der, h1.der, root.der) in {Reason.UNTRUSTED_ANCHOR, Reason.BAD_SIGNATURE}
    assert _refused(hospital, copy, genuine.der, hospital.h1.der) in {Reason.BAD_SIGNATURE, Reason.NO_PATH}
    assert _refused(hospital, copy, icu.der, h1.der, root.der, rules=ENROLMENT) is not None
    assert device.state == "received"


def test_a_certificate_without_a_record_of_issuance_is_refused(hospital: Site) -> None:
    _, issued = _enrolled(hospital)
    genuine = hospital.units["h1/icu"]
    shadow = hospital.forge.copy(issued.der, genuine)
    assert shadow != issued.der
    assert _refused(hospital, shadow, genuine.der, hospital.h1.der) is Reason.NOT_ISSUED


def test_the_state_decides_whether_a_device_connects_or_only_enrols(hospital: Site) -> None:
    device, issued = _enrolled(hospital)
    move = hospital.stock.inventory.change_state
    move(device.id, DeviceState.IN_SERVICE, by=BY).result(10)
    move(device.id, DeviceState.IN_REPAIR, by=BY).result(10)
    assert reason_of(hospital.admit_device, issued, TELEMETRY) is Reason.DEVICE_STATE
    assert hospital.admit_device(issued, ENROLMENT).device
    move(device.id, DeviceState.QUARANTINED, by=BY).result(10)
    assert reason_of(hospital.admit_device, issued, ENROLMENT) is Reason.DEVICE_STATE


def test_a_server_certificate_opens_enrolment_for_its_own_device_and_no_other_listener(hospital: Site) -> None:
    gateway = hospital.stock.add("SN-gateway", host_names=("gw.h1.group.example",))
    issued = hospital.enrol(gateway, label="server")
    chain = (issued.issuer.certificate_der,)
    admitted = hospital.admit(issued.der, *chain)
    assert (admitted.credential, present(admitted.device).id) == (PeerCredential.SERVER, gateway.id)
    assert not admitted.is_registration_authority
    assert _refused(hospital, issued.der, *chain) is Reason.ROLE_FORBIDDEN
    elsewhere = replace(ENROLMENT, units=frozenset({"h1/er"}))
    assert _refused(hospital, issued.der, *chain, rules=elsewhere) is Reason.WRONG_COMPARTMENT
    hospital.revocations.revoke(issued.issuer.authority_id, issued.serial, RevocationReason.SUPERSEDED, by=BY).result(
        10
    )
    assert _refused(hospital, issued.der, *chain, rules=ENROLMENT) is Reason.REVOKED


def test_a_server_certificate_that_no_row_gives_to_a_device_is_refused(hospital: Site) -> None:
    gateway = hospital.stock.add("SN-forged", host_names=("forged.h1.group.example",))
    issued = hospital.enrol(gateway, label="server")
    infra = hospital.units["h1/infra"]
    original = x509.load_der_x509_certificate(issued.der)
    forged = hospital.forge.server_certificate(infra, original)
    assert _refused(hospital, forged, infra.der, rules=ENROLMENT) is Reason.NOT_ISSUED
    order = IssuanceOrder(
        request_id="listener", profile="tls-server", owner="listener:enrol", public_key=new_public_key(),
        subject=SubjectFields("Hospital h1", None, "enrol"), dns_names=("enrol.h1.group.example",),
    )  # fmt: skip
    ours = hospital.issuance.issue_now(order, hospital.issuers["h1/infra"])
    hospital.stock.settle()
    assert _refused(hospital, ours.der, infra.der, rules=ENROLMENT) is Reason.NOT_IN_INVENTORY


def test_a_transfer_leaves_the_old_certificate_a_day(hospital: Site) -> None:
    device, issued = _enrolled(hospital)
    hospital.stock.inventory.transfer(device.id, ER, by=BY).result(10)
    hospital.stock.clock.advance(hours=24)
    assert hospital.admit_device(issued, TELEMETRY).unit == "h1/er"
    hospital.stock.clock.advance(seconds=1)
    hospital.follower.catch_up()
    assert reason_of(hospital.admit_device, issued, TELEMETRY) is Reason.WRONG_COMPARTMENT


def test_no_other_change_of_a_transferred_device_opens_its_old_compartment_again(hospital: Site) -> None:
    device, issued = _enrolled(hospital, state=DeviceState.COMMISSIONED)
    hospital.stock.inventory.transfer(device.id, ER, by=BY).result(10)
    hospital.stock.clock.advance(hours=25)
    hospital.follower.catch_up()
    hospital.stock.place(device.id, "Bay 7")
    hospital.stock.inventory.change_state(device.id, DeviceState.IN_SERVICE, by=BY).result(10)
    assert reason_of(hospital.admit_device, issued, TELEMETRY) is Reason.WRONG_COMPARTMENT


def test_a_connection_that_passes_by_grace_alone_says_so(hospital: Site) -> None:
    _, issued = _enrolled(hospital)
    assert hospital.admit_device(issued, TELEMETRY).on_grace is None
    old = DatabaseStatus(hospital.stock.database, hospital.follower, bound=timedelta(hours=1), grace=timedelta(hours=1))
    parts = (hospital.stock.database, pack(), hospital.stock.clock, hospital.validators)
    admission = Admission(*parts, find_lapse=old.find_lapse)
    hospital.stock.clock.advance(hours=2)
    chain = (issued.issuer.certificate_der, hospital.h1.der)
    assert present(admission.admit(peer(issued.der, *chain), TELEMETRY).on_grace).reason is Reason.SEQUENCE_LOST
    hospital.follower.catch_up()
    assert admission.admit(peer(issued.der, *chain), TELEMETRY).on_grace is None


def test_profiles_narrow_and_the_policy_says_what_for(hospital: Site) -> None:
    _, issued = _enrolled(hospital)
    only_stations = ListenerRules(function=Function.CONTROL, group_domain=GROUP, profiles=frozenset({"station"}))
    assert reason_of(hospital.admit_device, issued, only_stations) is Reason.ROLE_FORBIDDEN
    imaging = ListenerRules(function=Function.IMAGING, group_domain=GROUP)
    assert reason_of(hospital.admit_device, issued, imaging) is Reason.ROLE_FORBIDDEN


def test_an_implant_never_passes_over_tls_1_2(hospital: Site) -> None:
    _, issued = _enrolled(hospital, profile="implant")
    chain = (issued.issuer.certificate_der, hospital.h1.der)
    new, old = peer(issued.der, *chain), peer(issued.der, *chain, version=0x0303)
    assert hospital.admission.admit(new, TELEMETRY).session_on_revocation is SessionOnRevocation.DEGRADE
    control = ListenerRules(function=Function.CONTROL, group_domain=GROUP)
    assert hospital.admission.admit(new, control).session_on_revocation is SessionOnRevocation.CLOSE
    for rules in (TELEMETRY, ENROLMENT):
        assert reason_of(hospital.admission.admit, old, rules) is Reason.PROFILE_VIOLATION


def test_no_birth_certificate_of_an_implant_passes_over_tls_1_2(hospital: Site) -> None:
    for profile, is_let_in in (("implant", False), ("bedside", True)):
        device = hospital.stock.add(f"SN-{next(_SERIALS)}", profile=profile)
        idevid, _ = hospital.forge.birth_certificate(hospital.line, device.maker_serial)
        old = peer(idevid, hospital.line.der, version=0x0303)
        if is_let_in:
            assert hospital.admission.admit(old, ENROLMENT).credential is PeerCredential.IDEVID
        else:
            assert reason_of(hospital.admission.admit, old, ENROLMENT) is Reason.PROFILE_VIOLATION


def test_a_birth_certificate_opens_enrolment_and_nothing_else(hospital: Site) -> None:
    device = hospital.stock.add(f"SN-{next(_SERIALS)}")
    for in_subject in (False, True):
        idevid, _ = hospital.forge.birth_certificate(hospital.line, device.maker_serial, in_subject=in_subject)
        admitted = hospital.admit(idevid, hospital.line.der)
        assert admitted.credential is PeerCredential.IDEVID
        assert present(admitted.device).id == device.id
        assert _refused(hospital, idevid, hospital.line.der) in {Reason.NO_PATH, Reason.UNTRUSTED_ANCHOR}


def test_a_birth_certificate_of_a_device_outside_the_inventory_is_refused(hospital: Site) -> None:
    idevid, _ = hospital.forge.birth_certificate(hospital.line, "SN-unheard-of")
    assert _refused(hospital, idevid, hospital.line.der, rules=ENROLMENT) is Reason.NOT_IN_INVENTORY


def test_a_maker_speaks_for_its_own_models_alone(hospital: Site) -> None:
    """The serial exists, but its model is another maker's."""
    hospital.stock.inventory.add(NewDevice(unit=ER, model="monitor", maker_serial="SN-foreign"), by=BY).result(10)
    idevid, _ = hospital.forge.birth_certificate(hospital.line, "SN-foreign")
    assert _refused(hospital, idevid, hospital.line.der, rules=ENROLMENT) is Reason.NOT_IN_INVENTORY


def test_a_birth_certificate_enrols_only_where_its_unit_is_served(hospital: Site) -> None:
    device = hospital.stock.add(f"SN-{next(_SERIALS)}")
    idevid, _ = hospital.forge.birth_certificate(hospital.line, device.maker_serial)
    rules = ListenerRules(function=None, group_domain=GROUP, needs_certificate=False, units=frozenset({"h1/er"}))
    assert _refused(hospital, idevid, hospital.line.der, rules=rules) is Reason.WRONG_COMPARTMENT


def test_without_makers_no_birth_certificate_counts(hospital: Site) -> None:
    device = hospital.stock.add(f"SN-{next(_SERIALS)}")
    idevid, _ = hospital.forge.birth_certificate(hospital.line, device.maker_serial)
    hospital.admission.use(replace(hospital.validators, makers=None))
    try:
        refused = _refused(hospital, idevid, hospital.line.der, rules=ENROLMENT)
        assert refused in {Reason.NO_PATH, Reason.UNTRUSTED_ANCHOR}
    finally:
        hospital.admission.use(hospital.validators)
    assert hospital.admit(idevid, hospital.line.der).device


def test_bytes_that_are_no_certificate_are_refused_and_never_taken_for_none(hospital: Site) -> None:
    assert _refused(hospital, b"\x30\x03\x02\x01\x05", rules=ENROLMENT) is Reason.NON_DER


def _proves(hospital: Site, leaf: bytes, *chain: bytes, rules: ListenerRules = TELEMETRY) -> tuple[Reason, bool]:
    """Why a peer is refused, and whether the refusal says that its certificate is what it claims to be."""
    with pytest.raises(VagusError) as refusal:
        hospital.admit(leaf, *chain, rules=rules)
    return refusal.value.reason, refusal.value.is_peer_proved


def test_a_refusal_says_whether_our_anchors_vouch_for_the_name_in_it(hospital: Site, tmp_path: Path) -> None:
    device, issued = _enrolled(hospital)
    chain = (issued.issuer.certificate_der, hospital.h1.der)
    assert _proves(hospital, issued.der) == (Reason.NO_PATH, False), "without its chain it is not known from whom it is"
    shadow = hospital.forge.copy(issued.der, hospital.units["h1/icu"])
    assert _proves(hospital, shadow, *chain) == (Reason.NOT_ISSUED, False), "the issuer's key may be stolen"
    rogue = Forge(tmp_path / "rogue", seed=99)
    root = rogue.authority("root", "root", None, like=hospital.root)
    assert _proves(hospital, rogue.copy(issued.der, root), root.der)[1] is False
    elsewhere = ListenerRules(function=Function.TELEMETRY, group_domain=GROUP, units=frozenset({"h1/er"}))
    assert _proves(hospital, issued.der, *chain, rules=elsewhere) == (Reason.WRONG_COMPARTMENT, True)
    hospital.stock.inventory.change_state(device.id, DeviceState.QUARANTINED, by=BY).result(10)
    assert _proves(hospital, issued.der, *chain) == (Reason.DEVICE_STATE, True)
    hospital.revocations.revoke(
        issued.issuer.authority_id, issued.serial, RevocationReason.KEY_COMPROMISE, by=BY
    ).result(10)
    assert _proves(hospital, issued.der, *chain) == (Reason.REVOKED, True)
    assert _proves(hospital, shadow, *chain) == (Reason.REVOKED, False), "a thief of the key may reuse the serial"


def test_an_expired_certificate_proves_no_name(hospital: Site) -> None:
    """The clock of the hospital goes on from here: no test of this file follows."""
    _, issued = _enrolled(hospital)
    chain = (issued.issuer.certificate_der, hospital.h1.der)
    hospital.stock.clock.set(decode_certificate(issued.der).not_after + timedelta(seconds=1))
    hospital.follower.catch_up()
    assert _proves(hospital, issued.der, *chain) == (Reason.EXPIRED, False), "a thief of the key may write any date"
    hospital.stock.clock.advance(days=3650)
    hospital.follower.catch_up()
    assert _proves(hospital, issued.der, *chain) == (Reason.EXPIRED_CA, False), "its key may be anywhere"
