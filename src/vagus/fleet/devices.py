"""The inventory: adding devices, moving them through their life, giving them to other units; issues nothing."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Sequence
from concurrent.futures import Future
from dataclasses import dataclass, replace
from datetime import timedelta
from typing import Final

from vagus.authority.named_devices import InventoryActs
from vagus.authority.revocation import Revoked, hold_device, release_device, revoke_device
from vagus.clock import Entropy
from vagus.errors import Conflict, Malformed, NotAuthorised
from vagus.fleet.inventory_entries import device_added
from vagus.fleet.lifecycle import HAS_ENDED, MAY_BE_LOCKED, DeviceState, check_move, locked_state
from vagus.fleet.transfers import plan_superseding
from vagus.identifiers import DeviceId, UnitName
from vagus.ledger.append import append
from vagus.ledger.entries import DeviceStateChanged, OperatorAct, TokensExpired
from vagus.reasons import Reason
from vagus.records import devices
from vagus.records.device_changes import note_device_change
from vagus.records.devices import DeviceRow
from vagus.records.engine.database import Connection
from vagus.records.engine.writer import Batch, Writer
from vagus.records.models import find_model
from vagus.records.revocation.device_lots import list_lot_locks
from vagus.records.tokens import expire_tokens_of
from vagus.records.units import find_unit
from vagus.texts import find_unseen
from vagus.x509.crls.building import RevocationReason
from vagus.x509.paths.identity import decode_host

_LONGEST_SERIAL: Final = 80
_LONGEST_PLACE: Final = 120


@dataclass(frozen=True, slots=True, kw_only=True)
class NewDevice:
    """A device to add. The profile is the model's unless one is named; times and id are given by the installation."""

    unit: UnitName
    model: str
    maker_serial: str
    profile: str | None = None
    udi: str | None = None
    place: str | None = None
    host_names: tuple[str, ...] = ()
    state: DeviceState = DeviceState.RECEIVED


AtEnd = Callable[[Batch, DeviceId, str], None]
"""What else happens, in the same transaction, when a device's life ends: batch, device, and who ended it."""


def revoke_at_end(batch: Batch, device_id: DeviceId, by: str) -> None:
    """Revoke every certificate of a device whose life has ended."""
    revoke_device(batch, str(device_id), RevocationReason.CESSATION_OF_OPERATION, by=by)


class Inventory:
    """The acts that change the inventory, each one writer act with its ledger entry."""

    def __init__(
        self,
        writer: Writer,
        entropy: Entropy,
        *,
        at_end: AtEnd = revoke_at_end,
        overlap: timedelta,
        listener_names: Callable[[], frozenset[str]] = frozenset,
    ) -> None:
        """`overlap` is how long a transferred device's old certificates go on, by the policy.

        `listener_names` are the host names of this installation's listeners, which no device may show.
        """
        self._listener_names = listener_names
        self._writer = writer
        self._entropy = entropy
        self._at_end = at_end
        self._overlap = overlap

    def add(self, new: NewDevice, *, by: str) -> Future[DeviceRow]:
        """Add one device. Raises Conflict(ALREADY_EXISTS) for a listener's name; the future raises as `add_device`."""
        if new.host_names and (taken := sorted(self._listener_names().intersection(new.host_names))):
            msg = f"host name {taken[0]} belongs to a listener here, and the device could pose as it; choose another"
            raise Conflict(Reason.ALREADY_EXISTS, msg, host_name=taken[0])
        device_id = DeviceId.draw(self._entropy)
        return self._writer.submit(lambda batch: add_device(batch, new, device_id, by=by))

    def change_state(self, device_id: DeviceId, after: DeviceState, *, by: str) -> Future[DeviceRow]:
        """Move a device on in its life; at its end its tokens expire and its certificates are revoked in the same act.

        The future raises NotAuthorised(NOT_IN_INVENTORY), Conflict(DEVICE_STATE).
        """
        return self._writer.submit(
            lambda batch: change_device_state(batch, device_id, after, by=by, at_end=self._at_end)
        )

    def lock_out(self, device_id: DeviceId, reason: RevocationReason, *, by: str) -> Future[Revoked]:
        """Revoke every certificate of a device, and quarantine it (recall it, if it was just received), in one act.

        Revocation alone is not enough: with the maker's certificate the device would enrol anew at once.
        The future raises NotAuthorised(NOT_IN_INVENTORY) and what revoking raises.
        """
        return self._writer.submit(lambda batch: lock_out_device(batch, device_id, reason, by=by))

    def revoke(self, device_id: DeviceId, reason: RevocationReason, *, by: str) -> Future[Revoked]:
        """Revoke every certificate of a device, which may enrol again: its hold ends too."""

        def write(batch: Batch) -> Revoked:
            revoked = revoke_device(batch, str(device_id), reason, by=by)
            set_hold(batch, device_id, is_held=False, by=by)
            return revoked

        return self._writer.submit(write)

    def hold(self, device_id: DeviceId, *, by: str) -> Future[Revoked]:
        """Suspend every certificate of a device; until it is released it gets no other, and no first one."""

        def write(batch: Batch) -> Revoked:
            held = hold_device(batch, str(device_id), by=by)
            set_hold(batch, device_id, is_held=True, by=by)
            return held

        return self._writer.submit(write)

    def release(self, device_id: DeviceId, *, by: str) -> Future[Revoked]:
        """End every hold on a device and its certificates."""

        def write(batch: Batch) -> Revoked:
            released = release_device(batch, str(device_id), by=by)
            set_hold(batch, device_id, is_held=False, by=by)
            return released

        return self._writer.submit(write)

    def transfer(self, device_id: DeviceId, unit: UnitName, *, by: str) -> Future[DeviceRow]:
        """Give a device to another compartment: it must enrol there anew within a day.

        The future raises NotAuthorised(NOT_IN_INVENTORY), Malformed(BAD_ARGUMENT), Conflict(DEVICE_STATE).
        """
        return self._writer.submit(lambda batch: transfer_device(batch, device_id, unit, by=by, overlap=self._overlap))


def load_device(connection: Connection, device_id: DeviceId) -> DeviceRow:
    """The device of this id. Raises NotAuthorised(NOT_IN_INVENTORY)."""
    return check_known(devices.find_device(connection, device_id), device_id)


def check_known(found: DeviceRow | None, device_id: DeviceId) -> DeviceRow:
    """The device, if it was found. Raises NotAuthorised(NOT_IN_INVENTORY)."""
    if found is None:
        msg = f"device {device_id} is not in the inventory; add it first"
        raise NotAuthorised(Reason.NOT_IN_INVENTORY, msg, device=str(device_id))
    return found


def check_unit(connection: Connection, unit: UnitName) -> None:
    """Raises Malformed(BAD_ARGUMENT) where there is no such compartment."""
    if find_unit(connection, unit) is None:
        msg = f"unit {unit} is not in the database; add it to the plan and apply the plan"
        raise Malformed(Reason.BAD_ARGUMENT, msg, unit=str(unit))


def add_device(batch: Batch, new: NewDevice, device_id: DeviceId, *, by: str) -> DeviceRow:
    """Add a device inside a writer act.

    Raises Conflict(ALREADY_EXISTS) for a known model and serial and for another device's host name,
    Malformed(BAD_ARGUMENT) for an unknown model or unit and for a serial number that is empty or too long.
    """
    connection = batch.connection
    model = find_model(connection, new.model)
    if model is None:
        msg = f"device model {new.model!r} is not in the inventory; add it to the plan and apply the plan"
        raise Malformed(Reason.BAD_ARGUMENT, msg, model=new.model)
    check_unit(connection, new.unit)
    if not 0 < len(new.maker_serial) <= _LONGEST_SERIAL or find_unseen(new.maker_serial):
        msg = f"maker serial {new.maker_serial!r} is not 1-{_LONGEST_SERIAL} printable characters; correct it"
        raise Malformed(Reason.BAD_ARGUMENT, msg)
    _check_text("place", new.place)
    _check_text("UDI", new.udi)
    _check_host_names(new.host_names)
    for name in new.host_names:
        if (owner := devices.find_host_name(connection, name, beside=HAS_ENDED)) is not None:
            msg = f"host name {name} belongs to device {owner} already; choose another, or decommission that one first"
            raise Conflict(Reason.ALREADY_EXISTS, msg, host_name=name, device=str(owner))
    if (known := devices.find_device_by_serial(connection, new.model, new.maker_serial)) is not None:
        msg = f"model {new.model} with maker serial {new.maker_serial} is in the inventory already, as {known.id}"
        raise Conflict(Reason.ALREADY_EXISTS, msg, device=str(known.id))
    row = DeviceRow(
        id=device_id,
        unit=new.unit,
        model=new.model,
        profile=new.profile or model.profile,
        maker_serial=new.maker_serial,
        state=new.state,
        added_at=batch.at,
        changed_at=batch.at,
        udi=new.udi,
        place=new.place,
        host_names=new.host_names,
        origin=devices.FROM_OPERATOR,
    )
    return insert_arriving(batch, [row], by=by)[0]


def insert_arriving(batch: Batch, rows: Sequence[DeviceRow], *, by: str) -> tuple[DeviceRow, ...]:
    """Add devices inside a writer act, each with its entry; gives them as they came in.

    A device of a recalled lot comes in recalled, one of a held lot on hold: the recall of a lot is also about serials
    that are delivered after it.
    """
    locks = list_lot_locks(batch.connection, {row.model for row in rows})
    arrived = []
    for row in rows:
        found = {one.is_hold for one in locks if one.lot.has(str(row.unit), row.model, row.maker_serial)}
        state = DeviceState.RECALLED if False in found and row.state in MAY_BE_LOCKED else row.state
        arrived.append(replace(row, state=state, held_at=batch.at if True in found else None))
    devices.insert_devices(batch.connection, arrived)
    for row in arrived:
        append(batch, device_added(row, by=by))
        if row.held_at is not None:
            _log_hold(batch, row.id, is_held=True, by=by)
    return tuple(arrived)


def set_hold(batch: Batch, device_id: DeviceId, *, is_held: bool, by: str) -> None:
    """Put a device on hold, or end its hold, inside a writer act; nothing is written where it is so already."""
    if (load_device(batch.connection, device_id).held_at is not None) is is_held:
        return
    devices.set_device_hold(batch.connection, device_id, batch.at if is_held else None, at=batch.at)
    note_device_change(batch, device_id)
    _log_hold(batch, device_id, is_held=is_held, by=by)


def _log_hold(batch: Batch, device_id: DeviceId, *, is_held: bool, by: str) -> None:
    digest = devices.hold_digest(is_held=is_held)
    append(batch, OperatorAct("device-hold", by, subject=owner_of(device_id), detail_sha256=digest))


def _check_text(what: str, text: str | None) -> None:
    """Raises Malformed(BAD_ARGUMENT): stored text is shown on terminals, so it has no control characters."""
    if text is not None and not (len(text) <= _LONGEST_PLACE and find_unseen(text) is None):
        msg = f"{what} {text[:40]!r} is not up to {_LONGEST_PLACE} printable characters; correct it"
        raise Malformed(Reason.BAD_ARGUMENT, msg)


def _check_host_names(names: tuple[str, ...]) -> None:
    """Raises Malformed(BAD_ARGUMENT) for what no certificate could name as a server."""
    for name in names:
        host = decode_host(name)
        if name.startswith("[") or (isinstance(host, str) and host != name):
            msg = f"{name[:80]!r} is another spelling of {host}; write it so, as certificates do"
            raise Malformed(Reason.BAD_ARGUMENT, msg)


def change_device_state(
    batch: Batch, device_id: DeviceId, after: DeviceState, *, by: str, at_end: AtEnd = revoke_at_end
) -> DeviceRow:
    """Move a device on in its life, inside a writer act. Raises as `Inventory.change_state` says."""
    device = load_device(batch.connection, device_id)
    before = DeviceState(device.state)
    check_move(before, after)
    if not devices.set_device_state(batch.connection, device_id, before=before, after=after, at=batch.at):
        msg = f"the device is no longer {before}: another process changed it; read the device again and repeat"
        raise Conflict(Reason.DEVICE_STATE, msg)
    note_device_change(batch, device_id)
    append(batch, DeviceStateChanged(owner_of(device_id), before, after, by))
    if after in HAS_ENDED:
        _expire_tokens(batch, device_id, by)
        at_end(batch, device_id, by)
    return load_device(batch.connection, device_id)


def lock_out_device(batch: Batch, device_id: DeviceId, reason: RevocationReason, *, by: str) -> Revoked:
    """`Inventory.lock_out`, inside a writer act."""
    load_device(batch.connection, device_id)
    revoked = revoke_device(batch, str(device_id), reason, by=by)
    bar_device(batch, device_id, by=by)
    return revoked


def bar_device(batch: Batch, device_id: DeviceId, *, by: str) -> None:
    """Let a device enrol no more until an operator says so; the caller revokes its certificates. Its hold ends."""
    state = DeviceState(load_device(batch.connection, device_id).state)
    _expire_tokens(batch, device_id, by)
    set_hold(batch, device_id, is_held=False, by=by)
    if (after := locked_state(state)) is not None:
        change_device_state(batch, device_id, after, by=by)


def transfer_device(batch: Batch, device_id: DeviceId, unit: UnitName, *, by: str, overlap: timedelta) -> DeviceRow:
    """Give a device to another compartment, inside a writer act; `overlap` later its old certificates end.

    Raises as `Inventory.transfer` says.
    """
    device = load_device(batch.connection, device_id)
    if DeviceState(device.state) in HAS_ENDED:
        msg = f"the device is {device.state}, and only a device in use can be transferred to another unit"
        raise Conflict(Reason.DEVICE_STATE, msg, state=device.state)
    check_unit(batch.connection, unit)
    if unit != device.unit:
        devices.set_device_unit(batch.connection, device_id, unit, at=batch.at)
        note_device_change(batch, device_id)
        digest = hashlib.sha256(str(unit).encode()).digest()
        append(batch, OperatorAct("device-transfer", by, subject=owner_of(device_id), detail_sha256=digest))
        run_after = batch.at + int(overlap.total_seconds())
        plan_superseding(batch.connection, device_id, unit, at=batch.at, run_after=run_after)
    return load_device(batch.connection, device_id)


def change_profile(batch: Batch, device_id: DeviceId, profile: str, *, by: str) -> None:
    """Let another profile decide what a device may do, inside a writer act; its certificates follow when renewed."""
    devices.set_device_profile(batch.connection, device_id, profile, at=batch.at)
    note_device_change(batch, device_id)
    digest = hashlib.sha256(profile.encode()).digest()
    append(batch, OperatorAct("device-profile", by, subject=owner_of(device_id), detail_sha256=digest))


def change_host_names(batch: Batch, device_id: DeviceId, names: tuple[str, ...], *, by: str) -> None:
    """Give a device other names to show as a server, inside a writer act; certificates keep theirs until renewed.

    Raises Malformed(BAD_ARGUMENT).
    """
    _check_host_names(names)
    devices.set_device_host_names(batch.connection, device_id, names, at=batch.at)
    digest = devices.host_names_digest(names)
    append(batch, OperatorAct("device-host-names", by, subject=owner_of(device_id), detail_sha256=digest))


def _expire_tokens(batch: Batch, device_id: DeviceId, by: str) -> None:
    if expire_tokens_of(batch.connection, device_id, at=batch.at):
        append(batch, TokensExpired(owner_of(device_id), by))


def owner_of(device_id: DeviceId) -> str:
    """A device as the ledger and the tables of keys and certificates name their owner."""
    return f"device:{device_id}"


ACTS_OF_PLANS: Final = InventoryActs(
    lock_out=lambda batch, device_id, by: bar_device(batch, DeviceId(device_id), by=by),
    hold=lambda batch, device_id, by: set_hold(batch, DeviceId(device_id), is_held=True, by=by),
    release=lambda batch, device_id, by: set_hold(batch, DeviceId(device_id), is_held=False, by=by),
    lockable=MAY_BE_LOCKED,
    living=frozenset(DeviceState) - HAS_ENDED,
)
"""What revocation plans do to devices that they name."""
