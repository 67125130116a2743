"""A snapshot decides offline: absence passes, a hit is checked or refused, age and unknown issuers refuse."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import datetime, timedelta
from pathlib import Path

import pytest

from tests.authority.test_snapshots import snapshot_maker
from tests.simulator.installation import BY, H1, ICU, ROOT, Installation, new_installation
from tests.simulator.refusals import reason_of, refuses
from tests.trust.test_status import Says
from vagus.authority.issuance import IssuedCertificate
from vagus.authority.issuers import OpenIssuers
from vagus.authority.snapshots import SNAPSHOT_KEYSTORE, open_snapshot_key
from vagus.errors import NotTrusted
from vagus.reasons import Reason
from vagus.records.authorities import find_generation
from vagus.trust.anchors import AnchorSet
from vagus.trust.crl_memory import CrlMark, VolatileCrlMemory
from vagus.trust.crl_status import CrlStatus
from vagus.trust.snapshot_status import SnapshotStatus
from vagus.trust.status import AllSources, FirstSource, StatusSource
from vagus.trust.validation import Expectation, Role, Validator
from vagus.x509.certificates import PathCertificate, decode_certificate
from vagus.x509.crls.building import RevocationReason
from vagus.x509.paths.search import Pool, ValidPath


@dataclass
class Clinic:
    """An installation that makes snapshots, and an offline gateway that knows its anchors and its snapshot key."""

    built: Installation
    issuers: OpenIssuers

    @property
    def now(self) -> datetime:
        return self.built.clock.now()

    def make(self, *, one_in: int = 1 << 20, hours: int = 24) -> bytes:
        return snapshot_maker(self.built).make(one_in=one_in, lifetime=timedelta(hours=hours), by=BY).snapshot_der

    @property
    def spki_der(self) -> bytes:
        return open_snapshot_key(self.built.keystore(SNAPSHOT_KEYSTORE), "log.group.example").spki_der

    def gateway(self, **how: object) -> SnapshotStatus:
        status = SnapshotStatus(self.spki_der, **how)  # type: ignore[arg-type]
        status.load(self.make(), self.now)
        return status

    def issue(self) -> IssuedCertificate:
        issued = self.built.issue(self.issuers)
        self.built.settle()
        return issued

    def revoke(self, issued: IssuedCertificate) -> None:
        self.built.revoke(issued, RevocationReason.KEY_COMPROMISE)

    def crls(self, issued: IssuedCertificate) -> CrlStatus:
        """The complete CRL of h1/icu as it is published now."""
        chain = [decode_certificate(one) for one in (issued.issuer.certificate_der, *issued.issuer.chain_der[:-1])]
        source = CrlStatus(Pool(AnchorSet.from_der([issued.issuer.chain_der[-1]]), chain))
        crl = self.built.folder / "published" / "crl" / "h1.icu" / "1" / "complete.crl"
        source.load(crl.read_bytes(), self.now)
        return source

    def validate(self, status: StatusSource, issued: IssuedCertificate) -> None:
        chain = [issued.issuer.certificate_der, *issued.issuer.chain_der]
        validator = Validator(AnchorSet.from_der([chain[-1]]), status)
        validator.validate(issued.der, chain[:-1], Expectation(role=Role.CLIENT), self.now)


@contextmanager
def a_clinic(folder: Path) -> Iterator[Clinic]:
    with new_installation(folder) as built:
        built.build(ROOT, H1, ICU)
        yield Clinic(built, built.issuers("h1/icu"))


@pytest.fixture
def clinic(tmp_path: Path) -> Iterator[Clinic]:
    with a_clinic(tmp_path) as made:
        yield made


def pair(issued: IssuedCertificate) -> tuple[PathCertificate, PathCertificate]:
    return decode_certificate(issued.der), decode_certificate(issued.issuer.certificate_der)


def refused(status: StatusSource, issued: IssuedCertificate, at: datetime) -> Reason:
    return reason_of(status.check_status, *pair(issued), at, error=NotTrusted)


def test_a_good_path_passes_offline_and_a_revoked_leaf_does_not(clinic: Clinic) -> None:
    good, bad = clinic.issue(), clinic.issue()
    clinic.revoke(bad)
    status = clinic.gateway()
    clinic.validate(status, good)
    with refuses(Reason.STATUS_DOUBTFUL, NotTrusted) as caught:
        clinic.validate(status, bad)
    assert caught.value.facts["one_in"] == 1 << 20


def test_a_revoked_authority_is_in_it_too(clinic: Clinic) -> None:
    good = clinic.issue()
    h1 = decode_certificate(good.issuer.chain_der[0])
    root = clinic.built.find(find_generation, "root", 1)
    clinic.built.revocations.revoke(root.id, h1.serial, RevocationReason.CA_COMPROMISE, by=BY).result()
    with refuses(Reason.STATUS_DOUBTFUL, NotTrusted):
        clinic.validate(clinic.gateway(), good)


def test_a_hold_is_in_it_and_a_release_is_not(clinic: Clinic) -> None:
    issued = clinic.issue()
    clinic.built.hold(issued)
    assert refused(clinic.gateway(), issued, clinic.now) is Reason.STATUS_DOUBTFUL
    clinic.built.release(issued)
    clinic.built.advance(seconds=1)
    clinic.gateway().check_status(*pair(issued), clinic.now)


def test_what_has_expired_is_left_out(clinic: Clinic) -> None:
    issued = clinic.issue()
    clinic.revoke(issued)
    clinic.built.advance(days=3 * 365)
    status = clinic.gateway()
    assert status.snapshot is not None
    assert status.snapshot.count == 0


def test_a_hit_is_asked_of_the_online_source_and_its_word_counts(clinic: Clinic) -> None:
    good, bad = clinic.issue(), clinic.issue()
    clinic.revoke(bad)
    says_good, says_revoked = Says(None), Says(Reason.REVOKED)
    clinic.gateway(on_hit=says_good).check_status(*pair(bad), clinic.now)
    clinic.built.advance(seconds=1)
    assert refused(clinic.gateway(on_hit=says_revoked), bad, clinic.now) is Reason.REVOKED
    clinic.built.advance(seconds=1)
    clinic.gateway(on_hit=says_revoked).check_status(*pair(good), clinic.now)
    assert (says_good.asked, says_revoked.asked) == (1, 1), "only hits are asked about"


def test_a_chance_hit_is_cleared_by_crls(clinic: Clinic) -> None:
    """One in two looks revoked: the CRLs say which one is."""
    bad = clinic.issue()
    clinic.revoke(bad)
    clinic.built.publisher.publish_due(clinic.issuers["h1/icu"])
    status = SnapshotStatus(clinic.spki_der)
    snapshot = status.load(clinic.make(one_in=2), clinic.now)
    pairs = ((one, *pair(one)) for one in (clinic.issue() for _ in range(40)))
    good = next(one for one, leaf, ca in pairs if snapshot.may_be_revoked(ca.spki_sha256, leaf.serial_bytes))
    assert refused(status, good, clinic.now) is Reason.STATUS_DOUBTFUL
    both = SnapshotStatus(clinic.spki_der, on_hit=clinic.crls(good))
    both.load(clinic.make(one_in=2), clinic.now)
    both.check_status(*pair(good), clinic.now)
    assert refused(both, bad, clinic.now) is Reason.REVOKED
    # and with the path, as a validator asks
    (anchor,) = AnchorSet.from_der([good.issuer.chain_der[-1]])
    both.check_status_in(ValidPath(pair(good), anchor, frozenset()), 0, clinic.now)
    with refuses(Reason.REVOKED, NotTrusted):
        both.check_status_in(ValidPath(pair(bad), anchor, frozenset()), 0, clinic.now)


@pytest.mark.parametrize("several", [FirstSource, AllSources])
def test_an_older_crl_clears_nothing_that_looks_revoked_in_a_newer_snapshot(
    clinic: Clinic, several: type[FirstSource]
) -> None:
    bad = clinic.issue()
    clinic.built.publisher.publish_all(clinic.issuers["h1/icu"])
    lists = clinic.crls(bad)
    clinic.built.advance(hours=1)
    clinic.revoke(bad)
    lists.check_status(*pair(bad), clinic.now)
    assert refused(several([clinic.gateway(), lists]), bad, clinic.now) is Reason.STATUS_DOUBTFUL


@pytest.mark.parametrize("silence", [Reason.STATUS_UNAVAILABLE, Reason.STATUS_STALE])
def test_missing_status_of_the_source_for_hits_leaves_it_doubtful(clinic: Clinic, silence: Reason) -> None:
    """Otherwise a source that is older than the snapshot would clear it."""
    bad = clinic.issue()
    clinic.revoke(bad)
    status = clinic.gateway(on_hit=Says(silence, stale_seconds=5))
    beside: list[StatusSource] = [AllSources([status, Says(None)]), FirstSource([status, Says(None)])]
    for one in (status, *beside):
        assert refused(one, bad, clinic.now) is Reason.STATUS_DOUBTFUL


def test_a_clock_that_was_set_back_clears_nothing_that_looks_revoked(clinic: Clinic) -> None:
    bad = clinic.issue()
    clinic.revoke(bad)
    both = AllSources([clinic.gateway(), Says(None)])
    assert refused(both, bad, clinic.now - timedelta(minutes=6)) is Reason.STATUS_DOUBTFUL


def test_what_an_old_snapshot_holds_as_revoked_is_doubtful_and_not_only_stale(clinic: Clinic) -> None:
    bad, good = clinic.issue(), clinic.issue()
    clinic.revoke(bad)
    late = clinic.now + timedelta(hours=25)
    status = clinic.gateway()
    assert refused(status, good, late) is Reason.STATUS_STALE
    assert refused(status, bad, late) is Reason.STATUS_DOUBTFUL


def test_it_fails_closed_when_it_is_too_old(clinic: Clinic) -> None:
    issued = clinic.issue()
    status = clinic.gateway()
    status.check_status(*pair(issued), clinic.now + timedelta(hours=24))
    with refuses(Reason.STATUS_STALE, NotTrusted) as refusal:
        status.check_status(*pair(issued), clinic.now + timedelta(hours=24, seconds=9))
    assert refusal.value.facts["stale_seconds"] == 9
    clinic.built.advance(seconds=1)
    control = clinic.gateway(longest_age=timedelta(hours=2))
    assert refused(control, issued, clinic.now + timedelta(hours=2, seconds=1)) is Reason.STATUS_STALE


def test_missing_status_refuses(clinic: Clinic, tmp_path: Path) -> None:
    issued = clinic.issue()
    empty = SnapshotStatus(clinic.spki_der)
    assert refused(empty, issued, clinic.now) is Reason.STATUS_UNAVAILABLE
    with a_clinic(tmp_path / "other") as other:
        assert refused(clinic.gateway(), other.issue(), clinic.now) is Reason.STATUS_UNAVAILABLE
    first = FirstSource([empty, clinic.gateway()])
    first.check_status(*pair(issued), clinic.now)


def test_a_clock_that_was_set_back_is_seen(clinic: Clinic) -> None:
    issued = clinic.issue()
    status = clinic.gateway()
    assert refused(status, issued, clinic.now - timedelta(minutes=6)) is Reason.CLOCK_ROLLBACK
    clinic.built.advance(seconds=1)
    early = SnapshotStatus(clinic.spki_der)
    with refuses(Reason.SNAPSHOT_INVALID, NotTrusted):
        early.load(clinic.make(), clinic.now - timedelta(minutes=6))


def test_an_older_snapshot_is_never_taken_back_in(clinic: Clinic) -> None:
    old = clinic.make()
    clinic.built.advance(hours=1)
    memory = VolatileCrlMemory()
    status = SnapshotStatus(clinic.spki_der, memory=memory)
    new = clinic.make()
    status.load(new, clinic.now)
    status.load(new, clinic.now)
    for one in (status, SnapshotStatus(clinic.spki_der, memory=memory)):
        with refuses(Reason.SNAPSHOT_ROLLBACK, NotTrusted):
            one.load(old, clinic.now)
    assert isinstance(memory.find(f"snapshot:{hashlib.sha256(clinic.spki_der).hexdigest()}"), CrlMark)


def test_a_snapshot_of_another_installation_is_refused_and_the_present_one_stays(
    clinic: Clinic, tmp_path: Path
) -> None:
    status = clinic.gateway()
    before = status.snapshot
    with a_clinic(tmp_path / "other") as other:
        foreign = other.make()
    with refuses(Reason.SNAPSHOT_INVALID, NotTrusted):
        status.load(foreign, clinic.now)
    assert status.snapshot is before
