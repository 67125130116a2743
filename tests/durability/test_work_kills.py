"""Durable jobs outlive kill -9, another release of their own code, and a node that never comes back."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from tests.postgres import KINDS, database_of_kind
from tests.simulator.queries import count_open
from tests.simulator.waiting import wait_until
from vagus.records.engine.database import Database, open_database
from vagus.records.engine.writer import Writer
from vagus.records.verifier_memory import find_remembered
from vagus.records.work import add_work
from vagus.wiring import RealClock

pytestmark = pytest.mark.process

PATIENCE = 60.0

SOURCE = """
import time
from vagus.records.verifier_memory import find_remembered, remember

RELEASE, STEPS, PAUSE = {release!r}, {steps}, {pause}

def kinds(writer):
    def count(batch, name):
        known = find_remembered(batch.connection, name)
        remember(batch.connection, name, 1 if known is None else known.number + 1, batch.at)

    def run(job, lease):
        for step in range(STEPS):
            lease.check()
            writer.submit(lambda batch: count(batch, "steps:" + job.key)).result()
            time.sleep(PAUSE)
        return lambda batch: (count(batch, "finished:" + job.key), count(batch, "by:" + RELEASE))

    return {{"long": run}}
"""


@pytest.fixture(params=KINDS)
def database(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Database]:
    with database_of_kind(request.param, tmp_path) as url:
        made = open_database(url)
        made.create()
        yield made
        made.close()


@contextmanager
def worker(database: Database, node: str, source: Path) -> Iterator[subprocess.Popen[str]]:
    """A process that works until the block ends, however the test treats it meanwhile."""
    url = database.url.render_as_string(hide_password=False)
    process = subprocess.Popen(
        [sys.executable, "-m", "tests.durability.worker", url, node, str(source)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        cwd=Path(__file__).parents[2],
    )
    assert process.stdin is not None
    assert process.stdout is not None
    try:
        assert process.stdout.readline() == "ready\n"
        yield process
    finally:
        process.stdin.close()
        process.wait(PATIENCE)
        process.stdout.close()


def write_source(folder: Path, release: str, *, steps: int, pause: float) -> Path:
    place = folder / "job_source.py"
    place.write_text(SOURCE.format(release=release, steps=steps, pause=pause))
    return place


def add(database: Database, *keys: str) -> None:
    with Writer(database, RealClock()) as writer:
        writer.submit(lambda batch: [add_work(batch.connection, "long", key) for key in keys]).result()


def number(database: Database, name: str) -> int:
    with database.reading() as connection:
        found = find_remembered(connection, name)
    return 0 if found is None else found.number


def is_idle(database: Database) -> bool:
    with database.reading() as connection:
        return count_open(connection) == 0


def test_a_job_killed_in_the_middle_is_finished_once_by_another_release(database: Database, tmp_path: Path) -> None:
    add(database, "a")
    source = write_source(tmp_path, "old", steps=10_000, pause=0.02)
    with worker(database, "node-1", source) as process:
        wait_until(lambda: number(database, "steps:a") >= 3)
        process.kill()
        process.wait(PATIENCE)
    done_by_the_old = number(database, "steps:a")
    assert not is_idle(database)
    source = write_source(tmp_path, "new", steps=4, pause=0.0)
    with worker(database, "node-2", source):
        wait_until(lambda: is_idle(database))
    assert number(database, "steps:a") == done_by_the_old + 4, "it began again, in the new release's way"
    assert (number(database, "finished:a"), number(database, "by:old"), number(database, "by:new")) == (1, 0, 1)


def test_a_node_that_dies_for_good_leaves_its_jobs_to_another(database: Database, tmp_path: Path) -> None:
    keys = [f"job-{index}" for index in range(6)]
    add(database, *keys)
    source = write_source(tmp_path, "only", steps=5, pause=0.04)
    with worker(database, "node-1", source) as dying, worker(database, "node-2", source):
        wait_until(lambda: any(number(database, f"finished:{key}") for key in keys))
        dying.kill()
        dying.wait(PATIENCE)
        wait_until(lambda: is_idle(database))
    assert [number(database, f"finished:{key}") for key in keys] == [1] * 6
    assert number(database, "by:only") == 6


@pytest.mark.interop
def test_a_lease_is_kept_while_a_job_outlasts_it(database: Database, tmp_path: Path) -> None:
    """The job takes three leases' time; a second node asks all the while and never gets it."""
    add(database, "slow")
    source = write_source(tmp_path, "only", steps=60, pause=0.1)
    with worker(database, "node-1", source), worker(database, "node-2", source):
        wait_until(lambda: is_idle(database))
    assert (number(database, "steps:slow"), number(database, "finished:slow")) == (60, 1)
