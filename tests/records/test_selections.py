"""Many certificates are counted and read page by page, and a selection survives being kept."""

from __future__ import annotations

from hypothesis import given, settings
from hypothesis import strategies as st

from tests.records.query_plans import plans
from tests.records.signing import authority, certificate
from vagus.records import selections as rows
from vagus.records.certificates import REVOKED, set_state
from vagus.records.database import Database
from vagus.records.selections import Selection, SelectionCount

NUMBERS = st.integers(0, 2**40)


@settings(max_examples=40, deadline=None)
@given(
    made=st.builds(
        Selection,
        authority_ids=st.lists(NUMBERS, max_size=3).map(tuple),
        owners=st.lists(st.text(max_size=8), max_size=3).map(tuple),
        profile=st.none() | st.text(max_size=8),
        spki_sha256=st.none() | st.binary(min_size=32, max_size=32),
        issued_from=st.none() | NUMBERS,
        issued_until=st.none() | NUMBERS,
    )
)
def test_a_kept_selection_is_the_same_selection(made: Selection) -> None:
    assert Selection.decode(made.encode()) == made


def test_a_selection_of_everything_says_so() -> None:
    assert Selection().is_empty
    assert Selection(issued_until=5).is_empty, "everything up to now is everything"
    assert not Selection(owners=("a",)).is_empty


def test_counts_and_pages_agree(database: Database) -> None:
    with database.writing() as connection:
        one, other = authority(connection), authority(connection, "h1/er")
        for leaf in range(6):
            certificate(connection, one, leaf, shard=leaf // 4, device_id=f"d{leaf // 2}")
        certificate(connection, other, 9, profile="imaging", device_id=None)
        set_state(connection, 1, REVOKED)
        assert rows.newest_leaf(connection) == 9
        every = Selection(authority_ids=(one, other))
        assert rows.count_selected(connection, every, alive_at=0) == (
            SelectionCount(one, 0, "bedside", 3, 2),
            SelectionCount(one, 1, "bedside", 2, 1),
            SelectionCount(other, 0, "imaging", 1, 0),
        )
        mine = Selection(authority_ids=(one,))
        page = rows.list_selected(connection, mine, alive_at=0, after=0, until=4, count=2)
        assert [row.leaf_index for row in page] == [2, 3]
        rest = rows.list_selected(connection, mine, alive_at=0, after=3, until=4, count=9)
        assert [row.leaf_index for row in rest] == [4]
        assert rows.list_selected(connection, mine, alive_at=10_000, after=-1, until=9, count=9) == ()


def test_whether_an_authority_is_touched_does_not_ask_what_became_of_its_certificates(database: Database) -> None:
    with database.writing() as connection:
        one, other = authority(connection), authority(connection, "h1/er")
        certificate(connection, one, 1, device_id="d1")
        set_state(connection, 1, REVOKED)
        pump = Selection(owners=("device:d1",))
        bedside = Selection(profile="bedside")
        assert rows.has_any(connection, bedside, one, alive_at=0)
        assert not rows.has_any(connection, bedside, other, alive_at=0)
        assert not rows.has_any(connection, bedside, one, alive_at=10_000)
        assert not rows.has_any(connection, pump, other, alive_at=0)


def test_an_empty_database_has_no_newest_leaf(database: Database) -> None:
    with database.reading() as connection:
        assert rows.newest_leaf(connection) == -1


def test_a_page_of_a_selection_never_goes_through_the_states(file_database: Database) -> None:
    asked = {
        "certificates_by_device": Selection(owners=("device:a", "device:b")),
        "certificates_by_authority": Selection(authority_ids=(1,)),
        "certificates_by_key": Selection(spki_sha256=bytes(32)),
    }
    with file_database.reading() as connection:
        for index, selection in asked.items():
            shown = plans(
                connection,
                lambda one=selection: rows.list_selected(  # type: ignore[misc]
                    connection, one, alive_at=5, after=3, until=9, count=200
                ),
            )
            assert index in shown
            assert "certificates_by_state" not in shown
