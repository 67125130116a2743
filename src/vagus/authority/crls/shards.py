"""Which CRL shard the next certificate of an authority belongs to; publishes nothing.

A shard is filled and then left: a certificate's shard never changes, old shards empty themselves as certificates
expire, and what a full shard weighs is known beforehand. Places are taken in blocks, so that several servers fill
one shard without a row written for each certificate.
"""

from __future__ import annotations

import threading
from dataclasses import dataclass
from typing import TYPE_CHECKING

from vagus.records import certificates as rows

if TYPE_CHECKING:
    from vagus.records.engine.database import Connection

SHARD_PLACES = 18_000
"""An entry with reason has 53 octets: a shard all revoked, and 3 blocks too many in it, stays under 1 MB."""
BLOCK = 250
"""Places taken at once; a killed process wastes at most these."""
_AHEAD = 10
"""The next shard begins when one place in so many is left: its list is out before a certificate names it."""


@dataclass(slots=True)
class _Block:
    """Places of a shard that this process took: how many are `left`, and `mark`, the shard's count with them."""

    left: int
    mark: int
    transaction: object | None
    """The transaction that took them; None once another one has found them there, so that they are committed."""


class ShardPlan:
    """The present shard of one authority in one process. Safe to ask from several threads."""

    __slots__ = ("_authority_id", "_blocks", "_current", "_full", "_turn")

    def __init__(self, authority_id: int, current: int = 0) -> None:
        self._authority_id = authority_id
        self._current = current
        self._blocks: dict[int, _Block] = {}
        self._full: set[int] = set()
        self._turn = threading.Lock()

    @property
    def current(self) -> int:
        """The shard whose URL the next certificate carries."""
        return self._current

    def take_place(self, connection: Connection, shard: int) -> None:
        """A certificate that carries `shard` takes its place there; called in its intent's transaction.

        A place is taken in that very shard, so a shard that any certificate names has a row and is published. Until the
        commit of a block is seen, each note looks whether it stands: an act or a batch that was undone took it back.
        An undone act may leave its place empty, and certificates that were prepared before the shard was full still
        enter it: neither comes near the margin.
        """
        with self._turn:
            block = self._blocks.get(shard)
            if block is None or not block.left or not self._is_still_taken(connection, shard, block):
                block = self._blocks[shard] = self._take_block(connection, shard)
            block.left -= 1
            if not block.left and shard in self._full:
                self._move_on(shard)

    def _is_still_taken(self, connection: Connection, shard: int, block: _Block) -> bool:
        if block.transaction is None:
            return True
        if rows.count_places(connection, self._authority_id, shard) < block.mark:
            return False
        if block.transaction is not connection.get_transaction():
            block.transaction = None
        return True

    def _take_block(self, connection: Connection, shard: int) -> _Block:
        mark = rows.take_places(connection, self._authority_id, shard, BLOCK)
        if mark >= SHARD_PLACES - SHARD_PLACES // _AHEAD:
            rows.take_places(connection, self._authority_id, shard + 1, 0)  # a row, and so a list
        if mark >= SHARD_PLACES:
            self._full.add(shard)
        if mark > SHARD_PLACES:  # another server had the last block
            self._move_on(shard)
        return _Block(BLOCK, mark, connection.get_transaction())

    def _move_on(self, shard: int) -> None:
        self._current = max(self._current, shard + 1)


def load_shard_plan(connection: Connection, authority_id: int) -> ShardPlan:
    """Where the authority's certificates stand now."""
    shard, taken = rows.find_shard(connection, authority_id) or (0, 0)
    if taken >= SHARD_PLACES:
        return ShardPlan(authority_id, shard + 1)
    # the newest may only have begun, while the one before it has room
    before = rows.count_places(connection, authority_id, shard - 1) if shard else 0
    return ShardPlan(authority_id, shard - 1 if 0 < before < SHARD_PLACES else shard)
