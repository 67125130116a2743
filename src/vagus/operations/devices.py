"""Devices as an operator reads and changes them: add, show, page, state, transfer, revoke, hold, release."""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import partial
from itertools import islice
from typing import TYPE_CHECKING

from vagus.errors import Malformed, NotAuthorised
from vagus.fleet.devices import NewDevice, load_device
from vagus.fleet.expiry import EXPIRED, PAGE, days_until, iterate_certified, shown_state
from vagus.fleet.lifecycle import HAS_ENDED, IS_LOCKED, DeviceState, check_move, decode_state
from vagus.fleet.manifests import Imported, ManifestImport, decode_manifest
from vagus.identifiers import DeviceId, UnitName
from vagus.operations.acts import Acts
from vagus.operations.roles import Act, check_may, check_scope
from vagus.reasons import Reason
from vagus.records.authorities import find_newest
from vagus.records.certificates import HELD, ISSUED, list_of_device
from vagus.records.device_contacts import Contact, find_contacts
from vagus.records.devices import DeviceFilter, DeviceRow, find_device_by_serial, list_profiles
from vagus.records.models import list_models
from vagus.records.revocation.revocations import find_revocation
from vagus.records.units import list_units
from vagus.x509.crls.building import RevocationReason

if TYPE_CHECKING:
    from collections.abc import Collection
    from datetime import timedelta

    from vagus.authority.revocation import Revoked
    from vagus.operations.actor import Actor
    from vagus.records.engine.database import Connection, Database
    from vagus.records.expiry import CertifiedDevice

Device = DeviceRow
"""One device of the inventory, as operations return it."""
DeviceContact = Contact
"""When a listener last admitted and last refused a device, as operations return it."""
NO_CONTACT = Contact()


@dataclass(frozen=True, slots=True, kw_only=True)
class DeviceQuery:
    """Which devices to list, as people write it; None does not narrow."""

    unit: str | None = None
    hospital: str | None = None
    state: str | None = None
    model: str | None = None
    category: str | None = None
    profile: str | None = None


@dataclass(frozen=True, slots=True)
class ListedDevice:
    """A device of a listing with its certificate that counts: its state and end as `device show` has them.

    `not_after` is in seconds since 1970 UTC, `days_left` below zero after it; all None for a device without one.
    """

    device: Device
    category: str
    certificate: str | None
    not_after: int | None
    days_left: int | None
    contact: DeviceContact = NO_CONTACT


@dataclass(frozen=True, slots=True)
class DeviceRevocation:
    """What revoking a device would do: `locks_out` where it also keeps the device from enrolling again."""

    device: Device
    reason: RevocationReason
    locks_out: bool


@dataclass(frozen=True, slots=True)
class StateChange:
    """What a change of state would do. `compromised_at`: when a certificate was revoked because its key was lost."""

    device: Device
    after: DeviceState
    compromised_at: int | None

    @property
    def ends(self) -> bool:
        """Whether the device's life ends by it: its certificates are revoked for good."""
        return self.after in HAS_ENDED and self.device.state not in HAS_ENDED

    @property
    def unlocks(self) -> bool:
        """Whether the device is locked out now and may enrol afterwards."""
        return self.device.state in IS_LOCKED and self.after not in IS_LOCKED | HAS_ENDED


@dataclass(frozen=True, slots=True)
class DeviceOutcome:
    """A device after an act on its certificates: `changed` of them changed, `before` were so already.

    `sequence` is the number of the newest revocation step. `is_news`: anything changed, its hold included.
    """

    device: Device
    changed: int
    before: int
    sequence: int
    is_news: bool


class Devices(Acts):
    """What an operator may do with devices. A device is named by its id, or as MODEL:SERIAL."""

    def find(self, actor: Actor, device: str) -> Device:
        """The device. Raises as `find_named`."""
        check_may(actor, Act.READ_DEVICES)
        return self._find(actor, device)

    def list_page(
        self,
        actor: Actor,
        query: DeviceQuery,
        *,
        expires_within: timedelta | None = None,
        not_seen_for: timedelta | None = None,
        after: str | None = None,
        limit: int = 100,
    ) -> tuple[ListedDevice, ...]:
        """At most `limit` devices by unit, model and serial, beginning after the device `after`.

        With `expires_within` only those whose certificate has ended or ends within that time. With `not_seen_for` only
        those that no listener has admitted for so long, or ever. Both leave out devices whose life has ended, unless
        the query asks for their state. Raises as `find_named`,
        and Malformed(BAD_ARGUMENT, NON_CANONICAL), also for a unit, hospital, model or category that does not exist.
        """
        check_may(actor, Act.READ_DEVICES)
        database, at = self.components.database, int(self.components.clock.now().timestamp())
        if actor.scope is not None:  # before anything that says which units there are
            check_scope(actor, UnitName.parse(query.unit) if query.unit else None)
        with database.reading() as connection:
            narrow = decode_query(connection, query)
        if not_seen_for is not None:
            narrow = replace(narrow, not_seen_since=at - int(not_seen_for.total_seconds()))
        start = self._find(actor, after) if after else None
        page = min(limit, PAGE) if expires_within is None else PAGE
        found = iterate_certified(database, at=at, narrow=narrow, after=start, page=page)
        listed = (_listed(one, at) for one in found)
        if expires_within is not None:
            until = at + int(expires_within.total_seconds())
            listed = (
                one
                for one in listed
                if one.certificate in (ISSUED, HELD, EXPIRED) and one.not_after is not None and one.not_after <= until
            )
        if (not_seen_for, expires_within) != (None, None) and query.state is None:
            listed = (one for one in listed if one.device.state not in HAS_ENDED)
        shown = tuple(islice(listed, limit))
        with database.reading() as connection:
            contacts = find_contacts(connection, [one.device.id for one in shown])
        return tuple(replace(one, contact=contacts.get(one.device.id.text, NO_CONTACT)) for one in shown)

    def find_contact(self, actor: Actor, device: str) -> DeviceContact:
        """When a listener last admitted and last refused the device. Raises as `find_named`."""
        check_may(actor, Act.READ_DEVICES)
        found = self._find(actor, device).id
        with self.components.database.reading() as connection:
            return find_contacts(connection, [found]).get(found.text, NO_CONTACT)

    def add(self, actor: Actor, new: NewDevice) -> Device:
        """Add one device; its id is drawn here. Raises as `Inventory.add`."""
        check_may(actor, Act.ADD_DEVICE)
        check_scope(actor, new.unit)
        return self.components.inventory.add(new, by=actor.id).result()

    def preview_state(self, actor: Actor, device: str, state: str) -> StateChange:
        """What `change_state` would do. Raises as it does."""
        check_may(actor, Act.CHANGE_DEVICE_STATE)
        after, found = decode_state(state), self._find(actor, device)
        check_move(DeviceState(found.state), after)
        with self.components.database.reading() as connection:
            known = list_of_device(connection, str(found.id))
            revoked = [find_revocation(connection, one.leaf_index) for one in known]
        lost = [one.revoked_at for one in revoked if one is not None and RevocationReason(one.reason).is_compromise]
        return StateChange(found, after, max(lost, default=None))

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
        if parsed in {RevocationReason.CERTIFICATE_HOLD, RevocationReason.REMOVE_FROM_CRL}:
            act = "hold" if parsed is RevocationReason.CERTIFICATE_HOLD else "release"
            msg = f"reason {parsed.spelling} is not for a revocation; use `vagus device {act}` instead"
            raise Malformed(Reason.BAD_ARGUMENT, msg, value=reason)
        is_locked_out = not (keeps_enrolling or parsed is RevocationReason.SUPERSEDED)
        return DeviceRevocation(self._find(actor, device), parsed, is_locked_out)

    def revoke(self, actor: Actor, device: str, reason: str, *, keeps_enrolling: bool = False) -> DeviceOutcome:
        """Revoke every live certificate of a device and, unless they are only superseded, lock it out.

        A device that is revoked alone would keep the maker's certificate and unspent tokens, with which it enrols
        again at once; `keeps_enrolling` is for devices that shall. Raises as `preview_revocation`.
        """
        check_may(actor, Act.REVOKE_DEVICE)
        wanted = self.preview_revocation(actor, device, reason, keeps_enrolling=keeps_enrolling)
        inventory = self.components.inventory
        act = inventory.lock_out if wanted.locks_out else inventory.revoke
        return self._outcome(wanted.device, act(wanted.device.id, wanted.reason, by=actor.id).result())

    def hold(self, actor: Actor, device: str) -> DeviceOutcome:
        """Suspend every live certificate of a device, which gets no other, until it is released or revoked.

        Raises as `find_named`.
        """
        check_may(actor, Act.HOLD_DEVICE)
        found = self._find(actor, device)
        return self._outcome(found, self.components.inventory.hold(found.id, by=actor.id).result())

    def release(self, actor: Actor, device: str) -> DeviceOutcome:
        """End every hold on a device's certificates. Raises as `find_named`."""
        check_may(actor, Act.RELEASE_DEVICE)
        found = self._find(actor, device)
        return self._outcome(found, self.components.inventory.release(found.id, by=actor.id).result())

    def import_manifest(self, actor: Actor, manifest: bytes, anchor_der: bytes, unit: UnitName | None) -> Imported:
        """Bind a maker's anchor to its models and add its unknown devices to `unit`, a part at a time.

        Raises as `decode_manifest` and `ManifestImport`.
        """
        check_may(actor, Act.IMPORT_MANIFEST)
        made = decode_manifest(manifest)
        taking = ManifestImport(made, anchor_der, self.components.pack.profile_of_category)
        models = self.components.writer.submit(partial(taking.bind, by=actor.id)).result()
        done = Imported(made.maker, made.anchor_sha256, models, known=0, added=0, unknown=0)
        for part in taking.parts():
            act = partial(taking.take, part=part, unit=unit, entropy=self.components.entropy, by=actor.id)
            done += self.components.writer.submit(act).result()
        return done

    def _find(self, actor: Actor, device: str) -> Device:
        found = find_named(self.components.database, device)
        check_scope(actor, found.unit)
        return found

    def _outcome(self, before: Device, done: Revoked) -> DeviceOutcome:
        with self.components.database.reading() as connection:
            now = load_device(connection, before.id)
        is_news = bool(done.count) or (now.state, now.held_at) != (before.state, before.held_at)
        return DeviceOutcome(now, done.count, done.before, done.sequence, is_news)


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
                msg = f"{msg}; {_where_to_look(connection, 'see `vagus device list`')}"
                raise Malformed(Reason.BAD_ARGUMENT, msg, value=text[:80]) from fault
            return load_device(connection, device_id)
        found = find_device_by_serial(connection, model, serial)
        remedy = _where_to_look(connection, "see `vagus device list --model`")
    if found is None:
        msg = f"no device of model {model} with serial {serial} is in the inventory; {remedy}"
        raise NotAuthorised(Reason.NOT_IN_INVENTORY, msg)
    return found


def _where_to_look(connection: Connection, remedy: str) -> str:
    """A maker has devices too, and no inventory of them."""
    if find_newest(connection, "line") is None:
        return remedy
    return "a maker has none: use `vagus maker list`, `show` and `revoke`"


def decode_query(connection: Connection, query: DeviceQuery) -> DeviceFilter:
    """What `query` selects. Raises Malformed(BAD_ARGUMENT) for a state, and as `check_known`."""
    check_known(connection, unit=query.unit, hospital=query.hospital, model=query.model, category=query.category)
    _check_profile(connection, query.profile)
    return DeviceFilter(
        unit=UnitName.parse(query.unit) if query.unit is not None else None,
        hospital=query.hospital,
        state=decode_state(query.state).value if query.state is not None else None,
        model=query.model,
        category=query.category,
        profile=query.profile,
    )


def _listed(found: CertifiedDevice, at: int) -> ListedDevice:
    newest = found.newest
    if newest is None:
        return ListedDevice(found.device, found.category, None, None, None)
    state, end = shown_state(newest.state, newest.not_after, at=at), newest.not_after
    return ListedDevice(found.device, found.category, state, end, days_until(end, at=at))


def check_known(
    connection: Connection,
    *,
    unit: str | None = None,
    hospital: str | None = None,
    model: str | None = None,
    category: str | None = None,
) -> None:
    """A misspelt name must not look like one without devices.

    Raises Malformed(BAD_ARGUMENT) with those there are, and Malformed(NON_CANONICAL) for a unit without its hospital.
    """
    units, models = [one.name for one in list_units(connection)], list_models(connection)
    for what, value, known in (
        ("unit", unit, {str(one) for one in units}),
        ("hospital", hospital, {one.hospital for one in units}),
        ("model", model, {one.name for one in models}),
        ("category", category, {one.category for one in models}),
    ):
        _check_among(connection, what, value, known)


def _check_profile(connection: Connection, profile: str | None) -> None:
    """A device may have another profile than its model, but only few have: all devices are read for these alone."""
    if profile is not None and profile not in {one.profile for one in list_models(connection)}:
        _check_among(connection, "profile", profile, list_profiles(connection))


def _check_among(connection: Connection, what: str, value: str | None, known: Collection[str]) -> None:
    if value is not None and value not in known:
        remedy = _where_to_look(connection, f"known are {', '.join(sorted(known)) or 'none'}")
        msg = f"{what} {value[:80]!r} is not in the inventory; {remedy}"
        is_unspelt = what == "unit" and "/" not in value
        raise Malformed(Reason.NON_CANONICAL if is_unspelt else Reason.BAD_ARGUMENT, msg, value=value[:80])
