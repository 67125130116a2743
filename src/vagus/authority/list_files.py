"""The newest lists as files that any static server or CDN may hand out; signs nothing and changes no row.

Every serving process brings its folder up to the table, whoever signed, so folders of their own grow no older than a
shared one. What is written is what the table says under the folder's lock: a process that was held up between row and
file puts nothing older over what another has written meanwhile.
"""

from __future__ import annotations

import fcntl
import os
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING

from vagus.errors import Unavailable
from vagus.reasons import Reason
from vagus.records import publications as rows
from vagus.records.authorities import list_authorities
from vagus.records.publications import COMPLETE, DeltaRow, Publication

if TYPE_CHECKING:
    from pathlib import Path

    from vagus.records.database import Database

_PIECE = 1 << 20
_LOCK_SECONDS = 2.0
"""Whoever writes for longer is hung: that is told, and signing goes on."""
_LOOK_AGAIN_SECONDS = 0.02


@dataclass(frozen=True, slots=True)
class ListPlace:
    """One list of one generation of an authority; `slug` as `AuthorityRow.slug`."""

    authority_id: int
    slug: str
    generation: int
    shard: int

    @property
    def stem(self) -> str:
        """The file's path in a folder of lists, without what ends it."""
        name = "complete" if self.shard == COMPLETE else str(self.shard)
        return f"crl/{self.slug}/{self.generation}/{name}"


class ListFiles:
    """The lists in one folder, as this process knows them. Safe beside other processes on the same folder."""

    def __init__(self, database: Database, folder: Path) -> None:
        self._database = database
        self._folder = folder
        self._written: dict[ListPlace, int] = {}

    def find_behind(self) -> tuple[ListPlace, ...]:
        """The lists of which the table has another number than this process wrote last, or whose file is gone."""
        with self._database.reading() as connection:
            numbers = rows.list_numbers(connection)
            authorities = list_authorities(connection)
        places = (
            (ListPlace(row.id, row.slug, row.generation, shard), number)
            for row in authorities
            for shard, number in numbers.get(row.id, {}).items()
        )
        return tuple(
            place for place, number in places if self._written.get(place) != number or not self._list(place).exists()
        )

    def write(self, place: ListPlace, made: Publication | None = None, delta: DeltaRow | None = None) -> None:
        """Write the newest list and its delta, the list first: it is never older than its delta.

        They are `made` and `delta` unless the table has newer ones by now. A delta file that no list speaks of any more
        goes: it would keep what was revoked since from whoever adds it to an older list. Raises OSError, and
        Unavailable(STATUS_UNAVAILABLE) while another process hangs in the folder.
        """
        with self._turn(), self._database.reading() as connection:
            number = rows.find_number(connection, place.authority_id, place.shard, is_delta=False)
            if number is None:
                return
            if made is None or made.number != number:
                made = rows.find_publication(connection, place.authority_id, place.shard)
                delta = rows.find_delta(connection, place.authority_id, place.shard)
            if made is not None:
                write_public(self._list(place), made.crl_der)
            beside = self._folder / f"{place.stem}.delta.crl"
            if delta is None or delta.crl_der is None:
                beside.unlink(missing_ok=True)
            else:
                write_public(beside, delta.crl_der)
            self._written[place] = number

    def _list(self, place: ListPlace) -> Path:
        return self._folder / f"{place.stem}.crl"

    @contextmanager
    def _turn(self) -> Iterator[None]:
        """One writer at a time in this folder, from all processes."""
        self._folder.mkdir(mode=0o755, parents=True, exist_ok=True)
        descriptor = os.open(self._folder / ".lock", os.O_RDONLY | os.O_CREAT, 0o644)  # flock asks no more
        try:
            self._lock(descriptor)
            yield
        finally:
            os.close(descriptor)

    def _lock(self, descriptor: int) -> None:
        until = time.monotonic() + _LOCK_SECONDS
        while True:
            try:
                fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                if time.monotonic() >= until:
                    msg = f"another process has written in {self._folder} for {_LOCK_SECONDS:.0f} s; end it if it hangs"
                    raise Unavailable(Reason.STATUS_UNAVAILABLE, msg) from None
                time.sleep(_LOOK_AGAIN_SECONDS)
            else:
                return


def write_public(place: Path, content: bytes) -> None:
    """Replace a file that everyone may read, atomically and durably; nothing is written where it says so already."""
    if _says(place, content):
        return
    place.parent.mkdir(mode=0o755, parents=True, exist_ok=True)
    scratch = place.with_name(f".{place.name}.{os.getpid()}.new")
    with scratch.open("wb") as stream:
        stream.write(content)
        stream.flush()
        os.fsync(stream.fileno())
    scratch.chmod(0o644)
    scratch.replace(place)


def _says(place: Path, content: bytes) -> bool:
    """Whether a file holds these octets; one that begins otherwise is not read further."""
    try:
        with place.open("rb") as stream:
            if os.fstat(stream.fileno()).st_size != len(content):
                return False
            return all(stream.read(_PIECE) == content[at : at + _PIECE] for at in range(0, len(content), _PIECE))
    except FileNotFoundError:
        return False
