"""The ledger's files have a thread of their own: what is only away stops no start, and what contradicts them does."""

from __future__ import annotations

import fcntl
import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from vagus.errors import IntegrityFailure
from vagus.ledger import publish
from vagus.reasons import Reason
from vagus.server.log_publication import ledger_jobs, note_lacks
from vagus.wiring import Installation


@pytest.fixture
def house(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Installation]:
    monkeypatch.setenv("CHECKPOINT_PASSPHRASE", "correct horse battery")
    with Installation.create(
        tmp_path / "house",
        kind="hospital",
        origin="log.test",
        database="sqlite:///vagus.sqlite3",
        unsafe_fast_kdf=True,
        passphrase_sources=["env:CHECKPOINT_PASSPHRASE"],
    ) as made:
        yield made


def checkpoint(house: Installation) -> Path:
    return house.settings.log / "checkpoint"


def test_the_files_are_there_before_the_first_door_opens(house: Installation) -> None:
    ledger_jobs(house, lambda: True).run_all()
    assert checkpoint(house).read_text().startswith("log.test\n1\n")
    assert note_lacks(house) == {}


def test_a_process_without_the_logs_passphrase_has_nothing_to_do_and_says_so(house: Installation) -> None:
    with Installation.open(house.settings.folder) as other:
        jobs = ledger_jobs(other, lambda: True)
        assert jobs.states() == {}
        assert "--passphrase-source log=" in note_lacks(other)["checkpoints"]


def test_nothing_is_signed_while_a_gap_is_open(house: Installation) -> None:
    ledger_jobs(house, lambda: False).run_all()
    assert not checkpoint(house).exists()


def test_a_folder_that_another_process_hangs_in_stops_no_start(
    house: Installation, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(publish, "_LOCK_SECONDS", 0.05)
    house.settings.log.mkdir(exist_ok=True)
    held = os.open(house.settings.log / ".lock", os.O_RDWR | os.O_CREAT)
    fcntl.flock(held, fcntl.LOCK_EX)
    jobs = ledger_jobs(house, lambda: True)
    jobs.run_all()
    state = jobs.states()["ledger"]
    assert (state.in_a_row, state.last_error) == (1, Reason.DATABASE_UNAVAILABLE.value)
    os.close(held)
    jobs.run_all()
    assert (jobs.states()["ledger"].in_a_row, checkpoint(house).exists()) == (0, True)


def test_a_checkpoint_that_is_none_stops_the_start(house: Installation) -> None:
    ledger_jobs(house, lambda: True).run_all()
    checkpoint(house).write_bytes(checkpoint(house).read_bytes().replace(b"log.test\n1\n", b"log.test\n2\n"))
    with pytest.raises(IntegrityFailure) as caught:
        ledger_jobs(house, lambda: True).run_all()
    assert caught.value.reason is Reason.CHECKPOINT_INVALID
