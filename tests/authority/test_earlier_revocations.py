"""What an imported CA revoked before it came here stays revoked: in CRLs, OCSP responses, by hand, and in the log."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec

from tests.authority.crls.reading import crl_path
from tests.authority.test_hierarchy import Elsewhere, import_pair
from tests.simulator.installation import BY, Installation
from tests.simulator.refusals import refuses
from vagus.authority import shards
from vagus.authority.crls.foreign import read_foreign_crl
from vagus.authority.earlier_revocations import LOST, record_crls, revoke_earlier
from vagus.authority.issuers import Issuer
from vagus.errors import Conflict, LimitExceeded, NotTrusted
from vagus.events.revocations import RevocationFollower
from vagus.reasons import Reason
from vagus.records.authorities import list_authorities
from vagus.records.engine.tables import (
    certificate_bytes,
    certificate_names,
    certificates,
    crl_deltas,
    crl_publications,
    crl_shards,
    revocations,
)
from vagus.records.publications import COMPLETE, find_publication
from vagus.records.revocation import revocations as revocation_rows
from vagus.x509.crls.building import RevocationReason
from vagus.x509.crls.decoding import decode_crl

DER = serialization.Encoding.DER
HOLD = x509.ReasonFlags.certificate_hold


@dataclass
class OldAuthority:
    """A CA that another operator ran until now."""

    installation: Installation
    elsewhere: Elsewhere
    key: ec.EllipticCurvePrivateKey
    certificate: x509.Certificate

    def revocation_list(
        self,
        number: int,
        listed: Mapping[int, x509.ReasonFlags | None],
        *,
        by: ec.EllipticCurvePrivateKey | None = None,
        base: int | None = None,
        at: datetime | None = None,
    ) -> bytes:
        """Its newest CRL."""
        now = self.elsewhere.at
        builder = x509.CertificateRevocationListBuilder(
            self.certificate.subject, now - timedelta(hours=2), now + timedelta(days=7)
        ).add_extension(x509.CRLNumber(number), critical=False)
        if base is not None:
            builder = builder.add_extension(x509.DeltaCRLIndicator(base), critical=True)
        for serial, reason in listed.items():
            entry = x509.RevokedCertificateBuilder(serial, at or now - timedelta(days=1))
            if reason is not None:
                entry = entry.add_extension(x509.CRLReason(reason), critical=False)
            builder = builder.add_revoked_certificate(entry.build())
        return builder.sign(by or self.key, hashes.SHA384()).public_bytes(DER)

    def hand_over(self, *lists: bytes) -> None:
        """Import its key, chain and CRLs."""
        import_pair(self.installation, self.elsewhere.pem(self.certificate), self.key, crls=lists)


@pytest.fixture
def old(installation: Installation) -> OldAuthority:
    elsewhere = Elsewhere(installation.clock.now())
    return OldAuthority(installation, elsewhere, *elsewhere.make("Old CA"))


def icu(installation: Installation) -> Issuer:
    return installation.issuers("h1/icu")["h1/icu"]


def published(installation: Installation, shard: str = "complete") -> dict[int, int]:
    """Serials and reasons in our newest CRL."""
    installation.publisher.publish_all(icu(installation))
    return reasons_in(crl_path(installation.folder / "published", f"{shard}.crl").read_bytes())


def crl_of(installation: Installation) -> x509.CertificateRevocationList:
    """Our newest complete CRL."""
    installation.publisher.publish_all(icu(installation))
    return x509.load_der_x509_crl(crl_path(installation.folder / "published", "complete.crl").read_bytes())


def reasons_in(crl_der: bytes) -> dict[int, int]:
    crl = decode_crl(crl_der)
    entries = crl.entries.get(crl.issuer.relative_names, {})
    return {int.from_bytes(serial, "big"): reason for serial, reason in entries.items()}


def test_what_was_revoked_or_held_stays_so_in_our_crls(installation: Installation, old: OldAuthority) -> None:
    reasons = {0x5EED: x509.ReasonFlags.key_compromise, 0xBEEF: None, 0xF00D: HOLD}
    old.hand_over(old.revocation_list(41, reasons))
    kept = {0x5EED: 1, 0xBEEF: 0, 0xF00D: 6}
    assert published(installation) == kept
    assert published(installation, "0") == kept


def test_the_dates_of_the_old_crl_stay_in_crls_ocsp_and_the_log(installation: Installation, old: OldAuthority) -> None:
    """A signature from before the revocation stays provable only if its date is kept."""
    before = old.elsewhere.at - timedelta(days=1)
    old.hand_over(old.revocation_list(41, {0x5EED: x509.ReasonFlags.key_compromise, 0xF00D: HOLD}))
    revoke_earlier(installation.writer, "h1/icu", 1, 0xBEEF, RevocationReason.SUPERSEDED, by=BY)
    found = {one.serial_number: one.revocation_date_utc for one in crl_of(installation)}
    assert found == {0x5EED: before, 0xF00D: before, 0xBEEF: installation.clock.now()}
    follower = RevocationFollower(installation.database, installation.clock)
    issuer = icu(installation).authority_id
    for serial, date in found.items():
        entry = follower.find(issuer, serial)
        assert entry is not None
        assert entry.at == int(date.timestamp()), "what OCSP responses give"
    follower.close()


@pytest.mark.parametrize("ahead", [timedelta(seconds=-1), timedelta(days=30)])
def test_a_date_in_the_future_is_the_time_of_the_import(
    installation: Installation, old: OldAuthority, ahead: timedelta
) -> None:
    now = old.elsewhere.at
    old.hand_over(old.revocation_list(41, {0x5EED: None}, at=now + ahead))
    (entry,) = crl_of(installation)
    assert entry.revocation_date_utc == min(now, now + ahead)


def test_our_numbers_go_on_from_theirs_however_high(installation: Installation, old: OldAuthority) -> None:
    ours = int(installation.clock.now().timestamp() * 1000)
    old.hand_over(old.revocation_list(ours + 10**9, {}))
    installation.publisher.publish_all(icu(installation))
    newest = installation.find(find_publication, icu(installation).authority_id, COMPLETE)
    assert newest.number > ours + 10**9


def test_a_crl_by_another_key_stops_the_import_before_a_key_is_stored(
    installation: Installation, old: OldAuthority
) -> None:
    forged = old.revocation_list(41, {}, by=ec.generate_private_key(ec.SECP384R1()))
    with refuses(Reason.BAD_SIGNATURE, NotTrusted):
        old.hand_over(forged)
    other = OldAuthority(old.installation, old.elsewhere, old.key, old.elsewhere.root)
    with refuses(Reason.CRL_INVALID, NotTrusted):
        old.hand_over(other.revocation_list(41, {}))
    assert not (installation.folder / "keystores").exists()
    old.hand_over(old.revocation_list(41, {}))


def test_a_delta_in_place_of_a_full_crl_stops_the_import_before_a_key_is_stored(
    installation: Installation, old: OldAuthority
) -> None:
    whole = old.revocation_list(41, {0x5EED: None})
    with refuses(Reason.CRL_INVALID, NotTrusted):
        old.hand_over(whole, old.revocation_list(42, {0xBEEF: None}, base=41))
    assert not (installation.folder / "keystores").exists()


@pytest.mark.parametrize("number", [(1 << 62) + 1, (1 << 63) - 2, 20_261_122_195_500_123_456, 1 << 100])
def test_a_number_that_ours_could_not_follow_stops_the_import_before_a_key_is_stored(
    installation: Installation, old: OldAuthority, number: int
) -> None:
    with refuses(Reason.TOO_LARGE, LimitExceeded) as refusal:
        old.hand_over(old.revocation_list(41, {0x5EED: None}), old.revocation_list(number, {}))
    assert (refusal.value.facts["limit"], refusal.value.facts["value"]) == (1 << 62, number)
    assert not (installation.folder / "keystores").exists()
    old.hand_over(old.revocation_list(1 << 62, {0x5EED: None}))
    for _ in range(3):
        installation.advance(hours=7)
        assert installation.publisher.publish_due(icu(installation))


def test_of_several_crls_a_hold_that_the_newest_leaves_out_has_ended(
    installation: Installation, old: OldAuthority
) -> None:
    held = {0x5EED: HOLD, 0xBEEF: None}
    old.hand_over(old.revocation_list(41, held), old.revocation_list(42, {0xBEEF: None}))
    assert published(installation) == {0xBEEF: 0}


def test_a_shard_stays_small_whatever_was_revoked_elsewhere(
    installation: Installation, old: OldAuthority, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(shards, "SHARD_PLACES", 4)
    monkeypatch.setattr(shards, "BLOCK", 2)
    old.hand_over(old.revocation_list(41, dict.fromkeys(range(1, 21))))
    assert len(published(installation)) == 20
    each = [published(installation, str(shard)) for shard in range(5)]
    assert [len(one) for one in each] == [4] * 5
    assert set().union(*each) == set(range(1, 21))


LostCrls = tuple[dict[int, bytes], int]


@pytest.fixture
def lost(built: Installation, monkeypatch: pytest.MonkeyPatch) -> LostCrls:
    """CRLs of shards 0 and 1 and the complete one, which the database has lost; serial of one in shard 1."""
    monkeypatch.setattr(shards, "BLOCK", 2)
    monkeypatch.setattr(shards, "SHARD_PLACES", 4)
    issuers = built.issuers("h1/icu")
    late = [built.issue(issuers) for _ in range(5)][-1]
    built.settle()
    point = x509.load_der_x509_certificate(late.der).extensions.get_extension_for_class(x509.CRLDistributionPoints)
    assert (point.value[0].full_name or [])[0].value.endswith("/1.crl")
    built.revoke(late, RevocationReason.KEY_COMPROMISE)
    lists = {one.shard: one.crl_der for one in built.publisher.publish_all(issuers["h1/icu"])}
    built.advance(seconds=40)
    with built.database.writing() as connection:
        lost = (revocations, certificate_bytes, certificate_names, certificates)
        for table in (*lost, crl_shards, crl_publications, crl_deltas):
            connection.execute(table.delete())
    return lists, late.serial


def take_back(built: Installation, *lists: bytes) -> None:
    authorities = built.read(list_authorities)
    found = [one for one in (read_foreign_crl(der, authorities) for der in lists) if one is not None]
    built.writer.submit(lambda batch: record_crls(batch, *found, since=LOST, by=BY)).result()


def signed_again(built: Installation) -> dict[int, set[int]]:
    """What our newly published CRLs name, by shard."""
    return {one.shard: set(reasons_in(one.crl_der)) for one in built.publisher.publish_due(built.icu)}


def test_what_the_crl_of_a_shard_names_stays_in_that_shard(built: Installation, lost: LostCrls) -> None:
    lists, serial = lost
    take_back(built, *lists.values())
    expected: dict[int, set[int]] = {0: set(), 1: {serial}, COMPLETE: {serial}}
    assert signed_again(built) == expected
    for _ in range(5):
        built.issue()
    built.advance(hours=7)
    expected |= {2: set(), 3: set()}
    assert signed_again(built) == expected, "new certificates enter neither of the shards that were handed out"


def test_a_certificate_of_unknown_shard_is_in_every_crl_that_it_may_name(built: Installation, lost: LostCrls) -> None:
    lists, serial = lost
    take_back(built, lists[COMPLETE])
    for _ in range(9):
        built.issue()
    built.settle()
    every = signed_again(built)
    assert {0, 1, 2, COMPLETE} <= set(every)
    assert set(map(frozenset, every.values())) == {frozenset({serial})}
    crl = built.find(find_publication, built.icu.authority_id, COMPLETE)
    assert len(x509.load_der_x509_crl(crl.crl_der)) == 1, "once in the complete CRL"


def test_a_shard_that_certificates_may_name_is_signed_again(built: Installation, lost: LostCrls) -> None:
    lists, _ = lost
    take_back(built, *lists.values())
    issuer = built.icu
    for _ in range(8):
        built.advance(days=1)
        built.publisher.publish_due(issuer)
    newest = built.find(find_publication, issuer.authority_id, 1)
    assert newest.next_update > built.clock.now().timestamp()


def test_two_rows_from_crls_share_no_key(installation: Installation, old: OldAuthority) -> None:
    """A compromise of one must not speak of the other."""
    old.hand_over(old.revocation_list(41, {1: HOLD, 2: None}))
    authority = icu(installation).authority_id
    installation.revocations.revoke(authority, 1, RevocationReason.KEY_COMPROMISE, by=BY).result()
    assert published(installation) == {1: 1, 2: 0}


def test_what_the_old_operator_left_good_can_be_revoked_by_its_number(
    installation: Installation, old: OldAuthority
) -> None:
    old.hand_over(old.revocation_list(41, {}))
    revoke = (installation.writer, "h1/icu", 1, 0x5EED, RevocationReason.KEY_COMPROMISE)
    assert revoke_earlier(*revoke, by=BY) == 1
    assert revoke_earlier(*revoke, by=BY) == 0
    assert published(installation) == {0x5EED: 1}


def test_an_authority_that_was_born_here_has_no_earlier_certificates(built: Installation) -> None:
    for name, reason in (("h1/icu", Reason.NOT_ISSUED), ("h9/icu", Reason.AUTHORITY_UNKNOWN)):
        with refuses(reason, Conflict):
            revoke_earlier(built.writer, name, 1, 0x5EED, RevocationReason.UNSPECIFIED, by=BY)
    assert built.read(revocation_rows.find_revoked_serial, 1, 0x5EED) is None
