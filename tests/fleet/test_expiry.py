"""Whose certificate ends soon or is missing: every device once, by its end, as a count by hand gives them."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st
from sqlalchemy import delete

from tests.simulator.installation import pack
from tests.simulator.rows import authority, certificate
from tests.simulator.stock import ER, ICU, device, stocked_database
from vagus.fleet import expiry
from vagus.fleet.expiry import (
    Expiry,
    Situation,
    days_until,
    describe,
    iterate_expiring,
    iterate_without,
    judge,
    shown_state,
)
from vagus.fleet.lifecycle import HAS_ENDED, DeviceState
from vagus.records.certificates import NO_EXPIRY, set_state
from vagus.records.devices import DeviceFilter, DeviceRow, insert_devices
from vagus.records.engine.database import Connection, Database
from vagus.records.engine.tables import certificate_bytes, certificates, devices
from vagus.records.expiry import CertifiedDevice, Newest

DAY = 86_400
NOW = 1_000 * DAY
UNTIL = NOW + 60 * DAY
YEAR = 365 * DAY


@pytest.fixture(scope="module")
def database() -> Iterator[Database]:
    with stocked_database() as stocked:
        with stocked.writing() as connection:
            assert authority(connection) == 1
        yield stocked


@pytest.fixture
def empty(database: Database) -> Database:
    clear(database)
    return database


def clear(database: Database) -> None:
    with database.writing() as connection:
        for table in (certificate_bytes, certificates, devices):
            connection.execute(delete(table))


def issue(connection: Connection, leaf: int, owner: DeviceRow, end: int, state: str = "issued", **more: Any) -> None:
    certificate(connection, 1, leaf, device_id=owner.id.text, not_before=end - YEAR, not_after=end, **more)
    set_state(connection, leaf, state)


def report(database: Database, **narrow: Any) -> list[Expiry]:
    wanted = DeviceFilter(**narrow)
    ending = iterate_expiring(database, pack(), at=NOW, until=UNTIL, narrow=wanted)
    return [*ending, *iterate_without(database, pack(), at=NOW, narrow=wanted)]


def certified(
    state: str, end: int, device_state: str = "in_service", life: int = YEAR, request_id: str = "est-x"
) -> CertifiedDevice:
    newest = Newest(1, state, end - life, end, request_id)
    return CertifiedDevice(device(1, state=device_state), "infusion-pump", newest)


@pytest.mark.parametrize(
    ("found", "situation"),
    [
        (certified("issued", NOW + 50 * DAY), Situation.RENEWS),
        (certified("issued", NOW + 45 * DAY + 1), Situation.RENEWS),
        (certified("issued", NOW + 45 * DAY), Situation.OVERDUE),
        (certified("issued", NOW), Situation.OVERDUE),
        (certified("issued", NOW - 1), Situation.EXPIRED),
        (certified("issued", NO_EXPIRY), Situation.RENEWS),
        (certified("issued", NOW + 7 * 3600, life=8 * 3600), Situation.RENEWS),
        (certified("held", NOW + DAY), Situation.HELD),
        (certified("revoked", NOW + DAY), Situation.REVOKED),
        (certified("intended", NOW + DAY), Situation.NEVER_ENROLLED),
        (certified("issued", NOW - 1, "quarantined"), Situation.LOCKED_OUT),
        (certified("revoked", NOW + 1, "recalled"), Situation.LOCKED_OUT),
        (replace(certified("issued", NOW), newest=None), Situation.NEVER_ENROLLED),
    ],
)
def test_a_device_is_judged_by_its_state_and_its_newest_certificate(
    found: CertifiedDevice, situation: Situation
) -> None:
    assert judge(found, pack(), at=NOW) is situation


@pytest.mark.parametrize(
    ("left", "situation", "who"),
    [
        (50 * DAY, Situation.BY_HAND, "PKI team: certify it again in time"),
        (45 * DAY, Situation.OVERDUE, "PKI team and biomedical engineering: certify it again now"),
        (-1, Situation.EXPIRED, "PKI team and biomedical engineering: certify it again now"),
    ],
)
def test_a_device_that_an_operator_had_certified_does_not_renew_by_itself(
    left: int, situation: Situation, who: str
) -> None:
    by_hand, by_itself = (certified("issued", NOW + left, request_id=one) for one in ("operator-x", "est-x"))
    shown = describe(by_hand, pack(), at=NOW)
    assert (shown.situation, shown.who_does_what.startswith(who)) == (situation, True)
    assert "certify" not in describe(by_itself, pack(), at=NOW).who_does_what
    held = certified("held", NOW + left, request_id="operator-x")
    assert describe(held, pack(), at=NOW).who_does_what.startswith("security officer") is True


def test_the_report_names_who_must_act_for_devices_certified_by_hand(empty: Database) -> None:
    rows = [device(number) for number in range(3)]
    with empty.writing() as connection:
        insert_devices(connection, rows)
        for leaf, (row, request_id) in enumerate(zip(rows, ("operator-a", "est-b", "operator-c"), strict=True)):
            issue(connection, leaf, row, NOW + 55 * DAY, request_id=request_id)
        issue(connection, 9, rows[2], NOW + 56 * DAY, request_id="est-d")
    assert [(one.device.id, one.situation) for one in report(empty)] == [
        (rows[0].id, Situation.BY_HAND),
        (rows[1].id, Situation.RENEWS),
        (rows[2].id, Situation.RENEWS),
    ]


def test_an_issued_certificate_is_expired_after_its_last_second_and_no_other_is() -> None:
    assert shown_state("issued", NOW, at=NOW) == "issued"
    assert shown_state("issued", NOW - 1, at=NOW) == "expired"
    assert [shown_state(one, NOW - 1, at=NOW) for one in ("revoked", "held")] == ["expired", "expired"]
    assert [shown_state(one, NOW, at=NOW) for one in ("revoked", "held")] == ["revoked", "held"]
    assert [days_until(end, at=NOW) for end in (NOW + DAY - 1, NOW - 1, NO_EXPIRY, None)] == [0, -1, None, None]


def test_what_ends_first_is_first_and_what_was_renewed_is_left_out(empty: Database) -> None:
    rows = [device(number) for number in range(6)]
    with empty.writing() as connection:
        for row in rows:
            insert_devices(connection, [row])
        issue(connection, 1, rows[0], NOW + 30 * DAY)
        issue(connection, 2, rows[1], NOW - 5 * DAY)
        issue(connection, 3, rows[2], NOW + 50 * DAY)
        issue(connection, 4, rows[3], NOW + 9 * DAY)
        issue(connection, 5, rows[3], NOW + 300 * DAY)
        issue(connection, 6, rows[4], NOW + 9 * DAY, "held")
    found = [(one.device.maker_serial, one.days_left, one.situation) for one in report(empty)]
    assert found == [
        ("SN-1", -5, Situation.EXPIRED),
        ("SN-0", 30, Situation.OVERDUE),
        ("SN-2", 50, Situation.RENEWS),
        ("SN-4", 9, Situation.HELD),
        ("SN-5", None, Situation.NEVER_ENROLLED),
    ]
    assert {one.who_does_what.partition(":")[0] for one in report(empty)} == {
        "none",
        "biomedical engineering",
        "security officer",
    }


def test_a_gateway_comes_for_its_server_certificate_too(empty: Database) -> None:
    gateway = device(1)
    with empty.writing() as connection:
        insert_devices(connection, [gateway])
        issue(connection, 1, gateway, NOW + 300 * DAY)
        issue(connection, 2, gateway, NOW + 10 * DAY, profile="tls-server")
    (one,) = report(empty)
    assert (one.kind, one.days_left) == ("server", 10)


def test_a_device_that_has_not_arrived_waits_for_the_stores_and_one_that_has_ended_for_no_one(empty: Database) -> None:
    with empty.writing() as connection:
        for number, state in enumerate(("shipped", "decommissioned", "disposed")):
            insert_devices(connection, [device(number, state=state)])
        issue(connection, 2, device(2), NOW - DAY)
    (one,) = report(empty)
    assert one.device.maker_serial == "SN-0"
    assert one.who_does_what.startswith("stores: set it to received")


def test_filters_leave_out_what_they_do_not_name(empty: Database) -> None:
    rows = [device(1), device(2, unit=ER), device(3, model="monitor"), device(4, unit=ER)]
    with empty.writing() as connection:
        for number, row in enumerate(rows):
            insert_devices(connection, [row])
            if number < 3:
                issue(connection, number, row, NOW + DAY)

    def serials(**narrow: Any) -> list[str]:
        return [one.device.maker_serial for one in report(empty, **narrow)]

    assert serials() == ["SN-1", "SN-2", "SN-3", "SN-4"]
    assert serials(unit=ER) == ["SN-2", "SN-4"]
    assert serials(category="monitor") == ["SN-3"]
    assert serials(unit=ICU, category="infusion-pump") == ["SN-1"]
    assert serials(hospital="h10") == []


KIND_OF = {"bedside": "device", "tls-server": "server", "sdc-provider": "sdc"}
ENDS = st.sampled_from([NOW - 400 * DAY, NOW - 1, NOW, NOW + DAY, NOW + 46 * DAY, UNTIL, UNTIL + 1, NOW + YEAR])
CERTIFICATES = st.tuples(
    ENDS,
    st.sampled_from(["issued", "issued", "revoked", "held", "intended"]),
    st.sampled_from(list(KIND_OF)),
)
FLEETS = st.lists(st.tuples(st.sampled_from(DeviceState), st.lists(CERTIFICATES, max_size=4)), max_size=7)


def by_hand(owned: list[tuple[int, str, str, int]]) -> tuple[int, str, str, int] | None:
    """The certificate that counts, out of (end, state, profile, leaf)."""
    ranks = (
        [one for one in owned if one[1] == "issued" and one[0] >= NOW],
        [one for one in owned if one[1] in ("issued", "held")],
        owned,
    )
    return next((max(some, key=lambda one: (one[0], one[3])) for some in ranks if some), None)


@given(FLEETS)
@hypothesis_settings(max_examples=60, deadline=None)
def test_a_report_in_pages_is_what_a_count_by_hand_gives(
    database: Database, fleet: list[tuple[DeviceState, list[tuple[int, str, str]]]]
) -> None:
    clear(database)
    ending, without, leaf = [], [], 0
    with database.writing() as connection:
        for number, (state, owned) in enumerate(fleet):
            row = device(number, state=state)
            insert_devices(connection, [row])
            own: list[tuple[int, str, str, int]] = []
            for end, held, profile in owned:
                leaf += 1
                own.append((end, held, profile, leaf))
                issue(connection, leaf, row, end, held, profile=profile)
            for kind in KIND_OF.values():
                newest = by_hand([one for one in own if KIND_OF[one[2]] == kind])
                is_ending = newest is not None and newest[1] == "issued" and newest[0] <= UNTIL
                if newest is not None and is_ending and state not in HAS_ENDED:
                    ending.append((newest[0], newest[3], row.id))
            any_kind = by_hand(own)
            if (any_kind is None or any_kind[1] != "issued") and state not in HAS_ENDED:
                without.append((str(row.unit), row.model, row.maker_serial, row.id))
    expected = [*(one[-1] for one in sorted(ending)), *(one[-1] for one in sorted(without))]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(expiry, "PAGE", 2)
        assert [one.device.id for one in report(database)] == expected
