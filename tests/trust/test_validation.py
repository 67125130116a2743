"""The one question: who is this peer, and may it be believed."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import timedelta
from typing import Any

import pytest

from tests.simulator.refusals import reason_of, refuses
from tests.x509 import chains
from tests.x509.chains import AT, DAY, Listed, Made, constraints, crl, purposes, root, san
from vagus.errors import NotTrusted, VagusError
from vagus.identifiers import DeviceId
from vagus.reasons import Reason
from vagus.testing import SeededEntropy
from vagus.trust.anchors import AnchorSet, ClockFloor
from vagus.trust.crl_status import CrlStatus
from vagus.trust.status import FirstSource, PathStatusSource, StatusSource, UnsafeNoStatus
from vagus.trust.validation import PURPOSES, AcceptedIdentity, Expectation, Role, Validator
from vagus.x509.paths.rules import PKIX
from vagus.x509.paths.search import Pool

GROUP = "five-hospitals.example"
DEVICE = DeviceId.draw(SeededEntropy(11))
OTHER = DeviceId.draw(SeededEntropy(12))
IDENTITY = f"{DEVICE}.icu.h1.{GROUP}"
ROOT = root("O=Five Hospitals,CN=Root")
HOSPITAL = ROOT.ca(
    "O=Harbour,CN=Device CA",
    constraints(
        [("dns", f"h1.{GROUP}"), ("uri", "none.invalid"), ("email", "none.invalid")],
        [("ip", bytes(8)), ("ip", bytes(32))],
    ),
)
ICU = HOSPITAL.ca("O=Harbour,OU=ICU,CN=Issuing CA", constraints([("dns", f"icu.h1.{GROUP}")]), path_length=0)
CHAIN = (ICU, HOSPITAL)
WANTED = Expectation(role=Role.CLIENT, group_domain=GROUP, units=frozenset({"h1/icu"}))


def device(*names: tuple[str, str | bytes], subject: str = f"O=Harbour,OU=ICU,CN={DEVICE}", **changes: object) -> Made:
    return ICU.leaf(san(*(names or (("dns", IDENTITY),))), subject=subject, **changes)


def validate(
    leaf: Made,
    chain: Sequence[Made] = CHAIN,
    expectation: Expectation = WANTED,
    *,
    status: StatusSource | PathStatusSource | None = None,
    anchors: Sequence[Made] = (ROOT,),
    known: Sequence[Made] = (),
    **how: Any,
) -> AcceptedIdentity:
    trusted = AnchorSet.from_der([anchor.der for anchor in anchors])
    validator = Validator(trusted, status or UnsafeNoStatus(), known=[one.der for one in known], **how)
    return validator.validate(leaf.der, [one.der for one in chain], expectation, AT)


def refused(leaf: Made, *arguments: object, **more: object) -> Reason:
    return reason_of(validate, leaf, *arguments, **more)  # type: ignore[arg-type]


def test_a_device_of_the_unit_is_accepted_with_all_its_facts() -> None:
    leaf = device()
    accepted = validate(leaf)
    assert str(accepted.device_name) == IDENTITY
    assert accepted.leaf_sha256 == leaf.parsed.sha256
    assert accepted.issuer_der == ICU.subject
    assert accepted.serial == leaf.parsed.serial
    assert accepted.not_after == leaf.parsed.not_after
    assert accepted.path == (leaf.parsed, ICU.parsed, HOSPITAL.parsed)
    assert accepted.anchor_sha256 == ROOT.parsed.sha256


def test_a_resumed_session_brings_the_leaf_only() -> None:
    leaf = device()
    assert refused(leaf, ()) is Reason.NO_PATH
    assert validate(leaf, (), known=CHAIN).path[1] == ICU.parsed


# --- names and compartments (attacks D, F) -----------------------------------------------------------------------


@pytest.mark.parametrize(
    ("names", "reason"),
    [
        ([("dns", IDENTITY), ("dns", f"{OTHER}.icu.h1.{GROUP}")], Reason.IDENTITY_AMBIGUOUS),
        ([("dns", f"{OTHER}.er.h1.{GROUP}")], Reason.NAME_CONSTRAINT),
        ([("dns", IDENTITY), ("uri", "https://none.invalid/")], Reason.NAME_FORM),
        ([("dns", IDENTITY), ("email", "a@none.invalid")], Reason.NAME_FORM),
        ([("dns", IDENTITY), ("id", "1.2.3")], Reason.NAME_FORM),
        ([("dns", IDENTITY), ("other", chains.hardware_module())], Reason.NAME_FORM),
        ([("dns", IDENTITY), ("directory", "CN=x")], Reason.NAME_FORM),
        ([("dns", IDENTITY), ("ip", b"\x0a\0\0\1")], Reason.NAME_CONSTRAINT),
        ([("uri", f"vagus://er.h1.{GROUP}/pump/1")], Reason.NAME_CONSTRAINT),
        ([("id", "1.2.3")], Reason.IDENTITY_MISSING),
        ([("dns", f"*.icu.h1.{GROUP}")], Reason.NAME_FORM),
        ([("dns", f"icu.h1.{GROUP}")], Reason.NON_CANONICAL),
        ([("dns", IDENTITY.upper())], Reason.NON_CANONICAL),
        ([("dns", IDENTITY + ".")], Reason.NAME_CONSTRAINT),
        ([("dns", f"pump.icu.h1.{GROUP}")], Reason.NON_CANONICAL),
        ([("dns", f"{DEVICE}.x.icu.h1.{GROUP}")], Reason.NON_CANONICAL),
        ([("dns", f"{DEVICE}\0.icu.h1.{GROUP}")], Reason.NAME_CONSTRAINT),
    ],
)
def test_only_one_identity_in_its_one_spelling_passes(names: list[tuple[str, str | bytes]], reason: Reason) -> None:
    assert refused(device(*names)) is reason


def test_the_common_name_is_never_an_identity() -> None:
    foreign = f"{OTHER}.er.h1.{GROUP}"
    accepted = validate(device(subject=f"O=Harbour,OU=ER,CN={foreign}"))
    assert str(accepted.device_name) == IDENTITY
    bare = ICU.leaf(subject=f"CN={IDENTITY}")
    assert refused(bare) is Reason.IDENTITY_MISSING


def test_a_device_of_another_unit_is_refused_with_its_reason() -> None:
    elsewhere = Expectation(role=Role.CLIENT, group_domain=GROUP, units=frozenset({"h1/er", "h2/icu"}))
    assert refused(device(), CHAIN, elsewhere) is Reason.WRONG_COMPARTMENT
    everywhere = Expectation(role=Role.CLIENT, group_domain=GROUP)
    assert validate(device(), CHAIN, everywhere).device_name is not None
    other_group = Expectation(role=Role.CLIENT, group_domain="other.example")
    assert refused(device(), CHAIN, other_group) is Reason.NON_CANONICAL


def test_another_hospital_is_a_stranger() -> None:
    foreign = root("O=Other,CN=Root")
    leaf = foreign.leaf(san(("dns", IDENTITY)))
    assert refused(leaf, ()) is Reason.NO_PATH
    look_alike = root("O=Five Hospitals,CN=Root").leaf(san(("dns", IDENTITY)))
    assert refused(look_alike, ()) is Reason.BAD_SIGNATURE


# --- roles -------------------------------------------------------------------------------------------------------


def test_a_device_is_no_server_and_a_station_no_client() -> None:
    host = f"gate.h1.{GROUP}"
    as_server = Expectation(role=Role.SERVER, needs_identity=False, host_name=host)
    assert refused(device(), CHAIN, as_server) is Reason.ROLE_FORBIDDEN
    infrastructure = ROOT.ca("O=Harbour,CN=Infrastructure CA", purposes(chains.SERVER_AUTH))
    gate = infrastructure.issue(
        "O=Harbour,CN=gate", (chains.LEAF_USAGE, purposes(chains.SERVER_AUTH), san(("dns", host)))
    )
    assert validate(gate, (infrastructure,), as_server).device_name is None
    other = Expectation(role=Role.SERVER, needs_identity=False, host_name=f"gate.h2.{GROUP}")
    assert refused(gate, (infrastructure,), other) is Reason.NAME_MISMATCH
    # an infrastructure CA that names a device as a client is held back by its own purpose
    false_device = infrastructure.leaf(san(("dns", IDENTITY)))
    assert refused(false_device, (infrastructure,)) is Reason.ROLE_FORBIDDEN


def test_an_idevid_needs_no_purpose_and_no_identity() -> None:
    maker = root("O=Aorta,CN=Maker Root")
    line = maker.ca("O=Aorta,CN=Line CA")
    idevid = line.issue(
        "O=Aorta,CN=Pump",
        (chains.LEAF_USAGE, san(("other", chains.hardware_module()))),
        not_after=AT.replace(year=9999, month=12, day=31),
    )
    expected = Expectation(role=Role.IDEVID, needs_identity=False)
    assert validate(idevid, (line,), expected, anchors=[maker]).path[0] == idevid.parsed
    assert refused(idevid, (line,), anchors=[maker]) is Reason.ROLE_MISSING
    server_only = line.issue("O=Aorta,CN=Pump", (chains.LEAF_USAGE, purposes(chains.SERVER_AUTH)))
    assert refused(server_only, (line,), expected, anchors=[maker]) is Reason.ROLE_FORBIDDEN


def test_every_role_has_its_purpose() -> None:
    assert set(PURPOSES) == set(Role)


# --- time --------------------------------------------------------------------------------------------------------


def test_a_clock_that_was_set_back_trusts_nothing() -> None:
    expired = device(not_after=AT + DAY)
    floor = ClockFloor(AT + 30 * DAY)
    assert refused(expired, floor=floor) is Reason.CLOCK_ROLLBACK
    assert validate(expired, floor=ClockFloor(AT))


def test_a_time_without_zone_is_an_argument_error() -> None:
    validator = Validator(AnchorSet.from_der([ROOT.der]), UnsafeNoStatus())
    with refuses(Reason.BAD_ARGUMENT, VagusError):
        validator.validate(device().der, [], WANTED, AT.replace(tzinfo=None))


# --- status ------------------------------------------------------------------------------------------------------


def lists(*revoked: Made) -> CrlStatus:
    source = CrlStatus(Pool([ROOT.anchor], [ICU.parsed, HOSPITAL.parsed]))
    for issuer in (ROOT, HOSPITAL, ICU):
        listed = [Listed(one.parsed.serial, 1) for one in revoked]
        source.load(crl(issuer, listed), AT)
    return source


def test_a_revoked_certificate_is_refused_anywhere_in_the_path() -> None:
    leaf = device()
    assert validate(leaf, status=lists())
    assert refused(leaf, status=lists(leaf)) is Reason.REVOKED
    assert refused(leaf, status=lists(ICU)) is Reason.REVOKED_CA
    assert refused(leaf, status=lists(HOSPITAL)) is Reason.REVOKED_CA
    assert validate(device(), status=lists(leaf))


def test_status_asked_certificate_by_certificate_says_the_same() -> None:
    leaf = device()
    assert validate(leaf, status=FirstSource([lists()]))
    assert refused(leaf, status=FirstSource([lists(leaf)])) is Reason.REVOKED
    assert refused(leaf, status=FirstSource([lists(ICU)])) is Reason.REVOKED_CA


def test_nothing_is_cached_across_a_revocation() -> None:
    leaf = device()
    source = lists()
    validator = Validator(AnchorSet.from_der([ROOT.der]), source)
    sent = [one.der for one in CHAIN]
    for _ in range(3):
        validator.validate(leaf.der, sent, WANTED, AT)
    source.load(crl(ICU, [Listed(leaf.parsed.serial)], number=2), AT)
    with refuses(Reason.REVOKED, NotTrusted):
        validator.validate(leaf.der, sent, WANTED, AT)
    assert validator.validate(device().der, sent, WANTED, AT)


# --- bad input ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("content", [b"", b"\x30", b"\x30\x00", bytes(200_000), b"-----BEGIN CERTIFICATE-----"])
def test_a_leaf_that_is_none_gets_one_of_our_reasons(content: bytes) -> None:
    validator = Validator(AnchorSet.from_der([ROOT.der]), UnsafeNoStatus())
    assert reason_of(validator.validate, content, [], WANTED, AT) in {Reason.NON_DER, Reason.TOO_LARGE}


def test_what_does_not_parse_beside_the_leaf_does_no_harm() -> None:
    leaf = device()
    validator = Validator(AnchorSet.from_der([ROOT.der]), UnsafeNoStatus())
    junk = [b"", b"\x30\x00", b"junk", ICU.der[:-1]]
    assert validator.validate(leaf.der, [*junk, ICU.der, HOSPITAL.der], WANTED, AT)


def test_too_much_beside_the_leaf_is_not_read() -> None:
    validator = Validator(AnchorSet.from_der([ROOT.der]), UnsafeNoStatus())
    for chain, reason in (([b""] * 20_000, Reason.TOO_MANY), ([bytes(17 << 20)], Reason.TOO_LARGE)):
        assert reason_of(validator.validate, device().der, chain, WANTED, AT) is reason


def test_the_profile_can_be_chosen() -> None:
    silent = ICU.issue("CN=x", (chains.LEAF_USAGE, san(("dns", IDENTITY))))
    assert refused(silent) is Reason.ROLE_MISSING
    assert validate(silent, profile=PKIX).device_name is not None


def test_two_leaves_in_one_message_do_not_change_places() -> None:
    """A12: the leaf is the first certificate, whose key TLS has proved."""
    good, bad = device(), device(("dns", f"{OTHER}.icu.h1.{GROUP}"), not_after=AT - timedelta(days=1))
    assert refused(bad, (good, *CHAIN)) is Reason.EXPIRED
    assert str(validate(good, (bad, *CHAIN)).device_name) == IDENTITY
