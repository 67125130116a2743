"""What others do between a plan's search and its step neither doubles, nor miscounts, nor leaves out anything."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import pytest
from sqlalchemy import event, text
from sqlalchemy.engine import Engine

from tests.postgres import fresh_database, postgres_server
from tests.simulator.installation import Installation, new_installation
from tests.simulator.refusals import refuses
from vagus.authority import mass_revocation
from vagus.authority.issuance import IssuedCertificate
from vagus.authority.mass_revocation import PAUSED_BY_OPERATOR, MassRevocation
from vagus.authority.revocation import Revocations
from vagus.errors import Conflict
from vagus.reasons import Reason
from vagus.records import certificates as rows
from vagus.records.engine.database import Database, open_database
from vagus.records.engine.writer import Writer
from vagus.records.revocation.plans import DONE, PAUSED, RUNNING, RevocationPlanRow, find_plan
from vagus.records.revocation.revocations import HOLD, RELEASE, REVOKE, list_events
from vagus.records.revocation.selections import Selection
from vagus.x509.crls.building import RevocationReason

ALICE, BOB = "operator:alice", "operator:bob"

Fleet = list[IssuedCertificate]
REASONS = {
    REVOKE: RevocationReason.SUPERSEDED,
    HOLD: RevocationReason.CERTIFICATE_HOLD,
    RELEASE: RevocationReason.REMOVE_FROM_CRL,
}
MODEL = "Pump"


@pytest.fixture(scope="module")
def postgres() -> Iterator[str]:
    with postgres_server() as url:
        yield url


@pytest.fixture(params=["file", pytest.param("postgres", marks=pytest.mark.interop)])
def installation(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Installation]:
    """An installation that other processes may open too."""
    if request.param == "file":
        with new_installation(tmp_path, f"sqlite:///{tmp_path / 'vagus.sqlite3'}") as made:
            made.build()
            yield made
        return
    with fresh_database(request.getfixturevalue("postgres")) as url, new_installation(tmp_path, url) as made:
        made.build()
        yield made


@pytest.fixture
def fleet(installation: Installation, monkeypatch: pytest.MonkeyPatch) -> Fleet:
    """Ten certificates, and steps of three."""
    monkeypatch.setattr(mass_revocation, "STEP", 3)
    found = [installation.issue() for _ in range(10)]
    installation.settle()
    return found


class Overtaken(MassRevocation):
    """A runner whose steps come late: `meanwhile` happens when one is chosen and not begun, with its number."""

    def __init__(self, installation: Installation, meanwhile: Callable[[int], None]) -> None:
        super().__init__(installation.pack, installation.database, installation.writer, installation.clock)
        self._meanwhile = meanwhile
        self._steps = 0

    def _submit_step(self, plan_id: int, by: str, candidates: mass_revocation._Candidates) -> RevocationPlanRow:
        self._steps += 1
        self._meanwhile(self._steps)
        return super()._submit_step(plan_id, by, candidates)


@contextmanager
def another_process(installation: Installation) -> Iterator[tuple[Database, Writer]]:
    database = open_database(installation.database.url.render_as_string(hide_password=False))
    try:
        with Writer(database, installation.clock) as writer:
            yield database, writer
    finally:
        database.close()


def acts(installation: Installation) -> MassRevocation:
    return MassRevocation(installation.pack, installation.database, installation.writer, installation.clock)


def propose(
    installation: Installation,
    act: str = REVOKE,
    *,
    selection: Selection | None = None,
    stages: tuple[int, ...] = (),
) -> RevocationPlanRow:
    unit = Selection(authority_ids=(installation.icu.authority_id,))
    return acts(installation).propose(selection or unit, act, REASONS[act], by=ALICE, stages=stages)


def name(one: IssuedCertificate) -> tuple[int, int]:
    return one.issuer.authority_id, one.serial


def states(installation: Installation, fleet: Fleet) -> list[str]:
    with installation.database.reading() as connection:
        found = [rows.find_by_leaf(connection, one.leaf_index) for one in fleet]
    return [row.state for row in found if row]


def steps_of(installation: Installation, act: str) -> list[int]:
    """The serials in the order in which the sequence has them."""
    found = installation.read(list_events, installation.icu.authority_id, after=0)
    return [one.serial for one in found if one.act == act]


def at_step(number: int, act: Callable[[], object]) -> Callable[[int], None]:
    return lambda step: None if step != number else (act(), None)[1]


def test_what_others_revoked_after_the_search_is_not_counted_and_not_revoked_twice(
    installation: Installation, fleet: Fleet
) -> None:
    plan = propose(installation)
    with another_process(installation) as (_, writer):

        def revoke() -> None:
            for one in (fleet[4], fleet[8]):
                Revocations(writer).revoke(*name(one), REASONS[REVOKE], by=BOB).result()

        row = Overtaken(installation, at_step(2, revoke)).run(plan.id, by=ALICE)
    assert (row.state, row.done) == (DONE, 8)
    assert set(states(installation, fleet)) == {rows.REVOKED}
    assert sorted(steps_of(installation, REVOKE)) == sorted(one.serial for one in fleet)


def test_a_whole_step_that_others_revoked_ends_no_plan(installation: Installation, fleet: Fleet) -> None:
    plan = propose(installation, stages=(50,))

    def revoke() -> None:
        for one in fleet[:3]:
            installation.revoke(one, REASONS[REVOKE], by=BOB)

    row = Overtaken(installation, at_step(1, revoke)).run(plan.id, by=ALICE)
    assert (row.state, row.done) == (PAUSED, 5)
    assert acts(installation).run(plan.id, by=ALICE).done == 7, "the last stage goes to the end"
    assert set(states(installation, fleet)) == {rows.REVOKED}


def test_what_is_released_or_held_ahead_of_a_hold_is_held_once(installation: Installation, fleet: Fleet) -> None:
    installation.hold(fleet[9], by=BOB)
    plan = propose(installation, HOLD)

    def change() -> None:
        installation.release(fleet[9], by=BOB)
        installation.hold(fleet[5], by=BOB)

    row = Overtaken(installation, at_step(2, change)).run(plan.id, by=ALICE)
    assert (row.state, row.done) == (DONE, 9), "all but the one that was held by hand"
    assert set(states(installation, fleet)) == {rows.HELD}
    assert len(steps_of(installation, HOLD)) == 11, "one of them twice, released between"


def test_what_is_held_or_revoked_ahead_of_a_release_stays_so(installation: Installation, fleet: Fleet) -> None:
    for one in fleet[:8]:
        installation.hold(one, by=BOB)
    plan = propose(installation, RELEASE)

    def change() -> None:
        installation.hold(fleet[9], by=BOB)
        installation.revoke(fleet[4], REASONS[REVOKE], by=BOB)
        installation.hold(fleet[0], by=BOB)

    row = Overtaken(installation, at_step(2, change)).run(plan.id, by=ALICE)
    assert (row.state, row.done) == (DONE, 7), "all but the one that was revoked"
    expected = [rows.ISSUED] * 10
    expected[0], expected[4], expected[9] = rows.HELD, rows.REVOKED, rows.HELD
    assert states(installation, fleet) == expected, "what is held meanwhile is not touched, before or after the place"


def test_what_ended_after_the_search_is_left_alone(installation: Installation, fleet: Fleet) -> None:
    plan = propose(installation)
    row = Overtaken(installation, at_step(2, lambda: installation.advance(days=1000))).run(plan.id, by=ALICE)
    assert (row.state, row.done) == (DONE, 3)
    assert states(installation, fleet) == [rows.REVOKED] * 3 + [rows.ISSUED] * 7


def _keep_devices(installation: Installation, fleet: Fleet) -> list[str]:
    """The fleet's devices in the inventory, all of one model; gives their ids."""
    words = {"unit": "h1/icu", "model": MODEL, "profile": "bedside", "state": "in_service"}
    with installation.database.writing() as connection:
        connection.execute(text("INSERT INTO units VALUES ('h1/icu', 'h1', 'Hospital', 'ICU')"))
        for model in (MODEL, "Other"):
            facts = "(name, maker, category, profile) VALUES (:model, 'Maker', 'pump', 'bedside')"
            connection.execute(text(f"INSERT INTO models {facts}"), {"model": model})
        found = [rows.find_by_leaf(connection, one.leaf_index) for one in fleet]
        ids = [row.device_id for row in found if row is not None and row.device_id is not None]
        columns = "(id, unit, model, profile, maker_serial, state, added_at, changed_at)"
        for number, device in enumerate(ids):
            connection.execute(
                text(f"INSERT INTO devices {columns} VALUES (:id, :unit, :model, :profile, :serial, :state, 0, 0)"),
                {"id": device, "serial": f"SN-{number}", **words},
            )
    return ids


def test_a_device_whose_model_changed_meanwhile_is_not_revoked(installation: Installation, fleet: Fleet) -> None:
    ids = _keep_devices(installation, fleet)
    plan = propose(installation, selection=Selection(model=MODEL))
    assert plan.counts["certificates"] == 10

    def correct() -> None:
        with another_process(installation) as (database, _), database.writing() as connection:
            connection.execute(text("UPDATE devices SET model = 'Other' WHERE id = :id"), {"id": ids[4]})

    row = Overtaken(installation, at_step(2, correct)).run(plan.id, by=ALICE)
    assert (row.state, row.done) == (DONE, 9)
    assert states(installation, [fleet[4]]) == [rows.ISSUED]


def test_a_pause_between_search_and_step_holds_the_step(installation: Installation, fleet: Fleet) -> None:
    plan = propose(installation)

    def pause() -> None:
        with another_process(installation) as (database, writer):
            MassRevocation(installation.pack, database, writer, installation.clock).pause(plan.id, by=BOB)

    row = Overtaken(installation, at_step(2, pause)).run(plan.id, by=ALICE)
    assert (row.state, row.done, row.stopped_because) == (PAUSED, 3, "paused-by-operator")
    assert acts(installation).run(plan.id, by=ALICE).done == 10


@pytest.mark.parametrize("ahead", [1, 2, 3, 4])
def test_a_runner_that_another_overtook_goes_on_from_the_place_of_the_other(
    installation: Installation, fleet: Fleet, ahead: int
) -> None:
    class Enough(Exception):
        pass

    plan = propose(installation)

    def overtake() -> None:
        """As many steps of the other runner, of two certificates each."""
        left = ahead

        def count(_: RevocationPlanRow) -> None:
            nonlocal left
            left -= 1
            if not left:
                raise Enough

        with another_process(installation) as (database, writer), pytest.MonkeyPatch.context() as patch:
            patch.setattr(mass_revocation, "STEP", 2)
            other = MassRevocation(installation.pack, database, writer, installation.clock)
            with pytest.raises(Enough):
                other.run(plan.id, by=BOB, advance=count)

    row = Overtaken(installation, at_step(1, overtake)).run(plan.id, by=ALICE)
    assert (row.state, row.done) == (DONE, 10)
    assert steps_of(installation, REVOKE) == [one.serial for one in fleet], "each once, in their order"


def test_what_another_runner_held_and_an_operator_released_is_not_reached_again(
    installation: Installation, fleet: Fleet
) -> None:
    class Enough(Exception):
        pass

    def stop(_: RevocationPlanRow) -> None:
        raise Enough

    def overtake() -> None:
        with another_process(installation) as (database, writer):
            other = MassRevocation(installation.pack, database, writer, installation.clock)
            with pytest.raises(Enough):
                other.run(plan.id, by=BOB, advance=stop)
        installation.release(fleet[1], by=BOB)

    plan = propose(installation, HOLD)
    row = Overtaken(installation, at_step(1, overtake)).run(plan.id, by=ALICE)
    assert (row.state, row.done) == (DONE, 10)
    assert steps_of(installation, HOLD) == [one.serial for one in fleet]
    assert states(installation, fleet) == [rows.HELD, rows.ISSUED, *[rows.HELD] * 8]


def test_a_hold_made_after_a_release_was_proposed_is_not_ended_by_it(installation: Installation, fleet: Fleet) -> None:
    for one in fleet[:4]:
        installation.hold(one, by=BOB)
    plan = propose(installation, RELEASE)
    installation.hold(fleet[7], by=BOB)
    installation.release(fleet[1], by=BOB)
    installation.hold(fleet[1], by=BOB)
    row = acts(installation).run(plan.id, by=ALICE)
    assert (row.state, row.done) == (DONE, 3)
    held = [at for at, state in enumerate(states(installation, fleet)) if state == rows.HELD]
    assert held == [1, 7], "no one approved these"
    assert acts(installation).count_left(row) == 2


def test_a_plan_that_another_runner_finished_is_done_for_both(installation: Installation, fleet: Fleet) -> None:
    plan = propose(installation)

    def finish() -> None:
        with another_process(installation) as (database, writer):
            other = MassRevocation(installation.pack, database, writer, installation.clock)
            assert other.run(plan.id, by=BOB).state == DONE

    row = Overtaken(installation, at_step(2, finish)).run(plan.id, by=ALICE)
    assert (row.state, row.done) == (DONE, 10)
    assert steps_of(installation, REVOKE) == [one.serial for one in fleet]


def test_two_runners_at_once_do_each_certificate_once_and_count_it_once(
    installation: Installation, fleet: Fleet
) -> None:
    fleet += [installation.issue() for _ in range(20)]
    installation.settle()
    plan = propose(installation)
    _die_at_once(installation, plan)
    both_are_here = threading.Barrier(2)

    def run(database: Database, writer: Writer, by: str) -> None:
        def wait(row: RevocationPlanRow) -> str | None:
            if row.done == 0:
                both_are_here.wait(30)
            return None

        runner = MassRevocation(installation.pack, database, writer, installation.clock)
        with suppress(Conflict):  # the other may have done it all before this one begins
            runner.run(plan.id, by=by, stop=wait)

    with another_process(installation) as (database, writer):
        threads = [
            threading.Thread(target=run, args=(installation.database, installation.writer, ALICE)),
            threading.Thread(target=run, args=(database, writer, BOB)),
        ]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(60)
    row = installation.find(find_plan, plan.id)
    assert (row.state, row.done) == (DONE, 30)
    assert steps_of(installation, REVOKE) == [one.serial for one in fleet]


def _die_at_once(installation: Installation, plan: RevocationPlanRow) -> None:
    """Leave the plan in state running, with no process that runs it."""

    class Died(BaseException):
        pass

    def die() -> None:
        raise Died

    with pytest.raises(Died):
        Overtaken(installation, at_step(1, die)).run(plan.id, by=ALICE)


def _in_between(act: Callable[[], object]) -> Callable[[RevocationPlanRow], None]:
    """A stop condition; after its first call, and before the stage begins, another process acts."""
    left = [act]

    def look(_: RevocationPlanRow) -> None:
        if left:
            left.pop()()

    return look


def _plan(installation: Installation, plan_id: int) -> RevocationPlanRow:
    return installation.find(find_plan, plan_id)


def test_of_two_that_see_a_plan_proposed_one_begins_its_stage_and_the_other_is_refused(
    installation: Installation, fleet: Fleet
) -> None:
    plan = propose(installation, stages=(10, 50))

    def overtake() -> None:
        with another_process(installation) as (database, writer):
            other = MassRevocation(installation.pack, database, writer, installation.clock)
            assert other.run(plan.id, by=BOB).stage == 1

    with refuses(Reason.DEVICE_STATE, Conflict) as refusal:
        acts(installation).run(plan.id, by=ALICE, stop=_in_between(overtake))
    assert "was proposed at stage 1 of 3 when it was read and is paused at stage 2 of 3" in refusal.value.message
    row = _plan(installation, plan.id)
    assert (row.state, row.stage, row.done) == (PAUSED, 1, 1), "no operator has seen it before the second stage"
    with pytest.raises(Conflict):
        acts(installation).run(plan.id, by=ALICE, seen=plan)
    assert acts(installation).run(plan.id, by=ALICE, seen=row).done == 5


def test_a_pause_between_reading_and_beginning_holds_the_stage(installation: Installation, fleet: Fleet) -> None:
    plan = propose(installation, stages=(10,))
    assert acts(installation).run(plan.id, by=ALICE).state == PAUSED
    with refuses(Reason.DEVICE_STATE, Conflict):
        acts(installation).run(plan.id, by=ALICE, stop=_in_between(lambda: acts(installation).pause(plan.id, by=BOB)))
    row = _plan(installation, plan.id)
    assert (row.state, row.done, row.stopped_because) == (PAUSED, 1, PAUSED_BY_OPERATOR)
    assert acts(installation).run(plan.id, by=ALICE).state == DONE, "an operator who has seen the pause may end it"


def test_a_runner_that_died_after_its_search_is_followed_by_one_that_searches_again(
    installation: Installation, fleet: Fleet
) -> None:
    class Died(BaseException):
        pass

    def die() -> None:
        raise Died

    plan = propose(installation, HOLD)
    with pytest.raises(Died):
        Overtaken(installation, at_step(3, die)).run(plan.id, by=ALICE)
    row = installation.find(find_plan, plan.id)
    assert (row.state, row.done, row.position) == (RUNNING, 6, fleet[5].leaf_index)
    installation.hold(fleet[7], by=BOB)
    assert acts(installation).run(plan.id, by=BOB).done == 9


def test_a_step_reads_only_single_certificates_and_devices_in_the_writer(
    installation: Installation, fleet: Fleet
) -> None:
    _keep_devices(installation, fleet)
    plan = propose(installation, selection=Selection(model=MODEL, profile="bedside"))
    asked: list[tuple[str, str]] = []

    def note(_connection: object, _cursor: object, statement: str, *_: object) -> None:
        asked.append((threading.current_thread().name, statement))

    event.listen(Engine, "before_cursor_execute", note)
    try:
        assert acts(installation).run(plan.id, by=ALICE).done == 10
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
