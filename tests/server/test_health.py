"""What a process says of itself while its revocation sequence is out of sight."""

from __future__ import annotations

from datetime import timedelta

from vagus.records.database import open_database
from vagus.records.installation import Installation, insert_installation
from vagus.records.sequence import RevocationFollower
from vagus.server.health import Health
from vagus.testing import FrozenClock

DAY = timedelta(days=1)


def test_it_says_which_functions_go_on_by_grace_alone_and_for_how_long() -> None:
    clock = FrozenClock()
    database = open_database("sqlite://")
    database.create()
    with database.writing() as connection:
        insert_installation(connection, Installation("log.test", 0, bytes(32)))
    follower = RevocationFollower(database, clock)
    graces = {"telemetry": (7 * DAY, DAY), "imaging": (7 * DAY, DAY / 3), "control": (DAY, timedelta())}
    health = Health(clock, follower, (), timedelta(seconds=2), dict, graces=graces)
    assert "on_grace" not in health.report()[1]
    clock.advance(hours=7 * 24 + 6)
    is_well, facts = health.report()
    assert not is_well
    assert facts["on_grace"] == {"telemetry": {"seconds_left": 18 * 3600}, "imaging": {"seconds_left": 2 * 3600}}
    clock.advance(hours=6)
    assert health.report()[1]["on_grace"] == {"telemetry": {"seconds_left": 12 * 3600}}
    follower.catch_up()
    assert "on_grace" not in health.report()[1]
    database.close()
