"""A CA from elsewhere is imported only if the verifiers here accept what it issues; each refusal beside its twin."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat

from tests.simulator.installation import BY, GROUP, H1, ICU, INFRA, ROOT, SDC, Installation, new_installation
from tests.simulator.refusals import refuses
from tests.x509 import chains
from tests.x509.chains import (
    AT,
    CA_USAGE,
    CLIENT_AUTH,
    DAY,
    SERVER_AUTH,
    Ext,
    Made,
    basic,
    constraints,
    purposes,
)
from vagus.authority.imports import read_chain
from vagus.errors import VagusError
from vagus.fleet.ca_trial import CaTrial
from vagus.fleet.device_anchors import device_anchors
from vagus.policy.plans import AuthorityKind, PlannedAuthority
from vagus.reasons import Reason
from vagus.records.authorities import find_generation, list_authorities
from vagus.trust.status import UnsafeNoStatus
from vagus.trust.validation import Expectation, Role, Validator
from vagus.x509.pem import encode_certificates

OLD_ROOT = chains.root("O=Old Clinic,CN=Root", private=chains.key("p384", 1))
MAIL = "1.3.6.1.5.5.7.3.4"
OWN, UNIT = f"h1.{GROUP}", f"icu.h1.{GROUP}"
DEVICE = "a" * 26
NEVER = datetime(9999, 12, 31, 23, 59, 59, tzinfo=UTC)


def authority(*extensions: Ext, subject: str | bytes = "O=Old Clinic,CN=CA", **changes: Any) -> Made:
    """A CA below the old root; extensions in place of those of the same kind."""
    wanted = {one.oid: one for one in (basic(path_length=0), CA_USAGE, *extensions)}
    given = {"issuer": OLD_ROOT, "private": chains.key("p384", 2), "not_after": AT + 3000 * DAY, **changes}
    return chains.make(subject, [one for one in wanted.values() if one.value], **given)


def without(oid: str) -> Ext:
    return Ext(oid, b"")


@pytest.fixture
def installation(tmp_path: Path) -> Iterator[Installation]:
    with new_installation(tmp_path) as new:
        new.clock.set(AT)
        new.build()
        yield new


def take_over(
    installation: Installation, made: Made, planned: PlannedAuthority = ICU, above: Sequence[Made] = (OLD_ROOT,)
) -> str:
    pkcs8 = made.private.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
    pem = encode_certificates([made.der, *(one.der for one in above)])
    return installation.hierarchy.import_authority(planned, pem, pkcs8, None, crls=[], by=BY)[0]


REFUSED: dict[str, tuple[Made, Reason]] = {
    "purposes of mail": (authority(purposes(MAIL)), Reason.ROLE_FORBIDDEN),
    "purposes of servers": (authority(purposes(SERVER_AUTH)), Reason.ROLE_FORBIDDEN),
    "names of another domain": (authority(constraints([("dns", "old.example")])), Reason.NAME_CONSTRAINT),
    "names of another unit": (authority(constraints([("dns", f"er.{OWN}")])), Reason.NAME_CONSTRAINT),
    "its own domain excluded": (authority(constraints((), [("dns", GROUP)])), Reason.NAME_CONSTRAINT),
    "name constraints that do not decode": (authority(Ext("2.5.29.30", b"\x30\x03\xa0\x01\x00", True)), Reason.NON_DER),
    "a subtree that is no name": (authority(constraints([("dns", "a b")])), Reason.BAD_EXTENSION),
    "begins in 2030": (authority(not_before=AT + 1000 * DAY), Reason.NOT_YET_VALID),
    "has ended": (authority(not_after=AT - DAY), Reason.EXPIRED_CA),
    "no keyUsage": (authority(without("2.5.29.15")), Reason.KEY_USAGE),
    "basicConstraints not critical": (authority(basic(path_length=0, critical=False)), Reason.PROFILE_VIOLATION),
    "serial 0": (authority(serial=0), Reason.PROFILE_VIOLATION),
    "serial of 21 bytes": (authority(serial=1 << 160), Reason.PROFILE_VIOLATION),
    "a negative serial": (authority(serial=-5), Reason.PROFILE_VIOLATION),
    "an empty subject": (authority(subject=b"\x30\x00"), Reason.PROFILE_VIOLATION),
    "a critical key identifier": (
        authority(chains.ski(chains.key("p384", 2), critical=True), with_key_ids=False),
        Reason.UNKNOWN_CRITICAL,
    ),
    "a policy demanded that no profile has": (
        authority(chains.policies("1.3.6.1.4.1.99999.1"), chains.policy_constraints(require=0)),
        Reason.POLICY_REQUIRED,
    ),
    "RSA of 2048 bits": (authority(private=chains.key("rsa2048", 3)), Reason.UNSUPPORTED_ALGORITHM),
    "version 1": (authority(version=b"", with_key_ids=False), Reason.NOT_A_CA),
}
TAKEN: dict[str, Made] = {
    "faultless": authority(),
    "purposes of clients": authority(purposes(CLIENT_AUTH)),
    "every purpose": authority(purposes(chains.ANY_PURPOSE)),
    "names of its unit": authority(constraints([("dns", UNIT)])),
    "names of its group": authority(constraints([("dns", GROUP)], [("dns", "old.example")])),
    "no path length": authority(basic()),
    "serial of 20 bytes": authority(serial=(1 << 159) - 1),
    "ends within days": authority(not_after=AT + 3 * DAY),
    "any policy demanded": authority(chains.policies(chains.ANY_POLICY), chains.policy_constraints(require=0)),
    "RSA of 3072 bits": authority(private=chains.key("rsa3072", 3)),
}


@pytest.mark.parametrize("kind", REFUSED)
def test_a_ca_whose_devices_would_be_refused_is_not_imported_and_nothing_is_made(
    installation: Installation, kind: str
) -> None:
    made, reason = REFUSED[kind]
    before = installation.read(list_authorities)
    opened = list(installation.opened)
    with refuses(reason, VagusError):
        take_over(installation, made)
    assert installation.read(list_authorities) == before
    assert installation.opened == opened, "no keystore was opened for it"


@pytest.mark.parametrize("kind", TAKEN)
def test_a_ca_whose_devices_would_be_admitted_is_imported(installation: Installation, kind: str) -> None:
    assert take_over(installation, TAKEN[kind]) == "h1/icu#2"


def test_the_refusal_says_what_the_validator_said_and_of_which_certificate(installation: Installation) -> None:
    with refuses(Reason.ROLE_FORBIDDEN, VagusError) as refusal:
        take_over(installation, REFUSED["purposes of mail"][0])
    for words in ("our own gateways would refuse", "certificate of this CA as client", "lacks the required extended"):
        assert words in refusal.value.message


@pytest.mark.parametrize(
    ("planned", "made", "reason"),
    [
        (H1, authority(basic(path_length=1)), None),
        (H1, authority(basic(path_length=0)), Reason.PATHLEN),
        (H1, authority(basic(path_length=1), constraints([("dns", f"h2.{GROUP}")])), Reason.NAME_CONSTRAINT),
        (ROOT, authority(basic(path_length=2)), None),
        (ROOT, authority(basic(path_length=1)), Reason.PATHLEN),
        (INFRA, authority(purposes(SERVER_AUTH)), None),
        (INFRA, authority(purposes(CLIENT_AUTH)), Reason.ROLE_FORBIDDEN),
        (INFRA, authority(constraints([("dns", "old.example")])), Reason.NAME_CONSTRAINT),
        (SDC, authority(purposes(SERVER_AUTH, CLIENT_AUTH)), None),
        (SDC, authority(purposes(CLIENT_AUTH)), Reason.ROLE_FORBIDDEN),
    ],
)
def test_each_kind_of_ca_is_judged_by_what_it_issues(
    installation: Installation, planned: PlannedAuthority, made: Made, reason: Reason | None
) -> None:
    if reason is None:
        assert take_over(installation, made, planned) == f"{planned.name}#2"
    else:
        with refuses(reason, VagusError):
            take_over(installation, made, planned)


def test_a_chain_that_its_own_root_refuses_is_not_taken_and_the_ca_alone_is(installation: Installation) -> None:
    root = chains.root("O=Old Clinic,CN=Root", constraints([("dns", "old.example")]), private=chains.key("p384", 1))
    made = authority(issuer=root)
    with refuses(Reason.NAME_CONSTRAINT, VagusError) as refusal:
        take_over(installation, made, above=[root])
    assert "leave the certificates above it out of the chain" in refusal.value.message
    assert take_over(installation, made, above=[]) == "h1/icu#2"


def test_names_that_differ_in_spelling_alone_chain(installation: Installation) -> None:
    """RFC 5280 7.1: a UTF8String and a PrintableString of the same text are one name; case and spaces do not count."""
    spelt = chains.name("O=OLD  clinic,CN=root", 0x13)
    made = authority(issuer_name=spelt)
    with refuses(Reason.NAME_CHAINING, VagusError):
        take_over(installation, authority(issuer_name=chains.name("O=New Clinic,CN=Root")))
    assert take_over(installation, made) == "h1/icu#2"


# what an imported CA may vouch for


def validator(installation: Installation, units: Sequence[str] = ("h1/icu", "h1/er")) -> Validator:
    """As a listener of h1 validates, with a status source that knows every certificate as good."""
    anchors, known = device_anchors(installation.read(list_authorities), "h1", units, GROUP)
    return Validator(anchors, UnsafeNoStatus(), known=known)


def judge(
    installation: Installation, name: str, issuer: Made, *above: Made, units: Sequence[str] = ("h1/icu", "h1/er")
) -> Reason | None:
    """Why a leaf of this name is refused."""
    leaf = chains.make("CN=x", [chains.LEAF_USAGE, purposes(CLIENT_AUTH), chains.san(("dns", name))], issuer=issuer)
    expectation = Expectation(role=Role.CLIENT, group_domain=GROUP, units=frozenset(units))
    try:
        validator(installation, units).validate(leaf.der, [one.der for one in (issuer, *above)], expectation, AT)
    except VagusError as refusal:
        return refusal.reason
    return None


def test_an_imported_unit_ca_vouches_for_its_unit_alone(installation: Installation) -> None:
    """Without name constraints, with path length to spare, and with a root that has other children."""
    made = authority(basic())
    foreign_sub = chains.make("CN=Sub", [basic(), CA_USAGE], issuer=made)
    sibling = authority(basic(), subject="O=Old Clinic,CN=Sibling", private=chains.key("p384", 7))
    assert judge(installation, f"{DEVICE}.{UNIT}", made, OLD_ROOT) is Reason.NO_PATH
    take_over(installation, made)
    assert judge(installation, f"{DEVICE}.{UNIT}", made) is None
    assert judge(installation, f"{DEVICE}.{UNIT}", made, OLD_ROOT) is None
    assert judge(installation, f"{DEVICE}.er.{OWN}", made) is Reason.NAME_CONSTRAINT
    assert judge(installation, f"{DEVICE}.icu.h2.{GROUP}", made) is Reason.WRONG_COMPARTMENT
    assert judge(installation, f"{DEVICE}.{UNIT}", foreign_sub, made) is Reason.PATHLEN
    assert judge(installation, f"{DEVICE}.er.{OWN}", foreign_sub, made) is Reason.PATHLEN
    assert judge(installation, f"{DEVICE}.{UNIT}", sibling, OLD_ROOT) is Reason.NO_PATH
    assert judge(installation, f"{DEVICE}.{UNIT}", OLD_ROOT) is Reason.NO_PATH
    assert judge(installation, f"{DEVICE}.{UNIT}", made, units=("h1/er",)) is Reason.NO_PATH


def test_an_imported_device_ca_vouches_for_its_hospital_alone(installation: Installation) -> None:
    made = authority(basic())
    below = chains.make("CN=Below", [basic(), CA_USAGE], issuer=made)
    deeper = chains.make("CN=Deeper", [basic(), CA_USAGE], issuer=below)
    take_over(installation, made, H1)
    units = ("h1/icu", "h2/icu")
    assert judge(installation, f"{DEVICE}.{UNIT}", below, made) is None
    assert judge(installation, f"{DEVICE}.icu.h2.{GROUP}", below, made, units=units) is Reason.NAME_CONSTRAINT
    assert judge(installation, f"{DEVICE}.{UNIT}", deeper, below, made) is Reason.PATHLEN


def test_authorities_that_were_certified_here_are_anchored_as_before(installation: Installation) -> None:
    anchors, known = device_anchors(installation.read(list_authorities), "h1", ["h1/icu"], GROUP)
    h1, icu = (installation.read(find_generation, name, 1) for name in ("h1", "h1/icu"))
    assert h1 is not None
    assert icu is not None
    (anchor,) = anchors
    assert anchor.certificate is not None
    assert (anchor.certificate.der, anchor.domain, known) == (h1.certificate_der, None, (icu.certificate_der,))


def test_a_certificate_from_elsewhere_for_our_request_is_judged_too(installation: Installation) -> None:
    """`ca accept` takes certificates as `ca import` does."""
    planned = replace(H1, name="h3", parent=None)
    asked = installation.hierarchy.request(planned, by=BY)
    spki = installation.keystore("h3").load("ca-1").spki_der
    for extensions, reason in (((purposes(MAIL),), Reason.ROLE_FORBIDDEN), ((), None)):
        made = authority(basic(path_length=1), *extensions, spki_der=spki, not_after=AT + timedelta(days=4000))
        pem = encode_certificates([made.der, OLD_ROOT.der])
        if reason is None:
            assert installation.hierarchy.accept_certificate("h3", pem, by=BY) == asked.reference
        else:
            with refuses(reason, VagusError):
                installation.hierarchy.accept_certificate("h3", pem, by=BY)


@pytest.mark.parametrize(
    ("kind", "made", "reason"),
    [
        (AuthorityKind.ROOT, authority(basic(path_length=1), not_after=NEVER), None),
        (AuthorityKind.ROOT, authority(basic(path_length=0)), Reason.PATHLEN),
        (AuthorityKind.LINE_CA, authority(not_after=NEVER), None),
        (AuthorityKind.LINE_CA, authority(), Reason.LINT),
        (AuthorityKind.LINE_CA, authority(constraints([("dns", "maker.example")]), not_after=NEVER), None),
        (AuthorityKind.LINE_CA, authority(without("2.5.29.15")), Reason.KEY_USAGE),
        (AuthorityKind.LINE_CA, authority(purposes(MAIL)), Reason.ROLE_FORBIDDEN),
    ],
)
def test_a_makers_ca_is_judged_by_birth_certificates(
    installation: Installation, kind: AuthorityKind, made: Made, reason: Reason | None
) -> None:
    """A birth certificate never ends (IEEE 802.1AR), so a CA that ends could issue none."""
    found = read_chain(encode_certificates([made.der, OLD_ROOT.der]))
    trial = CaTrial(installation.pack, installation.database, installation.clock, is_maker=True)
    name = "root" if kind is AuthorityKind.ROOT else "line"
    if reason is None:
        trial.judge(name, kind, found)
    else:
        with refuses(reason, VagusError):
            trial.judge(name, kind, found)
