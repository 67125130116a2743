"""Locks lots: a device of a recalled or held lot that is added later is recalled or on hold too; changes no device."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

from vagus.ledger.append import append
from vagus.ledger.entries import OperatorAct
from vagus.records.revocation.device_lots import (
    LOT_ENDED,
    LOT_LOCKED,
    DeviceLot,
    LotLockRow,
    end_lot_lock,
    insert_lot_lock,
    list_lot_locks,
)

if TYPE_CHECKING:
    from vagus.records.engine.writer import Batch


def lock_lot(batch: Batch, lot: DeviceLot, *, is_hold: bool, by: str) -> None:
    """Recall a lot, or put it on hold. Nothing is written for a lot without a model, or where a lock has it already.

    A recall ends the holds on what it covers: from there the device's state says whether it may enrol.
    """
    if lot.model is None or lot.ids:
        return
    if not is_hold:
        end_lot_locks(batch, lot, is_hold=True, by=by)
    if any(one.is_hold is is_hold and one.lot.covers(lot) for one in list_lot_locks(batch.connection, {lot.model})):
        return
    row = LotLockRow(
        model=lot.model,
        first_serial=lot.first_serial,
        last_serial=lot.last_serial,
        units=lot.units,
        is_hold=is_hold,
        made_by=by,
        made_at=batch.at,
    )
    _log(batch, LOT_LOCKED, replace(row, id=insert_lot_lock(batch.connection, row)), by)


def end_lot_locks(batch: Batch, lot: DeviceLot, *, is_hold: bool, by: str) -> None:
    """End the recalls, or the holds, whose every device is in `lot`: devices that are added later come in as others."""
    for row in list_lot_locks(batch.connection):
        if row.is_hold is is_hold and lot.covers(row.lot):
            end_lot_lock(batch.connection, row.id, at=batch.at)
            _log(batch, LOT_ENDED, row, by)


def _log(batch: Batch, act: str, row: LotLockRow, by: str) -> None:
    append(batch, OperatorAct(act, by, subject=row.subject, detail_sha256=row.digest))
