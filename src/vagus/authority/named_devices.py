"""The devices that a revocation plan names, with a certificate or without: counted, locked out, held, released.

Those without one come before the first certificate. From the step on, the inventory refuses them a certificate. What
they got since the proposal is revoked or suspended with them, so none of them is in between.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from vagus.authority import revocation
from vagus.records.certificates import HELD, INTENDED, ISSUED, list_of_device
from vagus.records.revocation import plans as rows
from vagus.records.revocation import revocations as revocation_rows
from vagus.records.revocation.device_lots import DeviceLot, Wanted, Without, count_wanted, list_wanted, lot_of
from vagus.x509.crls.building import RevocationReason

if TYPE_CHECKING:
    from vagus.records.certificates import CertificateRow
    from vagus.records.engine.database import Connection
    from vagus.records.engine.writer import Batch
    from vagus.records.revocation.plans import RevocationPlanRow
    from vagus.records.revocation.selections import Selection

DeviceAct = Callable[["Batch", str, str], None]
"""Called with batch, device id and operator, in the transaction of the plan's step."""
STATES_BEFORE = {
    revocation_rows.REVOKE: (INTENDED, ISSUED, HELD),
    revocation_rows.HOLD: (INTENDED, ISSUED),
    revocation_rows.RELEASE: (HELD,),
}
"""The states of certificates that an act changes."""
_NEWEST = (1 << 63) - 1


@dataclass(frozen=True, slots=True, kw_only=True)
class InventoryActs:
    """What the inventory does to a device that a plan names, and in which states: this layer knows no device's life.

    A lock-out concerns devices in one of `lockable`, a hold those in one of `living`.
    """

    lock_out: DeviceAct = lambda *_: None
    hold: DeviceAct = lambda *_: None
    release: DeviceAct = lambda *_: None
    lockable: frozenset[str] = frozenset()
    living: frozenset[str] = frozenset()


NO_INVENTORY = InventoryActs()
"""For an installation whose plans name no devices."""


def count_without(
    connection: Connection, selection: Selection, act: str, inventory: InventoryActs, *, at: int
) -> dict[str, int]:
    """How many devices a selection names that have no certificate for `act`, and that it changes, by profile."""
    lot = lot_of(connection, selection)
    if lot is None:
        return {}
    without = Without(selection=selection, alive_at=at, until=_NEWEST, states=STATES_BEFORE[act])
    return count_wanted(connection, lot, replace(_concerned(act, inventory, at), without=without))


def count_open(connection: Connection, row: RevocationPlanRow, inventory: InventoryActs, *, at: int) -> int:
    """How many devices of a plan it has not reached: for one that is done, those added or moved on since."""
    lot = lot_of(connection, row.selection)
    return 0 if lot is None else sum(count_wanted(connection, lot, _concerned(row.act, inventory, at)).values())


def choose_devices(
    connection: Connection,
    row: RevocationPlanRow,
    inventory: InventoryActs,
    *,
    at: int,
    among: tuple[str, ...] = (),
    most: int,
) -> tuple[str, ...]:
    """The ids of the next devices of the plan that have none of its certificates; with `among` only those."""
    lot = lot_of(connection, row.selection) or DeviceLot(ids=("",))
    lot = replace(lot, ids=among) if among else lot
    until = row.made_at if row.act == revocation_rows.RELEASE else at
    wanted = _concerned(row.act, inventory, until)
    without = Without(selection=row.selection, alive_at=at, until=row.newest_leaf, states=STATES_BEFORE[row.act])
    after = row.device_position or ""
    return list_wanted(connection, lot, replace(wanted, without=without), after=after, count=most)


def step_devices(
    batch: Batch, row: RevocationPlanRow, chosen: tuple[str, ...], by: str, inventory: InventoryActs, *, are_last: bool
) -> RevocationPlanRow:
    """The act on the chosen devices that still need it, and the plan's place after them; gives the plan as stored."""
    found: tuple[str, ...] = ()
    if chosen:  # read outside the writer: another process may have done some of them, or a certificate was released
        most = len(chosen)
        found = choose_devices(batch.connection, row, inventory, at=batch.at, among=chosen, most=most)
    for one in found:
        if row.act == revocation_rows.REVOKE:
            revocation.revoke_device(batch, one, RevocationReason(row.reason), by=by)
            inventory.lock_out(batch, one, by)
        elif row.act == revocation_rows.HOLD:
            revocation.hold_device(batch, one, by=by)
            inventory.hold(batch, one, by)
        else:
            inventory.release(batch, one, by)
    position = rows.EVERY_DEVICE if are_last else max([row.device_position or "", *chosen])
    row = replace(row, device_position=position, devices_done=row.devices_done + len(found))
    rows.update_plan(batch.connection, row)
    return row


def reach_device(batch: Batch, row: RevocationPlanRow, one: CertificateRow, by: str, inventory: InventoryActs) -> None:
    """What the act on a certificate means for its device: it is locked out or held, with what it got since."""
    device_id, only = str(one.device_id), row.selection.authority_ids
    # 1. The device's own hold ends with the hold on its certificate: by a release, or by a revocation in its place.
    if one.state == HELD:
        inventory.release(batch, device_id, by)
    is_hold = row.names_devices and row.act == revocation_rows.HOLD
    if not (row.locks_out or is_hold):
        return
    # 2. From here on the device gets no certificate.
    act = inventory.lock_out if row.locks_out else inventory.hold
    act(batch, device_id, by)
    # 3. What it got after the proposal, by a renewal, ends too: the plan never comes to it.
    for late in list_of_device(batch.connection, device_id, alive_at=batch.at):
        is_named = late.leaf_index > row.newest_leaf and (not only or late.authority_id in only)
        if is_named and late.state in STATES_BEFORE[row.act]:
            if is_hold:
                revocation.hold_row(batch, late, by=by)
            else:
                revocation.revoke_row(batch, late, RevocationReason(row.reason), by=by)


def _concerned(act: str, inventory: InventoryActs, until: int) -> Wanted:
    """The devices that `act` changes; a release ends no hold that began after `until`."""
    if act == revocation_rows.RELEASE:
        return Wanted(is_held=True, held_until=until)
    if act == revocation_rows.HOLD:
        return Wanted(states=inventory.living, is_held=False)
    return Wanted(states=inventory.lockable)
