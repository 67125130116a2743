from __future__ import annotations

from datetime import timedelta
from pathlib import Path

import pytest

from tests.simulator.refusals import refuses
from vagus.errors import NotTrusted
from vagus.reasons import Reason
from vagus.testing import NOON, FrozenClock
from vagus_agent.clock_floor import BUILT, ClockFloor, CorrectedClock


def test_begins_at_the_build_and_only_rises(tmp_path: Path) -> None:
    floor = ClockFloor(tmp_path / "floor.json")
    assert floor.floor.at == BUILT
    floor.raise_to(NOON, "a CRL")
    floor.raise_to(NOON - timedelta(days=5), "an older CRL")
    again = ClockFloor(tmp_path / "floor.json")
    assert (again.floor.at, again.floor.source) == (NOON, "a CRL")


def test_a_clock_below_says_limit_value_and_remedy(tmp_path: Path) -> None:
    floor = ClockFloor(tmp_path / "floor.json")
    floor.raise_to(NOON, "a CRL")
    floor.check(NOON - timedelta(minutes=4))
    with refuses(Reason.CLOCK_ROLLBACK, NotTrusted, match=r"2027-03-01.*set the clock"):
        floor.check(NOON - timedelta(minutes=6))


@pytest.mark.parametrize(
    "content",
    [b"", b"{", b"[]", b'{"at":5}', b'{"at":"x","source":"y"}', b'{"at":"2030-01-01T00:00:00","source":"y"}', b"\xff"],
)
def test_a_damaged_file_falls_back_to_the_build(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "floor.json").write_bytes(content)
    assert ClockFloor(tmp_path / "floor.json").floor.at == BUILT


def test_a_corrected_clock_moves_forward_and_keeps_ticking() -> None:
    system = FrozenClock()
    clock = CorrectedClock(system)
    clock.learn(NOON + timedelta(minutes=1))
    assert not clock.is_corrected()
    clock.learn(NOON + timedelta(days=9))
    system.advance(hours=1)
    assert clock.now() == NOON + timedelta(days=9, hours=1)
    clock.learn(NOON)
    assert clock.now() == NOON + timedelta(days=9, hours=1)
