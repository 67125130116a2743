"""What the ledger says when the inventory gains a device or a model; decides nothing about either."""

from __future__ import annotations

import hashlib

from vagus.ledger.append import append
from vagus.ledger.entries import DeviceAdded, ModelRecorded
from vagus.records.devices import DeviceRow, host_names_digest
from vagus.records.engine.writer import Batch
from vagus.records.models import ModelRow, facts_digest, find_model, put_model


def device_added(row: DeviceRow, *, by: str) -> DeviceAdded:
    """The entry of a new device. It names, hashed, the maker's serial number that may speak for the device."""
    numbered = f"number:{row.model}:{row.maker_serial}"
    names = host_names_digest(row.host_names) if row.host_names else None
    return DeviceAdded(f"device:{row.id}", str(row.unit), row.profile, row.state, by, numbered, names)


def record_model(batch: Batch, model: ModelRow, *, by: str) -> bool:
    """Insert or change a model, with its entry. Returns whether anything changed."""
    if find_model(batch.connection, model.name) == model:
        return False
    put_model(batch.connection, model)
    name = hashlib.sha256(model.name.encode()).digest()
    append(batch, ModelRecorded(name, facts_digest(model), model.anchor_sha256, by))
    return True
