"""CRLs and responders about to end are reported in time, and take no process out of service."""

from __future__ import annotations

import json
import re
from datetime import timedelta
from typing import Any

import pytest
from prometheus_client.parser import text_string_to_metric_families
from sqlalchemy import delete

from tests.endpoints.calls import call
from tests.simulator.installation import BY
from tests.simulator.presence import present
from tests.simulator.publishing import PublishedHospital
from vagus.jobs.part import Parts
from vagus.jobs.periodic import Task
from vagus.monitoring.status_watch import StatusWatch, watch_crls
from vagus.records.authorities import find_generation
from vagus.records.engine.tables import crl_publications, ocsp_responders
from vagus.server.health import Health
from vagus.server.metrics import operator_pages
from vagus.server.overload import LoadGauge
from vagus.server.revocation_sequence import SequenceHealth
from vagus.server.status_watching import watch_part
from vagus.x509.certificates import decode_certificate
from vagus.x509.crls.building import RevocationReason


@pytest.fixture
def watch(clinic: PublishedHospital) -> StatusWatch:
    built, prober = clinic.built, clinic.prober()
    keystores = built.folder / "keystores"
    return StatusWatch(built.pack, built.database, built.clock, keystores, find_prober=lambda: prober)


@pytest.fixture
def health(clinic: PublishedHospital, watch: StatusWatch) -> Health:
    clock, follower, load = clinic.built.clock, clinic.responses.follower, LoadGauge(1.0)
    load.turned_away = 7
    tasks = [Task("list-ages", 60, watch.refresh), Task("probe", 60, watch.probe)]
    sequence = SequenceHealth(clock, follower, timedelta(seconds=2)).part()
    parts = Parts([sequence, load.part(), watch_part(watch, clock, tasks)])
    parts.take_first_turns()
    return Health(parts)


def published(watch: StatusWatch, health: Health) -> dict[str, Any]:
    """Let the watch see the present, and read what /health reports of what is published."""
    watch.refresh()
    answer = call(operator_pages(health), "GET", "/health")
    assert answer.status == 200, "other processes publish the same: taking this one out of service helps nobody"
    found: dict[str, Any] = json.loads(answer.body)["published"]
    return found


def samples(health: Health) -> dict[str, float]:
    answer = call(operator_pages(health), "GET", "/metrics")
    assert (answer.status, answer.headers["content-type"][:10]) == (200, "text/plain")
    return {
        ":".join((sample.name, *sample.labels.values())): sample.value
        for family in text_string_to_metric_families(answer.body.decode())
        for sample in family.samples
    }


def test_a_new_installation_is_well(clinic: PublishedHospital, watch: StatusWatch, health: Health) -> None:
    found = published(watch, health)
    assert (found["status"], found["due"]) == ("well", [])
    assert (found["probe"]["lists"], found["probe"]["defects"]) == (6, [])


def test_offline_crls_are_due_sixty_days_ahead(clinic: PublishedHospital, watch: StatusWatch, health: Health) -> None:
    clinic.advance(days=119)
    clinic.publish()
    assert published(watch, health)["due"] == []
    clinic.advance(days=1, hours=1)
    clinic.publish()
    due = published(watch, health)["due"]
    assert [one.split("; ") for one in due] == [
        [f"the CRL {name} ends in 59 d 23 h", "vagus ceremony"]
        for name in ("root#1/complete", "root#1/0", "h1#1/complete", "h1#1/0")
    ]


def test_an_ended_crl_is_reported_with_its_effect(
    clinic: PublishedHospital, watch: StatusWatch, health: Health
) -> None:
    clinic.advance(days=7, seconds=1)
    ended = "the CRL h1/icu#1/0 has ended: its certificates are refused everywhere; vagus serve --issue-for h1/icu"
    assert ended in published(watch, health)["due"]


def test_missing_crls_and_old_responders_are_seen(
    clinic: PublishedHospital, watch: StatusWatch, health: Health
) -> None:
    clinic.advance(days=15)
    assert published(watch, health)["expired_responders"] == ["h1/icu#1"]
    with clinic.built.database.writing() as connection:
        connection.execute(delete(crl_publications))
        connection.execute(delete(ocsp_responders))
    found = published(watch, health)
    assert (found["silent"], found["expired_responders"]) == (["root#1", "h1#1", "h1/icu#1"], [])
    assert found["status"] == "warning"


def test_an_authority_that_has_ended_needs_no_crl(clinic: PublishedHospital) -> None:
    clinic.built.clock.advance(days=7 * 365)
    with clinic.built.database.reading() as connection:
        built = clinic.built
        watched = watch_crls(connection, built.pack, built.clock.now(), built.folder / "keystores")
    assert {one.authority for one in watched.crls} == {"root#1", "h1#1"}


def test_defects_are_on_health_and_in_metrics(clinic: PublishedHospital, watch: StatusWatch, health: Health) -> None:
    before = samples(health)
    assert (before["vagus_probe_lists"], before["vagus_probe_age_seconds"]) == (6, 0)
    clinic.spoiled[clinic.place("0")] = lambda _: b"junk"
    watch.probe()
    clinic.advance(seconds=30)
    (defect,) = published(watch, health)["probe"]["defects"]
    assert (defect["reason"], defect["place"]) == ("NON_DER", clinic.place("0"))
    after = samples(health)
    assert (after["vagus_probe_defects:NON_DER"], after["vagus_probe_age_seconds"]) == (1, 30)
    assert after["vagus_list_seconds_left:h1/icu#1:0"] == 7 * 86_400 - 30
    assert (after["vagus_task_runs_total:probe"], after["vagus_sequence_lost"]) == (1, 0)
    assert after["vagus_ocsp_turned_away_total"] == 7
    assert (after["vagus_lists_due"], after["vagus_authorities_silent"]) == (0, 0)


def test_a_long_round_has_a_long_pause_after_it(clinic: PublishedHospital, watch: StatusWatch, health: Health) -> None:
    assert watch.probe() == max(60.0, 50 * present(watch.report).seconds)
    watch.probe_seconds = 0.0
    assert watch.probe() == 50 * present(watch.report).seconds
    watch.find_prober = lambda: None
    assert watch.probe() is None


def test_a_lost_sequence_makes_the_process_fail(clinic: PublishedHospital, health: Health) -> None:
    clinic.built.clock.advance(seconds=3)
    assert call(operator_pages(health), "GET", "/health").status == 503
    assert samples(health)["vagus_sequence_lost"] == 1


def test_other_paths_are_not_found(health: Health) -> None:
    app = operator_pages(health)
    assert call(app, "GET", "/other").status == 404
    assert call(app, "POST", "/metrics").status == 404
    assert call(app, "HEAD", "/metrics").body == b""


def test_an_offline_revocation_waits_for_people(clinic: PublishedHospital, watch: StatusWatch, health: Health) -> None:
    built = clinic.built
    with built.database.reading() as connection:
        h1 = present(find_generation(connection, "h1", 1))
    icu = decode_certificate(clinic.icu.certificate_der)
    built.revocations.revoke(h1.id, icu.serial, RevocationReason.CA_COMPROMISE, by=BY).result()
    built.clock.advance(seconds=1)
    clinic.responses.follower.catch_up()
    assert published(watch, health)["status"] == "warning"
    said = json.loads(call(operator_pages(health), "GET", "/health").body)
    assert re.fullmatch(r"what h1#1 revoked since 20.*run: vagus ceremony", said["waits"]["lists of h1#1"])


def test_an_overdue_revocation_is_seen_unfetched(clinic: PublishedHospital, watch: StatusWatch, health: Health) -> None:
    """The signing side is down: no CRL is due by its schedule for days, and CRLs let a revoked device pass."""
    issued = clinic.issue()
    clinic.advance(seconds=2)
    clinic.publish()
    clinic.revoke(issued)
    clinic.advance(seconds=59)
    assert published(watch, health)["unlisted"] == []
    assert samples(health)["vagus_lists_behind"] == 0
    clinic.advance(seconds=2)
    said = published(watch, health)["unlisted"]
    assert [one.rpartition("; ")[2] for one in said] == ["vagus serve --issue-for h1/icu"]
    assert json.loads(call(operator_pages(health), "GET", "/health").body)["status"] == "degraded"
    assert (samples(health)["vagus_lists_due"], samples(health)["vagus_lists_behind"]) == (0, 2)
    clinic.publish()
    assert published(watch, health)["unlisted"] == []
    assert json.loads(call(operator_pages(health), "GET", "/health").body)["status"] == "well"
