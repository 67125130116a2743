"""Operations over a real installation: roles and scopes refuse before anything is written, and acts carry the actor."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.simulator.issuing import issue
from vagus.errors import Conflict, NotAuthorised, VagusError
from vagus.fleet.revocation_targets import RevocationTarget
from vagus.identifiers import UnitName
from vagus.operations.actor import Actor, ActorKind, Role
from vagus.operations.devices import DeviceQuery, find_named
from vagus.operations.gateway_log import GatewayQuery
from vagus.operations.revocation import PlanState, RevocationAct, RevocationRequest
from vagus.reasons import Reason
from vagus.records.log import load_head
from vagus.wiring import Installation
from vagus.x509.crls.building import RevocationReason

PUMP = "Aorta IP3:AIP3-000001"
ICU, ER = UnitName("h1", "icu"), UnitName("h1", "er")


def actor(name: str, *held: Role, scope: frozenset[UnitName] | None = None) -> Actor:
    return Actor(f"operator:{name}", ActorKind.LOCAL_ACCOUNT, frozenset(held), scope)


@pytest.fixture
def opened(hospital: Path) -> Iterator[Installation]:
    with Installation.open(hospital, passphrase_sources=["env:TEST_PASSPHRASE"]) as installation:
        yield installation


def size(opened: Installation) -> int:
    with opened.database.reading() as connection:
        return load_head(connection).size


def refused(act: Callable[[], object]) -> None:
    with pytest.raises(NotAuthorised) as refusal:
        act()
    assert refusal.value.reason is Reason.ACT_FORBIDDEN


def refusal_of(act: Callable[[], object]) -> str:
    """The whole error: what an actor can learn from it."""
    with pytest.raises(VagusError) as refusal:
        act()
    return f"{type(refusal.value).__name__} {refusal.value.reason}: {refusal.value.message}"


def test_an_auditor_reads_everything_and_changes_nothing(opened: Installation) -> None:
    acts, auditor, before = opened.operations, actor("eve", Role.AUDITOR), size(opened)
    assert acts.devices.find(auditor, PUMP).unit == ICU
    assert acts.audit.read_entries(auditor, limit=1).size == before
    assert acts.ceremonies.find_waiting(auditor).authorities == ()
    refused(lambda: acts.tokens.make(auditor, PUMP))
    refused(lambda: acts.devices.hold(auditor, PUMP))
    refused(lambda: acts.devices.change_state(auditor, PUMP, "commissioned"))
    refused(lambda: acts.authorities.roll(auditor, "h1/icu"))
    refused(lambda: acts.ceremonies.hold(auditor, advance=lambda _: None))
    assert size(opened) == before


def test_a_scope_of_one_unit_binds_reading_and_acting_to_it(opened: Installation) -> None:
    devices, before = opened.operations.devices, size(opened)
    here = actor("anna", Role.CLINICAL_ENGINEER, scope=frozenset({ICU}))
    elsewhere = actor("ben", Role.CLINICAL_ENGINEER, scope=frozenset({ER}))
    assert len(devices.list_page(here, DeviceQuery(unit="h1/icu"))) == 3
    refused(lambda: devices.list_page(here, DeviceQuery()))
    refused(lambda: devices.find(elsewhere, PUMP))
    refused(lambda: devices.transfer(here, PUMP, "h1/er"))
    refused(lambda: opened.operations.certificates.list_of_device(elsewhere, PUMP))
    refused(lambda: opened.operations.tokens.make(elsewhere, PUMP))
    assert size(opened) == before
    assert opened.operations.tokens.make(here, PUMP).device_id == devices.find(here, PUMP).id
    assert size(opened) == before + 1


def test_a_scope_of_one_unit_reads_the_gateways_log_of_its_devices_alone(opened: Installation) -> None:
    log = opened.operations.gateway_log
    here = actor("anna", Role.CLINICAL_ENGINEER, scope=frozenset({ICU}))
    elsewhere = actor("ben", Role.CLINICAL_ENGINEER, scope=frozenset({ER}))
    pump = find_named(opened.database, PUMP).id.text
    for name in (PUMP, pump):
        assert log.read(here, GatewayQuery(device=name)).lines == []
        refused(lambda name=name: opened.operations.devices.find_contact(elsewhere, name))  # type: ignore[misc]
    refused(lambda: log.read(here, GatewayQuery()))
    refused(lambda: log.verify(here))
    refused(lambda: log.read(actor("line", Role.MAKER_LINE), GatewayQuery(device=PUMP)))
    assert log.verify(actor("eve", Role.AUDITOR)).fault is None
    unknown = "Aorta IP3:AIP3-999999"
    for name in (PUMP, pump):
        hidden = refusal_of(lambda name=name: log.read(elsewhere, GatewayQuery(device=name)))  # type: ignore[misc]
        assert hidden == refusal_of(lambda: log.read(elsewhere, GatewayQuery(device=unknown))).replace(unknown, name)
        assert "NOT_IN_INVENTORY" in hidden


def test_a_scope_of_one_unit_gets_no_name_of_a_listener_or_file(opened: Installation) -> None:
    log, eve = opened.operations.gateway_log, actor("eve", Role.AUDITOR)
    here = actor("anna", Role.CLINICAL_ENGINEER, scope=frozenset({ICU}))
    day = opened.settings.folder / "gates" / "telemetry" / "2026-06-01.jsonl"
    day.parent.mkdir(parents=True)
    day.write_text(f"torn {find_named(opened.database, PUMP).id.text}\n")
    all_of_it, own = (log.read(who, GatewayQuery(device=PUMP)) for who in (eve, here))
    assert (all_of_it.listeners, all_of_it.unreadable_in) == (("telemetry",), "telemetry/2026-06-01.jsonl")
    assert (own.listeners, own.unreadable_in, own.unreadable) == (None, None, 1)
    assert "there are telemetry" in refusal_of(lambda: log.read(eve, GatewayQuery("door", PUMP)))
    assert log.read(here, GatewayQuery("door", PUMP)).lines == []


def test_a_plan_carries_who_proposed_and_who_approved_it(hospital: Path, opened: Installation) -> None:
    plans = opened.operations.revocation
    anna, ben = (actor(name, Role.SECURITY_OFFICER) for name in ("anna", "ben"))
    issue(hospital, 1)
    request = RevocationRequest(
        act=RevocationAct.REVOKE,
        reason=RevocationReason.SUPERSEDED,
        target=RevocationTarget(),
        devices=[PUMP],
        stages=(),
    )
    refused(lambda: plans.preview(actor("carl", Role.CLINICAL_ENGINEER), request))
    preview = plans.preview(anna, request)
    assert (preview.forecast.certificates, preview.locks_out, preview.key_block) == (1, False, None)
    plan = plans.propose(anna, preview)
    assert (plan.row.made_by, plan.row.approvals, plan.selected.devices) == (
        anna.id,
        (anna.id,),
        (str(find_named(opened.database, PUMP).id),),
    )
    with pytest.raises(Conflict, match="proposed revocation plan"):
        plans.preview_approval(anna, plan.row.id)
    assert plans.approve(ben, plan.row.id).row.approvals == (anna.id, ben.id)
    done = plans.run_stage(ben, plans.find(ben, plan.row.id), ignores_late_crls=True, advance=lambda _: None)
    assert (done.row.state, done.result) == (PlanState.DONE, "1 certificate is revoked")
    with pytest.raises(Conflict, match="propose a new plan"):
        done.check_goes_on()
