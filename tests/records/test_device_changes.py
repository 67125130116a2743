"""Numbering device changes inside the writer's transaction."""

from __future__ import annotations

import pytest

from vagus.errors import Malformed
from vagus.identifiers import DeviceId
from vagus.reasons import Reason
from vagus.records.device_changes import DeviceChange, find_change, note_device_change, read_changes
from vagus.records.engine.database import Database
from vagus.records.engine.writer import Batch, Writer
from vagus.testing import FrozenClock

PUMP = DeviceId("a" * 26)


def test_a_change_that_was_undone_never_was(database: Database) -> None:
    def fail(batch: Batch) -> None:
        note_device_change(batch, PUMP)
        raise Malformed(Reason.BAD_ARGUMENT, "not this one")

    with Writer(database, FrozenClock()) as writer:
        with pytest.raises(Malformed):
            writer.submit(fail).result(10)
        assert writer.submit(lambda batch: note_device_change(batch, PUMP)).result(10) == 1
    with database.reading() as connection:
        (change,) = read_changes(connection, 0)
        assert (change.sequence, change.device_id) == (1, str(PUMP))
        assert find_change(connection, 1) == (1, DeviceChange(1, str(PUMP), change.at))
        assert find_change(connection, 2) == (1, None)
