"""What PostgreSQL believes of the tables is of another time: each look still reads about as many rows as it gives.

Statistics are stale for minutes after every bulk load and restore. Judged by the rows that the server counts as read,
never by time; plans made for the values at hand and plans that are kept are both held to it.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator
from concurrent.futures import Future
from typing import Any

import pytest
from sqlalchemy import Connection

from tests.postgres import fresh_database
from tests.simulator.databases import created_database
from vagus.identifiers import DeviceId
from vagus.records import (
    applicants,
    audit_rows,
    certificate_search,
    certificates,
    devices,
    expiry,
    plan_rows,
    tokens,
    work,
)
from vagus.records.certificate_search import find_certificates
from vagus.records.engine.database import Database
from vagus.records.revocation import candidates, revocations, status_facts
from vagus.testing import SeededEntropy

pytestmark = pytest.mark.interop

SIZE = 12_000
NOW = 2_000_000
DEVICE = DeviceId.draw(SeededEntropy(1))
AUTHORITY, SHARD_OF = 1, 4_000  # leaves a shard
OTHER = 2
_TABLES = (
    "devices, certificates, revocations, revocation_events, tokens, work, keys, certificate_bytes, crl_shards, "
    "authorities, models, units"
)


def _fill(connection: Connection, *, believed: str | None) -> None:
    """What is there in truth; or what was there once, by which the statistics go: all of others, or all of one."""
    others, everybody = believed == "all of others", believed == "all of one"
    either = f"CASE WHEN mod(n, 3) = 0 THEN {OTHER} ELSE {AUTHORITY} END"
    authority = 3 if others else AUTHORITY if everybody else either
    ends = NOW - 500 if others else NOW + 500
    spelt = "lpad(translate(n::text, '0189', 'bcde'), 25, 'a') || 'a'"
    device = "NULL" if others else f"CASE WHEN n = 5000 THEN '{DEVICE}' ELSE {spelt} END"
    model = "'old'" if others else "'new'" if everybody else "CASE WHEN mod(n, 9) = 0 THEN 'rare' ELSE 'new' END"
    shard = "0" if believed else f"n / {SHARD_OF}"
    act = "'release'" if others else "'revoke'"
    unit = "'h1/er'" if others else "CASE WHEN mod(n, 2) = 0 THEN 'h1/icu' END"
    algorithm = "'p256'" if others else "'p384'" if everybody else "CASE WHEN mod(n, 4) = 1 THEN 'p384' END"
    done = NOW - 5 if others else "NULL"
    numbers = f"generate_series(0, {SIZE - 1}) n"
    for statement in (
        "SET LOCAL session_replication_role = replica",
        "INSERT INTO units VALUES ('h1/icu', 'h1', 'H', 'U')",
        "INSERT INTO models VALUES ('old', 'M', 'pump', 'p'), ('new', 'M', 'pump', 'p'), ('rare', 'M', 'pump', 'p')",
        (
            "INSERT INTO authorities (id, name, generation, kind, is_offline, state, key_id, keystore, spki_sha256,"
            " constrain_dn) SELECT n, 'h1/a' || n, 1, 'issuing_ca', false, 'active', 'k', 'k', '\\x00', false"
            " FROM generate_series(1, 3) n"
        ),
        (
            "INSERT INTO devices (id, unit, model, profile, maker_serial, state, added_at, changed_at)"
            f" SELECT coalesce({device}, {spelt}), 'h1/icu', {model}, 'p', 'SN-' || n, 'in_service', 0, 0"
            f" FROM {numbers}"
        ),
        (
            "INSERT INTO certificates (leaf_index, authority_id, serial, owner, device_id, profile, spki_sha256,"
            " request_id, not_before, not_after, shard, state, fingerprint, unit, key_algorithm)"
            f" SELECT n, {authority}, sha256(n::text::bytea), 'born:' || n, {device},"
            f" {_text('bedside' if believed else 'idevid')}, sha256(('k' || n)::bytea), 'r' || n, 0, {ends}, {shard},"
            f" {_text('intended' if others else 'issued')}, sha256(('f' || n)::bytea),"
            f" {unit}, {algorithm} FROM {numbers}"
        ),
        (
            "INSERT INTO revocations SELECT leaf_index, leaf_index + 1, authority_id, serial, shard, 4, 7, not_after,"
            " '\\x' FROM certificates WHERE mod(leaf_index, 4) = 0"
        ),
        (
            f"INSERT INTO revocation_events SELECT leaf_index + 1, authority_id, serial, {act}, 4, 7 FROM certificates"
            " WHERE mod(leaf_index, 4) = 0"
        ),
        "INSERT INTO crl_shards SELECT authority_id, shard, 9 FROM certificates GROUP BY 1, 2",
        (
            "INSERT INTO tokens (token_sha256, device_id, made_at, expires_at)"
            f" SELECT sha256(n::text::bytea), coalesce({device}, {spelt}), 0, {NOW + 5} FROM {numbers}"
        ),
        (
            "INSERT INTO work (kind, key, payload, run_after, attempts, done_at)"
            f" SELECT 'supersede', 'k' || n, '', {NOW + 900}, 0, {done} FROM {numbers}"
        ),
    ):
        connection.exec_driver_sql(statement)


def _text(value: str) -> str:
    return f"'{value}'"


@pytest.fixture(scope="module", params=["all of others", "all of one"])
def misled(request: pytest.FixtureRequest, postgres: str) -> Iterator[Database]:
    """A database whose statistics are those of its former rows; nothing mends them."""
    with fresh_database(postgres) as url, created_database(url) as database:
        with database.writing() as connection:
            for table in _TABLES.split(", "):
                connection.exec_driver_sql(f"ALTER TABLE {table} SET (autovacuum_enabled = false)")
            _fill(connection, believed=request.param)
        with database.writing() as connection:
            connection.exec_driver_sql("ANALYZE")
            connection.exec_driver_sql(f"TRUNCATE {_TABLES} CASCADE")
            _fill(connection, believed=None)
        yield database


_READ = """SELECT sum(pg_stat_get_xact_tuples_returned(oid) + pg_stat_get_xact_tuples_fetched(oid))::int FROM pg_class
    WHERE relnamespace = 'public'::regnamespace AND relkind IN ('r', 'i')"""


def rows_read(connection: Connection, act: Callable[[Connection], object]) -> int:
    """How many rows and entries of indexes the server went through for `act`."""
    before = connection.exec_driver_sql(_READ).scalar_one()
    act(connection)
    return int(connection.exec_driver_sql(_READ).scalar_one()) - int(before)


def _serial(leaf: int) -> bytes:
    return hashlib.sha256(str(leaf).encode()).digest()


SERIAL = int.from_bytes(_serial(24), "big")


class _AtOnce:
    """A writer whose every act runs at once, on a connection that is there."""

    def __init__(self, connection: Connection) -> None:
        self.connection, self.at = connection, NOW

    def submit(self, act: Callable[[Any], Any]) -> Future[Any]:
        done: Future[Any] = Future()
        done.set_result(act(self))
        return done


SOME = [f"{str(n).translate(str.maketrans('0189', 'bcde')):a>25}a" for n in range(20)]
ALL, IN_SERVICE = devices.DeviceFilter(), devices.DeviceFilter(state="in_service", hospital="h1")
NEW, PUMPS = devices.DeviceFilter(model="new"), devices.DeviceFilter(category="pump")
ENDS = [expiry.End(n, 0, NOW, SOME[n], is_issued=True, kind="device", request_id="") for n in range(20)]
AFTER = certificate_search.Place(NOW + 500, 50)
_of = certificate_search.CertificateQuery
APART: dict[str, Any] = {"units": ("h1/icu",), "key_algorithm": "p384", "ends": (NOW, NOW + 900)}
EARLY: dict[str, Any] = {"units": ("h1/icu",), "ends": (0, NOW + 400)}
PLACE = devices.Place("h1/icu", "new", "SN-5000")

LOOKS: dict[str, tuple[int, Callable[[Connection], object]]] = {
    "an applicant before its certificate": (
        20,
        lambda c: applicants.recheck_applicant(
            c, DEVICE, token_sha256=_serial(5000), shown_sha256=hashlib.sha256(b"f5000").digest(), at=NOW
        ),
    ),
    "a device by model and maker's serial": (8, lambda c: devices.find_device_by_serial(c, "rare", "SN-9")),
    "a device by its birth certificate": (10, lambda c: devices.list_devices_under_anchor(c, b"a", "SN-9")),
    "twenty serials of a model": (
        90,
        lambda c: plan_rows.list_known_serials(c, "rare", [f"SN-{n * 9}" for n in range(20)]),
    ),
    "a token's end": (8, lambda c: tokens.expire_tokens_of(c, DEVICE, at=NOW)),
    "a job that is there": (8, lambda c: work.add_work(c, "supersede", "k77")),
    "a job that is new": (8, lambda c: work.add_work(c, "supersede", "new")),
    "whether a job is due": (8, lambda c: work.has_due(c, ["supersede"], NOW)),
    "a job's lease": (8, lambda c: work.WorkQueue(_AtOnce(c), "n").take(["supersede"])),  # type: ignore[arg-type]
    "twenty births": (90, lambda c: plan_rows.list_fingerprints(c, [f"born:{n}" for n in range(20)])),
    "twenty devices' births": (90, lambda c: certificates.list_births(c, [f"born:{n}" for n in range(20)])),
    "how many births a device has": (8, lambda c: certificates.count_births(c, "born:9")),
    "a certificate by its serial": (8, lambda c: certificates.find_certificate(c, OTHER, SERIAL)),
    "a certificate that is to be revoked": (30, lambda c: candidates.find_revocable_serial(c, OTHER, SERIAL)),
    "a revocation by its serial": (14, lambda c: revocations.find_revoked_serial(c, OTHER, SERIAL)),
    "a device's certificates": (8, lambda c: certificates.list_of_device(c, DEVICE.text, alive_at=NOW)),
    "the first page of ends": (120, lambda c: expiry.list_ends(c, until=NOW + SIZE, count=50)),
    "a page of ends": (120, lambda c: expiry.list_ends(c, until=NOW + SIZE, after=(NOW + 500, 5_000), count=50)),
    "devices' newest certificates": (200, lambda c: expiry.list_newest(c, SOME, at=NOW)),
    "which of these ends count": (400, lambda c: expiry.list_counting(c, ENDS, at=NOW, narrow=ALL)),
    "a page of a search": (250, lambda c: find_certificates(c, _of(units=("h1/icu",)), after=AFTER, limit=50)),
    "a page of two values that never meet": (7_400, lambda c: find_certificates(c, _of(**APART), after=AFTER)),
    "a page of a time that ends before": (120, lambda c: find_certificates(c, _of(**EARLY), limit=50)),
    "a page of two values and such a time": (7_400, lambda c: find_certificates(c, _of(**EARLY, key_algorithm="p384"))),
    "a page by begin": (2_800, lambda c: find_certificates(c, _of(profile="none", is_by_begin=True))),
    "a page of a value by begin": (
        7_400,
        lambda c: find_certificates(c, _of(units=("h1/icu",), begins=(0, 9), is_by_begin=True), limit=50),
    ),
    "a page of devices": (120, lambda c: devices.list_devices(c, ALL, after=PLACE, limit=50)),
    "a page of devices of a state": (120, lambda c: devices.list_devices(c, IN_SERVICE, after=PLACE, limit=50)),
    "a page of devices of a model": (120, lambda c: devices.list_devices(c, NEW, after=PLACE, limit=50)),
    "a page of devices of a category": (250, lambda c: devices.list_devices(c, PUMPS, after=PLACE, limit=50)),
    "open intents": (8, certificates.list_intended),
    "held intents": (8, lambda c: certificates.list_intended(c, state=certificates.HELD)),
    "a page of an authority": (2_020, lambda c: certificates.list_alive(c, OTHER, alive_at=NOW)),
    "no page behind the last": (8, lambda c: certificates.list_alive(c, OTHER, alive_at=NOW, after=SIZE)),
    "each shard's newest step": (4 * SIZE, lambda c: revocations.newest_by_shard(c, OTHER, after=0)),
    "a shard's changes": (4 * SIZE, lambda c: revocations.list_changes(c, OTHER, 0, after=0, most=10_001)),
    "the first of a shard that waits": (16, lambda c: revocations.oldest_waiting(c, OTHER, 1, after=0)),
    "the first that waits behind most": (16, lambda c: revocations.oldest_waiting(c, OTHER, 2, after=SIZE - 1_000)),
    "nothing that waits": (16, lambda c: revocations.oldest_waiting(c, OTHER, 0, after=SIZE)),
    "the newest leaf": (6, lambda c: status_facts.find_newest_leaf(c, OTHER)),
    "the newest leaf of nobody": (6, lambda c: status_facts.find_newest_leaf(c, 77)),
    "a leaf that is alive": (1_050, lambda c: status_facts.find_alive_from(c, OTHER, SIZE // 2, alive_at=NOW)),
    "no leaf behind the last": (6, lambda c: status_facts.find_alive_from(c, AUTHORITY, SIZE, alive_at=NOW)),
    "the released of a minute": (6, lambda c: status_facts.list_released(c, OTHER, since=NOW - 60)),
}


@pytest.mark.parametrize("plan", ["force_custom_plan", "force_generic_plan"])
@pytest.mark.parametrize("look", LOOKS)
def test_a_query_reads_little_more_than_it_gives(misled: Database, look: str, plan: str) -> None:
    most, act = LOOKS[look]
    with misled.open_writer() as connection:
        connection.exec_driver_sql(f"SET LOCAL plan_cache_mode = {plan}")
        connection.connection.driver_connection.prepare_threshold = 0  # type: ignore[union-attr]
        assert rows_read(connection, act) <= most
        connection.rollback()


def test_the_newest_revocations_cost_a_few_rows_of_each_shard(misled: Database) -> None:
    with misled.open_writer() as connection:
        shards = rows_read(connection, lambda c: certificates.list_shards(c, OTHER))
        whole = rows_read(connection, lambda c: status_facts.list_newest_revoked(c, OTHER, 4))
        assert whole - shards <= 60
        connection.rollback()


def test_what_goes_through_everything_goes_through_it_once(misled: Database) -> None:
    """The audit's looks, and the prober's at all that is revoked: linear, whatever the plan."""
    with misled.open_writer() as connection:
        for each in (
            audit_rows.iterate_recorded_certificates,
            audit_rows.iterate_recorded_events,
            audit_rows.iterate_recorded_revocations,
            audit_rows.iterate_recorded_devices,
            audit_rows.iterate_recorded_tokens,
            audit_rows.find_step_without_effect,
            lambda c: status_facts.iterate_revoked(c, AUTHORITY),
            lambda c: status_facts.iterate_revoked(c, OTHER, 0),
        ):
            assert rows_read(connection, lambda c, each=each: _through(each(c))) <= 9 * SIZE  # type: ignore[misc]
        connection.rollback()


def _through(found: object) -> None:
    if isinstance(found, Iterator):
        for _ in found:
            pass
