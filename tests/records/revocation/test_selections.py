"""Many certificates are counted and read page by page, and a selection survives being kept."""

from __future__ import annotations

from collections import Counter
from dataclasses import replace

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tests.simulator.rows import authority, certificate
from vagus.identifiers import UnitName
from vagus.records.certificates import HELD, INTENDED, ISSUED, REVOKED, CertificateRow, set_state
from vagus.records.engine.database import Connection, Database
from vagus.records.engine.tables import devices
from vagus.records.models import ModelRow, put_model
from vagus.records.revocation import selections as rows
from vagus.records.revocation.selections import Selection, SelectionCount
from vagus.records.units import UnitRow, put_unit

NUMBERS = st.integers(0, 2**40)
MODEL, OTHER = "Pump", "Monitor"
LEAVES = 24


def device_id(number: int) -> str:
    return f"{number:026d}"


def device(connection: Connection, number: int, *, model: str = MODEL) -> str:
    """A device of that number, which is also its maker's serial; gives its id."""
    put_unit(connection, UnitRow(UnitName("h1", "icu"), "Hospital", "ICU"))
    put_model(connection, ModelRow(model, "Maker", "pump", "bedside"))
    values = {"id": device_id(number), "model": model, "maker_serial": str(number), "state": "in_service"}
    same = {"unit": "h1/icu", "profile": "bedside", "added_at": 0, "changed_at": 0}
    connection.execute(devices.insert().values(**values, **same))
    return device_id(number)


@settings(max_examples=40, deadline=None)
@given(
    made=st.builds(
        Selection,
        authority_ids=st.lists(NUMBERS, max_size=3).map(tuple),
        owners=st.lists(st.text(max_size=8), max_size=3).map(tuple),
        owner_ranges=st.lists(st.tuples(st.text(max_size=8), st.text(max_size=8)), max_size=3).map(tuple),
        profile=st.none() | st.text(max_size=8),
        spki_sha256=st.none() | st.binary(min_size=32, max_size=32),
        issued_from=st.none() | NUMBERS,
        issued_until=st.none() | NUMBERS,
    )
)
def test_a_stored_selection_is_the_same_selection(made: Selection) -> None:
    assert Selection.decode(made.encode()) == made


@pytest.mark.parametrize(("first", "last", "within"), [("a0", "a9", {2}), ("B0", "a5", {1, 2})])
def test_databases_compare_serials_by_their_bytes(database: Database, first: str, last: str, within: set[int]) -> None:
    serials = {1: "A5" if first == "a0" else "B5", 2: "a5", 3: "b5"}
    batch = Selection(model=MODEL, first_serial=first, last_serial=last)
    with database.writing() as connection:
        ca = authority(connection)
        for number, serial in serials.items():
            name = device(connection, number)
            connection.execute(devices.update().where(devices.c.id == name).values(maker_serial=serial))
            certificate(connection, ca, number, device_id=name)
        leaves = [1, 2, 3]
        assert set(rows.list_leaves(connection, batch, alive_at=0, after=-1, until=9)) == within
        assert {one.leaf_index for one in rows.list_among(connection, batch, leaves, alive_at=0)} == within


@pytest.mark.parametrize(
    ("ranges", "within"),
    [
        ((("born:A-01", "born:A-09"),), {1, 2}),
        ((("born:A-09", "born:A-10"),), {2, 3}),
        ((("born:a-01", "born:a-99"),), {4}),
        ((("born:A-01", "born:A-01"), ("born:A-100", "born:A-199")), {1, 5}),
        ((("born:B-01", "born:B-99"),), set()),
    ],
)
def test_owners_are_selected_by_ranges_of_one_length_compared_as_bytes(
    database: Database, ranges: tuple[tuple[str, str], ...], within: set[int]
) -> None:
    named = Selection(profile="idevid", owner_ranges=ranges)
    assert Selection.decode(named.encode()) == named
    with database.writing() as connection:
        ca = authority(connection)
        for leaf, serial in {1: "A-01", 2: "A-09", 3: "A-10", 4: "a-02", 5: "A-100", 6: "A-0"}.items():
            certificate(connection, ca, leaf, owner=f"born:{serial}", device_id=None, profile="idevid")
        certificate(connection, ca, 7, owner="born:A-01", device_id=None, profile="other")
        assert set(rows.list_leaves(connection, named, alive_at=0, after=-1, until=9)) == within
        assert {one.leaf_index for one in rows.list_among(connection, named, range(1, 8), alive_at=0)} == within
        assert sum(one.certificates for one in rows.count_selected(connection, named, alive_at=0)) == len(within)


def test_a_unit_holds_the_certificates_of_devices_that_a_restore_has_lost(database: Database) -> None:
    hashed = "sha256:" + "5e" * 32  # as the ledger gives it back
    with database.writing() as connection:
        ca = authority(connection)
        certificate(connection, ca, 1, owner="device:a", device_id="a")
        certificate(connection, ca, 2, owner=hashed, device_id=None)
        certificate(connection, ca, 3, owner="ocsp:h1/icu", device_id=None)
        unit = Selection(authority_ids=(ca,), of_devices=True)
        assert list(rows.list_leaves(connection, unit, alive_at=0, after=-1, until=9)) == [1, 2]
        assert [one.leaf_index for one in rows.list_among(connection, unit, [1, 2, 3], alive_at=0)] == [1, 2]
        assert sum(one.certificates for one in rows.count_selected(connection, unit, alive_at=0)) == 2


def test_a_selection_of_everything_says_so() -> None:
    assert Selection().is_empty
    assert Selection(issued_until=5).is_empty, "everything up to now is everything"
    assert not Selection(owners=("a",)).is_empty
    assert not Selection(owner_ranges=(("a", "b"),)).is_empty


def test_counts_and_pages_agree(connection: Connection) -> None:
    one, other = authority(connection), authority(connection, "h1/er")
    for leaf in range(6):
        certificate(connection, one, leaf, shard=leaf // 4, device_id=f"d{leaf // 2}")
    certificate(connection, other, 9, profile="imaging", device_id=None)
    set_state(connection, 1, REVOKED)
    assert rows.newest_leaf(connection) == 9
    every = Selection(authority_ids=(one, other))
    assert rows.count_selected(connection, every, alive_at=0) == (
        SelectionCount(one, 0, "bedside", 3),
        SelectionCount(one, 1, "bedside", 2),
        SelectionCount(other, 0, "imaging", 1),
    )
    assert rows.count_devices(connection, every, alive_at=0) == 3
    mine = Selection(authority_ids=(one,))
    found = rows.list_leaves(connection, mine, alive_at=0, after=0, until=4)
    assert list(found) == [2, 3, 4], "of those behind the first and up to the fourth, one is revoked or before"
    assert list(rows.list_leaves(connection, mine, alive_at=10_000, after=-1, until=9)) == []
    among = rows.list_among(connection, mine, [4, 1, 9, 77, 2], alive_at=0)
    assert [row.leaf_index for row in among] == [2, 4], "another's, a revoked one and none at all are left out"
    assert rows.list_among(connection, mine, [2, 4], alive_at=10_000) == ()


def test_what_is_held_may_be_reached_later_and_what_is_revoked_never(connection: Connection) -> None:
    one = authority(connection)
    for leaf, state in enumerate((INTENDED, ISSUED, HELD, REVOKED)):
        certificate(connection, one, leaf, device_id="d", owner="device:d", state=state)
    pump = Selection(owners=("device:d",))
    assert list(rows.list_leaves(connection, pump, alive_at=0, after=-1, until=9)) == [0, 1, 2]
    for states, leaves in (((INTENDED, ISSUED), [0, 1]), ((HELD,), [2]), (rows.LIVE, [0, 1, 2])):
        among = rows.list_among(connection, pump, range(9), alive_at=0, states=states)
        assert [row.leaf_index for row in among] == leaves


def test_the_authorities_that_are_touched_are_so_whatever_became_of_their_certificates(connection: Connection) -> None:
    one, other = authority(connection), authority(connection, "h1/er")
    pump = device(connection, 1)
    certificate(connection, one, 1, owner=f"device:{pump}", device_id=pump)
    set_state(connection, 1, REVOKED)

    def touched(selection: Selection, *, at: int = 0) -> tuple[int, ...]:
        return rows.list_touched(connection, selection, (other, one), alive_at=at)

    for selection in (
        Selection(owners=(f"device:{pump}",)),
        Selection(profile="bedside"),
        Selection(authority_ids=(one,)),
        Selection(model=MODEL),
        Selection(leaves=(1,)),
        Selection(spki_sha256=(1).to_bytes(32, "big")),
    ):
        assert touched(selection) == (one,)
        assert touched(selection, at=10_000) == ()
        assert touched(replace(selection, authority_ids=(other,))) == ()


def test_an_empty_database_has_no_newest_leaf(database: Database) -> None:
    with database.reading() as connection:
        assert rows.newest_leaf(connection) == -1


def test_profiles_of_certificates_after_a_leaf_are_listed(connection: Connection) -> None:
    one = authority(connection)
    for number, profile in enumerate(("bedside", "imaging", "bedside", "implant")):
        bearer = device(connection, number, model=MODEL if number < 3 else OTHER)
        certificate(connection, one, number, owner=f"device:{bearer}", device_id=bearer, profile=profile)

    def late(selection: Selection, after: int) -> tuple[str, ...]:
        return rows.list_late_profiles(connection, selection, alive_at=0, after=after)

    unit = Selection(authority_ids=(one,))
    assert late(unit, -1) == ("bedside", "imaging", "implant")
    assert late(unit, 1) == ("bedside", "implant")
    assert late(Selection(model=MODEL), 1) == ("bedside",)
    assert late(unit, 3) == ()


def _fill(connection: Connection) -> list[CertificateRow]:
    """Of two authorities in turn, of two models, a third of them without a device; some held, revoked or past."""
    one, other = authority(connection), authority(connection, "h1/er")
    made = []
    for number in range(8):
        device(connection, number, model=MODEL if number % 2 else OTHER)
    for leaf in range(LEAVES):
        bearer = None if leaf % 3 == 2 else device_id(leaf % 8)
        row = certificate(
            connection,
            other if leaf % 2 else one,
            leaf,
            owner="ocsp:h1" if bearer is None else f"device:{bearer}",
            device_id=bearer,
            profile=("bedside", "imaging", "implant")[leaf % 5 % 3],
            spki_sha256=(leaf % 4).to_bytes(32, "big"),
            not_before=100 + leaf,
            not_after=1_000 if leaf % 7 else 100,
            shard=leaf % 2,
            state=(ISSUED, INTENDED, REVOKED, HELD)[leaf % 11 % 4],
        )
        made.append(row)
    return made


@st.composite
def _selections(draw: st.DrawFn) -> Selection:
    owners = st.sampled_from(["ocsp:h1", *(f"device:{device_id(number)}" for number in range(8))])
    chosen = Selection(
        authority_ids=draw(st.sampled_from([(), (), (1,), (2,), (1, 2)])),
        owners=draw(st.just(()) | st.lists(owners, max_size=4, unique=True).map(tuple)),
        owner_ranges=draw(st.just(()) | st.lists(st.tuples(owners, owners), max_size=2).map(tuple)),
        profile=draw(st.sampled_from([None, None, "bedside", "imaging"])),
        spki_sha256=draw(st.none() | st.integers(0, 4).map(lambda number: number.to_bytes(32, "big"))),
        issued_from=draw(st.none() | st.integers(100, 124)),
        issued_until=draw(st.none() | st.integers(100, 124)),
        leaves=draw(st.just(()) | st.lists(st.integers(0, LEAVES), max_size=12, unique=True).map(tuple)),
        model=draw(st.sampled_from([None, MODEL, OTHER])),
        of_devices=draw(st.booleans()),
    )
    if chosen.model is None or draw(st.booleans()):
        return chosen
    first, last = sorted(draw(st.tuples(st.integers(0, 8), st.integers(0, 8))))
    return replace(chosen, first_serial=str(first), last_serial=str(last))


def _has(selection: Selection, row: CertificateRow) -> bool:
    """What a selection holds, said once more and without any database."""
    number = None if row.device_id is None else int(row.device_id)
    is_of_model = number is not None and selection.model == (MODEL if number % 2 else OTHER)
    first, last = int(selection.first_serial or 0), int(selection.last_serial or 99)
    return (
        (not selection.authority_ids or row.authority_id in selection.authority_ids)
        and (not selection.owners or row.owner in selection.owners)
        and (not selection.owner_ranges or any(_lies_in(row.owner, *ends) for ends in selection.owner_ranges))
        and (selection.profile in {None, row.profile})
        and (selection.spki_sha256 in {None, row.spki_sha256})
        and (selection.issued_from is None or selection.issued_from <= row.not_before)
        and (selection.issued_until is None or row.not_before <= selection.issued_until)
        and (not selection.leaves or row.leaf_index in selection.leaves)
        and (selection.model is None or (is_of_model and number is not None and first <= number <= last))
        and (not selection.of_devices or row.device_id is not None)
    )


def _lies_in(owner: str, first: str, last: str) -> bool:
    return len(owner) == len(first) and first.encode() <= owner.encode() <= last.encode()


@pytest.fixture
def filled(database: Database) -> tuple[Database, list[CertificateRow]]:
    with database.writing() as connection:
        return database, _fill(connection)


@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(selection=_selections(), after=st.integers(-1, LEAVES), until=st.integers(0, LEAVES))
def test_every_question_about_a_selection_speaks_of_the_same_certificates(
    filled: tuple[Database, list[CertificateRow]], selection: Selection, after: int, until: int
) -> None:
    database, made = filled
    alive = [row for row in made if row.not_after > 500 and _has(selection, row)]
    live = [row for row in alive if row.state != REVOKED]
    with database.reading() as connection:
        leaves = rows.list_leaves(connection, selection, alive_at=500, after=after, until=until)
        assert list(leaves) == [row.leaf_index for row in live if after < row.leaf_index <= until]
        assert rows.list_among(connection, selection, range(LEAVES + 1), alive_at=500) == tuple(live)
        counted = rows.count_selected(connection, selection, alive_at=500)
        assert sum(one.certificates for one in counted) == len(live)
        groups = Counter((row.authority_id, row.shard, row.profile) for row in live)
        assert {(one.authority_id, one.shard, one.profile): one.certificates for one in counted} == groups
        bearers = {row.device_id for row in live} - {None}
        assert rows.count_devices(connection, selection, alive_at=500) == len(bearers)
        for is_of_authorities in (True, False):
            left = rows.count_without_self_issued(
                connection, selection, alive_at=500, states=rows.LIVE, is_of_authorities=is_of_authorities
            )
            assert left == len(live)
        touched = rows.list_touched(connection, selection, (1, 2), alive_at=500)
        assert set(touched) == {row.authority_id for row in alive}
        late = rows.list_late_profiles(connection, selection, alive_at=500, after=after)
        assert late == tuple(sorted({row.profile for row in live if row.leaf_index > after}))


@pytest.mark.parametrize("page", [1, 3])
def test_a_model_is_gone_through_page_by_page(database: Database, monkeypatch: pytest.MonkeyPatch, page: int) -> None:
    for module in ("engine.query_hints", "revocation.selections"):
        monkeypatch.setattr(f"vagus.records.{module}.PAGE", page)
    with database.writing() as connection:
        filled = _fill(connection)
        made = [row for row in filled if _has(Selection(model=MODEL), row)]
        leaves = rows.list_leaves(connection, Selection(model=MODEL), alive_at=0, after=-1, until=LEAVES)
        assert list(leaves) == [row.leaf_index for row in made if row.state != REVOKED]
        several = Selection(owners=tuple(f"device:{device_id(number)}" for number in range(8)))
        among = rows.list_among(connection, replace(several, model=MODEL), leaves, alive_at=0)
        assert [row.leaf_index for row in among] == list(leaves)
        every = [row.leaf_index for row in filled if row.device_id and row.state != REVOKED]
        assert list(rows.list_leaves(connection, several, alive_at=0, after=-1, until=LEAVES)) == every
