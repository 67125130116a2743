"""What CRLs say alone and together: the newest of a scope counts, permanent revocations count, holds end."""

from __future__ import annotations

from collections.abc import Callable
from datetime import datetime, timedelta

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding

from tests.simulator.installation import BY, STATUS_URL, Installation
from tests.simulator.refusals import refuses
from vagus.authority.crls.foreign import (
    MAX_NUMBER,
    CombinedEntry,
    ForeignCrl,
    check_signer,
    combine_crls,
    read_foreign_crl,
)
from vagus.authority.earlier_revocations import LOST, find_known_shard, record_crls
from vagus.authority.shards import SHARD_PLACES
from vagus.errors import LimitExceeded, NotTrusted
from vagus.reasons import Reason
from vagus.records.authorities import AuthorityRow, list_authorities
from vagus.records.certificates import EVERY_SHARD, count_places, find_certificate, find_shard, list_shards
from vagus.records.engine.writer import Batch
from vagus.x509.crls.building import RevocationReason
from vagus.x509.crls.decoding import decode_crl

HOLD = x509.ReasonFlags.certificate_hold
COMPROMISE = x509.ReasonFlags.key_compromise
SUPERSEDED = x509.ReasonFlags.superseded
X, Y = 0x5EED, 0xBEEF

MakeList = Callable[..., ForeignCrl]


@pytest.fixture
def make(built: Installation) -> MakeList:
    """Makes CRLs as h1/icu would have signed them after a backup: `shard` None is the complete one."""
    authority = next(row for row in authorities(built) if row.name == "h1/icu")
    key = ec.generate_private_key(ec.SECP384R1())
    begun: datetime = built.clock.now()

    def made(shard: int | None, number: int, listed: dict[int, x509.ReasonFlags]) -> ForeignCrl:
        at = begun + timedelta(seconds=number)
        name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "ICU")])
        builder = x509.CertificateRevocationListBuilder(name, at, at + timedelta(days=7))
        builder = builder.add_extension(x509.CRLNumber(number), critical=False)
        if shard is not None:
            url = x509.UniformResourceIdentifier(f"{STATUS_URL}/crl/h1.icu/1/{shard}.crl")
            point = x509.IssuingDistributionPoint([url], None, False, False, None, False, False)
            builder = builder.add_extension(point, critical=True)
        for serial, reason in listed.items():
            entry = x509.RevokedCertificateBuilder(serial, at).add_extension(x509.CRLReason(reason), critical=False)
            builder = builder.add_revoked_certificate(entry.build())
        return ForeignCrl(authority, decode_crl(builder.sign(key, hashes.SHA384()).public_bytes(Encoding.DER)))

    return made


def authorities(built: Installation) -> tuple[AuthorityRow, ...]:
    return built.read(list_authorities)


def said(*lists: ForeignCrl, home: int | None = None) -> dict[int, CombinedEntry]:
    return {serial: one for (_, serial), one in combine_crls(lists, lambda *_: home).items()}


def settle(built: Installation, *lists: ForeignCrl) -> int:
    def act(batch: Batch) -> int:
        return record_crls(batch, *lists, since=LOST, by=BY)

    return built.writer.submit(act).result()


def test_of_one_scope_only_the_newest_crl_counts_in_any_order(make: MakeList) -> None:
    older, newer = make(0, 1, {X: SUPERSEDED, Y: HOLD}), make(0, 2, {X: COMPROMISE})
    for lists in ((older, newer), (newer, older)):
        assert said(*lists) == {X: CombinedEntry(RevocationReason.KEY_COMPROMISE, dated_at=newer.dates[X])}


def test_a_permanent_revocation_is_graver_than_a_hold_and_a_compromise_gravest(make: MakeList) -> None:
    complete, shard = make(None, 3, {X: HOLD, Y: SUPERSEDED}), make(0, 2, {X: SUPERSEDED, Y: COMPROMISE})
    for lists in ((complete, shard), (shard, complete)):
        found = said(*lists)
        assert found[X].reason is RevocationReason.SUPERSEDED
        assert found[Y].reason is RevocationReason.KEY_COMPROMISE


@pytest.mark.parametrize("releasing", [0, None])
def test_a_hold_ends_with_a_later_crl_that_would_name_it(make: MakeList, releasing: int | None) -> None:
    holding = make(None if releasing == 0 else 0, 1, {X: HOLD})
    later, earlier = make(releasing, 2, {}), make(releasing, 0, {})
    assert said(holding, later, home=0) == {}
    assert said(holding, earlier, home=0)[X].reason is RevocationReason.CERTIFICATE_HOLD
    assert said(make(1, 1, {X: HOLD}), make(0, 2, {}))[X].reason is RevocationReason.CERTIFICATE_HOLD, "not its CRL"


def test_the_shard_is_that_of_the_only_crl_that_names_it_among_several(make: MakeList) -> None:
    of_one, of_both = {X: SUPERSEDED, Y: SUPERSEDED}, {Y: SUPERSEDED}
    found = said(make(0, 1, of_both), make(3, 1, of_one), make(None, 1, of_one))
    assert (found[X].shard, found[Y].shard) == (3, None)
    assert said(make(3, 1, of_one), make(None, 1, of_one))[X].shard is None, (
        "nothing distinguishes it from an entry of every shard"
    )


def test_a_crl_of_another_url_covers_no_shard_of_ours(built: Installation, make: MakeList) -> None:
    (authority,) = {make(0, 1, {}).authority}
    assert make(7, 1, {}).shard == 7
    offline = next(row for row in authorities(built) if row.is_offline)
    assert ForeignCrl(offline, make(7, 1, {}).crl).shard is None
    other = next(row for row in authorities(built) if row.name == "h1/er")
    assert ForeignCrl(other, make(7, 1, {}).crl).shard is None
    assert authority.name == "h1/icu"


def test_a_certificate_goes_into_the_shard_that_names_it_else_into_every_one(
    built: Installation, make: MakeList
) -> None:
    icu = make(0, 1, {}).authority
    both = {X: SUPERSEDED, Y: SUPERSEDED}
    assert settle(built, make(0, 1, {}), make(2, 1, {X: SUPERSEDED}), make(None, 1, both)) == 2
    with built.database.reading() as connection:
        placed, lost = (find_certificate(connection, icu.id, serial) for serial in (X, Y))
        assert placed is not None
        assert lost is not None
        assert (placed.shard, lost.shard) == (2, EVERY_SHARD)
        assert find_known_shard(connection, icu, X) == 2
        assert find_known_shard(connection, icu, Y) is None
        assert find_known_shard(connection, icu, 0xABCD) is None
        # shards whose CRLs were published are signed again, and take nothing new
        assert list_shards(connection, icu.id) == (0, 2)
        assert (find_shard(connection, icu.id) or (0, 0))[1] >= SHARD_PLACES
        assert count_places(connection, icu.id, EVERY_SHARD) == 1
    # a later CRL shows it
    settle(built, make(0, 2, {}), make(2, 2, both))
    assert built.read(find_known_shard, icu, Y) == 2


def test_a_reason_that_says_more_is_taken_over_and_one_that_says_less_is_no_news(
    built: Installation, make: MakeList
) -> None:
    assert settle(built, make(None, 1, {X: SUPERSEDED})) == 1
    assert settle(built, make(None, 2, {X: HOLD})) == 0
    assert settle(built, make(None, 3, {X: COMPROMISE})) == 1
    assert settle(built, make(None, 4, {X: SUPERSEDED})) == 0


def test_a_crl_that_another_key_signed_is_of_none_of_the_authorities(built: Installation, make: MakeList) -> None:
    with refuses(Reason.CRL_INVALID, NotTrusted):
        read_foreign_crl(make(0, 1, {}).crl.der, authorities(built))


def test_a_number_that_leaves_no_room_is_refused_with_the_limit(built: Installation) -> None:
    from tests.authority.test_earlier_revocations import OldAuthority
    from tests.authority.test_hierarchy import Elsewhere

    elsewhere = Elsewhere(built.clock.now())
    key = ec.generate_private_key(ec.SECP384R1())
    name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "Old CA")])
    old = OldAuthority(built, elsewhere, key, elsewhere.certify(name, key.public_key()))
    signer = old.certificate.public_bytes(Encoding.DER)
    check_signer(decode_crl(old.revocation_list(MAX_NUMBER, {})), signer)
    for number in (MAX_NUMBER + 1, 1 << 100):
        with refuses(Reason.TOO_LARGE, LimitExceeded) as refusal:
            check_signer(decode_crl(old.revocation_list(number, {})), signer)
        assert (refusal.value.facts["limit"], refusal.value.facts["value"]) == (MAX_NUMBER, number)
