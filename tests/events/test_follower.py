"""What every follower does, whatever its rows are."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

import pytest

from tests.simulator.waiting import wait_until
from vagus.events.devices import DeviceFollower
from vagus.events.follower import Follower, Numbered
from vagus.events.ledger import LedgerFollower
from vagus.events.revocations import RevocationFollower
from vagus.identifiers import DeviceId
from vagus.records.device_changes import note_device_change
from vagus.records.engine.commit_facts import RevocationEvent
from vagus.records.engine.database import Database
from vagus.records.engine.writer import Batch, Writer
from vagus.records.revocation.revocations import REVOKE, insert_event
from vagus.testing import FrozenClock


def revoke(batch: Batch) -> None:
    insert_event(batch.connection, RevocationEvent(batch.next_revocation(), 1, 5, REVOKE, 4, 0))


@pytest.mark.parametrize(
    ("make", "add"),
    [
        (lambda database: RevocationFollower(database, FrozenClock()), revoke),
        (DeviceFollower, lambda batch: note_device_change(batch, DeviceId("a" * 26))),
        (LedgerFollower, lambda batch: batch.append(b"one")),
    ],
    ids=["revocations", "devices", "ledger"],
)
def test_polling_goes_on_after_a_fault_in_a_subscriber(
    writer: Writer, database: Database, make: Callable[[Database], Follower[Any]], add: Callable[[Batch], object]
) -> None:
    """A thread that ended would leave the sequence lost for good: no restart of the database would help."""
    follower, heard = make(database), list[int]()

    def stumble(rows: Sequence[Numbered]) -> None:
        heard.extend(row.sequence for row in rows)
        raise ZeroDivisionError

    follower.subscribe(stumble)
    follower.start(poll_seconds=0.01)
    for number in (1, 2):
        writer.submit(add).result(10)
        wait_until(partial(heard.__contains__, number))
    follower.close()
    assert heard == [1, 2]
