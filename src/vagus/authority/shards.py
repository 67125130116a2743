"""Chooses the CRL shard of an authority's next certificate; publishes nothing.

A shard is filled once and then left. A certificate's shard never changes, old shards become empty as certificates
expire, and the size of a full shard's CRL is known beforehand. Places are taken in blocks of `BLOCK`, so that several
servers fill one shard without writing a row for each certificate.

    shard 0 [ block | block | ... | block ]  full: 18,000 places
    shard 1 [ block | block |                current: the next certificates name its URL
    shard 2                                  its row, and so its CRL, exists once shard 1 is nine tenths full
"""

from __future__ import annotations

import threading
from dataclasses import dataclass
from typing import TYPE_CHECKING

from vagus.records import certificates as rows

if TYPE_CHECKING:
    from vagus.records.engine.database import Connection

SHARD_PLACES = 18_000
"""An entry with a reason has 53 bytes. A CRL with all of a shard, and 3 blocks more, stays under 1 MB."""
BLOCK = 250
"""Places taken at once; a process that is killed leaves at most these unused."""
_AHEAD = 10
"""The next shard begins when one place in so many is left, so its CRL is published before a certificate names it."""


@dataclass(slots=True)
class _Block:
    """A block of places that this process took. `left` are unused; `mark` is the count of the shard's row with them."""

    left: int
    mark: int
    transaction: object | None
    """The transaction that took the block; None once a later transaction has seen it, and so it is committed."""


class ShardPlan:
    """The current shard of one authority in one process. Safe to use from several threads.

    `take_place` runs in the writer's transaction and holds `_turn`, which protects all fields. `current` is read
    without it: a certificate that was prepared with an older value takes its place in that older shard.
    """

    __slots__ = ("_authority_id", "_blocks", "_full", "_turn", "current")

    def __init__(self, authority_id: int, current: int = 0) -> None:
        self._authority_id = authority_id
        self.current = current
        """The shard whose URL the next certificate carries."""
        self._blocks: dict[int, _Block] = {}
        self._full: set[int] = set()
        self._turn = threading.Lock()

    def take_place(self, connection: Connection, shard: int) -> None:
        """Take a place in `shard` for a certificate that names it; called in the transaction of its intent.

        So every shard that a certificate names has a row and is published. A block counts only once its transaction has
        committed: an act or batch that was undone took the block back. Until then each call reads the shard's row
        again. An act that was undone may leave its place empty, and certificates that were prepared before the shard
        was full still enter it. Both stay far below the margin of 3 blocks.
        """
        with self._turn:
            # Places are taken from the database in blocks, so that most issuances change no row of `crl_shards`. A
            # block is owned by this process; the lock `_turn` guards the blocks and `current`.
            block = self._blocks.get(shard)
            if block is None or not block.left or not self._is_still_taken(connection, shard, block):
                block = self._blocks[shard] = self._take_block(connection, shard)
            block.left -= 1
            if not block.left and shard in self._full:
                self._move_on(shard)

    def _is_still_taken(self, connection: Connection, shard: int, block: _Block) -> bool:
        if block.transaction is None:
            return True
        # The block was taken in a transaction that may have been rolled back. The row has at least `mark` places only
        # if that transaction committed, or is this one.
        if rows.count_places(connection, self._authority_id, shard) < block.mark:
            return False
        if block.transaction is not connection.get_transaction():
            block.transaction = None
        return True

    def _take_block(self, connection: Connection, shard: int) -> _Block:
        # `mark` is the number of places given out in the shard after this block. Batches of all servers run one after
        # the other under the lock of log_head, so two servers never take the same block.
        mark = rows.take_places(connection, self._authority_id, shard, BLOCK)
        if mark >= SHARD_PLACES - SHARD_PLACES // _AHEAD:
            # give the next shard a row, so that a CRL is published for it before its first certificate
            rows.take_places(connection, self._authority_id, shard + 1, 0)
        if mark >= SHARD_PLACES:
            self._full.add(shard)
        if mark > SHARD_PLACES:  # another server took the last block of places in this shard
            self._move_on(shard)
        return _Block(BLOCK, mark, connection.get_transaction())

    def _move_on(self, shard: int) -> None:
        self.current = max(self.current, shard + 1)


def load_shard_plan(connection: Connection, authority_id: int) -> ShardPlan:
    """The current shard of the authority, from the database."""
    shard, taken = rows.find_shard(connection, authority_id) or (0, 0)
    if taken >= SHARD_PLACES:
        return ShardPlan(authority_id, shard + 1)
    # The newest shard may have its row already while the shard before it still has free places.
    before = rows.count_places(connection, authority_id, shard - 1) if shard else 0
    return ShardPlan(authority_id, shard - 1 if 0 < before < SHARD_PLACES else shard)
