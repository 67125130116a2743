"""Which devices a lot has: in memory and in the database alike, page by page, with certificates and without."""

from __future__ import annotations

from itertools import product

from hypothesis import given
from hypothesis import strategies as st

from tests.records.revocation.test_selections import MODEL, OTHER, device, device_id
from tests.simulator.rows import authority, certificate
from vagus.records.certificates import HELD, ISSUED, REVOKED, set_state
from vagus.records.engine.database import Database
from vagus.records.engine.tables import devices
from vagus.records.revocation.device_lots import DeviceLot, Wanted, Without, count_wanted, list_wanted, lot_of
from vagus.records.revocation.selections import LIVE, Selection

SERIALS = st.text("019", min_size=1, max_size=3)
UNITS = st.sampled_from(["h1/er", "h1/icu", "h1/lab"])


@st.composite
def lots(draw: st.DrawFn) -> DeviceLot:
    model, units = draw(st.none() | st.sampled_from([MODEL, OTHER])), draw(st.lists(UNITS, max_size=2, unique=True))
    first, last = sorted(draw(st.tuples(SERIALS, SERIALS)))
    if model is None or len(first) != len(last) or draw(st.booleans()):
        return DeviceLot(model=model, units=tuple(units))
    return DeviceLot(model=model, first_serial=first, last_serial=last, units=tuple(units))


@given(wide=lots(), narrow=lots(), unit=UNITS, model=st.sampled_from([MODEL, OTHER]), serial=SERIALS)
def test_a_lot_that_covers_another_has_all_that_the_other_has(
    wide: DeviceLot, narrow: DeviceLot, unit: str, model: str, serial: str
) -> None:
    assert narrow.covers(narrow)
    if wide.covers(narrow) and narrow.has(unit, model, serial):
        assert wide.has(unit, model, serial)


def test_the_database_has_the_same_devices_in_a_lot(database: Database) -> None:
    with database.writing() as connection:
        for number in (1, 2, 9, 10, 11, 100):
            device(connection, number)
        device(connection, 12, model=OTHER)
        rows = connection.execute(devices.select()).all()
        for model, ends, units in product(
            (None, MODEL, OTHER), ((None, None), ("1", "9"), ("10", "12")), ((), ("h1/icu",), ("h1/er",))
        ):
            lot = DeviceLot(model=model, first_serial=ends[0], last_serial=ends[1], units=units)
            has = sorted(row.id for row in rows if lot.has(row.unit, row.model, row.maker_serial))
            assert list(list_wanted(connection, lot, Wanted(), count=10)) == has, lot
            assert sum(count_wanted(connection, lot, Wanted()).values()) == len(has), lot
        everything = DeviceLot(model=MODEL)
        assert list_wanted(connection, everything, Wanted(), count=2) == (device_id(1), device_id(2))
        assert list_wanted(connection, everything, Wanted(), after=device_id(2), count=2) == (
            device_id(9),
            device_id(10),
        )
        some = DeviceLot(ids=(device_id(2), device_id(12)))
        assert list_wanted(connection, some, Wanted(), count=9) == (device_id(2), device_id(12))
        assert count_wanted(connection, some, Wanted(), "model") == {MODEL: 1, OTHER: 1}


def test_a_device_with_a_certificate_that_counts_is_not_without(database: Database) -> None:
    with database.writing() as connection:
        icu, er = authority(connection), authority(connection, "h1/er")
        for number, (issuer, state, ends) in enumerate(
            ((icu, ISSUED, 90), (icu, HELD, 90), (icu, REVOKED, 90), (icu, ISSUED, 40), (er, ISSUED, 90)), 1
        ):
            device(connection, number)
            certificate(connection, issuer, number, device_id=device_id(number), not_after=ends)
            set_state(connection, number, state)
        device(connection, 6)
        everything, of_icu = Selection(model=MODEL), Selection(model=MODEL, authority_ids=(icu,), of_devices=True)
        for selection, until, states, numbers in (
            (everything, 9, LIVE, (3, 4, 6)),
            (of_icu, 9, LIVE, (3, 4, 5, 6)),
            (everything, 1, LIVE, (2, 3, 4, 5, 6)),
            (everything, 9, (HELD,), (1, 3, 4, 5, 6)),
        ):
            without = Without(selection=selection, alive_at=50, until=until, states=states)
            lot = lot_of(connection, selection)
            assert lot is not None
            found = list_wanted(connection, DeviceLot(model=MODEL), Wanted(without=without), count=9)
            assert found == tuple(device_id(one) for one in numbers), selection
        assert lot_of(connection, of_icu) == DeviceLot(model=MODEL, units=("h1/icu",))
        assert lot_of(connection, Selection(model=MODEL, leaves=(1,))) is None
        assert lot_of(connection, Selection(owners=("device:b", "device:a"))) == DeviceLot(ids=("a", "b"))
