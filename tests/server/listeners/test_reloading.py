"""What an operator asked for once is done, even if a database or a disk failed at that moment."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import cast

import pytest

from tests.simulator.running import PLAN
from vagus.errors import Misconfigured, Unavailable
from vagus.policy.plans import Plan, decode_plan
from vagus.reasons import Reason
from vagus.server.listeners.reloading import NextListeners, Reloading
from vagus.transport.listeners import ListenerSpec, RunningListeners


@dataclass
class Running:
    """Listeners on a loop of their own; none is opened."""

    loop: asyncio.AbstractEventLoop

    async def change(self, opened: Sequence[ListenerSpec], closed: Sequence[str]) -> None:
        assert (opened, closed) == ((), ())


@dataclass
class World:
    """A plan in force and another one that was applied; `failure` is raised."""

    folder: Path
    reloading: Reloading = field(init=False)
    failure: Exception | None = None
    taken: int = 0

    def __post_init__(self) -> None:
        self.file = self.folder / "plan.toml"
        self.file.write_text(PLAN)
        self.before = self._decode()
        self.reloading = Reloading(self.file, self._load, self._prepare, tuple, self.before)

    def apply_another(self) -> None:
        self.file.write_text(PLAN + "# another\n")

    def _decode(self) -> Plan:
        return decode_plan(self.file.read_bytes(), "plan.toml")

    def _load(self) -> Plan:
        if self.failure is not None:
            raise self.failure
        return self._decode()

    def _prepare(self, _plan: Plan) -> NextListeners:
        def commit() -> None:
            self.taken += 1

        return NextListeners((), (), commit)


@pytest.fixture
def world(tmp_path: Path) -> Iterator[World]:
    loop = asyncio.new_event_loop()
    thread = threading.Thread(target=loop.run_forever)
    thread.start()
    made = World(tmp_path)
    made.reloading.running = cast("RunningListeners", Running(loop))
    yield made
    loop.call_soon_threadsafe(loop.stop)
    thread.join()
    loop.close()


def test_a_plan_is_taken_once_an_operator_asks(world: World) -> None:
    world.apply_another()
    world.reloading.refresh()
    assert (world.taken, "send SIGHUP" in world.reloading.waits["plan"]) == (0, True)
    world.reloading.ask()
    world.reloading.refresh()
    world.reloading.refresh()
    assert (world.taken, world.reloading.waits) == (1, {})


def test_a_database_that_is_away_only_puts_it_off(world: World) -> None:
    world.apply_another()
    world.reloading.ask()
    world.failure = Unavailable(Reason.DATABASE_UNAVAILABLE, "the database is away; wait")
    for _ in range(3):
        world.reloading.refresh()
    assert (world.taken, "the database is away" in world.reloading.waits["plan"]) == (0, True)
    world.failure = None
    world.reloading.refresh()
    assert (world.taken, world.reloading.waits) == (1, {})


def test_what_an_operator_must_mend_is_taken_when_asked_for_again(world: World) -> None:
    world.apply_another()
    world.reloading.ask()
    world.failure = Misconfigured(Reason.BAD_PLAN, "the plan is bad; correct it")
    world.reloading.refresh()
    world.failure = None
    world.reloading.refresh()
    assert (world.taken, "the plan is bad" in world.reloading.waits["plan"]) == (0, True)
    world.reloading.ask()
    world.reloading.refresh()
    assert world.taken == 1


def test_a_plan_that_cannot_be_read_for_a_moment_is_not_forgotten(world: World) -> None:
    world.apply_another()
    aside = world.file.rename(world.folder / "aside")
    world.reloading.ask()
    with pytest.raises(FileNotFoundError):
        world.reloading.refresh()
    aside.rename(world.file)
    world.reloading.refresh()
    assert world.taken == 1


def test_a_fault_of_the_system_and_a_start_that_is_not_over_only_put_it_off(world: World) -> None:
    world.apply_another()
    running, world.reloading.running = world.reloading.running, None
    world.reloading.ask()
    world.reloading.refresh()
    world.reloading.running, world.failure = running, OSError("no descriptor is free")
    with pytest.raises(OSError, match="descriptor"):
        world.reloading.refresh()
    world.failure = None
    world.reloading.refresh()
    assert (world.taken, world.reloading.waits) == (1, {})


def test_a_status_url_that_no_certificate_names_yet_waits_for_a_restart(world: World) -> None:
    world.file.write_text(PLAN.replace("http://127.0.0.1:1", "http://127.0.0.1:2"))
    world.reloading.ask()
    world.reloading.refresh()
    assert (world.taken, "http://127.0.0.1:2" in world.reloading.waits["plan"]) == (0, True)
    assert "restart" in world.reloading.waits["plan"]
