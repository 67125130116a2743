"""Device models and the makers' anchors that may vouch for them: rows in and out, no rules."""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass

from sqlalchemy import bindparam, select

from vagus.records.engine.database import Connection
from vagus.records.engine.row_forms import RowForm
from vagus.records.engine.tables import certificates, devices, maker_anchors, models

_BY_NAME = select(models).where(models.c.name == bindparam("model"))
_UNDER_ANCHOR = select(models.c.name).where(models.c.anchor_sha256 == bindparam("anchor"))


@dataclass(frozen=True, slots=True)
class ModelRow:
    """A model; `anchor_sha256` names the maker's anchor whose IDevIDs are believed for it, None: no IDevID is."""

    name: str
    maker: str
    category: str
    profile: str
    anchor_sha256: bytes | None = None


@dataclass(frozen=True, slots=True)
class MakerAnchorRow:
    """A maker's anchor certificate."""

    sha256: bytes
    maker: str
    certificate_der: bytes
    added_at: int


_MODEL = RowForm(ModelRow)
_ANCHOR = RowForm(MakerAnchorRow)


def facts_digest(model: ModelRow) -> bytes:
    """The SHA-256 of all that is known of a model, as the ledger commits to it."""
    anchor = None if model.anchor_sha256 is None else model.anchor_sha256.hex()
    facts = [model.name, model.maker, model.category, model.profile, anchor]
    return hashlib.sha256(json.dumps(facts, separators=(",", ":")).encode("ascii")).digest()


def put_model(connection: Connection, model: ModelRow) -> None:
    """Insert `model`, or change a known one; a search finds certificates of its devices under its new category."""
    values, known = _MODEL.values(model), find_model(connection, model.name)
    if known is None:
        connection.execute(models.insert().values(values))
        return
    connection.execute(models.update().where(models.c.name == model.name).values(values))
    if known.category != model.category:
        its_devices = select(devices.c.id).where(devices.c.model == model.name)
        of_them = certificates.c.device_id.in_(its_devices)
        connection.execute(certificates.update().where(of_them).values(category=model.category))


def find_model(connection: Connection, name: str) -> ModelRow | None:
    """The model of this name."""
    return _MODEL.find(connection, _BY_NAME, {"model": name})


def list_models(connection: Connection) -> tuple[ModelRow, ...]:
    """Every model, by name."""
    return _MODEL.list(connection, select(models).order_by(models.c.name))


def list_models_under_anchor(connection: Connection, anchor_sha256: bytes) -> frozenset[str]:
    """The names of the models whose IDevIDs this anchor may vouch for."""
    return frozenset(connection.execute(_UNDER_ANCHOR, {"anchor": anchor_sha256}).scalars())


def put_maker_anchor(connection: Connection, anchor: MakerAnchorRow) -> bool:
    """Keep a maker's anchor; one that is known already stays as it is. Whether it is new."""
    known = connection.execute(select(maker_anchors.c.sha256).where(maker_anchors.c.sha256 == anchor.sha256))
    is_new = known.one_or_none() is None
    if is_new:
        connection.execute(maker_anchors.insert().values(_ANCHOR.values(anchor)))
    return is_new


def list_maker_anchors(connection: Connection) -> tuple[MakerAnchorRow, ...]:
    """Every maker's anchor, by maker and age."""
    query = select(maker_anchors).order_by(maker_anchors.c.maker, maker_anchors.c.added_at, maker_anchors.c.sha256)
    return _ANCHOR.list(connection, query)
