"""Refusals become entries: one a minute for each device and reason, and never at the cost of a response."""

from __future__ import annotations

import pytest

from tests.simulator.stock import stock
from vagus.errors import Unavailable
from vagus.fleet.enrolment.refusals import RefusalNotes
from vagus.ledger.entries import AuthenticatedRefusal
from vagus.reasons import Reason


def test_repetitions_are_one_entry_and_others_are_their_own() -> None:
    with stock() as hospital:
        notes = RefusalNotes(hospital.writer)
        for _ in range(3):
            notes.note("device:a", "est", Reason.DEVICE_STATE)
        notes.note("device:b", "est", Reason.DEVICE_STATE)
        notes.note("device:a", "est", Reason.TOKEN_REUSED)
        hospital.writer.submit(lambda _: None).result(10)
        entries = [entry for entry in hospital.entries() if isinstance(entry, AuthenticatedRefusal)]
    assert [entry.reason for entry in entries] == ["DEVICE_STATE", "DEVICE_STATE", "TOKEN_REUSED"]
    assert len({entry.who for entry in entries}) == 2
    assert all(entry.who.startswith("sha256:") for entry in entries), "no device in the clear"


def test_a_closed_writer_stops_no_refusal() -> None:
    with stock() as hospital:
        notes = RefusalNotes(hospital.writer)
        hospital.writer.close()
        notes.note("device:a", "est", Reason.DEVICE_STATE)


def test_one_whose_batch_failed_is_recorded_when_the_device_is_refused_again(monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(_point: str) -> None:
        raise OSError("the disk is away")

    with stock() as hospital:
        notes = RefusalNotes(hospital.writer)
        with monkeypatch.context() as patch:
            patch.setattr(hospital.writer, "_kill_points", fail)
            notes.note("device:a", "est", Reason.DEVICE_STATE)
            with pytest.raises(Unavailable):
                hospital.writer.submit(lambda _: None).result(10)
        for _ in range(2):
            notes.note("device:a", "est", Reason.DEVICE_STATE)
        hospital.writer.submit(lambda _: None).result(10)
        assert len([entry for entry in hospital.entries() if isinstance(entry, AuthenticatedRefusal)]) == 1


def test_memory_is_bounded() -> None:
    with stock() as hospital:
        notes = RefusalNotes(hospital.writer)
        hospital.writer.close()
        for number in range(50):
            notes._noted[(f"device:{number}", "est", Reason.REVOKED)] = float("inf")
        notes.note("device:a", "est", Reason.REVOKED)
        assert len(notes._noted) <= 51
