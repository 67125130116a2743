"""Compares a plan with the installation and applies it, in steps that may be interrupted; signs nothing.

Every step is one transaction or one authority's request. What to do is computed anew from what exists: after a
kill -9 the same command goes on where it was, and a second apply finds nothing to do. Order: devices that change,
units and models, authorities, new devices, and last the ledger entry that the plan was applied.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import TypeVar

from vagus.clock import Clock, Entropy
from vagus.durable_files import GROUP_FILE, replace_durably
from vagus.errors import Conflict, Malformed, Misconfigured
from vagus.fleet.devices import change_host_names, change_profile, insert_arriving
from vagus.fleet.inventory_entries import record_model
from vagus.fleet.lifecycle import DeviceState
from vagus.fleet.plans import differences
from vagus.fleet.plans.status_urls import check_status_url, find_named_urls
from vagus.identifiers import DeviceId, UnitName
from vagus.ledger.append import append
from vagus.ledger.entries import OperatorAct, PlanApplied
from vagus.policy.documents import read_document
from vagus.policy.plan_files import PlannedModel
from vagus.policy.plans import HospitalPlan, MakerPlan, Plan, PlannedAuthority, PlannedDevice, decode_plan, load_plan
from vagus.reasons import Reason
from vagus.records import plan_rows
from vagus.records.authorities import RETIRED, find_newest, list_authorities, set_authority_state
from vagus.records.devices import FROM_PLAN, DeviceRow, set_device_place
from vagus.records.engine.database import Database
from vagus.records.engine.writer import Batch, Writer
from vagus.records.installation import load_installation
from vagus.records.models import MakerAnchorRow, ModelRow, find_model, list_models, put_maker_anchor
from vagus.records.units import UnitRow, list_units, put_unit
from vagus.x509.names.distinguished import SubjectFields, encode_subject
from vagus.x509.pem import CERTIFICATE, decode_one

PART = 250
"""Devices added in one writer act."""

RequestAuthority = Callable[[PlannedAuthority, str], None]
"""Makes the key of an authority and stores its request; may be repeated after a crash."""
Advance = Callable[[int], None]
_Each = TypeVar("_Each")


@dataclass(frozen=True, slots=True)
class Applied:
    """What an apply did; `authorities` are those of the plan that were missing, with those left to the ceremony."""

    authorities: int
    units: int
    models: int
    devices: int
    retired: int
    next_steps: tuple[str, ...] = field(default=(), compare=False)
    """What is left to do at processes that serve, in words."""


@dataclass(frozen=True, slots=True)
class Comparison:
    """A plan, what it was read from, and what applying it would change."""

    plan: Plan
    raw: bytes
    difference: differences.Difference
    anchors: dict[str, bytes]  # model -> DER of its maker's anchor


class Planning:
    """Compares plans with an installation and applies them."""

    def __init__(
        self,
        database: Database,
        writer: Callable[[], Writer],
        clock: Clock,
        entropy: Entropy,
        *,
        kind: str,
        profile_of: differences.ProfileOf,
        request_authority: RequestAuthority,
        adopted: Path,
        check_served: Callable[[Plan], None] = lambda _plan: None,
    ) -> None:
        """`kind` is the installation's ("hospital", "maker"), `adopted` the file that holds the plan in force.

        `check_served` raises Misconfigured(BAD_PLAN) for a plan whose listeners cannot all be served.
        """
        self._database = database
        self._writer = writer
        self._clock = clock
        self._entropy = entropy
        self._kind = kind
        self._profile_of = profile_of
        self._request_authority = request_authority
        self._adopted = adopted
        self._check_served = check_served

    def compare(self, file: Path) -> Comparison:
        """What applying the plan in `file` would change.

        Raises Misconfigured(BAD_PLAN), Conflict(AUTHORITY_IN_USE).
        """
        raw = read_document(file, Reason.BAD_PLAN)
        plan = decode_plan(raw, str(file))
        wanted = "hospital" if isinstance(plan, HospitalPlan) else "maker"
        if wanted != self._kind:
            msg = f"{file}: kind: this installation is a {self._kind}'s; apply the {wanted}'s plan in another folder"
            raise Misconfigured(Reason.BAD_PLAN, msg, file=str(file), key="kind")
        models = plan.models if isinstance(plan, HospitalPlan) else ()
        anchors = {model.name: _load_anchor(file, model) for model in models if model.anchor}
        digests = {model: hashlib.sha256(der).digest() for model, der in anchors.items()}
        found = differences.difference(plan, self._existing(), self._profile_of, digests)
        _check_subjects(found.authorities)
        self._check_served(plan)
        return Comparison(plan, raw, found, anchors)

    def steps(self, found: Comparison) -> int:
        """How many steps `apply` will report to `advance`."""
        todo = found.difference
        return len(todo.authorities) + len(todo.retired) + len(todo.altered) + len(todo.devices) + 2

    def apply(self, found: Comparison, *, by: str, advance: Advance, with_offline: bool = True) -> Applied:
        """Apply the plan. Safe to repeat; what another run did meanwhile stays.

        Without `with_offline` the keys of offline authorities are left to the ceremony, which makes them.
        Raises Conflict(AUTHORITY_IN_USE) and what requesting an authority raises.
        """
        todo = found.difference
        requested = [one for one in todo.authorities if with_offline or not one.kind.is_offline]
        done = Applied(len(todo.authorities), len(todo.units), len(todo.models), len(todo.devices), len(todo.retired))
        if todo.is_empty:
            return done
        steps = _next_steps(self._find_adopted(), found) if todo.is_new_plan else ()
        # 1. Add units of existing models before the models change: an interrupted apply then finds which devices are
        # left.
        for some in _parts(todo.altered):
            self._writer().submit(partial(_alter_devices, part=some, by=by)).result()
            advance(len(some))
        # 2. Write units and models first, because rows of devices and authorities refer to them.
        self._writer().submit(lambda batch: self._record_names(batch, found, by=by)).result()
        advance(1)
        # 3. Add authorities, parents before children: their keys are made, and their requests wait for a ceremony.
        for one in requested:
            self._request_authority(one, by)
            advance(1)
        # 4. Retire authorities that the plan no longer has, children before parents.
        for gone in todo.retired:
            self._writer().submit(partial(_retire, gone=gone, by=by)).result()
            advance(1)
        # 5. Add new devices in parts, each part in one transaction.
        for part in _parts(todo.devices):
            self._writer().submit(partial(self._add_devices, part=part, by=by)).result()
            advance(len(part))
        # 6. Record the plan in the ledger. From here on its listeners are in force.
        if todo.is_new_plan:
            entry = PlanApplied(found.plan.sha256, done.authorities, done.units, done.models, done.devices, by)
            self._writer().submit(lambda batch: append(batch, entry)).result()
            replace_durably(self._adopted, found.raw, GROUP_FILE)
        advance(1)
        return replace(done, next_steps=steps)

    def load_adopted(self) -> Plan:
        """The plan in force. Raises Conflict(CEREMONY_NEEDED) when none was applied yet, Misconfigured(BAD_PLAN)."""
        if not self._adopted.exists():
            msg = "this installation has no plan yet; run: vagus plan apply PLAN"
            with self._database.reading() as connection:
                if list_authorities(connection):
                    msg = f"plan file {self._adopted} is missing here, though a plan is in force"
                    msg = f"{msg}; copy it from the host that applied it"
            raise Conflict(Reason.CEREMONY_NEEDED, msg)
        return load_plan(self._adopted, is_adopted=True)

    def _find_adopted(self) -> Plan | None:
        """The plan in force; None for one that cannot be read, which must not keep a good one from its place."""
        with suppress(Conflict, Misconfigured):
            return self.load_adopted()
        return None

    def load_served(self) -> Plan:
        """The plan in force, to sign and serve by.

        Raises as `load_adopted`, and Conflict(AUTHORITY_IN_USE) for a file whose status URL is another one than
        certificates name: it was not applied, or it belongs to another database.
        """
        plan = self.load_adopted()
        with self._database.reading() as connection:
            check_status_url(plan, find_named_urls(connection, at=self._at()))
        return plan

    def listener_names(self) -> frozenset[str]:
        """The host names of the listeners of the plan in force; none before one was applied."""
        plan = self.load_adopted() if self._adopted.exists() else None
        return plan.listener_names if isinstance(plan, HospitalPlan) else frozenset()

    def host_names_of(self, hospital: str) -> tuple[str, ...]:
        """The DNS names of the listeners of one hospital in the plan in force; none before one was applied."""
        plan = self.load_adopted() if self._adopted.exists() else None
        listeners = plan.listeners if isinstance(plan, HospitalPlan) else ()
        named = [name for one in listeners if one.hospital == hospital for name in one.host_names]
        return tuple(dict.fromkeys(one for one in named if ":" not in one and not one.replace(".", "").isdigit()))

    def _at(self) -> int:
        return int(self._clock.now().timestamp())

    def _existing(self) -> differences.ExistingState:
        at = self._at()
        with self._database.reading() as connection:
            return differences.ExistingState(
                group_domain=load_installation(connection).group_domain,
                plan_sha256=hashlib.sha256(self._adopted.read_bytes()).digest() if self._adopted.exists() else None,
                authorities={one.name: one for one in plan_rows.list_existing_authorities(connection, at=at)},
                units={str(one.name): (one.organisation, one.title) for one in list_units(connection)},
                models={one.name: one for one in list_models(connection)},
                devices={(one.model, one.maker_serial): one for one in plan_rows.list_existing_devices(connection)},
                named_urls=find_named_urls(connection, at=at),
                maker_plan=self._find_maker_plan(),
            )

    def _find_maker_plan(self) -> MakerPlan | None:
        if not self._adopted.exists():
            return None
        try:
            plan = load_plan(self._adopted)
        except Misconfigured:  # an older release wrote it, or a hand: the plan that is compared takes its place
            return None
        return plan if isinstance(plan, MakerPlan) else None

    def _record_names(self, batch: Batch, found: Comparison, *, by: str) -> None:
        todo = found.difference
        if todo.group_domain is not None:
            plan_rows.set_group_domain(batch.connection, todo.group_domain)
        for unit in todo.units:
            put_unit(batch.connection, UnitRow(unit.name, unit.organisation, unit.title))
        for model, profile in todo.models:
            anchor, before = found.anchors.get(model.name), find_model(batch.connection, model.name)
            digest = None if before is None else before.anchor_sha256
            if anchor is not None:
                digest = hashlib.sha256(anchor).digest()
                put_maker_anchor(batch.connection, MakerAnchorRow(digest, model.maker, anchor, added_at=batch.at))
            record_model(batch, ModelRow(model.name, model.maker, model.category, profile, digest), by=by)
        for device_id, place in todo.moved:
            set_device_place(batch.connection, DeviceId(device_id), place, at=batch.at)

    def _add_devices(self, batch: Batch, part: Sequence[tuple[PlannedDevice, str]], *, by: str) -> None:
        known = {
            model: plan_rows.list_known_serials(
                batch.connection, model, [device.maker_serial for device, _ in part if device.model == model]
            )
            for model in dict.fromkeys(device.model for device, _ in part)
        }
        rows = [
            DeviceRow(
                id=DeviceId.draw(self._entropy),
                unit=UnitName.parse(device.unit),
                model=device.model,
                profile=profile,
                maker_serial=device.maker_serial,
                state=DeviceState.RECEIVED,
                added_at=batch.at,
                changed_at=batch.at,
                place=device.place,
                host_names=device.host_names,
                origin=FROM_PLAN,
            )
            for device, profile in part
            if device.maker_serial not in known[device.model]
        ]
        insert_arriving(batch, rows, by=by)


def _check_subjects(new: Sequence[PlannedAuthority]) -> None:
    """Every new authority's subject can be encoded; to find that out halfway through `apply` would be too late."""
    for one in new:
        try:
            encode_subject(SubjectFields(one.organisation, one.unit, one.common_name, one.country))
        except Malformed as fault:
            msg = f"authority {one.name}, whose name comes from a title: {fault.message}"
            raise Misconfigured(Reason.BAD_PLAN, msg, key="title", authority=one.name) from fault


def _next_steps(before: Plan | None, found: Comparison) -> tuple[str, ...]:
    """What is left to do at processes that serve, after `found` has been applied in place of the plan `before`."""
    if before is None:
        return ("Next, once the authorities are certified: vagus serve --issue-for all, or with a list of names",)
    old, new = ({one.name: one for one in plan.listeners} for plan in (before, found.plan))
    changed = {name for name in old.keys() & new.keys() if old[name] != new[name]}
    changed = {name for name in changed if not new[name].is_wider_than(old[name])} | (old.keys() ^ new.keys())
    steps = []
    if changed:
        steps.append(f"Next: systemctl reload vagus (SIGHUP), for listeners that changed: {', '.join(sorted(changed))}")
    names = [one.name for one in found.difference.authorities if not one.kind.is_offline]
    if names:
        whole = "all" if len({name.partition("/")[0] for name in names}) > 1 else names[0].partition("/")[0]
        steps.append(
            f"Next, where serve has a list of names: restart it with --issue-for ...,{','.join(names)}; "
            f"with --issue-for {whole} it takes them by itself"
        )
    return tuple(steps) or ("Nothing is left to do: a process that serves takes this plan by itself",)


def _retire(batch: Batch, gone: plan_rows.ExistingAuthorityRow, *, by: str) -> None:
    """Retire an authority. Inside the transaction, count its live certificates again."""
    live = plan_rows.count_live(batch.connection, gone.name, at=batch.at)
    if live:
        msg = f"authority {gone.name} got {live} live certificates since the comparison; run the plan command again"
        raise Conflict(Reason.AUTHORITY_IN_USE, msg, authority=gone.name, live=live)
    row = find_newest(batch.connection, gone.name, state=None)
    if row is not None and row.state != RETIRED:
        set_authority_state(batch.connection, row.id, RETIRED)
        append(batch, OperatorAct("authority-retired", by, subject=f"authority:{row.reference}"))


def _alter_devices(batch: Batch, part: Sequence[differences.AlteredDevice], *, by: str) -> None:
    for one in part:
        if one.profile is not None:
            change_profile(batch, DeviceId(one.id), one.profile, by=by)
        if one.host_names is not None:
            change_host_names(batch, DeviceId(one.id), one.host_names, by=by)


def _parts(devices: Sequence[_Each]) -> Iterator[Sequence[_Each]]:
    for at in range(0, len(devices), PART):
        yield devices[at : at + PART]


def _load_anchor(file: Path, model: PlannedModel) -> bytes:
    key, path = f"models.{model.name}.anchor", file.parent / (model.anchor or "")
    try:
        return decode_one(path.read_bytes(), CERTIFICATE)
    except OSError as fault:
        msg = f"{file}: {key}: {path} cannot be read ({fault.strerror}); name the maker's root certificate"
        raise Misconfigured(Reason.BAD_PLAN, msg, file=str(file), key=key) from fault
    except Malformed as fault:
        raise Misconfigured(Reason.BAD_PLAN, f"{file}: {key}: {fault.message}", file=str(file), key=key) from fault
