"""Counts and log lines of ledger entries and of refused requests."""

from __future__ import annotations

import json
import logging

import pytest

from tests.events.conftest import add
from vagus.events.log import EventLog, Refusals
from vagus.reasons import Reason
from vagus.records.engine.writer import Writer

ISSUANCE = b'{"at":7,"authority_kind":"root","kind":"issuance","v":1}'
REVOCATION = b'{"at":7,"kind":"revocation","v":1}'


@pytest.fixture(autouse=True)
def _at_info(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO, "vagus.events")


def test_each_committed_entry_is_counted_by_its_kind_and_logged_once(
    writer: Writer, caplog: pytest.LogCaptureFixture
) -> None:
    log = EventLog()
    log.follow(writer)
    add(writer, ISSUANCE, REVOCATION)
    add(writer, ISSUANCE)
    assert log.counts == {"issuance": 2, "revocation": 1}
    assert not caplog.messages, "the writer's thread logs nothing"
    log.flush()
    log.flush()
    assert caplog.messages == [ISSUANCE.decode(), REVOCATION.decode(), ISSUANCE.decode()]


def test_a_blocked_log_loses_lines_and_no_count(writer: Writer, caplog: pytest.LogCaptureFixture) -> None:
    log = EventLog(most_waiting=2)
    log.follow(writer)
    add(writer, *[ISSUANCE] * 5)
    log.flush()
    assert log.counts == {"issuance": 5}
    assert caplog.messages[:2] == [ISSUANCE.decode()] * 2
    assert "3 ledger entries were not logged" in caplog.messages[2]


def test_refusals_are_all_counted_and_logged_once_a_second_for_each_reason(
    caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    now, refusals = [100.0], Refusals()
    monkeypatch.setattr("vagus.events.log.time.monotonic", lambda: now[0])
    for _ in range(3):
        refusals.note(Reason.TOKEN_INVALID)
    refusals.note(Reason.TOO_LARGE)
    now[0] += 1
    refusals.note(Reason.TOKEN_INVALID)
    assert refusals.counts == {"TOKEN_INVALID": 4, "TOO_LARGE": 1}
    lines = [json.loads(message) for message in caplog.messages]
    assert [(line["reason"], line["count"]) for line in lines] == [
        ("TOKEN_INVALID", 1),
        ("TOO_LARGE", 1),
        ("TOKEN_INVALID", 3),
    ]
