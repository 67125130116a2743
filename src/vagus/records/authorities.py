"""Authorities as rows, one for each generation: in, out and by name; `authority.hierarchy` decides who may sign."""

from __future__ import annotations

from dataclasses import dataclass

from sqlalchemy import insert, select, update

from vagus.records.engine.database import Connection
from vagus.records.engine.row_forms import RowForm
from vagus.records.engine.tables import authorities, authority_chain

REQUESTED = "requested"
ACTIVE = "active"
RETIRED = "retired"
REVOKED = "revoked"


@dataclass(frozen=True, slots=True, kw_only=True)
class AuthorityRow:
    """One generation of an authority; `certificate_der` is there once it was certified."""

    id: int = 0
    name: str
    generation: int
    kind: str
    parent_id: int | None
    is_offline: bool
    state: str = REQUESTED
    key_id: str
    keystore: str
    spki_sha256: bytes
    request_der: bytes | None
    certificate_der: bytes | None = None
    not_before: int | None = None
    not_after: int | None = None
    constrain_dn: bool = False

    @property
    def reference(self) -> str:
        """As people write it: `h1/icu#2`."""
        return f"{self.name}#{self.generation}"

    @property
    def slug(self) -> str:
        """As folders and URLs write the name: `h1.icu`."""
        return slug_of(self.name)


_FORM = RowForm(AuthorityRow)


def slug_of(name: str) -> str:
    """The name of an authority where no slash may be."""
    return name.replace("/", ".")


def insert_authority(connection: Connection, row: AuthorityRow) -> int:
    """Store an authority that waits for its certificate; gives its id (that of `row` is not read)."""
    columns = {name: value for name, value in _FORM.values(row).items() if name != "id"}
    inserted = connection.execute(insert(authorities).values({**columns, "state": REQUESTED}))
    return int((inserted.inserted_primary_key or (0,))[0])


def certify_authority(
    connection: Connection,
    authority_id: int,
    certificate_der: bytes,
    *,
    not_before: int,
    not_after: int,
    parent_id: int | None,
) -> None:
    """Store the certificate of an authority, which is active from now on."""
    connection.execute(
        update(authorities)
        .where(authorities.c.id == authority_id)
        .values(
            certificate_der=certificate_der,
            not_before=not_before,
            not_after=not_after,
            parent_id=parent_id,
            state=ACTIVE,
        )
    )


def set_authority_state(connection: Connection, authority_id: int, state: str) -> None:
    """Move an authority to `state`."""
    connection.execute(update(authorities).where(authorities.c.id == authority_id).values(state=state))


def set_chain(connection: Connection, authority_id: int, chain: tuple[bytes, ...]) -> None:
    """The certificates above an authority whose parents are not rows here, nearest first."""
    connection.execute(authority_chain.delete().where(authority_chain.c.authority_id == authority_id))
    for position, der in enumerate(chain):
        values = {"authority_id": authority_id, "position": position, "certificate_der": der}
        connection.execute(insert(authority_chain), values)


def load_foreign(connection: Connection, authority_id: int) -> tuple[bytes, ...]:
    """The certificates that are stored with an authority because no row here has them, nearest first."""
    table = authority_chain.c
    query = select(table.certificate_der).where(table.authority_id == authority_id).order_by(table.position)
    return tuple(bytes(der) for der in connection.execute(query).scalars())


def load_chain(connection: Connection, row: AuthorityRow) -> tuple[bytes, ...]:
    """The certificates above an authority, nearest first, its root last where the root is known here."""
    found: list[bytes] = []
    above: AuthorityRow | None = row
    while above is not None:
        if above.id != row.id and above.certificate_der is not None:
            found.append(above.certificate_der)
        found.extend(load_foreign(connection, above.id))
        above = None if above.parent_id is None else find_by_id(connection, above.parent_id)
    return tuple(found)


def find_by_id(connection: Connection, authority_id: int) -> AuthorityRow | None:
    """The authority of this id."""
    return _FORM.find(connection, select(authorities).where(authorities.c.id == authority_id))


def find_generation(connection: Connection, name: str, generation: int) -> AuthorityRow | None:
    """One generation of an authority."""
    query = select(authorities).where(authorities.c.name == name, authorities.c.generation == generation)
    return _FORM.find(connection, query)


def find_newest(connection: Connection, name: str, *, state: str | None = ACTIVE) -> AuthorityRow | None:
    """The newest generation of an authority in `state` (None: in any)."""
    query = select(authorities).where(authorities.c.name == name)
    if state is not None:
        query = query.where(authorities.c.state == state)
    return _FORM.find(connection, query.order_by(authorities.c.generation.desc()).limit(1))


def find_by_key(connection: Connection, spki_sha256: bytes) -> AuthorityRow | None:
    """The authority that holds this key."""
    return _FORM.read_optional(
        connection.execute(select(authorities).where(authorities.c.spki_sha256 == spki_sha256)).first()
    )


def list_authorities(connection: Connection, *, state: str | None = None) -> tuple[AuthorityRow, ...]:
    """Every authority (in `state`), in the order in which they were made."""
    query = select(authorities).order_by(authorities.c.id)
    if state is not None:
        query = query.where(authorities.c.state == state)
    return _FORM.list(connection, query)


def list_living(connection: Connection, at: int) -> tuple[AuthorityRow, ...]:
    """Active and retired authorities, each while a certificate of theirs may be valid: they must publish status."""
    return tuple(
        row
        for row in list_authorities(connection)
        if row.certificate_der is not None
        and row.state in {ACTIVE, RETIRED}
        and (row.not_after is None or row.not_after > at)
    )


def list_children(connection: Connection, authority_id: int) -> tuple[AuthorityRow, ...]:
    """The authorities right beneath one, in the order in which they were made."""
    query = select(authorities).where(authorities.c.parent_id == authority_id).order_by(authorities.c.id)
    return _FORM.list(connection, query)
