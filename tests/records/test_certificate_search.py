"""Certificates are found by any of what is known of them: each page is what every row one by one would give."""

from __future__ import annotations

import random
from collections.abc import Callable
from dataclasses import replace
from itertools import pairwise
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.records.query_plans import plans, statements_of
from tests.simulator.rows import authority, certificate
from vagus.identifiers import DeviceId, UnitName, serial_bytes
from vagus.records import certificate_search as rows
from vagus.records.certificate_search import CertificateQuery, FoundCertificate, Place, find_certificates, place_of
from vagus.records.certificates import NO_EXPIRY, insert_intent
from vagus.records.devices import DeviceRow, insert_devices, set_device_unit
from vagus.records.engine.database import Connection, Database
from vagus.records.engine.tables import certificate_names, certificates
from vagus.records.models import ModelRow, put_model
from vagus.records.units import UnitRow, put_unit

COUNT = 160
UNITS, CATEGORIES, PROFILES = ("h1/er", "h1/icu", None), ("pump", "monitor", None), ("bedside", "implant")
KEYS, STATES = ("p256", "rsa3072", None), ("intended", "issued", "revoked", "held")
DEVICES, NAMES = ("a" * 26, "b" * 26, None), ("gw.h1.example", "ap-1")
TIMES = st.integers(0, 12)


def stock(connection: Connection) -> list[tuple[dict[str, Any], str | None]]:
    """Rows over all values, many with the same times; each with the one name that it has beside its device."""
    drawn = random.Random(9)
    issuers = [authority(connection), authority(connection, generation=2), authority(connection, "h1/er")]
    made: list[tuple[dict[str, Any], str | None]] = []
    for leaf in range(COUNT):
        row = {
            "leaf_index": leaf * 3,
            "authority_id": drawn.choice(issuers),
            "serial": serial_bytes(drawn.randrange(1, 40)) if leaf < 60 else serial_bytes(1000 + leaf),
            "owner": "x",
            "device_id": drawn.choice(DEVICES),
            "profile": drawn.choice(PROFILES),
            "spki_sha256": bytes(32),
            "request_id": f"r{leaf}",
            "not_before": drawn.randrange(12),
            "not_after": drawn.choice([*range(12), NO_EXPIRY]),
            "shard": 0,
            "state": drawn.choice(STATES),
            "fingerprint": drawn.choice([None, b"\1\2" + leaf.to_bytes(30, "big"), drawn.randbytes(32)]),
            "key_algorithm": drawn.choice(KEYS),
            "unit": drawn.choice(UNITS),
            "category": drawn.choice(CATEGORIES),
        }
        made.append((row, drawn.choice([None, *NAMES])))
    kept = list({(row["authority_id"], row["serial"]): (row, name) for row, name in made}.values())
    connection.execute(certificates.insert(), [row for row, _ in kept])
    named = [{"name": name, "leaf_index": row["leaf_index"]} for row, name in kept if name is not None]
    connection.execute(certificate_names.insert(), named)
    return kept


QUERIES = st.builds(
    CertificateQuery,
    serial=st.none() | st.none() | st.integers(1, 40) | st.integers(1060, 1160),
    device_id=st.none() | st.none() | st.sampled_from(DEVICES[:2]),
    fingerprints=st.none() | st.just((b"\1\2", b"\1\2\xff")) | st.just((bytes(32), b"\x80")),
    names=st.just(()) | st.just(()) | st.lists(st.sampled_from([*NAMES, "a" * 26 + ".icu.h1"]), max_size=2).map(tuple),
    units=st.just(()) | st.lists(st.sampled_from(["h1/er", "h1/icu", "h9/none"]), unique=True, max_size=2).map(tuple),
    category=st.none() | st.sampled_from(["pump", "none"]),
    profile=st.none() | st.sampled_from(PROFILES),
    key_algorithm=st.none() | st.sampled_from(["p256", "rsa3072"]),
    authority_ids=st.just(()) | st.lists(st.integers(1, 4), unique=True, max_size=3).map(tuple),
    state=st.none() | st.sampled_from(STATES),
    begins=st.just((0, NO_EXPIRY)) | st.tuples(TIMES, TIMES),
    ends=st.just((0, NO_EXPIRY)) | st.tuples(TIMES, TIMES) | st.tuples(TIMES, st.just(NO_EXPIRY)),
    is_by_begin=st.booleans(),
)


def fits(row: dict[str, Any], name: str | None, query: CertificateQuery) -> bool:
    """The same question, asked of one row without any index."""
    digest, prints = row["fingerprint"], query.fingerprints
    columns = {"category", "profile", "key_algorithm", "state", "device_id"}
    return (
        all(getattr(query, one) in {None, row[one]} for one in columns)
        and (query.serial is None or serial_bytes(query.serial) == row["serial"])
        and (prints is None or (digest is not None and prints[0] <= digest <= prints[1]))
        and all(one == name or one.partition(".")[0] == row["device_id"] for one in query.names)
        and (not query.units or row["unit"] in query.units)
        and (not query.authority_ids or row["authority_id"] in query.authority_ids)
        and query.begins[0] <= row["not_before"] <= query.begins[1]
        and query.ends[0] <= row["not_after"] <= query.ends[1]
    )


def pages(connection: Connection, query: CertificateQuery, limit: int) -> list[FoundCertificate]:
    """Every page of a search, each after the last of the one before."""
    found: list[FoundCertificate] = []
    after: Place | None = None
    while True:
        page = find_certificates(connection, query, after=after, limit=limit)
        assert len(page.certificates) <= limit
        found += page.certificates
        if page.rest_after is None:
            return found
        assert after is None or page.rest_after > after
        after = page.rest_after


def test_any_filters_give_what_every_row_one_by_one_gives(database: Database) -> None:
    with database.writing() as connection:
        kept = stock(connection)

    @settings(max_examples=150, deadline=None)
    @given(query=QUERIES, limit=st.sampled_from([1, 7, 1000]), looks=st.sampled_from([(1, 1), (9, 3), (4000, 250)]))
    def check(query: CertificateQuery, limit: int, looks: tuple[int, int]) -> None:
        with pytest.MonkeyPatch.context() as patch, database.reading() as connection:
            patch.setattr(rows, "_ENTRIES", looks[0])
            patch.setattr(rows, "_ROWS", looks[1])
            found = pages(connection, query, limit)
        wanted = {row["leaf_index"]: row for row, name in kept if fits(row, name, query)}
        assert {one.row.leaf_index for one in found} == set(wanted)
        assert len(found) == len(wanted)
        assert all(place_of(query, one.row) < place_of(query, other.row) for one, other in pairwise(found))
        for one in found:
            row = wanted[one.row.leaf_index]
            shown = (one.unit, one.category, one.row.key_algorithm, one.row.state)
            assert shown == (row["unit"], row["category"], row["key_algorithm"], row["state"])

    check()


@pytest.mark.parametrize(
    ("query", "index"),
    [
        (CertificateQuery(units=("h1/icu",)), "certificates_of_unit (unit=? AND not_after>?"),
        (CertificateQuery(category="pump"), "certificates_of_category (category=? AND not_after>?"),
        (CertificateQuery(profile="bedside"), "certificates_of_profile (profile=? AND not_after>?"),
        (CertificateQuery(key_algorithm="p256"), "certificates_of_algorithm (key_algorithm=? AND not_after>?"),
        (CertificateQuery(authority_ids=(1,)), "certificates_of_issuer (authority_id=? AND not_after>?"),
        (CertificateQuery(state="revoked"), "certificates_in_state (state=? AND not_after>?"),
        (CertificateQuery(ends=(3, 9)), "certificates_by_expiry (not_after>?"),
        (CertificateQuery(begins=(3, 9), is_by_begin=True), "certificates_by_start (not_before>?"),
    ],
)
def test_a_page_walks_one_index_and_sorts_nothing(file_database: Database, query: CertificateQuery, index: str) -> None:
    with file_database.writing() as connection:
        stock(connection)
        steps = plans(connection, lambda: find_certificates(connection, query, after=Place(4, 60), limit=500))
    assert f"USING COVERING INDEX {index}" in steps
    assert "SCAN certificates" not in steps
    assert "TEMP B-TREE" not in steps


ALL_BUT_STATE = CertificateQuery(
    units=("h1/icu",), category="pump", profile="bedside", key_algorithm="p256", authority_ids=(1,), begins=(3, 9)
)


@pytest.mark.parametrize("query", [ALL_BUT_STATE, replace(ALL_BUT_STATE, is_by_begin=True, state="issued")])
@pytest.mark.parametrize("unnamed", ["units", "category", "profile", "key_algorithm", "authority_ids"])
def test_an_entry_is_judged_without_its_row(
    file_database: Database, monkeypatch: pytest.MonkeyPatch, query: CertificateQuery, unnamed: str
) -> None:
    monkeypatch.setattr(rows, "_ENTRIES", 9)
    monkeypatch.setattr(rows, "_ROWS", 1)
    changes: dict[str, Any] = {unnamed: () if unnamed in {"units", "authority_ids"} else None}
    some = replace(query, **changes)
    with file_database.writing() as connection:
        stock(connection)
        steps = plans(connection, lambda: find_certificates(connection, some)).splitlines()
    walked = [one for one in steps if one.startswith("SEARCH certificates") and "PRIMARY KEY" not in one]
    assert walked
    assert all("USING COVERING INDEX" in one for one in walked)


def many(connection: Connection, count: int) -> None:
    """Certificates of two profiles, each of a unit of its own, and all with one end."""
    issuer = authority(connection)
    for leaf in range(count):
        certificate(connection, issuer, leaf, not_before=1, not_after=99, profile=PROFILES[leaf % 2])
    for unit, profile in zip(UNITS, PROFILES, strict=False):
        connection.execute(certificates.update().where(certificates.c.profile == profile).values(unit=unit))


def test_a_page_of_values_that_never_come_together_ends_early(
    database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(rows, "_ENTRIES", 20)
    query = CertificateQuery(units=("h1/er",), profile="implant")
    with database.writing() as connection:
        many(connection, 200)
        after, ends = None, list[Place]()
        while (page := find_certificates(connection, query, after=after)).rest_after is not None:
            assert page.certificates == ()
            after = page.rest_after
            ends.append(after)
    assert ends == [Place(99, leaf) for leaf in range(39, 200, 40)]


def test_the_twin_whose_values_come_together_has_its_certificates_on_the_first_page(
    database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(rows, "_ENTRIES", 20)
    with database.writing() as connection:
        many(connection, 200)
        page = find_certificates(connection, CertificateQuery(units=("h1/er",), profile="bedside"), limit=7)
    assert [one.row.leaf_index for one in page.certificates] == list(range(0, 14, 2))
    assert page.rest_after == Place(99, 12)


def test_the_index_that_gets_farthest_is_walked(file_database: Database, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(rows, "_ENTRIES", 20)
    with file_database.writing() as connection:
        many(connection, 200)
        rare = certificates.c.leaf_index.in_([3, 90, 91])
        connection.execute(certificates.update().where(rare).values(key_algorithm="mldsa65"))
        connection.execute(certificates.update().where(~rare).values(key_algorithm="p256"))
        query = CertificateQuery(units=("h1/icu",), key_algorithm="mldsa65")
        page = find_certificates(connection, query)
        walk = statements_of(connection, lambda: find_certificates(connection, query))[1][0]
    assert [one.row.leaf_index for one in page.certificates] == [3, 91]
    assert page.rest_after is None
    assert "INDEXED BY certificates_of_algorithm" in walk


@pytest.mark.parametrize(
    ("query", "index"),
    [
        (CertificateQuery(serial=7, state="issued"), "sqlite_autoindex_certificates_1"),
        (CertificateQuery(device_id="a" * 26, state="issued"), "certificates_by_device"),
        (CertificateQuery(fingerprints=(b"\1", b"\2"), state="issued"), "certificates_by_fingerprint"),
        (CertificateQuery(names=("ap-1",), state="issued"), "sqlite_autoindex_certificate_names_1"),
    ],
)
def test_what_names_few_certificates_is_looked_up(file_database: Database, query: CertificateQuery, index: str) -> None:
    with file_database.writing() as connection:
        steps = plans(connection, lambda: find_certificates(connection, query))
    assert index in steps
    assert "SCAN" not in steps


def one_device(connection: Connection) -> DeviceRow:
    for unit in ("er", "icu"):
        put_unit(connection, UnitRow(UnitName("h1", unit), "Hospital", unit))
    put_model(connection, ModelRow("Pump", "Maker", "pump", "bedside"))
    made = DeviceRow(
        id=DeviceId("a" * 26), unit=UnitName("h1", "icu"), model="Pump", profile="bedside", maker_serial="1",
        state="in_service", added_at=0, changed_at=0,
    )  # fmt: skip
    insert_devices(connection, [made])
    return made


def place_in_search(connection: Connection) -> tuple[str | None, str | None]:
    found = rows.find_found(connection, 5)
    assert found is not None
    return found.unit, found.category


def moved(connection: Connection, device: DeviceRow) -> None:
    set_device_unit(connection, device.id, UnitName("h1", "er"), at=9)


def recategorised(connection: Connection, _: DeviceRow) -> None:
    put_model(connection, ModelRow("Pump", "Maker", "ventilator", "bedside"))


@pytest.mark.parametrize(("change", "after"), [(moved, ("h1/er", "pump")), (recategorised, ("h1/icu", "ventilator"))])
def test_unit_and_category_are_those_of_the_device_now(
    connection: Connection, ca: int, change: Callable[[Connection, DeviceRow], None], after: tuple[str, str]
) -> None:
    device = one_device(connection)
    certificate(connection, ca, 5, device_id=device.id.text)
    assert place_in_search(connection) == ("h1/icu", "pump")
    change(connection, device)
    assert place_in_search(connection) == after


def test_a_certificate_of_no_device_has_neither_and_is_found_by_its_names(connection: Connection, ca: int) -> None:
    row = certificate(connection, ca, 5, device_id=None)
    insert_intent(connection, replace(row, leaf_index=6, serial=77, request_id="s"), b"x", ["gw"])
    assert place_in_search(connection) == (None, None)
    found = find_certificates(connection, CertificateQuery(names=("gw",)))
    assert [one.row.leaf_index for one in found.certificates] == [6]


def test_which_fingerprints_are_known(connection: Connection, ca: int) -> None:
    certificate(connection, ca, 5, fingerprint=b"x" * 32)
    assert rows.list_known(connection, (b"x" * 32, b"y" * 32)) == {b"x" * 32}
