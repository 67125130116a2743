"""Rows that a verifier must remember over a restart: the highest CRL numbers and times seen; verifies nothing."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from sqlalchemy import Connection, bindparam, insert, select, update

from vagus.errors import Malformed
from vagus.reasons import Reason
from vagus.records.engine.statements import Statement
from vagus.records.engine.tables import verifier_memory

_NUMBER_BYTES = 20  # RFC 5280 5.2.3: a CRL number has at most 20 bytes
_MAX_NUMBER = (1 << (8 * _NUMBER_BYTES)) - 1
_MAX_INTEGER = (1 << 63) - 1
_MAX_NAME = 120
_PAGE = 500

_INSERT = Statement(insert(verifier_memory), "name", "number", "octets", "at")
_UPDATE = Statement(
    update(verifier_memory)
    .where(verifier_memory.c.name == bindparam("of"))
    .values(number=bindparam("clipped"), octets=bindparam("whole"), at=bindparam("moment"))
)


@dataclass(frozen=True, slots=True)
class Remembered:
    """The highest number and the latest moment seen under a name (seconds since 1970 UTC)."""

    name: str
    number: int
    at: int


def find_remembered(connection: Connection, name: str) -> Remembered | None:
    """What is remembered under `name`."""
    table = verifier_memory.c
    row = connection.execute(select(table.octets, table.at).where(table.name == name)).one_or_none()
    return None if row is None else Remembered(name, int.from_bytes(row.octets, "big"), row.at)


def remember(connection: Connection, name: str, number: int, at: int) -> Remembered:
    """Remember `number` and `at` under `name`, each if it is higher than what is known; gives what is known now.

    Neither goes back: a CRL of the same number and a later date raises the date alone.
    Call it inside a writer's act: the lock of the batch makes reading and writing one step.
    Raises Malformed(BAD_ARGUMENT) for a number that is negative or above 20 bytes, or a name above 120 characters.
    """
    return remember_all(connection, {name: number}, at)[name]


def remember_all(connection: Connection, numbers: Mapping[str, int], at: int) -> dict[str, Remembered]:
    """`remember` for many names at one moment, in a few statements: one round of CRLs has hundreds of them."""
    for name, number in numbers.items():
        if not 0 <= number <= _MAX_NUMBER or not 0 < len(name) <= _MAX_NAME:
            msg = f"verifier memory takes no number of {number.bit_length()} bits, or a name of {len(name)} characters"
            raise Malformed(Reason.BAD_ARGUMENT, msg)
    known = _find_all(connection, tuple(numbers))
    newest = {name: _raised(known.get(name), name, number, at) for name, number in numbers.items()}
    changed = [one for name, one in newest.items() if one != known.get(name)]
    _INSERT.change_many(
        connection,
        [
            {"name": one.name, "number": clipped, "octets": whole, "at": one.at}
            for one, clipped, whole in map(_encoded, changed)
            if one.name not in known
        ],
    )
    _UPDATE.change_many(
        connection,
        [
            {"of": one.name, "clipped": clipped, "whole": whole, "moment": one.at}
            for one, clipped, whole in map(_encoded, changed)
            if one.name in known
        ],
    )
    return newest


def _find_all(connection: Connection, names: tuple[str, ...]) -> dict[str, Remembered]:
    table, found = verifier_memory.c, dict[str, Remembered]()
    for start in range(0, len(names), _PAGE):
        query = select(table.name, table.octets, table.at).where(table.name.in_(names[start : start + _PAGE]))
        for row in connection.execute(query):
            found[row.name] = Remembered(row.name, int.from_bytes(row.octets, "big"), row.at)
    return found


def _raised(known: Remembered | None, name: str, number: int, at: int) -> Remembered:
    return (
        Remembered(name, number, at)
        if known is None
        else Remembered(name, max(number, known.number), max(at, known.at))
    )


def _encoded(one: Remembered) -> tuple[Remembered, int, bytes]:
    return one, min(one.number, _MAX_INTEGER), one.number.to_bytes(_NUMBER_BYTES, "big")
