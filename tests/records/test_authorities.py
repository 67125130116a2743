"""Authorities have generations, parents and chains."""

from __future__ import annotations

import pytest
from sqlalchemy.exc import IntegrityError

from tests.simulator.presence import present
from tests.simulator.rows import authority
from vagus.records import authorities as rows
from vagus.records.engine.database import Connection


def test_the_newest_active_generation_is_found(connection: Connection) -> None:
    authority(connection, generation=1)
    authority(connection, generation=2)
    authority(connection, generation=3, certified=False)
    newest = present(rows.find_newest(connection, "h1/icu"))
    waiting = present(rows.find_newest(connection, "h1/icu", state=None))
    assert (newest.reference, newest.slug, newest.state) == ("h1/icu#2", "h1.icu", rows.ACTIVE)
    assert (waiting.reference, waiting.state, waiting.certificate_der) == ("h1/icu#3", rows.REQUESTED, None)
    assert rows.find_newest(connection, "h2") is None
    rows.set_authority_state(connection, newest.id, rows.RETIRED)
    older = present(rows.find_newest(connection, "h1/icu"))
    assert older.generation == 1


def test_a_generation_exists_once(connection: Connection) -> None:
    authority(connection, generation=1)
    with pytest.raises(IntegrityError):
        authority(connection, generation=1)


def test_rows_are_found_by_id_key_and_generation(connection: Connection) -> None:
    made = authority(connection)
    row = present(rows.find_by_id(connection, made))
    assert rows.find_by_key(connection, row.spki_sha256) == row
    assert rows.find_generation(connection, "h1/icu", 1) == row
    assert rows.list_authorities(connection, state=rows.REQUESTED) == ()
    assert rows.list_authorities(connection) == (row,)


def test_a_chain_goes_up_through_rows_and_the_certificates_above_them(connection: Connection) -> None:
    top = authority(connection, "h1", kind="device_ca", is_offline=True)
    below = authority(connection, "h1/icu", parent_id=top)
    rows.set_chain(connection, top, (b"above", b"root"))
    icu, h1 = (present(rows.find_by_id(connection, one)) for one in (below, top))
    assert rows.load_chain(connection, icu) == (b"certificate h1", b"above", b"root")
    assert rows.load_chain(connection, h1) == (b"above", b"root")
    rows.set_chain(connection, top, (b"other",))
    assert rows.load_chain(connection, h1) == (b"other",)
    assert rows.list_children(connection, top) == (icu,)
