"""What a verifier must not forget over a restart: the highest CRL numbers and times it has seen; verifies nothing."""

from __future__ import annotations

from dataclasses import dataclass

from sqlalchemy import Connection, select

from vagus.errors import Malformed
from vagus.reasons import Reason
from vagus.records.tables import verifier_memory

_OCTETS = 20  # RFC 5280 5.2.3: a CRL number has at most 20 octets
_MAX_NUMBER = (1 << (8 * _OCTETS)) - 1
_MAX_INTEGER = (1 << 63) - 1
_MAX_NAME = 120


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

    Neither goes back: a list of the same number and a later date raises the date alone.
    Call it inside a writer's act: the lock of the batch makes reading and writing one step.
    Raises Malformed(BAD_ARGUMENT) for a number that is negative or above 20 octets, or a name above 120 characters.
    """
    if not 0 <= number <= _MAX_NUMBER or not 0 < len(name) <= _MAX_NAME:
        msg = f"cannot remember a number of {number.bit_length()} bits under a name of {len(name)} characters"
        raise Malformed(Reason.BAD_ARGUMENT, msg)
    known = find_remembered(connection, name)
    if known is not None:
        if known.number >= number and known.at >= at:
            return known
        number, at = max(number, known.number), max(at, known.at)
    values = {"number": min(number, _MAX_INTEGER), "octets": number.to_bytes(_OCTETS, "big"), "at": at}
    if known is None:
        connection.execute(verifier_memory.insert().values(name=name, **values))
    else:
        connection.execute(verifier_memory.update().where(verifier_memory.c.name == name).values(**values))
    return Remembered(name, number, at)
