"""A database that is older than the published log or CRLs is noticed, and OCSP and CRLs are kept back."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import pytest

from tests.authority.crls.test_files import keep, newest
from tests.simulator.publishing import ICU, PublishedHospital, question_der
from tests.simulator.refusals import refuses
from vagus.authority.crls.files import CrlFiles
from vagus.authority.crls.foreign import read_foreign_crl
from vagus.authority.earlier_revocations import adopt_crl
from vagus.errors import Conflict, IntegrityFailure, Unavailable
from vagus.reasons import Reason
from vagus.records.authorities import list_authorities
from vagus.records.installation import set_restored, set_settled
from vagus.records.publications import COMPLETE
from vagus.server import setback_watch
from vagus.server.listeners.certificates import ListenerCertificate
from vagus.server.listeners.stapling import Stapler
from vagus.server.setback_watch import GuardedCrls, GuardedOcspResponses, SetbackWatch
from vagus.tls import Credential
from vagus.x509.certificates import decode_certificate
from vagus.x509.crls.decoding import decode_crl
from vagus.x509.ocsp.messages import CertStatus, decode_ocsp_response


@dataclass
class Node:
    """A process over the database, with a folder of CRLs and a published log of its own."""

    clinic: PublishedHospital
    log_says: Callable[[Path], bool] = lambda _: False
    marks: int = 0

    def __post_init__(self) -> None:
        self.published = self.clinic.built.folder / "published"
        self.log = self.clinic.built.folder / "log"
        database = self.clinic.built.database
        files = CrlFiles(database, self.published)
        self.setback_watch = SetbackWatch(database, files, self.log, is_log_longer=self._ask, mark=self._mark)
        self.crls = GuardedCrls(self.clinic.crls, self.setback_watch, database)
        self.responses = GuardedOcspResponses(self.clinic.responses, self.setback_watch)

    def _ask(self, log: Path) -> bool:
        assert log == self.log
        return self.log_says(log)

    def _mark(self) -> None:
        self.marks += 1

    def list_of(self, shard: int, *, is_delta: bool = False) -> bytes | None:
        self.clinic.crls.refresh()
        found = self.crls.find_cached_crl(ICU, 1, shard, is_delta=is_delta)
        found = found or self.crls.find_crl(ICU, 1, shard, is_delta=is_delta)
        return None if found is None else found.crl_der

    def file_of(self, name: str) -> bytes:
        return (self.published / "crl" / "h1.icu" / "1" / f"{name}.crl").read_bytes()

    def restore(self, *, log: bool = False) -> None:
        self.clinic.built.writer.submit(
            lambda batch: set_restored(batch.connection, batch.at, size=1, backup_sha256=bytes(32))
        ).result()
        if log:
            self.log.mkdir()
            (self.log / "checkpoint").write_bytes(b"")
        self.setback_watch.refresh()

    def adopt(self, name: str) -> None:
        found = read_foreign_crl(self.file_of(name), self.clinic.built.read(list_authorities))
        assert found is not None
        self.clinic.built.writer.submit(lambda batch: adopt_crl(batch, found)).result()


@pytest.fixture
def node(clinic: PublishedHospital) -> Node:
    made = Node(clinic)
    made.setback_watch.refresh()
    return made


def set_back(node: Node) -> None:
    """Shard 0 and the complete CRL are published anew, then the table is set back to before that."""
    clinic = node.clinic
    standby = [newest(clinic.built, clinic.icu, shard) for shard in (0, COMPLETE)]
    clinic.revoke(clinic.issue())
    clinic.advance(seconds=40)
    clinic.publish()
    for one in standby:
        keep(clinic.built, one)


def test_a_database_is_current_where_files_are_missing_equal_or_older(node: Node) -> None:
    clinic = node.clinic
    assert node.setback_watch.is_settled
    assert node.list_of(0) == node.file_of("0")
    clinic.revoke(clinic.issue())
    clinic.advance(seconds=40)
    before = {name: node.file_of(name) for name in ("0", "complete")}
    clinic.publish()
    for name, content in before.items():  # a folder that this node wrote a day ago
        (node.published / "crl" / "h1.icu" / "1" / f"{name}.crl").write_bytes(content)
    node.setback_watch.refresh()
    assert node.setback_watch.is_settled
    assert not node.setback_watch.is_blind
    for path in sorted(node.published.rglob("*.crl")):
        path.unlink()
    node.setback_watch.refresh()
    assert node.setback_watch.is_settled
    assert node.list_of(0) is not None
    assert node.setback_watch.waits == {}


def test_newer_crl_files_make_a_process_blind_until_the_database_has_them(
    node: Node, monkeypatch: pytest.MonkeyPatch
) -> None:
    clinic, question = node.clinic, question_der(decode_certificate(node.clinic.icu.certificate_der), 5)
    assert node.responses.respond(question, clinic.built.clock.now())
    set_back(node)
    monkeypatch.setattr(setback_watch, "_FRESH_SECONDS", 3600.0)
    assert node.setback_watch.is_settled_now(), "as it looked a moment ago"
    monkeypatch.setattr(setback_watch, "_FRESH_SECONDS", 0.0)
    assert not node.setback_watch.is_settled_now()
    assert (
        "crl/h1.icu/1/0.crl is newer" in node.setback_watch.waits["published"]
        or "complete" in node.setback_watch.waits["published"]
    )
    with refuses(Reason.RESTORE_UNSETTLED, Conflict):
        node.setback_watch.check()
    with refuses(Reason.RESTORE_UNSETTLED, Unavailable):
        node.responses.respond(question, clinic.built.clock.now())
    assert node.responses.find_cached(question, clinic.built.clock.now()) is None
    for shard, name in ((0, "0"), (COMPLETE, "complete")):
        assert node.list_of(shard) == node.file_of(name)
    assert node.list_of(0, is_delta=True) == node.file_of("0.delta")
    assert node.list_of(9) is None
    for name in ("0", "complete"):
        node.adopt(name)
    assert node.setback_watch.is_settled_now()
    assert node.setback_watch.waits == {}


def test_a_longer_log_makes_a_process_blind_and_crls_come_from_files_that_are_not_older(node: Node) -> None:
    assert node.marks == 0
    node.log_says = lambda _: True
    node.setback_watch.refresh()
    assert node.setback_watch.is_blind
    assert node.marks == 1
    assert node.list_of(0) == node.file_of("0")
    (node.published / "crl" / "h1.icu" / "1" / "0.crl").unlink()
    with refuses(Reason.RESTORE_UNSETTLED, Unavailable):
        node.list_of(0)


def test_the_log_of_another_installation_and_an_unavailable_database_change_nothing(node: Node) -> None:
    def foreign(_: Path) -> bool:
        raise IntegrityFailure(Reason.CHECKPOINT_INVALID, "of another name")

    def away(_: Path) -> bool:
        raise Unavailable(Reason.DATABASE_UNAVAILABLE, "away")

    node.log_says = foreign
    node.setback_watch.refresh()
    assert node.setback_watch.is_settled
    node.log_says = lambda _: True
    node.setback_watch.refresh()
    node.log_says = away
    with pytest.raises(Unavailable):
        node.setback_watch.refresh()
    assert node.setback_watch.is_blind


def test_a_restored_database_hands_out_adopted_crls_alone(node: Node) -> None:
    set_back(node)
    newest_list = node.file_of("0")
    for path in sorted(node.published.rglob("*.crl")):
        if path.name != "0.crl":
            path.unlink()
    node.adopt("0")
    node.restore()
    assert node.list_of(0) == newest_list
    assert decode_crl(newest_list).entries
    for shard, is_delta in ((COMPLETE, False), (0, True)):
        with refuses(Reason.RESTORE_UNSETTLED, Unavailable):
            node.list_of(shard, is_delta=is_delta)


@pytest.mark.parametrize("with_log", [False, True])
def test_files_that_are_as_old_as_a_restored_database_are_not_trusted(node: Node, with_log: bool) -> None:
    node.restore(log=with_log)
    assert node.setback_watch.is_blind is not with_log
    with pytest.raises(Unavailable):
        node.list_of(0)
    node.clinic.built.writer.submit(lambda batch: set_settled(batch.connection)).result()
    node.setback_watch.refresh()
    assert node.list_of(0) == node.file_of("0")


def test_certificates_of_authorities_are_handed_out_in_any_case(node: Node) -> None:
    node.restore()
    found = node.crls.find_cached_certificate(ICU, 1) or node.crls.find_certificate(ICU, 1)
    assert found == node.clinic.icu.certificate_der


def test_a_listener_staples_nothing_while_ocsp_is_kept_back(node: Node) -> None:
    clinic = node.clinic
    issued = clinic.issue()
    shown = ListenerCertificate(Credential(b"", b""), issued.der, issued.issuer.certificate_der, issued.serial)
    staple = Stapler(clinic.responses, node.setback_watch, clinic.built.clock).of(shown)
    assert decode_ocsp_response(staple()).singles[0].status is CertStatus.GOOD
    set_back(node)
    node.setback_watch.refresh()
    assert node.setback_watch.is_blind
    assert staple() == b""
