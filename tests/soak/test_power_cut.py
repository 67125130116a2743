"""Power cuts: whatever was answered is there afterwards, and nothing was answered before the disk had it."""

from __future__ import annotations

import os
import random
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path

import pytest
from sqlalchemy import Column, Connection, select

from tests.simulator.log import ORIGIN, CheckpointKey
from tests.soak.disk import Disk, Leftover, Step, build_tracer, read_trace
from tests.soak.power_cut_workload import DATABASE, JOURNAL
from vagus.errors import VagusError
from vagus.identifiers import serial_bytes
from vagus.ledger.publish import load_published
from vagus.ledger.verify import verify_log, verify_published
from vagus.records.engine.database import open_database
from vagus.records.engine.tables import certificates, revocation_events
from vagus.tlog.checkpoint import Checkpoint, NoteKey
from vagus.x509 import der

KEY = CheckpointKey()


@dataclass(frozen=True)
class Run:
    """One traced run: its steps, and the step of each answer."""

    root: str
    steps: list[Step]
    answers: list[tuple[int, str]]


@pytest.fixture(scope="module")
def tracer(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return build_tracer(tmp_path_factory.mktemp("tracer"))


def trace(tracer: Path, scratch: Path, acts: int, seed: int, *flags: str) -> Run:
    """Run the workload under the tracer to its end."""
    folder, file = scratch / f"run-{seed}", scratch / f"trace-{seed}"
    folder.mkdir(mode=0o700)
    environment = {
        **os.environ,
        "LD_PRELOAD": str(tracer),
        "DISK_TRACE_FOLDER": str(folder),
        "DISK_TRACE_FILE": str(file),
        "PYTHONPATH": os.pathsep.join(sys.path),
    }
    command = [sys.executable, "-m", "tests.soak.power_cut_workload", str(folder), str(acts), str(seed), *flags]
    subprocess.run(command, env=environment, check=True, timeout=300)
    steps = list(read_trace(file))
    file.unlink()
    journals = {step.file for step in steps if step.op == "O" and step.data.endswith(f"/{JOURNAL}".encode())}
    answers = [(at, s.data.decode().strip()) for at, s in enumerate(steps) if s.op == "W" and s.file in journals]
    assert len(answers) >= acts - 8
    return Run(str(folder), steps, answers)


def check(run: Run, cut: int, disk: Disk, target: Path, leftover: Leftover, chance: random.Random) -> None:
    """Cut before step `cut`: after recovery every answer so far holds and the log verifies."""
    disk.lay_out(target, leftover, chance)
    answered = [text.split() for at, text in run.answers if at < cut]
    where = f"cut at step {cut} of {len(run.steps)}, leaving {leftover.value}"
    if not answered:
        return
    database = open_database(f"sqlite:///{target / DATABASE}")
    try:
        database.check_schema()
        with database.reading() as connection:
            issued = dict(_pairs(connection, certificates.c.leaf_index, certificates.c.serial))
            revoked = dict(_pairs(connection, revocation_events.c.sequence, revocation_events.c.serial))
        for what, number, value in answered:
            if what != "published":
                found = (issued if what == "issued" else revoked).get(int(number))
                assert found == serial_bytes(int(value, 16)), f"{what} {number} was answered and is lost: {where}"
        # The log, its tables and every published checkpoint fit together, and no checkpoint is ahead of the database.
        published = [
            Checkpoint(ORIGIN, int(size), bytes.fromhex(root)) for what, size, root in answered if what[0] == "p"
        ]
        against = published[-1] if published else None
        verify_log(database, public_key=KEY.public_key, against=against)
        standing = load_published(target / "log", NoteKey(ORIGIN, KEY.public_key))
        assert against is None or (standing is not None and standing.size >= against.size), where
        if standing is not None:
            verify_log(target / "log", public_key=KEY.public_key, against=against)
            verify_published(database, target / "log", public_key=KEY.public_key)
    except VagusError as error:
        pytest.fail(f"{error.message}: {where}")
    finally:
        database.close()


def _pairs(connection: Connection, key: Column[int], value: Column[bytes]) -> list[tuple[int, bytes]]:
    return [(row[0], row[1]) for row in connection.execute(select(key, value))]


def cut_many(run: Run, target: Path, cuts: list[int], chance: random.Random, leftover: Leftover | None = None) -> None:
    disk, at = Disk(run.root), 0
    for cut in sorted(cuts):
        for step in run.steps[at:cut]:
            disk.take(step)
        at = cut
        check(run, cut, disk, target, leftover or chance.choice(list(Leftover)), chance)


@pytest.mark.process
def test_no_answer_leaves_before_the_sync_that_covers_it(tracer: Path, tmp_path: Path, soak_seed: int) -> None:
    """Cut right before the answer itself, with everything unsynced gone: it must already be on the disk."""
    run = trace(tracer, tmp_path, 160, soak_seed)
    chance = random.Random(soak_seed)
    answers = [at for at, _ in run.answers]
    cut_many(run, tmp_path / "cut", [at + 1 for at in chance.sample(answers, 25)], chance, Leftover.NOTHING)


@pytest.mark.process
def test_every_answer_holds_after_a_cut_at_any_instant(tracer: Path, tmp_path: Path, soak_seed: int) -> None:
    run = trace(tracer, tmp_path, 160, soak_seed + 1)
    chance = random.Random(soak_seed)
    first = run.answers[0][0]
    cut_many(run, tmp_path / "cut", chance.sample(range(first, len(run.steps) + 1), 40), chance)


@pytest.mark.process
def test_commits_without_syncs_are_caught_by_these_cuts(tracer: Path, tmp_path: Path, soak_seed: int) -> None:
    """The twin: the same workload with synchronous = OFF loses what it answered, and the check sees it."""
    run = trace(tracer, tmp_path, 80, soak_seed + 2, "weak")
    with pytest.raises((AssertionError, pytest.fail.Exception)):
        cut_many(run, tmp_path / "cut", [run.answers[-1][0] + 1], random.Random(0), Leftover.NOTHING)


@pytest.mark.process
def test_every_sync_of_the_write_ahead_log_ends_before_its_answers(
    tracer: Path, tmp_path: Path, soak_seed: int
) -> None:
    """From the trace alone, for every answer: the first write that holds its serial was followed by a whole sync."""
    run = trace(tracer, tmp_path, 160, soak_seed + 3)
    logs = {step.file for step in run.steps if step.op == "O" and step.data.endswith(b"-wal")}
    writes = [(at, step.data) for at, step in enumerate(run.steps) if step.op == "W" and step.file in logs]
    for answered_at, text in run.answers:
        what, _, value = text.split()
        if what == "issued":
            written_at = next(at for at, data in writes if der.integer(int(value, 16)) in data)
            assert written_at < answered_at
            began = next(
                at for at in range(written_at, answered_at) if run.steps[at].op == "B" and run.steps[at].file in logs
            )
            assert any(
                step.op == "E" and step.file == run.steps[began].file for step in run.steps[began:answered_at]
            ), f"{text} was answered before its sync ended"


@pytest.mark.soak
def test_power_cuts_for_as_long_as_the_budget_lasts(
    tracer: Path, tmp_path: Path, soak_seed: int, soak_seconds: float
) -> None:
    ends_at = time.monotonic() + soak_seconds
    cuts, round_ = 0, 0
    while time.monotonic() < ends_at:
        seed = soak_seed + 10 + round_
        chance = random.Random(seed)
        run = trace(tracer, tmp_path, 1_000, seed)
        batch = chance.sample(range(run.answers[0][0], len(run.steps) + 1), 100)
        cut_many(run, tmp_path / "cut", batch, chance)
        cuts, round_ = cuts + len(batch), round_ + 1
    print(f"power cuts survived: {cuts} in {round_} runs")  # noqa: T201
