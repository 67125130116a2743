"""When each device was last admitted and last refused by a listener: rows in and out, the later time wins."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from sqlalchemy import Connection, bindparam, insert, select, update

from vagus.identifiers import DeviceId
from vagus.records.engine.statements import Statement
from vagus.records.engine.tables import device_contacts, devices

Admission = tuple[int, str]
"""When (seconds since 1970 UTC) and at which listener."""
Refusal = tuple[int, str, str]
"""When, at which listener and for which reason code."""

_PAGE = 500
_COLUMNS = ("seen_at", "seen_listener", "refused_at", "refused_listener", "refusal_reason")
_INSERT = Statement(insert(device_contacts), "device_id", *_COLUMNS)
_UPDATE = Statement(
    update(device_contacts)
    .where(device_contacts.c.device_id == bindparam("device"))
    .values({name: bindparam(f"new_{name}") for name in _COLUMNS})
)


@dataclass(frozen=True, slots=True)
class Contact:
    """The last admission and the last refusal of a device, each None where there was none."""

    seen: Admission | None = None
    refused: Refusal | None = None

    def merged(self, other: Contact) -> Contact:
        """Of both contacts the later ones."""
        return Contact(
            max((one.seen for one in (self, other) if one.seen), default=None),
            max((one.refused for one in (self, other) if one.refused), default=None),
        )


def find_contacts(connection: Connection, wanted: Sequence[DeviceId]) -> dict[str, Contact]:
    """The contacts of these devices by id, without those that had none."""
    return _find([str(one) for one in wanted], connection)


def save_contacts(connection: Connection, contacts: Mapping[str, Contact]) -> None:
    """Store at most 500 contacts by device id, of devices of the inventory alone; what is stored and later stays.

    Call it inside a writer's act: the lock of the batch makes reading and writing one step, also for several processes.
    """
    table, ids = devices.c, list(contacts)
    stored = set(connection.execute(select(table.id).where(table.id.in_(ids))).scalars())
    known = _find(ids, connection)
    newest = {one: contacts[one].merged(known.get(one, Contact())) for one in ids if one in stored}
    _INSERT.change_many(
        connection, [{"device_id": one, **_values(made)} for one, made in newest.items() if one not in known]
    )
    _UPDATE.change_many(
        connection,
        [
            {"device": one, **{f"new_{name}": value for name, value in _values(made).items()}}
            for one, made in newest.items()
            if one in known and made != known[one]
        ],
    )


def _find(ids: Sequence[str], connection: Connection) -> dict[str, Contact]:
    table, found = device_contacts, dict[str, Contact]()
    for start in range(0, len(ids), _PAGE):
        rows: Iterable[Any] = connection.execute(select(table).where(table.c.device_id.in_(ids[start : start + _PAGE])))
        for row in rows:
            seen = None if row.seen_at is None else (row.seen_at, row.seen_listener)
            refused = (row.refused_at, row.refused_listener, row.refusal_reason)
            found[row.device_id] = Contact(seen, None if row.refused_at is None else refused)
    return found


def _values(contact: Contact) -> dict[str, object]:
    seen, refused = contact.seen or (None, None), contact.refused or (None, None, None)
    return dict(zip(_COLUMNS, (*seen, *refused), strict=True))
