"""Short-lived certificates with noRevAvail (RFC 9608) from policy to verifier: no pointers and no status, by policy."""

from __future__ import annotations

from dataclasses import replace
from datetime import timedelta
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.x509.oid import AuthorityInformationAccessOID, ExtensionOID

from tests.authority.test_snapshots import snapshot_maker
from tests.simulator.installation import BY, H1, ICU, ROOT, Installation
from tests.simulator.refusals import refuses
from vagus.authority.issuance import IssuedCertificate
from vagus.authority.issuers import OpenIssuers
from vagus.authority.snapshots import SNAPSHOT_KEYSTORE, open_snapshot_key
from vagus.errors import NotTrusted, PolicyRefusal
from vagus.fleet.database_status import DatabaseStatus
from vagus.policy.packs import SHIPPED, load_pack
from vagus.policy.values import PolicyPack
from vagus.reasons import Reason
from vagus.trust.anchors import AnchorSet
from vagus.trust.crl_rules import CrlRules
from vagus.trust.crl_status import CrlStatus
from vagus.trust.snapshot_status import SnapshotStatus
from vagus.trust.status import PathStatusSource, StatusSource
from vagus.trust.validation import Expectation, Role, Validator
from vagus.x509.certificates import decode_certificate
from vagus.x509.crls.building import RevocationReason
from vagus.x509.paths.search import Pool


@pytest.fixture
def pack(tmp_path: Path) -> PolicyPack:
    """The shipped pack, with technicians' certificates that are never revoked: they end within the shift."""
    head, mark, rest = SHIPPED.read_text().partition("[profiles.technician]")
    table, end, tail = rest.partition("\n\n")
    kept = [line for line in table.splitlines() if "_pointer" not in line]
    table = "\n".join([*kept, "crl_pointer = false", "ocsp_pointer = false", "short_lived = true"])
    place = tmp_path / "pack.toml"
    place.write_text(head + mark + table + end + tail)
    return load_pack(place)


@pytest.fixture
def built(installation: Installation) -> Installation:
    """One branch is enough here."""
    installation.build(ROOT, H1, ICU)
    return installation


@pytest.fixture
def issuers(built: Installation, pack: PolicyPack) -> OpenIssuers:
    built.pack = pack
    return built.issuers("h1/icu")


@pytest.fixture
def issued(built: Installation, issuers: OpenIssuers) -> IssuedCertificate:
    return built.issue(issuers, profile="technician")


def lists_above(built: Installation, issued: IssuedCertificate, rules: CrlRules) -> CrlStatus:
    """The CRLs of root and h1 only: none of h1/icu was ever loaded."""
    anchors = AnchorSet.from_der([issued.issuer.chain_der[-1]])
    status = CrlStatus(Pool(anchors, [decode_certificate(one) for one in issued.issuer.chain_der[:-1]]), rules=rules)
    for name in ("root", "h1"):
        status.load((built.folder / "published" / "crl" / name / "1" / "0.crl").read_bytes(), built.clock.now())
    return status


def validate(built: Installation, issued: IssuedCertificate, status: StatusSource | PathStatusSource) -> None:
    chain = [issued.issuer.certificate_der, *issued.issuer.chain_der]
    validator = Validator(AnchorSet.from_der([chain[-1]]), status)
    accepted = validator.validate(issued.der, chain[:-1], Expectation(role=Role.CLIENT), built.clock.now())
    assert accepted.serial == issued.serial


def test_it_has_no_rev_avail_and_no_pointer_to_status(issued: IssuedCertificate) -> None:
    certificate = x509.load_der_x509_certificate(issued.der)
    extension = certificate.extensions.get_extension_for_oid(x509.ObjectIdentifier("2.5.29.56"))
    assert not extension.critical
    with pytest.raises(x509.ExtensionNotFound):
        certificate.extensions.get_extension_for_oid(ExtensionOID.CRL_DISTRIBUTION_POINTS)
    access = certificate.extensions.get_extension_for_class(x509.AuthorityInformationAccess).value
    assert [one.access_method for one in access] == [AuthorityInformationAccessOID.CA_ISSUERS]


def test_a_verifier_needs_no_status_if_its_policy_honours_it(built: Installation, issued: IssuedCertificate) -> None:
    validate(built, issued, lists_above(built, issued, CrlRules()))


def test_a_verifier_that_does_not_honour_it_refuses(built: Installation, issued: IssuedCertificate) -> None:
    status = lists_above(built, issued, CrlRules(honours_no_rev_avail=False))
    with refuses(Reason.STATUS_UNAVAILABLE, NotTrusted):
        validate(built, issued, status)


def test_the_authority_above_it_is_asked_about_all_the_same(built: Installation, issued: IssuedCertificate) -> None:
    chain = issued.issuer.chain_der
    status = CrlStatus(Pool(AnchorSet.from_der([chain[-1]]), [decode_certificate(one) for one in chain[:-1]]))
    with refuses(Reason.STATUS_UNAVAILABLE, NotTrusted):
        validate(built, issued, status)


def test_the_gateways_of_its_own_installation_refuse_it_the_moment_it_is_revoked(
    built: Installation, issued: IssuedCertificate
) -> None:
    status = DatabaseStatus(built.database, built.follower(), bound=timedelta(seconds=2))
    validate(built, issued, status)
    built.revoke(issued, RevocationReason.KEY_COMPROMISE)
    with refuses(Reason.REVOKED, NotTrusted):
        validate(built, issued, status)


def test_a_snapshot_excuses_only_what_it_does_not_hold(
    built: Installation, issuers: OpenIssuers, issued: IssuedCertificate
) -> None:
    """What looks revoked is refused, also if the source for hits knows nothing."""
    other = built.issue(issuers, profile="technician")
    built.revoke(issued, RevocationReason.KEY_COMPROMISE)
    spki_der = open_snapshot_key(built.keystore(SNAPSHOT_KEYSTORE), "log.group.example").spki_der
    made = snapshot_maker(built).make(one_in=1 << 20, lifetime=timedelta(days=1), by=BY).snapshot_der
    issuer = decode_certificate(issued.issuer.certificate_der)
    at, late = built.clock.now(), built.clock.now() + timedelta(days=2)
    for on_hit in (None, lists_above(built, issued, CrlRules())):
        status = SnapshotStatus(spki_der, on_hit=on_hit)
        status.check_status(decode_certificate(issued.der), issuer, at)  # nothing is loaded
        status.load(made, at)
        for moment in (at, late):
            status.check_status(decode_certificate(other.der), issuer, moment)
            with refuses(Reason.STATUS_DOUBTFUL, NotTrusted):
                status.check_status(decode_certificate(issued.der), issuer, moment)
    strict = SnapshotStatus(spki_der, honours_no_rev_avail=False)
    with refuses(Reason.STATUS_UNAVAILABLE, NotTrusted):
        strict.check_status(decode_certificate(other.der), issuer, at)


def test_no_certificate_passes_the_lints_that_has_it_both_ways(built: Installation, pack: PolicyPack) -> None:
    profile = replace(pack.profile("technician"), has_crl_pointer=True)
    built.pack = replace(pack, profiles={**pack.profiles, "technician": profile})
    with refuses(Reason.LINT, PolicyRefusal):
        built.issue(built.issuers("h1/icu"), profile="technician")
