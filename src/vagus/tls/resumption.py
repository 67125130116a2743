"""Stores the chain that a peer sent above its leaf, for sessions that resume with the leaf alone; trusts none of it."""

from __future__ import annotations

from hashlib import sha256

_LEAVES = 50_000
_CHAIN_BYTES = 16_384  # bytes; longer chains are not stored, for the validator knows the intermediates of Vagus itself


class ChainMemory:
    """A bounded memory by leaf hash, oldest out first; one per ticket epoch, emptied by a new one."""

    __slots__ = ("_chains", "_interned", "_limit")

    def __init__(self, limit: int = _LEAVES) -> None:
        self._limit = limit
        self._chains: dict[bytes, tuple[bytes, ...]] = {}
        self._interned: dict[tuple[bytes, ...], tuple[bytes, ...]] = {}

    def remember(self, leaf_der: bytes, chain_der: tuple[bytes, ...]) -> None:
        """Store the chain that a full handshake showed above this leaf."""
        if not chain_der or sum(map(len, chain_der)) > _CHAIN_BYTES:
            return
        if len(self._interned) >= self._limit // 50:
            # drop the cache: foreign chains must not grow it, and chains in use stay referenced below
            self._interned.clear()
        key = sha256(leaf_der).digest()
        self._chains.pop(key, None)
        self._chains[key] = self._interned.setdefault(chain_der, chain_der)
        if len(self._chains) > self._limit:
            del self._chains[next(iter(self._chains))]

    def recall(self, leaf_der: bytes) -> tuple[bytes, ...]:
        """The chain that came above this leaf, or nothing: then the validator must know the intermediates itself."""
        return self._chains.get(sha256(leaf_der).digest(), ())
