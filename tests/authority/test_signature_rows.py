"""Rows of signatures share acts of the writer; one that could not be written comes with the next, or settles."""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import Future
from typing import cast

import pytest
from sqlalchemy import Connection
from sqlalchemy.exc import OperationalError

from tests.simulator.installation import Installation
from vagus.authority.issuance import IssuanceToken
from vagus.authority.signature_rows import SignatureRows
from vagus.errors import LimitExceeded, Unavailable
from vagus.reasons import Reason
from vagus.records import certificates as rows
from vagus.records.engine.writer import Batch, Writer
from vagus.x509.crls.building import RevocationReason


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


class Failing:
    """Ends the next batch of a writer at one place, as a lost connection does."""

    def __init__(self, writer: Writer, monkeypatch: pytest.MonkeyPatch) -> None:
        self.place = ""
        self._begin = writer._open_batch
        monkeypatch.setattr(writer, "_open_batch", self._open)
        monkeypatch.setattr(writer, "_kill_points", self.reach)

    def _open(self, connection: Connection) -> Batch:
        self.reach("begin")
        return self._begin(connection)

    def reach(self, place: str) -> None:
        if place == self.place:
            self.place = ""
            raise OperationalError("COMMIT", {}, Exception("the server ended the connection"))


PLACES = ["begin", "before-commit", "after-commit"]


@pytest.mark.parametrize("place", PLACES)
def test_no_row_is_lost_with_the_batch_that_should_have_written_it(
    built: Installation, monkeypatch: pytest.MonkeyPatch, place: str
) -> None:
    leaves = intended(built, 3)
    signed, failing = SignatureRows(built.writer), Failing(built.writer, monkeypatch)
    failing.place = place
    for leaf in leaves[:2]:
        signed.add(leaf, b"certificate %d" % leaf)
    with pytest.raises(Unavailable):
        built.writer.submit(lambda _: None).result()
    assert len(signed) == 2
    signed.add(leaves[2], b"certificate %d" % leaves[2])  # the next signature brings the others along
    built.settle()
    assert (states(built, leaves), len(signed)) == ({rows.ISSUED}, 0)
    assert [built.read(rows.load_bytes, leaf)[1] for leaf in leaves] == [b"certificate %d" % leaf for leaf in leaves]


@pytest.mark.parametrize("place", PLACES)
def test_without_a_further_signature_a_retry_writes_what_waits(
    built: Installation, monkeypatch: pytest.MonkeyPatch, place: str
) -> None:
    leaf = intended(built, 1)[0]
    signed, failing = SignatureRows(built.writer), Failing(built.writer, monkeypatch)
    for _ in range(2):  # it fails twice
        failing.place = place
        signed.add(leaf, b"signed") if not len(signed) else signed.retry()
        with pytest.raises(Unavailable):
            built.writer.submit(lambda _: None).result()
    signed.retry()
    built.settle()
    assert (states(built, [leaf]), len(signed)) == ({rows.ISSUED}, 0)
    counting = Counting(built.writer)
    signed._writer = cast("Writer", counting)
    signed.retry()
    assert counting.submitted == 0, "nothing waits, so the writer is not asked"


def test_an_act_that_fails_alone_loses_no_row(built: Installation, monkeypatch: pytest.MonkeyPatch) -> None:
    leaf = intended(built, 1)[0]
    signed = SignatureRows(built.writer)

    def fail(*_: object) -> None:
        raise ValueError("a value that the driver refuses")

    with monkeypatch.context() as patch:
        patch.setattr(rows, "note_signatures", fail)
        signed.add(leaf, b"signed")
        built.settle()
        assert (states(built, [leaf]), len(signed)) == ({rows.INTENDED}, 1)
    signed.retry()
    built.settle()
    assert states(built, [leaf]) == {rows.ISSUED}


def test_one_that_was_revoked_before_its_row_was_written_keeps_its_bytes(
    built: Installation, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its device has the certificate, so the records must have it too."""
    row = built.find(rows.find_by_leaf, intended(built, 1)[0])
    signed, failing = SignatureRows(built.writer), Failing(built.writer, monkeypatch)
    failing.place = "before-commit"
    signed.add(row.leaf_index, b"signed")
    with pytest.raises(Unavailable):
        built.writer.submit(lambda _: None).result()
    built.revocations.revoke(row.authority_id, row.serial, RevocationReason.KEY_COMPROMISE, by="operator:x").result()
    signed.retry()
    built.settle()
    assert states(built, [row.leaf_index]) == {rows.REVOKED}
    assert built.read(rows.load_bytes, row.leaf_index)[1] == b"signed"


def test_memory_is_bounded_while_the_writer_takes_nothing(built: Installation) -> None:
    signed = SignatureRows(cast("Writer", Counting(built.writer, refusals=9)), most_waiting=4)
    for leaf in range(6):
        signed.add(leaf, b"signed")
    assert len(signed) == 4
