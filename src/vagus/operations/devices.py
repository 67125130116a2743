"""Devices as an operator reads and changes them: add, show, page, state, transfer, revoke, hold, release."""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING

from vagus.errors import Malformed, NotAuthorised
from vagus.fleet.devices import NewDevice, load_device
from vagus.fleet.lifecycle import MAY_ENROL, decode_state
from vagus.fleet.manifests import Imported, ManifestImport, decode_manifest
from vagus.identifiers import DeviceId, UnitName, check_label
from vagus.operations.acts import Acts
from vagus.operations.roles import Act, check_may, check_scope
from vagus.reasons import Reason
from vagus.records.devices import DeviceFilter, DeviceRow, find_device_by_serial, list_devices
from vagus.records.models import list_models
from vagus.records.units import list_units
from vagus.x509.crls.building import RevocationReason

if TYPE_CHECKING:
    from vagus.authority.revocation import Revoked
    from vagus.operations.actor import Actor
    from vagus.records.engine.database import Connection, Database

Device = DeviceRow
"""One device of the inventory, as operations return it."""


@dataclass(frozen=True, slots=True, kw_only=True)
class DeviceQuery:
    """Which devices to list, as people write it; None does not narrow."""

    unit: str | None = None
    hospital: str | None = None
    state: str | None = None
    model: str | None = None


@dataclass(frozen=True, slots=True)
class DeviceRevocation:
    """What revoking a device would do: `locks_out` where it also keeps the device from enrolling again."""

    device: Device
    reason: RevocationReason
    locks_out: bool


@dataclass(frozen=True, slots=True)
class DeviceOutcome:
    """A device after an act on its certificates: `changed` of them changed, `before` were so already.

    `sequence` is the number of the newest revocation step.
    """

    device: Device
    changed: int
    before: int
    sequence: int

    @property
    def may_enrol(self) -> bool:
        """Whether the device may still get a certificate."""
        return self.device.state in MAY_ENROL


class Devices(Acts):
    """What an operator may do with devices. A device is named by its id, or as MODEL:SERIAL."""

    def find(self, actor: Actor, device: str) -> Device:
        """The device. Raises as `find_named`."""
        check_may(actor, Act.READ_DEVICES)
        return self._find(actor, device)

    def list_page(
        self, actor: Actor, query: DeviceQuery, *, after: str | None = None, limit: int = 100
    ) -> tuple[Device, ...]:
        """At most `limit` devices by id, beginning after the id `after`.

        Raises Malformed(BAD_ARGUMENT, NON_CANONICAL), also for a unit, hospital or model that does not exist.
        """
        check_may(actor, Act.READ_DEVICES)
        narrow = DeviceFilter(
            unit=UnitName.parse(query.unit) if query.unit else None,
            hospital=check_label(query.hospital, "hospital") if query.hospital else None,
            state=decode_state(query.state).value if query.state else None,
            model=query.model,
        )
        check_scope(actor, narrow.unit)
        start = DeviceId(after) if after else None
        with self.components.database.reading() as connection:
            check_known(connection, unit=query.unit, hospital=query.hospital, model=query.model)
            return list_devices(connection, narrow, after=start, limit=limit)

    def add(self, actor: Actor, new: NewDevice) -> Device:
        """Add one device; its id is drawn here. Raises as `Inventory.add`."""
        check_may(actor, Act.ADD_DEVICE)
        check_scope(actor, new.unit)
        return self.components.inventory.add(new, by=actor.id).result()

    def change_state(self, actor: Actor, device: str, state: str) -> Device:
        """Move a device on in its life. Raises as `find_named` and `Inventory.change_state`."""
        check_may(actor, Act.CHANGE_DEVICE_STATE)
        wanted = decode_state(state)
        return self.components.inventory.change_state(self._find(actor, device).id, wanted, by=actor.id).result()

    def transfer(self, actor: Actor, device: str, unit: str) -> Device:
        """Give a device to another unit, where it must enrol again. Raises as `find_named` and `Inventory.transfer`."""
        check_may(actor, Act.TRANSFER_DEVICE)
        target = UnitName.parse(unit)
        found = self._find(actor, device)
        check_scope(actor, target)
        return self.components.inventory.transfer(found.id, target, by=actor.id).result()

    def preview_revocation(
        self, actor: Actor, device: str, reason: str, *, keeps_enrolling: bool = False
    ) -> DeviceRevocation:
        """What `revoke` would do. Raises as `find_named`, and Malformed(BAD_ARGUMENT) for an unknown reason."""
        check_may(actor, Act.REVOKE_DEVICE)
        parsed = RevocationReason.parse(reason)
        is_locked_out = not (keeps_enrolling or parsed is RevocationReason.SUPERSEDED)
        return DeviceRevocation(self._find(actor, device), parsed, is_locked_out)

    def revoke(self, actor: Actor, device: str, reason: str, *, keeps_enrolling: bool = False) -> DeviceOutcome:
        """Revoke every live certificate of a device and, unless they are only superseded, lock it out.

        A device that is revoked alone would keep the maker's certificate and unspent tokens, with which it enrols
        again at once; `keeps_enrolling` is for devices that shall. Raises as `preview_revocation`.
        """
        check_may(actor, Act.REVOKE_DEVICE)
        wanted = self.preview_revocation(actor, device, reason, keeps_enrolling=keeps_enrolling)
        device_id = wanted.device.id
        if wanted.locks_out:
            done = self.components.inventory.lock_out(device_id, wanted.reason, by=actor.id).result()
        else:
            done = self.components.revocations.revoke_device(str(device_id), wanted.reason, by=actor.id).result()
        return self._outcome(device_id, done)

    def hold(self, actor: Actor, device: str) -> DeviceOutcome:
        """Suspend every live certificate of a device until it is released or revoked. Raises as `find_named`."""
        check_may(actor, Act.HOLD_DEVICE)
        found = self._find(actor, device)
        return self._outcome(found.id, self.components.revocations.hold_device(str(found.id), by=actor.id).result())

    def release(self, actor: Actor, device: str) -> DeviceOutcome:
        """End every hold on a device's certificates. Raises as `find_named`."""
        check_may(actor, Act.RELEASE_DEVICE)
        found = self._find(actor, device)
        return self._outcome(found.id, self.components.revocations.release_device(str(found.id), by=actor.id).result())

    def import_manifest(self, actor: Actor, manifest: bytes, anchor_der: bytes, unit: UnitName | None) -> Imported:
        """Bind a maker's anchor to its models and add its unknown devices to `unit`, a part at a time.

        Raises as `decode_manifest` and `ManifestImport`.
        """
        check_may(actor, Act.IMPORT_MANIFEST)
        made = decode_manifest(manifest)
        taking = ManifestImport(made, anchor_der, self.components.pack.profile_of_category)
        models = self.components.writer.submit(partial(taking.bind, by=actor.id)).result()
        known = fresh = 0
        for part in taking.parts():
            act = partial(taking.take, part=part, unit=unit, entropy=self.components.entropy, by=actor.id)
            had, new = self.components.writer.submit(act).result()
            known, fresh = known + had, fresh + new
        added = fresh if unit is not None else 0
        return Imported(made.maker, made.anchor_sha256, models, known, added, fresh - added)

    def _find(self, actor: Actor, device: str) -> Device:
        found = find_named(self.components.database, device)
        check_scope(actor, found.unit)
        return found

    def _outcome(self, device_id: DeviceId, done: Revoked) -> DeviceOutcome:
        with self.components.database.reading() as connection:
            return DeviceOutcome(load_device(connection, device_id), done.count, done.before, done.sequence)


def find_named(database: Database, text: str) -> Device:
    """The device that a person named: its id, or MODEL:SERIAL.

    Raises NotAuthorised(NOT_IN_INVENTORY), Malformed(BAD_ARGUMENT) for what is neither.
    """
    model, colon, serial = text.rpartition(":")
    with database.reading() as connection:
        if not colon:
            try:
                device_id = DeviceId(text)
            except Malformed as fault:
                msg = f"{text[:80]!r} names no device: it is neither an id of 26 characters nor MODEL:SERIAL"
                raise Malformed(Reason.BAD_ARGUMENT, f"{msg}; see `vagus device list`", value=text[:80]) from fault
            return load_device(connection, device_id)
        found = find_device_by_serial(connection, model, serial)
    if found is None:
        msg = f"no device of model {model} with serial {serial} is in the inventory; see `vagus device list --model`"
        raise NotAuthorised(Reason.NOT_IN_INVENTORY, msg)
    return found


def check_known(
    connection: Connection, *, unit: str | None = None, hospital: str | None = None, model: str | None = None
) -> None:
    """A misspelt unit, hospital or model must not look like one without devices. Raises Malformed(BAD_ARGUMENT)."""
    units = [one.name for one in list_units(connection)]
    for what, value, known in (
        ("unit", unit, {str(one) for one in units}),
        ("hospital", hospital, {one.hospital for one in units}),
        ("model", model, {one.name for one in list_models(connection)}),
    ):
        if value is not None and value not in known:
            msg = f"{what} {value!r} is not in the inventory; known are {', '.join(sorted(known)) or 'none'}"
            raise Malformed(Reason.BAD_ARGUMENT, msg, value=value)
