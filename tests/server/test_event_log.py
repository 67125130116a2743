"""The log and the counters of events in a serving process."""

from __future__ import annotations

import logging

import pytest

from tests.simulator.installation import memory_database
from vagus.events.log import EventLog, Refusals
from vagus.jobs.part import Parts
from vagus.reasons import Reason
from vagus.records.engine.writer import Writer
from vagus.server.event_log import event_part, flush, write_to_stderr
from vagus.server.health import Health
from vagus.server.metrics import encode_metrics
from vagus.testing import FrozenClock

ISSUANCE = b'{"at":7,"kind":"issuance","v":1}'


def unconfigured(monkeypatch: pytest.MonkeyPatch) -> logging.Logger:
    """The logger as a process without any configuration has it."""
    events = logging.getLogger("vagus.events")
    monkeypatch.setattr(logging.getLogger(), "handlers", [])
    monkeypatch.setattr(events, "handlers", [])
    monkeypatch.setattr(events, "level", logging.NOTSET)
    return events


def test_metrics_count_entries_by_kind_and_refusals_by_reason() -> None:
    log, refusals = EventLog(), Refusals()
    with memory_database() as database, Writer(database, FrozenClock()) as writer:
        log.follow(writer)
        writer.submit(lambda batch: batch.append(ISSUANCE)).result(10)
    for _ in range(2):
        refusals.note(Reason.TOKEN_INVALID)
    text = encode_metrics(Health(Parts([event_part(log, refusals)]))).decode()
    assert 'vagus_events_total{kind="issuance"} 1.0' in text
    assert 'vagus_refusals_total{reason="TOKEN_INVALID"} 2.0' in text


def test_without_any_configuration_lines_go_to_standard_error(
    monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    events = unconfigured(monkeypatch)
    write_to_stderr()
    write_to_stderr()
    events.info("%s", ISSUANCE.decode())
    assert not capfd.readouterr().err, "lines wait for the others of the same second"
    flush(EventLog())
    (line,) = capfd.readouterr().err.splitlines()
    assert line.endswith(f" vagus.events {ISSUANCE.decode()}")


def test_a_configuration_of_the_operator_stays(monkeypatch: pytest.MonkeyPatch) -> None:
    events = unconfigured(monkeypatch)
    logging.getLogger().addHandler(logging.NullHandler())
    write_to_stderr()
    assert not events.handlers
