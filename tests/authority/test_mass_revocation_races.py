"""What others do between a plan's search and its step neither doubles, nor miscounts, nor leaves out anything."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import NamedTuple

import pytest
from sqlalchemy import event, text
from sqlalchemy.engine import Engine

from tests.authority.fleets import ALICE, BOB, Fleet
from tests.simulator.installation import Installation, new_installation
from tests.simulator.refusals import refuses
from vagus.authority import mass_revocation
from vagus.authority.mass_revocation import PAUSED_BY_OPERATOR, MassRevocation
from vagus.authority.revocation import Revocations
from vagus.errors import Conflict
from vagus.reasons import Reason
from vagus.records import certificates as rows
from vagus.records.engine.database import Database, open_database
from vagus.records.engine.writer import Writer
from vagus.records.revocation.plans import DONE, PAUSED, RUNNING, RevocationPlanRow, find_plan
from vagus.records.revocation.revocations import HOLD, RELEASE, REVOKE
from vagus.records.revocation.selections import Selection
from vagus.x509.crls.building import RevocationReason

MODEL = "Pump"


class Died(BaseException):
    """Represents the end of a process."""


def die(*_: object) -> None:
    raise Died


@pytest.fixture
def installation(tmp_path: Path, database_url: str) -> Iterator[Installation]:
    """An installation that other processes may open too."""
    with new_installation(tmp_path, database_url) as made:
        yield made


@pytest.fixture
def fleet(built: Installation, monkeypatch: pytest.MonkeyPatch) -> Fleet:
    """Ten certificates, and steps of three."""
    monkeypatch.setattr(mass_revocation, "STEP", 3)
    return Fleet(built, 10, RevocationReason.SUPERSEDED)


class Overtaken(MassRevocation):
    """A runner whose steps come late: `meanwhile` happens when step `at` is chosen and not begun."""

    def __init__(self, fleet: Fleet, at: int, meanwhile: Callable[[], object]) -> None:
        built = fleet.built
        super().__init__(built.pack, built.database, built.writer, built.clock)
        self._at = at
        self._meanwhile = meanwhile
        self._steps = 0

    def _submit_step(self, plan_id: int, by: str, candidates: mass_revocation._Candidates) -> RevocationPlanRow:
        self._steps += 1
        if self._steps == self._at:
            self._meanwhile()
        return super()._submit_step(plan_id, by, candidates)


def overtake(fleet: Fleet, plan: RevocationPlanRow, meanwhile: Callable[[], object], *, at: int = 2) -> tuple[str, int]:
    """Run a plan while others act; its state afterwards, and how many certificates it changed."""
    row = Overtaken(fleet, at, meanwhile).run(plan.id, by=ALICE)
    return row.state, row.done


class Process(NamedTuple):
    """What another process has of its own."""

    database: Database
    writer: Writer
    plans: MassRevocation


@contextmanager
def another_process(fleet: Fleet) -> Iterator[Process]:
    built = fleet.built
    database = open_database(built.database.url.render_as_string(hide_password=False))
    try:
        with Writer(database, built.clock) as writer:
            yield Process(database, writer, MassRevocation(built.pack, database, writer, built.clock))
    finally:
        database.close()


def test_what_others_revoked_after_the_search_is_not_counted_and_not_revoked_twice(fleet: Fleet) -> None:
    plan = fleet.propose()
    with another_process(fleet) as other:

        def revoke() -> None:
            for one in (fleet[4], fleet[8]):
                name = (one.issuer.authority_id, one.serial)
                Revocations(other.writer).revoke(*name, fleet.reasons[REVOKE], by=BOB).result()

        assert overtake(fleet, plan, revoke) == (DONE, 8)
    assert set(fleet.states()) == {rows.REVOKED}
    assert sorted(fleet.serials_of(REVOKE)) == sorted(one.serial for one in fleet)


def test_a_whole_step_that_others_revoked_ends_no_plan(fleet: Fleet) -> None:
    plan = fleet.propose(stages=(50,))

    def revoke() -> None:
        for one in fleet[:3]:
            fleet.built.revoke(one, fleet.reasons[REVOKE], by=BOB)

    assert overtake(fleet, plan, revoke, at=1) == (PAUSED, 5)
    assert fleet.run(plan).done == 7, "the last stage goes to the end"
    assert set(fleet.states()) == {rows.REVOKED}


def test_what_is_released_or_held_ahead_of_a_hold_is_held_once(fleet: Fleet) -> None:
    fleet.built.hold(fleet[9], by=BOB)
    plan = fleet.propose(HOLD)

    def change() -> None:
        fleet.built.release(fleet[9], by=BOB)
        fleet.built.hold(fleet[5], by=BOB)

    assert overtake(fleet, plan, change) == (DONE, 9), "all but the one that was held by hand"
    assert set(fleet.states()) == {rows.HELD}
    assert len(fleet.serials_of(HOLD)) == 11, "one of them twice, released between"


def test_what_is_held_or_revoked_ahead_of_a_release_stays_so(fleet: Fleet) -> None:
    for one in fleet[:8]:
        fleet.built.hold(one, by=BOB)
    plan = fleet.propose(RELEASE)

    def change() -> None:
        fleet.built.hold(fleet[9], by=BOB)
        fleet.built.revoke(fleet[4], fleet.reasons[REVOKE], by=BOB)
        fleet.built.hold(fleet[0], by=BOB)

    assert overtake(fleet, plan, change) == (DONE, 7), "all but the one that was revoked"
    expected = [rows.ISSUED] * 10
    expected[0], expected[4], expected[9] = rows.HELD, rows.REVOKED, rows.HELD
    assert fleet.states() == expected, "what is held meanwhile is not touched, before or after the place"


def test_what_ended_after_the_search_is_left_alone(fleet: Fleet) -> None:
    plan = fleet.propose()
    assert overtake(fleet, plan, lambda: fleet.built.advance(days=1000)) == (DONE, 3)
    assert fleet.states() == [rows.REVOKED] * 3 + [rows.ISSUED] * 7


def _keep_devices(fleet: Fleet) -> list[str]:
    """The fleet's devices in the inventory, all of one model; gives their ids."""
    ids = [str(fleet.built.find(rows.find_by_leaf, one.leaf_index).device_id) for one in fleet]
    with fleet.built.database.writing() as connection:
        connection.execute(text("INSERT INTO units VALUES ('h1/icu', 'h1', 'Hospital', 'ICU')"))
        for model in (MODEL, "Other"):
            facts = "(name, maker, category, profile) VALUES (:model, 'Maker', 'pump', 'bedside')"
            connection.execute(text(f"INSERT INTO models {facts}"), {"model": model})
        columns = "(id, unit, model, profile, maker_serial, state, added_at, changed_at)"
        values = "(:id, 'h1/icu', :model, 'bedside', :serial, 'in_service', 0, 0)"
        devices = [{"id": device, "serial": f"SN-{number}", "model": MODEL} for number, device in enumerate(ids)]
        connection.execute(text(f"INSERT INTO devices {columns} VALUES {values}"), devices)
    return ids


def test_a_device_whose_model_changed_meanwhile_is_not_revoked(fleet: Fleet) -> None:
    ids = _keep_devices(fleet)
    plan = fleet.propose(selection=Selection(model=MODEL))
    assert plan.counts["certificates"] == 10

    def correct() -> None:
        with another_process(fleet) as other, other.database.writing() as connection:
            connection.execute(text("UPDATE devices SET model = 'Other' WHERE id = :id"), {"id": ids[4]})

    assert overtake(fleet, plan, correct) == (DONE, 9)
    assert fleet.states(fleet[4]) == [rows.ISSUED]


def test_a_pause_between_search_and_step_holds_the_step(fleet: Fleet) -> None:
    plan = fleet.propose()

    def pause() -> None:
        with another_process(fleet) as other:
            other.plans.pause(plan.id, by=BOB)

    assert overtake(fleet, plan, pause) == (PAUSED, 3)
    assert fleet.built.find(find_plan, plan.id).stopped_because == "paused-by-operator"
    assert fleet.run(plan).done == 10


@pytest.mark.parametrize("ahead", [1, 2, 3, 4])
def test_a_runner_that_another_overtook_goes_on_from_the_place_of_the_other(fleet: Fleet, ahead: int) -> None:
    plan = fleet.propose()
    left = [die, *[lambda _: None] * (ahead - 1)]

    def count(row: RevocationPlanRow) -> None:
        left.pop()(row)

    def go_ahead() -> None:
        """As many steps of the other runner, of two certificates each."""
        with another_process(fleet) as other, pytest.MonkeyPatch.context() as patch:
            patch.setattr(mass_revocation, "STEP", 2)
            with pytest.raises(Died):
                other.plans.run(plan.id, by=BOB, advance=count)

    assert overtake(fleet, plan, go_ahead, at=1) == (DONE, 10)
    assert fleet.serials_of(REVOKE) == [one.serial for one in fleet], "each once, in their order"


def test_what_another_runner_held_and_an_operator_released_is_not_reached_again(fleet: Fleet) -> None:
    def hold_one_step_and_release() -> None:
        with another_process(fleet) as other, pytest.raises(Died):
            other.plans.run(plan.id, by=BOB, advance=die)
        fleet.built.release(fleet[1], by=BOB)

    plan = fleet.propose(HOLD)
    assert overtake(fleet, plan, hold_one_step_and_release, at=1) == (DONE, 10)
    assert fleet.serials_of(HOLD) == [one.serial for one in fleet]
    assert fleet.states() == [rows.HELD, rows.ISSUED, *[rows.HELD] * 8]


def test_a_hold_made_after_a_release_was_proposed_is_not_ended_by_it(fleet: Fleet) -> None:
    for one in fleet[:4]:
        fleet.built.hold(one, by=BOB)
    plan = fleet.propose(RELEASE)
    fleet.built.hold(fleet[7], by=BOB)
    fleet.built.release(fleet[1], by=BOB)
    fleet.built.hold(fleet[1], by=BOB)
    row = fleet.run(plan)
    assert (row.state, row.done) == (DONE, 3)
    held = [at for at, state in enumerate(fleet.states()) if state == rows.HELD]
    assert held == [1, 7], "no one approved these"
    assert fleet.plans().count_left(row) == 2


def test_a_plan_that_another_runner_finished_is_done_for_both(fleet: Fleet) -> None:
    plan = fleet.propose()

    def finish() -> None:
        with another_process(fleet) as other:
            assert other.plans.run(plan.id, by=BOB).state == DONE

    assert overtake(fleet, plan, finish) == (DONE, 10)
    assert fleet.serials_of(REVOKE) == [one.serial for one in fleet]


def test_two_runners_at_once_do_each_certificate_once_and_count_it_once(fleet: Fleet) -> None:
    fleet += [fleet.built.issue() for _ in range(20)]
    fleet.built.settle()
    plan = fleet.propose()
    with pytest.raises(Died):  # its state is running, and no process runs it
        overtake(fleet, plan, die, at=1)
    both_are_here = threading.Barrier(2)

    def run(runner: MassRevocation, by: str) -> None:
        def wait(row: RevocationPlanRow) -> str | None:
            if row.done == 0:
                both_are_here.wait(30)
            return None

        with suppress(Conflict):  # the other may have done it all before this one begins
            runner.run(plan.id, by=by, stop=wait)

    with another_process(fleet) as other:
        runners = ((fleet.plans(), ALICE), (other.plans, BOB))
        threads = [threading.Thread(target=run, args=runner) for runner in runners]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(60)
    row = fleet.built.find(find_plan, plan.id)
    assert (row.state, row.done) == (DONE, 30)
    assert fleet.serials_of(REVOKE) == [one.serial for one in fleet]


def _in_between(act: Callable[[], object]) -> Callable[[RevocationPlanRow], None]:
    """A stop condition; after its first call, and before the stage begins, another process acts."""
    left = [act]

    def look(_: RevocationPlanRow) -> None:
        if left:
            left.pop()()

    return look


def test_of_two_that_see_a_plan_proposed_one_begins_its_stage_and_the_other_is_refused(fleet: Fleet) -> None:
    plan = fleet.propose(stages=(10, 50))

    def begin() -> None:
        with another_process(fleet) as other:
            assert other.plans.run(plan.id, by=BOB).stage == 1

    with refuses(Reason.DEVICE_STATE, Conflict) as refusal:
        fleet.run(plan, stop=_in_between(begin))
    assert "was proposed at stage 1 of 3 when it was read and is paused at stage 2 of 3" in refusal.value.message
    row = fleet.built.find(find_plan, plan.id)
    assert (row.state, row.stage, row.done) == (PAUSED, 1, 1), "no operator has seen it before the second stage"
    with pytest.raises(Conflict):
        fleet.run(plan, seen=plan)
    assert fleet.run(plan, seen=row).done == 5


def test_a_pause_between_reading_and_beginning_holds_the_stage(fleet: Fleet) -> None:
    plan = fleet.propose(stages=(10,))
    assert fleet.run(plan).state == PAUSED
    with refuses(Reason.DEVICE_STATE, Conflict):
        fleet.run(plan, stop=_in_between(lambda: fleet.plans().pause(plan.id, by=BOB)))
    row = fleet.built.find(find_plan, plan.id)
    assert (row.state, row.done, row.stopped_because) == (PAUSED, 1, PAUSED_BY_OPERATOR)
    assert fleet.run(plan).state == DONE, "an operator who has seen the pause may end it"


def test_a_runner_that_died_after_its_search_is_followed_by_one_that_searches_again(fleet: Fleet) -> None:
    plan = fleet.propose(HOLD)
    with pytest.raises(Died):
        overtake(fleet, plan, die, at=3)
    row = fleet.built.find(find_plan, plan.id)
    assert (row.state, row.done, row.position) == (RUNNING, 6, fleet[5].leaf_index)
    fleet.built.hold(fleet[7], by=BOB)
    assert fleet.plans().run(plan.id, by=BOB).done == 9


def test_a_step_reads_only_single_certificates_and_devices_in_the_writer(fleet: Fleet) -> None:
    _keep_devices(fleet)
    plan = fleet.propose(selection=Selection(model=MODEL, profile="bedside"))
    asked: list[tuple[str, str]] = []

    def note(_connection: object, _cursor: object, statement: str, *_: object) -> None:
        asked.append((threading.current_thread().name, statement))

    event.listen(Engine, "before_cursor_execute", note)
    try:
        assert fleet.run(plan).done == 10
    finally:
        event.remove(Engine, "before_cursor_execute", note)
    searches = [by for by, statement in asked if "FROM devices" in statement and "devices.model =" in statement]
    in_turn = [statement for by, statement in asked if by == "vagus-writer" and "FROM" in statement]
    assert searches
    for statement in in_turn:
        if "FROM certificates" in statement:
            assert "WHERE certificates.leaf_index = ANY" in statement
        if "FROM devices" in statement:
            assert "AND devices.id = ANY" in statement
