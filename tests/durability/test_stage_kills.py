"""A handed-over stage of a mass revocation, and a transfer's last act, outlive kill -9 at each of their commits."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Literal
from uuid import uuid4

import pytest

from tests.postgres import KINDS, database_of_kind
from tests.simulator.commands import PASSPHRASE, SOURCE, make_installation, vagus
from tests.simulator.orders import order_for
from tests.simulator.queries import count_open
from tests.simulator.waiting import wait_until
from vagus.authority.issuance import IssuedCertificate
from vagus.authority.stage_jobs import hand_over_stage
from vagus.fleet import transfers
from vagus.identifiers import DeviceId
from vagus.records.devices import DeviceFilter, DeviceRow, list_devices
from vagus.records.revocation.plans import DONE, find_plan
from vagus.records.revocation.revocations import REVOKE, list_events, newest_sequence
from vagus.records.revocation.selections import Selection
from vagus.records.work import list_given_up
from vagus.wiring import Installation
from vagus.x509.crls.building import RevocationReason

pytestmark = pytest.mark.process

PATIENCE = 60.0
BY = "operator:test"
Point = tuple[Literal["before-commit", "after-commit"], int]


@dataclass
class Hospital:
    """A installation of which other processes run the jobs, and what its revocations so far were."""

    folder: Path
    installation: Installation

    def issue(self, device: DeviceId, count: int) -> list[IssuedCertificate]:
        issuer = self.installation.open_issuers(["h1/icu"])["h1/icu"]
        orders = [order_for(device, f"test-{uuid4()}") for _ in range(count)]
        found = [self.installation.issuance.issue_now(order, issuer) for order in orders]
        self.installation.writer.submit(lambda _: None).result()
        return found

    def sequence(self) -> int:
        with self.installation.database.reading() as connection:
            return newest_sequence(connection)

    def serials_since(self, issued: IssuedCertificate, sequence: int) -> list[int]:
        with self.installation.database.reading() as connection:
            return [one.serial for one in list_events(connection, issued.issuer.authority_id, after=sequence)]

    def open_jobs(self) -> int:
        with self.installation.database.reading() as connection:
            assert list_given_up(connection, since=0) == ()
            return count_open(connection)

    def device_of(self, unit: str) -> DeviceRow:
        with self.installation.database.reading() as connection:
            return next(one for one in list_devices(connection, DeviceFilter()) if str(one.unit) == unit)

    def work(self, point: str, nth: int) -> None:
        """One process after the other: the first dies at its point, the second finishes."""
        assert self._run(point, nth, is_dying=True) == -9, "it never came to its point"
        assert self._run("none", 1, is_dying=False) == 0

    def _run(self, point: str, nth: int, *, is_dying: bool) -> int:
        node = f"node-{uuid4().hex[:8]}"
        with subprocess.Popen(
            [sys.executable, "-m", "tests.durability.stage_worker", str(self.folder), node, point, str(nth)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            cwd=Path(__file__).parents[2],
        ) as process:
            if not is_dying:
                wait_until(lambda: not self.open_jobs())
                assert process.stdin is not None
                process.stdin.close()
            try:
                return process.wait(PATIENCE)
            finally:
                process.kill()


@pytest.fixture(scope="module", params=KINDS)
def hospital(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Hospital]:
    folder = tmp_path_factory.mktemp("stages") / "hospital"
    with ExitStack() as stack, pytest.MonkeyPatch.context() as patch:
        patch.setenv("VAGUS_TEST_PASSPHRASE", PASSPHRASE)
        url = stack.enter_context(database_of_kind(request.param, folder.parent))
        make_installation(folder, devices=1, database=url)
        installation = stack.enter_context(Installation.open(folder, passphrase_sources=[SOURCE]))
        yield Hospital(folder, installation)


@pytest.mark.parametrize(
    "point",
    [
        ("after-commit", 1),  # it has the job and has not begun
        ("after-commit", 2),  # it has begun
        ("before-commit", 4),  # in the second of its steps
        ("after-commit", 4),  # between two steps
        ("before-commit", 6),  # the plan is done, the job is not
    ],
)
def test_a_stage_that_is_killed_anywhere_is_finished_by_another_and_each_certificate_is_revoked_once(
    hospital: Hospital, point: Point
) -> None:
    installation = hospital.installation
    issued = hospital.issue(hospital.device_of("h1/icu").id, 6)
    selection = Selection(leaves=tuple(one.leaf_index for one in issued))
    before = hospital.sequence()
    plan = installation.mass_revocation.propose(selection, REVOKE, RevocationReason.SUPERSEDED, by=BY, stages=(34,))
    paused = installation.mass_revocation.run(plan.id, by=BY)
    assert (paused.done, paused.stage, paused.stages) == (2, 1, (2, 6))
    installation.writer.submit(
        lambda batch: hand_over_stage(batch.connection, paused, by=BY, ignores_late_lists=True)
    ).result()
    hospital.work(*point)
    with installation.database.reading() as connection:
        ended = find_plan(connection, plan.id)
    assert ended is not None
    assert (ended.state, ended.done, hospital.open_jobs()) == (DONE, 6, 0)
    assert sorted(hospital.serials_since(issued[0], before)) == sorted(one.serial for one in issued)
    vagus(hospital.folder, "audit", "verify")


@pytest.mark.parametrize("point", [("after-commit", 1), ("before-commit", 2), ("after-commit", 2)])
def test_a_transfers_last_act_that_is_killed_counts_once(hospital: Hospital, point: Point) -> None:
    device = hospital.device_of("h1/er")  # with certificates of the unit that it came from
    issued = hospital.issue(device.id, 2)
    before, unit = hospital.sequence(), device.unit
    assert unit is not None
    hospital.installation.writer.submit(
        lambda batch: transfers.plan_superseding(batch.connection, device.id, unit, at=0, run_after=0)
    ).result()
    hospital.work(*point)
    assert hospital.open_jobs() == 0
    assert sorted(hospital.serials_since(issued[0], before)) == sorted(one.serial for one in issued)
    vagus(hospital.folder, "audit", "verify")
