"""Moves the devices of a lot on in their life, part by part; a recall also locks the lot. Reads no selection.

Each part is one transaction. After a kill the same command goes on: devices that have moved are found no more.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from typing import Final

from vagus.authority.lot_locks import end_lot_locks, lock_lot
from vagus.errors import Conflict, PolicyRefusal
from vagus.fleet.devices import change_device_state, load_device
from vagus.fleet.lifecycle import HAS_ENDED, IS_LOCKED, MOVES, DeviceState, locked_state
from vagus.identifiers import DeviceId
from vagus.reasons import Reason
from vagus.records.engine.database import Connection, Database
from vagus.records.engine.writer import Batch, Writer
from vagus.records.revocation.device_lots import DeviceLot, Wanted, count_wanted, list_lot_locks, list_wanted

PART: Final = 200
"""Devices in one transaction: about 0.1 s in which no other act is written."""


@dataclass(frozen=True, slots=True)
class LotMove:
    """What moving a lot to `after` would do: devices by their state now, those that change and those that stay.

    `locks_lot`: devices of the lot that are added later come in recalled. `ends_recall`: they do so no more.
    """

    lot: DeviceLot
    after: DeviceState
    changes: Mapping[str, int]
    stays: Mapping[str, int]
    locks_lot: bool
    ends_recall: bool

    @property
    def unlocked(self) -> int:
        """How many are locked out now and may enrol afterwards."""
        locked = sum(self.changes.get(one, 0) for one in IS_LOCKED)
        return 0 if self.after in IS_LOCKED else locked


def find_target(before: DeviceState, after: DeviceState) -> DeviceState | None:
    """What a device becomes that is to be `after`; None where it stays. What cannot be quarantined is recalled."""
    if after in MOVES[before]:
        return after
    return locked_state(before) if after is DeviceState.QUARANTINED else None


def preview_move(connection: Connection, lot: DeviceLot, after: DeviceState) -> LotMove:
    """What the move would do.

    Raises PolicyRefusal(POLICY_VIOLATION) for the end of lives, Conflict(NOT_FOUND) where nothing would change.
    """
    if after in HAS_ENDED:
        msg = (
            f"state {after} is for good, so a selection of many is not taken; name each device by itself. To revoke "
            "certificates of many: `vagus revoke ... --reason cessationOfOperation`"
        )
        raise PolicyRefusal(Reason.POLICY_VIOLATION, msg)
    found = count_wanted(connection, lot, Wanted(), "state")
    changes = {one: several for one, several in found.items() if find_target(DeviceState(one), after) is not None}
    locks = [one.lot for one in list_lot_locks(connection) if not one.is_hold]
    move = LotMove(
        lot,
        after,
        changes,
        {one: several for one, several in found.items() if one not in changes},
        locks_lot=after in IS_LOCKED and lot.model is not None and not any(one.covers(lot) for one in locks),
        ends_recall=after is DeviceState.RECEIVED and any(lot.covers(one) for one in locks),
    )
    if not (changes or move.locks_lot or move.ends_recall):
        now = ", ".join(f"{several:,} {one}" for one, several in move.stays.items()) or "none in the inventory"
        msg = f"no device of the selection can become {after} (there are: {now}); check the selection and the state"
        raise Conflict(Reason.NOT_FOUND, msg)
    return move


def move_lot(database: Database, writer: Writer, move: LotMove, *, by: str, advance: Callable[[int], None]) -> int:
    """Lock the lot or end its recall, then move its devices; gives how many. `advance` is called with each part's."""
    writer.submit(partial(_lock, move=move, by=by)).result()
    position, moved = "", 0
    wanted = Wanted(states=frozenset(move.changes))
    while True:
        with database.reading() as connection:
            ids = list_wanted(connection, move.lot, wanted, after=position, count=PART)
        if not ids:
            return moved
        done = writer.submit(partial(_move_part, ids=ids, after=move.after, by=by)).result()
        position, moved = max(ids), moved + done
        advance(done)


def _lock(batch: Batch, move: LotMove, by: str) -> None:
    if move.after in IS_LOCKED:
        lock_lot(batch, move.lot, is_hold=False, by=by)
    elif move.after is DeviceState.RECEIVED:
        end_lot_locks(batch, move.lot, is_hold=False, by=by)


def _move_part(batch: Batch, ids: tuple[str, ...], after: DeviceState, by: str) -> int:
    moved = 0
    for one in ids:
        device_id = DeviceId(one)
        target = find_target(DeviceState(load_device(batch.connection, device_id).state), after)
        if target is not None:
            change_device_state(batch, device_id, target, by=by)
            moved += 1
    return moved
