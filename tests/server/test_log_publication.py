"""Publication of the ledger: a folder that cannot be used stops no start, and one that contradicts the log does."""

from __future__ import annotations

import fcntl
import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.simulator.refusals import refuses
from tests.test_wiring import new_hospital
from vagus.errors import IntegrityFailure
from vagus.jobs.part import Parts
from vagus.ledger import publish
from vagus.reasons import Reason
from vagus.server.log_publication import ledger_part
from vagus.wiring import Installation


@pytest.fixture
def installation(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Installation]:
    monkeypatch.setenv("CHECKPOINT_PASSPHRASE", "correct horse battery")
    with new_hospital(tmp_path / "installation", "env:CHECKPOINT_PASSPHRASE") as made:
        yield made


def ledger(installation: Installation, *, is_settled: bool = True) -> Parts:
    return Parts([ledger_part(installation, lambda: is_settled, is_status_only=False)])


def checkpoint(installation: Installation) -> Path:
    return installation.settings.log / "checkpoint"


def test_the_files_are_there_before_the_first_listener_opens(installation: Installation) -> None:
    ledger(installation).take_first_turns()
    assert checkpoint(installation).read_text().startswith("log.test\n1\n")
    assert ledger(installation).every[0].health().lacks == {}


def test_a_process_without_the_logs_passphrase_has_nothing_to_do_and_reports_it(installation: Installation) -> None:
    with Installation.open(installation.settings.folder) as other:
        parts = ledger(other)
        assert parts.states() == {}
        assert "--passphrase-source log=" in parts.every[0].health().lacks["checkpoints"]
        status_node = ledger_part(other, lambda: True, is_status_only=True)
        assert status_node.health().lacks == {}, "it issues nothing that a checkpoint could lack"


def test_nothing_is_signed_while_a_gap_is_open(installation: Installation) -> None:
    ledger(installation, is_settled=False).take_first_turns()
    assert not checkpoint(installation).exists()


def test_a_folder_that_another_process_hangs_in_stops_no_start(
    installation: Installation, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(publish, "_LOCK_SECONDS", 0.05)
    installation.settings.log.mkdir(exist_ok=True)
    held = os.open(installation.settings.log / ".lock", os.O_RDWR | os.O_CREAT)
    fcntl.flock(held, fcntl.LOCK_EX)
    parts = ledger(installation)
    parts.take_first_turns()
    state = parts.states()["ledger"]
    assert (state.in_a_row, state.last_error) == (1, Reason.DATABASE_UNAVAILABLE.value)
    os.close(held)
    parts.take_first_turns()
    assert (parts.states()["ledger"].in_a_row, checkpoint(installation).exists()) == (0, True)


def test_an_invalid_checkpoint_stops_the_start(installation: Installation) -> None:
    ledger(installation).take_first_turns()
    file = checkpoint(installation)
    file.write_bytes(file.read_bytes().replace(b"log.test\n1\n", b"log.test\n2\n"))
    with refuses(Reason.CHECKPOINT_INVALID, IntegrityFailure):
        ledger(installation).take_first_turns()
