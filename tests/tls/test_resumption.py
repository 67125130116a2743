"""The memory of chains is bounded and returns only chains that were stored."""

from __future__ import annotations

from vagus.tls.resumption import ChainMemory


def test_the_oldest_goes_first_and_what_is_too_long_is_not_stored() -> None:
    memory = ChainMemory(limit=100)
    for number in range(300):
        memory.remember(b"leaf %d" % number, (b"chain %d" % number,))
    memory.remember(b"huge", (b"x" * 20_000,))
    assert memory.recall(b"leaf 299") == (b"chain 299",)
    assert memory.recall(b"leaf 0") == memory.recall(b"huge") == ()
    assert len(memory._chains) == 100


def test_a_renewed_chain_replaces_the_old_one() -> None:
    memory = ChainMemory()
    memory.remember(b"leaf", (b"old",))
    memory.remember(b"leaf", (b"new",))
    assert memory.recall(b"leaf") == (b"new",)
