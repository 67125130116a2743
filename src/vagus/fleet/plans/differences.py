"""Computes what applying a plan would change, from two sets of values; pure: reads no database and changes nothing."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from enum import StrEnum

from vagus.errors import Conflict, Misconfigured
from vagus.fleet.lifecycle import HAS_ENDED
from vagus.fleet.plans.status_urls import check_status_url
from vagus.policy.plan_files import PlannedBatch, PlannedModel
from vagus.policy.plans import HospitalPlan, MakerPlan, Plan, PlannedAuthority, PlannedDevice, PlannedUnit
from vagus.reasons import Reason
from vagus.records.devices import FROM_MANIFEST, FROM_OPERATOR, FROM_PLAN
from vagus.records.models import ModelRow
from vagus.records.plan_rows import ExistingAuthorityRow, ExistingDeviceRow

ProfileOf = Callable[[str], str | None]
"""A device category to the name of its profile; None for a category that the policy pack does not know."""


class Act(StrEnum):
    """What happens to a thing."""

    ADD = "add"
    CHANGE = "change"
    REMOVE = "remove"


@dataclass(frozen=True, slots=True)
class Change:
    """One line of the table that `plan check` shows."""

    act: Act
    what: str  # one of authority, unit, model, devices, batch, plan
    name: str
    detail: str


@dataclass(frozen=True, slots=True)
class AlteredDevice:
    """An existing device that gets another profile, other host names, or both; None: as they are."""

    id: str
    model: str
    profile: str | None
    host_names: tuple[str, ...] | None


@dataclass(frozen=True, slots=True)
class ExistingState:
    """What an installation has now."""

    group_domain: str | None
    plan_sha256: bytes | None
    authorities: Mapping[str, ExistingAuthorityRow] = field(default_factory=dict)
    units: Mapping[str, tuple[str, str]] = field(default_factory=dict)  # unit name -> (organisation, title)
    models: Mapping[str, ModelRow] = field(default_factory=dict)
    # (model, maker's serial) -> device
    devices: Mapping[tuple[str, str], ExistingDeviceRow] = field(default_factory=dict)
    named_urls: Mapping[str, str] = field(default_factory=dict)  # status URL -> a certificate that names it
    maker_plan: MakerPlan | None = None  # the plan in force of a maker; None before the first


@dataclass(frozen=True, slots=True)
class Difference:
    """What to do, in the order in which it is done; and what was noticed and left as it is."""

    group_domain: str | None
    is_new_plan: bool
    units: tuple[PlannedUnit, ...] = ()
    models: tuple[tuple[PlannedModel, str], ...] = ()  # each model with the profile of its category
    authorities: tuple[PlannedAuthority, ...] = ()
    retired: tuple[ExistingAuthorityRow, ...] = ()
    devices: tuple[tuple[PlannedDevice, str], ...] = ()  # each device with its profile
    moved: tuple[tuple[str, str | None], ...] = ()  # (device id, new place)
    altered: tuple[AlteredDevice, ...] = ()
    changes: tuple[Change, ...] = ()
    remarks: tuple[str, ...] = ()

    @property
    def is_empty(self) -> bool:
        """Whether applying the plan changes nothing."""
        return not self.changes

    @property
    def totals(self) -> Mapping[tuple[Act, str], int]:
        """How many things of each kind are added, changed and removed; devices each, the plan itself not."""
        lines = [(one.act, one.what) for one in self.changes if one.what not in {"device", "devices", "plan"}]
        totals = Counter(lines)
        totals[Act.ADD, "device"] = len(self.devices)
        totals[Act.CHANGE, "device"] = len({one.id for one in self.altered} | {moved for moved, _ in self.moved})
        return {what: number for what, number in totals.items() if number}


_MOST_SHOWN = 5
_IN_USE = frozenset({"requested", "active"})


def difference(
    plan: Plan, existing: ExistingState, profile_of: ProfileOf, anchors: Mapping[str, bytes] | None = None
) -> Difference:
    """What must change so that `existing` becomes `plan`. `anchors`: model -> digest of the anchor that the plan names.

    Raises Misconfigured(BAD_PLAN) for a category that the policy pack does not know and for a host name that a device
    outside the plan has already, Conflict(AUTHORITY_IN_USE) for
    a change that certificates in the field forbid: another group domain or status URL, or the end of an authority whose
    certificates are still valid.
    """
    check_status_url(plan, existing.named_urls)
    wanted = plan.authorities()
    new = tuple(one for one in wanted if _is_missing(existing.authorities.get(one.name)))
    retired = _retired({one.name for one in wanted}, existing)
    changes = [*_authority_changes(new, retired, existing)]
    # A plan that differs in titles or listeners alone is adopted too, so that the ledger records every plan in force.
    is_new_plan = plan.sha256 != existing.plan_sha256
    adopted = [Change(Act.CHANGE, "plan", "adopted plan", "listeners and words")] if is_new_plan else []
    if not isinstance(plan, HospitalPlan):
        changes += _line_changes(plan, existing.maker_plan)
        if changes and _differs_in_line_alone(plan, existing.maker_plan):
            adopted = []
        return Difference(None, is_new_plan, authorities=new, retired=retired, changes=(*changes, *adopted))
    _check_domain(plan, existing)
    profiles = {model.name: _profile(model, profile_of) for model in plan.models}
    units = tuple(one for one in plan.units if existing.units.get(str(one.name)) != (one.organisation, one.title))
    models = tuple(
        (one, profiles[one.name]) for one in plan.models if _model_differs(one, profiles[one.name], existing, anchors)
    )
    devices, moved, remarks = _device_changes(plan, existing, profiles)
    _check_host_names(plan, existing)
    altered = _altered(plan, existing, profiles)
    if altered:
        remarks += ("issued certificates keep their profile and names until renewed: enrol anew, or revoke them",)
    changes += [
        Change(Act.CHANGE if str(one.name) in existing.units else Act.ADD, "unit", str(one.name), one.title)
        for one in units
    ]
    changes += [
        Change(Act.CHANGE if one.name in existing.models else Act.ADD, "model", one.name, f"{one.category}: {profile}")
        for one, profile in models
    ]
    counted = Counter((one.unit, one.model) for one, _ in devices)
    changes += [Change(Act.ADD, "devices", f"{unit} {model}", str(count)) for (unit, model), count in counted.items()]
    changes += [Change(Act.CHANGE, "device", device, f"place: {place or 'none'}") for device, place in moved]
    changes += _altered_changes(altered)
    return Difference(
        group_domain=plan.domain if existing.group_domain is None else None,
        is_new_plan=is_new_plan,
        units=units,
        models=models,
        authorities=new,
        retired=retired,
        devices=devices,
        moved=moved,
        altered=altered,
        changes=(*changes, *adopted),
        remarks=remarks,
    )


def _is_missing(existing: ExistingAuthorityRow | None) -> bool:
    return existing is None or existing.state not in _IN_USE


def _retired(wanted: set[str], existing: ExistingState) -> tuple[ExistingAuthorityRow, ...]:
    """The authorities that the plan no longer has, children before parents; refused while certificates live on them."""
    gone = [one for one in existing.authorities.values() if one.name not in wanted and one.state in _IN_USE]
    for one in gone:
        if one.live:
            msg = f"authority {one.name} has {one.live} live certificates; move or revoke its devices, or plan it"
            raise Conflict(Reason.AUTHORITY_IN_USE, msg, authority=one.name, live=one.live)
    return tuple(sorted(gone, key=lambda one: (-one.name.count("/"), one.name)))


def _authority_changes(
    new: tuple[PlannedAuthority, ...], retired: tuple[ExistingAuthorityRow, ...], existing: ExistingState
) -> Iterator[Change]:
    for one in new:
        before = existing.authorities.get(one.name)
        again = f", generation {before.generation + 1}" if before is not None else ""
        custody = "offline" if one.kind.is_offline else "online"
        yield Change(Act.ADD, "authority", one.name, f"{one.kind.profile}, {custody}{again}")
    for gone in retired:
        yield Change(Act.REMOVE, "authority", gone.name, f"{gone.kind.replace('_', '-')}, no live certificates")


def _line_changes(plan: MakerPlan, before: MakerPlan | None) -> Iterator[Change]:
    """What changes on a maker's line: its models and batches, each by name."""
    now, then = (
        {
            **{("model", one.name): f"{one.category}: {one.serial_prefix}" for one in each.models},
            **{("batch", one.name): _describe_batch(each, one) for one in each.batches},
        }
        for each in (plan, before or plan.model_copy(update={"models": (), "batches": ()}))
    )
    for what, name in dict.fromkeys((*now, *then)):
        act = Act.ADD if (what, name) not in then else Act.CHANGE if (what, name) in now else Act.REMOVE
        if now.get((what, name)) != then.get((what, name)):
            yield Change(act, what, name, now.get((what, name)) or then[what, name])


def _describe_batch(plan: MakerPlan, batch: PlannedBatch) -> str:
    first, last = plan.serial(batch, batch.first), plan.serial(batch, batch.first + batch.count - 1)
    return f"{batch.count} x {batch.model}: {first} to {last}"


def _differs_in_line_alone(plan: MakerPlan, before: MakerPlan | None) -> bool:
    same = {"sha256": plan.sha256, "models": plan.models, "batches": plan.batches}
    return before is not None and before.model_copy(update=same) == plan


def _check_domain(plan: HospitalPlan, existing: ExistingState) -> None:
    if existing.group_domain not in {None, plan.domain}:
        msg = f"group.domain is {existing.group_domain} in every certificate; keep it, or begin another installation"
        raise Conflict(Reason.AUTHORITY_IN_USE, msg, domain=existing.group_domain)


def _profile(model: PlannedModel, profile_of: ProfileOf) -> str:
    found = profile_of(model.category)
    if found is None:
        msg = f"models.{model.name}.category: the policy pack has no rule for {model.category!r}; correct it or add one"
        raise Misconfigured(Reason.BAD_PLAN, msg, key=f"models.{model.name}.category")
    return found


def _model_differs(
    model: PlannedModel, profile: str, existing: ExistingState, anchors: Mapping[str, bytes] | None
) -> bool:
    before = existing.models.get(model.name)
    if before is None:
        return True
    anchor = (anchors or {}).get(model.name, before.anchor_sha256)
    return before != ModelRow(model.name, model.maker, model.category, profile, anchor)


def _device_changes(
    plan: HospitalPlan, existing: ExistingState, profiles: Mapping[str, str]
) -> tuple[tuple[tuple[PlannedDevice, str], ...], tuple[tuple[str, str | None], ...], tuple[str, ...]]:
    """New devices; devices whose place changed; and a remark about those whose unit differs, which no plan moves."""
    new: list[tuple[PlannedDevice, str]] = []
    moved: list[tuple[str, str | None]] = []
    elsewhere = 0
    for device in plan.each_device():
        before = existing.devices.get((device.model, device.maker_serial))
        if before is None:
            new.append((device, profiles[device.model]))
        elif before.unit != device.unit:
            elsewhere += 1
        elif device.place is not None and before.place != device.place:
            moved.append((before.id, device.place))
    remarks = []
    if elsewhere:
        remarks.append(f"{elsewhere} devices are in another unit than planned: a plan transfers nothing")
    return tuple(new), tuple(moved), (*remarks, *_remark_others(plan, existing))


def _remark_others(plan: HospitalPlan, existing: ExistingState) -> Iterator[str]:
    """Living devices that the plan does not name, by what added them: most are meant to be outside of it."""
    planned = {(device.model, device.maker_serial) for device in plan.each_device()}
    others: dict[str | None, list[str]] = {}
    for (model, serial), one in existing.devices.items():
        if (model, serial) not in planned and one.state not in HAS_ENDED:
            others.setdefault(one.origin, []).append(f"{model} {serial}")
    if lawful := [*others.get(FROM_MANIFEST, ()), *others.get(FROM_OPERATOR, ())]:
        number = f"{len(lawful):,}"
        yield f"devices that came by manifest or `vagus device add`, which no plan need name: {number}; they stay"
    if dropped := sorted(others.get(FROM_PLAN, ())):
        more = f" and {len(dropped) - _MOST_SHOWN:,} more" if len(dropped) > _MOST_SHOWN else ""
        yield (
            f"devices that a plan added and this one does not name: {len(dropped):,} "
            f"({', '.join(dropped[:_MOST_SHOWN])}{more}); they stay and work as before. Name them again if they are "
            "missing by mistake; for a single one that has left, see `vagus device state`"
        )
    if unknown := others.get(None):
        yield f"devices that are not in the plan, and what added them is not on record: {len(unknown):,}; they stay"


def _check_host_names(plan: HospitalPlan, existing: ExistingState) -> None:
    """A host name belongs to one server. The plan's own names are distinct; this checks the devices outside the plan.

    A device whose life has ended shows no name any more, so its successor may have it.
    """
    planned = {(device.model, device.maker_serial) for device in plan.each_device()}
    wanted = {name for group in plan.devices for name in group.host_names} | plan.listener_names
    for (model, serial), before in existing.devices.items():
        taken = [name for name in before.host_names if name in wanted]
        if taken and before.state not in HAS_ENDED and (model, serial) not in planned:
            msg = f"host_names: {taken[0]} belongs to {model} {serial} ({before.id}), which is not in this plan"
            msg = f"{msg}; decommission it, or give another name"
            raise Misconfigured(Reason.BAD_PLAN, msg, key="host_names", device=before.id)


def _altered(plan: HospitalPlan, existing: ExistingState, profiles: Mapping[str, str]) -> tuple[AlteredDevice, ...]:
    """Existing devices whose profile or host names differ from the plan.

    A device of the plan has what the plan says. One outside it (from a manifest, or added singly) follows its model
    where it had its model's profile, and keeps one that was given to it alone.
    """
    found: list[AlteredDevice] = []
    planned: set[tuple[str, str]] = set()
    for device in plan.each_device():
        planned.add((device.model, device.maker_serial))
        before = existing.devices.get((device.model, device.maker_serial))
        if before is not None:
            profile = profiles[device.model] if before.profile != profiles[device.model] else None
            names = device.host_names if before.host_names != device.host_names else None
            if profile is not None or names is not None:
                found.append(AlteredDevice(before.id, device.model, profile, names))
    for (model, serial), before in existing.devices.items():
        known = existing.models.get(model)
        follows = known is not None and (model, serial) not in planned and before.profile == known.profile
        if follows and profiles.get(model, before.profile) != before.profile:
            found.append(AlteredDevice(before.id, model, profiles[model], None))
    return tuple(found)


def _altered_changes(altered: tuple[AlteredDevice, ...]) -> Iterator[Change]:
    """A profile changes for a whole model: one line; host names are each device's own."""
    counted = Counter((one.model, one.profile) for one in altered if one.profile is not None)
    for (model, profile), count in counted.items():
        yield Change(Act.CHANGE, "devices", model, f"{count} get profile {profile}")
    for one in altered:
        if one.host_names is not None:
            yield Change(Act.CHANGE, "device", one.id, f"host names: {', '.join(one.host_names) or 'none'}")
