"""Many devices at once, as an operator moves them: the lot that a selection names, and its state."""

from __future__ import annotations

from typing import TYPE_CHECKING

from vagus.errors import Malformed
from vagus.fleet.lifecycle import decode_state
from vagus.fleet.lot_moves import LotMove, move_lot, preview_move
from vagus.fleet.revocation_targets import RevocationTarget, select_target
from vagus.identifiers import UnitName
from vagus.operations.acts import Acts
from vagus.operations.devices import check_known
from vagus.operations.roles import Act, check_may, check_scope
from vagus.reasons import Reason
from vagus.records.revocation.device_lots import lot_of

if TYPE_CHECKING:
    from collections.abc import Callable

    from vagus.operations.actor import Actor


class DeviceLots(Acts):
    """What an operator may do with a lot: the devices that a unit, hospital, model or batch names together."""

    def preview_state(self, actor: Actor, target: RevocationTarget, state: str) -> LotMove:
        """What `change_state` would do. Raises as `select_target`, `decode_state`, `preview_move`."""
        check_may(actor, Act.CHANGE_LOT_STATE)
        after = decode_state(state)
        for unit in target.units or (None,):
            check_scope(actor, None if unit is None else UnitName.parse(unit))
        with self.components.database.reading() as connection:
            check_known(connection, model=target.model or (target.batch or "").rpartition(":")[0] or None)
            lot = lot_of(connection, select_target(connection, target))
            if lot is None:
                msg = "no devices are named; give a unit, hospital, model or batch"
                raise Malformed(Reason.BAD_ARGUMENT, msg)
            return preview_move(connection, lot, after)

    def change_state(self, actor: Actor, move: LotMove, *, advance: Callable[[int], None]) -> int:
        """Move the devices as it was shown; gives how many moved. After an interruption the same call goes on."""
        check_may(actor, Act.CHANGE_LOT_STATE)
        for unit in move.lot.units or (None,):
            check_scope(actor, None if unit is None else UnitName.parse(unit))
        return move_lot(self.components.database, self.components.writer, move, by=actor.id, advance=advance)
