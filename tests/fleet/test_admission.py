"""Who may pass a listener, told by the whole road: chain, names, status, inventory, policy."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import timedelta
from itertools import count

import pytest

from tests.simulator.enrolment import ENROLMENT, GROUP, Forge, House, house, pack, peer, request
from tests.simulator.stock import BY, ER
from vagus.authority.issuance import IssuedCertificate
from vagus.errors import VagusError
from vagus.fleet.admission import Admission, ListenerRules, PeerCredential
from vagus.fleet.database_status import DatabaseStatus
from vagus.fleet.enrolment.enrol import EnrolmentRequest, Kind
from vagus.fleet.enrolment.evidence import OneTimeToken
from vagus.fleet.lifecycle import DeviceState
from vagus.policy.values import Function, SessionOnRevocation
from vagus.reasons import Reason
from vagus.records.devices import DeviceRow
from vagus.x509.crls.building import RevocationReason

TELEMETRY = ListenerRules(function=Function.TELEMETRY, group_domain=GROUP)
_SERIALS = count()


@pytest.fixture(scope="module")
def standing() -> Iterator[House]:
    with house() as built:
        yield built


def _enrolled(standing: House, **more: object) -> tuple[DeviceRow, IssuedCertificate]:
    device = standing.stock.add(f"SN-{next(_SERIALS)}", **more)
    wish = EnrolmentRequest(
        csr=request(), kind=Kind.ENROL, protocol="est", evidence=OneTimeToken(standing.token(device))
    )
    return device, standing.enrolment.enrol(wish, standing.stock.clock.now())


def _refused(standing: House, leaf: bytes | None, *chain: bytes, rules: ListenerRules = TELEMETRY) -> Reason:
    with pytest.raises(VagusError) as caught:
        standing.admit(leaf, *chain, rules=rules)
    return caught.value.reason


def test_an_enrolled_device_passes_and_is_known(standing: House) -> None:
    device, issued = _enrolled(standing)
    admitted = standing.admit_device(issued, TELEMETRY)
    assert admitted.credential is PeerCredential.LDEVID
    assert admitted.device is not None
    assert admitted.device.id == device.id
    assert admitted.unit == "h1/icu"
    assert admitted.identity is not None
    assert str(admitted.identity.device_name) == standing.name(device)
    assert admitted.session_on_revocation == "close"
    assert not admitted.is_registration_authority


def test_nobody_passes_without_a_certificate_where_one_is_wanted(standing: House) -> None:
    assert _refused(standing, None) is Reason.CREDENTIAL_MISSING
    assert standing.admit(None, rules=ENROLMENT).credential is PeerCredential.NONE


def test_a_device_of_another_unit_is_refused(standing: House) -> None:
    _, issued = _enrolled(standing)
    rules = ListenerRules(function=Function.TELEMETRY, group_domain=GROUP, units=frozenset({"h1/er"}))
    with pytest.raises(VagusError) as caught:
        standing.admit_device(issued, rules)
    assert caught.value.reason is Reason.WRONG_COMPARTMENT


def test_a_revoked_a_held_and_a_released_device(standing: House) -> None:
    _, issued = _enrolled(standing)
    authority = issued.issuer.authority_id
    standing.revocations.hold(authority, issued.serial, by=BY).result(10)
    with pytest.raises(VagusError) as caught:
        standing.admit_device(issued, TELEMETRY)
    assert caught.value.reason is Reason.ON_HOLD
    standing.revocations.release(authority, issued.serial, by=BY).result(10)
    assert standing.admit_device(issued, TELEMETRY).device
    standing.revocations.revoke(authority, issued.serial, RevocationReason.KEY_COMPROMISE, by=BY).result(10)
    for rules in (TELEMETRY, ENROLMENT):
        with pytest.raises(VagusError) as caught:
            standing.admit_device(issued, rules)
        assert caught.value.reason is Reason.REVOKED


def test_a_look_alike_of_the_root_is_a_stranger(standing: House, tmp_path: object) -> None:
    from pathlib import Path

    from vagus.x509.templates import device_subtree_constraints

    assert isinstance(tmp_path, Path)
    device, issued = _enrolled(standing)
    rogue = Forge(tmp_path / "rogue", seed=99)
    root = rogue.authority("root", "root", None)
    h1 = rogue.authority("h1", "device-ca", root, device_subtree_constraints(f"h1.{GROUP}"))
    icu = rogue.authority("h1/icu", "issuing-ca", h1, device_subtree_constraints(f"icu.h1.{GROUP}"))
    genuine = standing.units["h1/icu"]
    assert icu.facts.subject_der == genuine.facts.subject_der
    copy = rogue.copy(issued.der, icu)
    assert _refused(standing, copy, icu.der, h1.der, root.der) in {Reason.UNTRUSTED_ANCHOR, Reason.BAD_SIGNATURE}
    assert _refused(standing, copy, genuine.der, standing.h1.der) in {Reason.BAD_SIGNATURE, Reason.NO_PATH}
    assert _refused(standing, copy, icu.der, h1.der, root.der, rules=ENROLMENT) is not None
    assert device.state == "received"


def test_what_the_units_key_signed_and_nobody_recorded_is_not_ours(standing: House) -> None:
    _, issued = _enrolled(standing)
    genuine = standing.units["h1/icu"]
    shadow = standing.forge.copy(issued.der, genuine)
    assert shadow != issued.der
    assert _refused(standing, shadow, genuine.der, standing.h1.der) is Reason.NOT_ISSUED


def test_states_decide_who_connects_and_who_only_enrols(standing: House) -> None:
    device, issued = _enrolled(standing)
    move = standing.stock.inventory.change_state
    move(device.id, DeviceState.IN_SERVICE, by=BY).result(10)
    move(device.id, DeviceState.IN_REPAIR, by=BY).result(10)
    with pytest.raises(VagusError) as caught:
        standing.admit_device(issued, TELEMETRY)
    assert caught.value.reason is Reason.DEVICE_STATE
    assert standing.admit_device(issued, ENROLMENT).device
    move(device.id, DeviceState.QUARANTINED, by=BY).result(10)
    with pytest.raises(VagusError) as caught:
        standing.admit_device(issued, ENROLMENT)
    assert caught.value.reason is Reason.DEVICE_STATE


def test_a_transfer_leaves_the_old_certificate_a_day(standing: House) -> None:
    device, issued = _enrolled(standing)
    standing.stock.inventory.transfer(device.id, ER, by=BY).result(10)
    standing.stock.clock.advance(hours=24)
    assert standing.admit_device(issued, TELEMETRY).unit == "h1/er"
    standing.stock.clock.advance(seconds=1)
    standing.follower.catch_up()
    with pytest.raises(VagusError) as caught:
        standing.admit_device(issued, TELEMETRY)
    assert caught.value.reason is Reason.WRONG_COMPARTMENT


def test_no_other_change_of_a_transferred_device_opens_its_old_compartment_again(standing: House) -> None:
    device, issued = _enrolled(standing, state=DeviceState.COMMISSIONED)
    standing.stock.inventory.transfer(device.id, ER, by=BY).result(10)
    standing.stock.clock.advance(hours=25)
    standing.follower.catch_up()
    standing.stock.inventory.place(device.id, "Bay 7").result(10)
    standing.stock.inventory.change_state(device.id, DeviceState.IN_SERVICE, by=BY).result(10)
    with pytest.raises(VagusError) as caught:
        standing.admit_device(issued, TELEMETRY)
    assert caught.value.reason is Reason.WRONG_COMPARTMENT


def test_who_passes_by_the_grace_of_the_policy_alone_says_so(standing: House) -> None:
    _, issued = _enrolled(standing)
    assert standing.admit_device(issued, TELEMETRY).on_grace is None
    old = DatabaseStatus(standing.stock.database, standing.follower, bound=timedelta(hours=1), grace=timedelta(hours=1))
    parts = (standing.stock.database, pack(), standing.stock.clock, standing.admission._validator)
    admission = Admission(*parts, find_lapse=old.find_lapse)
    standing.stock.clock.advance(hours=2)
    chain = (issued.issuer.certificate_der, standing.h1.der)
    lapse = admission.admit(peer(issued.der, *chain), TELEMETRY).on_grace
    assert lapse is not None
    assert lapse.reason is Reason.SEQUENCE_LOST
    standing.follower.catch_up()
    assert admission.admit(peer(issued.der, *chain), TELEMETRY).on_grace is None


def test_profiles_narrow_and_the_policy_says_what_for(standing: House) -> None:
    _, issued = _enrolled(standing)
    only_stations = ListenerRules(function=Function.CONTROL, group_domain=GROUP, profiles=frozenset({"station"}))
    with pytest.raises(VagusError) as caught:
        standing.admit_device(issued, only_stations)
    assert caught.value.reason is Reason.ROLE_FORBIDDEN
    with pytest.raises(VagusError) as caught:
        standing.admit_device(issued, ListenerRules(function=Function.IMAGING, group_domain=GROUP))
    assert caught.value.reason is Reason.ROLE_FORBIDDEN


def test_an_implant_never_passes_over_tls_1_2(standing: House) -> None:
    _, issued = _enrolled(standing, profile="implant")
    chain = (issued.issuer.certificate_der, standing.h1.der)
    new, old = peer(issued.der, *chain), peer(issued.der, *chain, version=0x0303)
    assert standing.admission.admit(new, TELEMETRY).session_on_revocation is SessionOnRevocation.DEGRADE
    control = ListenerRules(function=Function.CONTROL, group_domain=GROUP)
    assert standing.admission.admit(new, control).session_on_revocation is SessionOnRevocation.CLOSE
    for rules in (TELEMETRY, ENROLMENT):
        with pytest.raises(VagusError) as caught:
            standing.admission.admit(old, rules)
        assert caught.value.reason is Reason.PROFILE_VIOLATION


def test_no_birth_certificate_of_an_implant_passes_over_tls_1_2(standing: House) -> None:
    for profile, is_let_in in (("implant", False), ("bedside", True)):
        device = standing.stock.add(f"SN-{next(_SERIALS)}", profile=profile)
        idevid, _ = standing.forge.birth_certificate(standing.line, device.maker_serial)
        old = peer(idevid, standing.line.der, version=0x0303)
        if is_let_in:
            assert standing.admission.admit(old, ENROLMENT).credential is PeerCredential.IDEVID
            continue
        with pytest.raises(VagusError) as caught:
            standing.admission.admit(old, ENROLMENT)
        assert caught.value.reason is Reason.PROFILE_VIOLATION


def test_a_birth_certificate_opens_enrolment_and_nothing_else(standing: House) -> None:
    device = standing.stock.add(f"SN-{next(_SERIALS)}")
    for in_subject in (False, True):
        idevid, _ = standing.forge.birth_certificate(standing.line, device.maker_serial, in_subject=in_subject)
        admitted = standing.admit(idevid, standing.line.der)
        assert admitted.credential is PeerCredential.IDEVID
        assert admitted.device is not None
        assert admitted.device.id == device.id
        assert _refused(standing, idevid, standing.line.der) in {Reason.NO_PATH, Reason.UNTRUSTED_ANCHOR}


def test_a_birth_certificate_of_a_device_that_nobody_expects_is_refused(standing: House) -> None:
    idevid, _ = standing.forge.birth_certificate(standing.line, "SN-unheard-of")
    assert _refused(standing, idevid, standing.line.der, rules=ENROLMENT) is Reason.NOT_IN_INVENTORY


def test_a_maker_speaks_for_its_own_models_alone(standing: House) -> None:
    """The serial exists, but its model is another maker's."""
    from vagus.fleet.devices import NewDevice

    new = NewDevice(unit=ER, model="monitor", maker_serial="SN-foreign")
    standing.stock.inventory.add(new, by=BY).result(10)
    idevid, _ = standing.forge.birth_certificate(standing.line, "SN-foreign")
    assert _refused(standing, idevid, standing.line.der, rules=ENROLMENT) is Reason.NOT_IN_INVENTORY


def test_a_birth_certificate_enrols_only_where_its_unit_is_served(standing: House) -> None:
    device = standing.stock.add(f"SN-{next(_SERIALS)}")
    idevid, _ = standing.forge.birth_certificate(standing.line, device.maker_serial)
    rules = ListenerRules(function=None, group_domain=GROUP, needs_certificate=False, units=frozenset({"h1/er"}))
    assert _refused(standing, idevid, standing.line.der, rules=rules) is Reason.WRONG_COMPARTMENT


def test_without_makers_no_birth_certificate_counts(standing: House) -> None:
    device = standing.stock.add(f"SN-{next(_SERIALS)}")
    idevid, _ = standing.forge.birth_certificate(standing.line, device.maker_serial)
    makers = standing.admission._makers
    standing.admission.use(standing.admission._validator, None)
    try:
        assert _refused(standing, idevid, standing.line.der, rules=ENROLMENT) in {
            Reason.NO_PATH,
            Reason.UNTRUSTED_ANCHOR,
        }
    finally:
        standing.admission.use(standing.admission._validator, makers)
    assert standing.admit(idevid, standing.line.der).device


def test_bytes_that_are_no_certificate_are_refused_and_never_taken_for_nobody(standing: House) -> None:
    assert _refused(standing, b"\x30\x03\x02\x01\x05", rules=ENROLMENT) is Reason.NON_DER
