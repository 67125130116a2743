"""Certificates by their end, in pages and counted: a page costs the same wherever it lies, and counts are exact."""

from __future__ import annotations

from collections import Counter

from tests.records.query_plans import plans, statements_of
from tests.simulator.rows import certificate
from tests.simulator.stock import ER, device, put_units_and_models
from vagus.records.certificates import set_state
from vagus.records.devices import DeviceFilter, insert_devices
from vagus.records.engine.database import Connection
from vagus.records.expiry import FIRST, End, count_ends, list_counting, list_ends, list_newest

NOW = 5_000


def _fill(connection: Connection, ca: int) -> None:
    """Twelve devices with up to three certificates each, which end in 200 steps about `NOW`; every fifth is revoked."""
    put_units_and_models(connection)
    leaf = 0
    for number in range(12):
        row = device(number) if number % 2 else device(number, unit=ER)
        insert_devices(connection, [row])
        for place in range(number % 4):
            leaf += 1
            end = NOW + 100 * ((number * 7 + place * 5) % 11 - 5)
            certificate(connection, ca, leaf, device_id=row.id.text, not_after=end)
            set_state(connection, leaf, "revoked" if leaf % 5 == 0 else "issued")


def test_pages_by_end_follow_each_other_without_gap_or_repeat(connection: Connection, ca: int) -> None:
    _fill(connection, ca)
    whole = list_ends(connection, until=NOW + 300, count=1_000)
    assert [(one.not_after, one.leaf_index) for one in whole] == sorted(
        (one.not_after, one.leaf_index) for one in whole
    )
    assert max(one.not_after for one in whole) == NOW + 300
    seen: list[End] = []
    place = FIRST
    while page := list_ends(connection, until=NOW + 300, after=place, count=2):
        seen += page
        place = page[-1].not_after, page[-1].leaf_index
    assert tuple(seen) == whole


def test_counts_are_those_of_the_certificates_that_count(connection: Connection, ca: int) -> None:
    _fill(connection, ca)
    bounds = (NOW - 1, NOW + 200, NOW + 400)
    newest = list_newest(connection, [device(number).id.text for number in range(12)], at=NOW)
    by_hand = Counter(
        (str(one.device.unit), next(bound for bound in bounds if one.newest.not_after <= bound))
        for one in newest.values()
        if one.newest is not None and one.newest.state == "issued" and one.newest.not_after <= bounds[-1]
    )
    assert by_hand
    assert count_ends(connection, at=NOW, bounds=bounds) == by_hand


def test_devices_in_states_that_are_left_out_are_not_counted(connection: Connection, ca: int) -> None:
    put_units_and_models(connection)
    for number, state in enumerate(("received", "disposed")):
        row = device(number, state=state)
        insert_devices(connection, [row])
        certificate(connection, ca, number + 1, device_id=row.id.text, not_after=NOW + 1)
        set_state(connection, number + 1, "issued")
    (bound,) = bounds = (NOW + 200,)
    assert count_ends(connection, at=NOW, bounds=bounds) == {("h1/icu", bound): 2}
    assert count_ends(connection, at=NOW, bounds=bounds, beside=("disposed",)) == {("h1/icu", bound): 1}


def test_no_certificate_and_no_device_is_an_empty_page(connection: Connection, ca: int) -> None:
    assert list_ends(connection, until=NOW) == ()
    assert list_counting(connection, (), at=NOW, narrow=DeviceFilter(hospital="h1")) == {}
    assert count_ends(connection, at=NOW, bounds=(NOW,)) == {}
    assert list_newest(connection, ["a" * 26], at=NOW) == {}


def test_pages_walk_the_index_of_ends_and_certificates_of_a_device_are_looked_up(
    connection: Connection, ca: int
) -> None:
    if connection.dialect.name != "sqlite":
        return
    _fill(connection, ca)
    walked = plans(connection, lambda: list_ends(connection, until=NOW, after=(NOW - 100, 3), count=5))
    assert len(statements_of(connection, lambda: list_ends(connection, until=NOW, count=5))) == 2
    assert "SCAN" not in walked
    assert "TEMP B-TREE" not in walked
    found = plans(connection, lambda: list_newest(connection, [device(1).id.text], at=NOW))
    assert found.count("certificates_by_device (device_id=?") == 3
    assert "SCAN" not in found
    ends = list_ends(connection, until=NOW)
    found = plans(connection, lambda: list_counting(connection, ends, at=NOW, narrow=DeviceFilter(hospital="h1")))
    assert found.count("certificates_by_device (device_id=?") == 3, "no server certificate is among them"
    assert "SCAN" not in found
    counted = plans(connection, lambda: count_ends(connection, at=NOW, bounds=(NOW,)))
    assert "certificates_by_expiry (not_after<?)" in counted
    assert "certificates_by_device (device_id=?)" in counted
