"""Models and makers' anchors: put twice, there once."""

from __future__ import annotations

from dataclasses import replace

from tests.simulator.stock import ANCHOR, stocked_database
from vagus.records.models import (
    MakerAnchorRow,
    ModelRow,
    find_model,
    list_maker_anchors,
    list_models,
    put_maker_anchor,
    put_model,
)


def test_a_model_put_again_changes() -> None:
    with stocked_database() as database:
        with database.writing() as connection:
            pump = find_model(connection, "pump")
            assert pump == ModelRow("pump", "Acme", "infusion-pump", "bedside", ANCHOR)
            put_model(connection, replace(pump, anchor_sha256=None))
        with database.reading() as connection:
            assert [model.name for model in list_models(connection)] == ["monitor", "pump"]
            assert find_model(connection, "pump") == replace(pump, anchor_sha256=None)
            assert find_model(connection, "scale") is None


def test_an_anchor_put_again_keeps_its_date() -> None:
    with stocked_database() as database:
        with database.writing() as connection:
            put_maker_anchor(connection, MakerAnchorRow(ANCHOR, "Acme", b"\x30\x00", 99))
        with database.reading() as connection:
            assert list_maker_anchors(connection) == (MakerAnchorRow(ANCHOR, "Acme", b"\x30\x00", 5),)
