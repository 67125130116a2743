"""Rows of signatures share acts of the writer; one that could not be written comes with the next, or settles."""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import Future
from typing import cast

from tests.simulator.installation import Installation
from vagus.authority.issuance import IssuanceToken
from vagus.authority.signature_rows import SignatureRows
from vagus.errors import LimitExceeded
from vagus.reasons import Reason
from vagus.records import certificates as rows
from vagus.records.engine.writer import Batch, Writer


class Counting:
    """A writer that counts its acts, and refuses as many as the test asks for."""

    def __init__(self, writer: Writer, refusals: int = 0) -> None:
        self.writer, self.refusals, self.submitted = writer, refusals, 0

    def submit(self, act: Callable[[Batch], object], *, is_patient: bool = False) -> Future[object]:
        self.submitted += 1
        if self.refusals:
            self.refusals -= 1
            raise LimitExceeded(Reason.OVERLOADED, "too many acts wait")
        return self.writer.submit(act, is_patient=is_patient)


def intended(installation: Installation, count: int) -> list[int]:
    """Leaf indices of certificates that were intended and not signed."""
    issuer = installation.issuers("h1/icu")["h1/icu"]
    issuance = installation.issuance()
    for number in range(count):
        order = installation.order(request_id=f"intended-{number}")
        assert isinstance(issuance.commit(issuance.prepare(order, issuer)).result(), IssuanceToken)
    return [row.leaf_index for row in installation.read(rows.list_intended)]


def states(installation: Installation, leaves: list[int]) -> set[str]:
    return {installation.find(rows.find_by_leaf, leaf).state for leaf in leaves}


def test_what_is_signed_while_the_writer_is_busy_shares_one_act(built: Installation) -> None:
    leaves = intended(built, 5)
    counting = Counting(built.writer)
    signed = SignatureRows(cast("Writer", counting))

    def busy(_: Batch) -> None:
        for leaf in leaves:
            signed.add(leaf, b"certificate %d" % leaf)

    built.writer.submit(busy).result()
    built.settle()
    assert counting.submitted == 1
    assert states(built, leaves) == {rows.ISSUED}
    assert built.read(rows.load_bytes, leaves[3])[1] == b"certificate %d" % leaves[3]


def test_an_overloaded_writer_is_asked_again_with_the_next_signature(built: Installation) -> None:
    leaves = intended(built, 2)
    signed = SignatureRows(cast("Writer", Counting(built.writer, refusals=1)))
    signed.add(leaves[0], b"first")
    built.settle()
    assert states(built, leaves) == {rows.INTENDED}
    signed.add(leaves[1], b"second")
    built.settle()
    assert states(built, leaves) == {rows.ISSUED}


def test_the_first_signature_of_a_leaf_stays(built: Installation) -> None:
    leaf = intended(built, 1)[0]
    signed = SignatureRows(built.writer)
    for content in (b"first", b"second"):
        signed.add(leaf, content)
        built.settle()
    assert built.read(rows.load_bytes, leaf)[1] == b"first"
