"""Rules on form, one switch at a time: the faulty certificate, the switch that refuses it, and `pkix` that does not."""

from __future__ import annotations

from dataclasses import fields, replace

import pytest

from tests.x509 import chains
from tests.x509.chains import CLIENT_AUTH, LEAF_USAGE, Ext, Made, basic, key, make, purposes, root, san, usage
from tests.x509.rule_sets import PROFILES
from tests.x509.walking import refusal, walk
from vagus.reasons import Reason
from vagus.x509 import der
from vagus.x509.names.general import Form
from vagus.x509.paths.rules import PKIX, PathRules

ROOT = root()
CA = ROOT.ca("O=Harbour,CN=CA")
NAMES = san(("dns", "a.example"))
Chain = tuple[Made, list[Made], Made]


def leaf(*extra: Ext, **changes: object) -> Chain:
    return CA.leaf(*extra, **changes), [CA], ROOT  # type: ignore[arg-type]


def under(ca: Made) -> Chain:
    return ca.leaf(NAMES), [ca], ROOT


def below(anchor: Made) -> Chain:
    return anchor.leaf(NAMES), [], anchor


def anchor_with(*extra: Ext, **changes: object) -> Chain:
    return below(make("CN=Odd Root", (basic(), chains.CA_USAGE, *extra), **changes))  # type: ignore[arg-type]


def with_key_issuer() -> Made:
    names = der.encode_tlv(0xA1, chains.general("directory", "CN=Odd Root")) + der.implicit(2, b"\x01")
    aki = Ext("2.5.29.35", der.sequence(names))
    return make("CN=Odd Root", (basic(), chains.CA_USAGE, aki), with_key_ids=False)


V1 = make("CN=x", issuer=CA, version=b"", with_key_ids=False), [CA], ROOT


def case(
    switch: str, chain: Chain, reason: Reason = Reason.PROFILE_VIOLATION, *, value: object = True
) -> tuple[str, object, Chain, Reason]:
    return switch, value, chain, reason


CASES = [
    case("requires_v3", V1, Reason.BAD_VERSION),
    case("requires_positive_serial", leaf(serial=0)),
    case("requires_positive_serial", leaf(serial=-5)),
    case("requires_positive_serial", leaf(serial=1 << 160)),
    case("requires_authority_key_id", leaf(with_key_ids=False)),
    case("requires_subject_key_id", under(ROOT.ca("CN=A", with_key_ids=False))),
    case("forbids_critical_key_ids", leaf(chains.aki(CA.private, critical=True), with_key_ids=False)),
    case("requires_critical_ca", under(ROOT.issue("CN=A", (basic(critical=False), chains.CA_USAGE)))),
    case(
        "requires_critical_constraints",
        under(ROOT.ca("CN=A", chains.constraints([("dns", "example")], critical=False))),
    ),
    case("requires_critical_constraints", under(ROOT.ca("CN=A", chains.policy_constraints(require=5, critical=False)))),
    case("requires_critical_constraints", under(ROOT.ca("CN=A", chains.inhibit_any(5, critical=False)))),
    case("forbids_leaf_constraints", leaf(chains.constraints([("dns", "a")]))),
    case("requires_ca_key_usage", under(ROOT.issue("CN=A", (basic(),))), Reason.KEY_USAGE),
    case(
        "forbids_idle_ca_bits", (CA.issue("CN=x", (usage(0, 5), purposes(CLIENT_AUTH))), [CA], ROOT), Reason.KEY_USAGE
    ),
    case("forbids_idle_ca_bits", leaf(Ext("2.5.29.19", der.sequence(der.integer(1))))),
    case(
        "forbids_critical_access",
        leaf(
            Ext(
                "1.3.6.1.5.5.7.1.1",
                der.sequence(
                    der.sequence(der.object_identifier("1.3.6.1.5.5.7.48.1"), chains.general("uri", "http://o.example"))
                ),
                critical=True,
            )
        ),
    ),
    case("requires_readable_pointers", leaf(Ext("1.3.6.1.5.5.7.1.1", der.sequence())), Reason.BAD_EXTENSION),
    case("requires_readable_pointers", leaf(Ext("2.5.29.31", der.NULL_DER)), Reason.BAD_EXTENSION),
    case(
        "forbids_critical_purpose", (CA.issue("CN=x", (LEAF_USAGE, purposes(CLIENT_AUTH, critical=True))), [CA], ROOT)
    ),
    case("requires_subject", leaf(NAMES, subject="")),
    case("requires_subject", under(ROOT.ca(""))),
    case("requires_valid_names", leaf(san(("dns", "a b.example"))), Reason.NAME_FORM),
    case("requires_valid_names", leaf(san(("dns", "10.0.0.1"))), Reason.NAME_FORM),
    case("requires_valid_names", leaf(san(("ip", b"\x0a\0\0"))), Reason.NAME_FORM),
    case("requires_valid_names", leaf(san(("email", "nobody"))), Reason.NAME_FORM),
    case("requires_signing_leaf", (CA.issue("CN=x", (usage(2), purposes(CLIENT_AUTH))), [CA], ROOT), Reason.KEY_USAGE),
    case("forbids_ca_leaf", (CA, [], ROOT)),
    case("requires_names", leaf(), Reason.IDENTITY_MISSING),
    case("forbids_critical_names_with_subject", leaf(san(("dns", "a.example"), critical=True))),
    case("common_name_in_names", leaf(NAMES, subject="CN=b.example")),
    case("forbids_wildcards", leaf(san(("dns", "*.example.com"))), Reason.NAME_FORM),
    case(
        "name_forms",
        leaf(san(("dns", "a.example"), ("other", chains.hardware_module()))),
        Reason.NAME_FORM,
        value=frozenset({Form.DNS}),
    ),
    case("requires_purpose", (CA.issue("CN=x", (LEAF_USAGE,)), [CA], ROOT), Reason.ROLE_MISSING),
    case("smallest_leaf_rsa", leaf(private=key("rsa1024")), Reason.WEAK_KEY, value=2048),
    case("smallest_rsa", under(ROOT.ca("CN=A", private=key("rsa2048"))), Reason.WEAK_KEY, value=3072),
    case("requires_anchor_ca", below(make("CN=Leafy Root", (LEAF_USAGE,))), Reason.NOT_A_CA),
    case("requires_anchor_ca", below(make("CN=V1 Root", version=b"", with_key_ids=False)), Reason.BAD_VERSION),
    case("forbids_authority_key_issuer", below(with_key_issuer())),
    case("forbids_authority_key_issuer", anchor_with(chains.aki(key("p256", 39)), with_key_ids=False)),
]


@pytest.mark.parametrize(
    ("switch", "value", "chain", "reason"), CASES, ids=[f"{case[0]}-{n}" for n, case in enumerate(CASES)]
)
def test_a_switch_refuses_its_fault_and_plain_section_six_does_not(
    switch: str, value: object, chain: Chain, reason: Reason
) -> None:
    target, sent, anchor = chain
    purpose = None if switch in {"forbids_ca_leaf", "requires_v3"} else CLIENT_AUTH
    walk(target, sent, [anchor], PKIX, purpose=purpose)
    strict = replace(PKIX, **{switch: value})  # type: ignore[arg-type]
    assert refusal(target, sent, [anchor], strict, purpose=purpose) is reason


def test_the_anchors_form_binds_where_the_profile_says_so() -> None:
    target, sent, anchor = anchor_with(serial=-1)
    strict = replace(PKIX, requires_positive_serial=True)
    walk(target, sent, [anchor], strict)
    assert refusal(target, sent, [anchor], replace(strict, checks_anchor_form=True)) is Reason.PROFILE_VIOLATION


def test_a_self_signed_anchor_needs_no_authority_key_id() -> None:
    target, sent, anchor = anchor_with(chains.ski(key("p256", 38)), with_key_ids=False, private=key("p256", 38))
    strict = replace(PKIX, requires_authority_key_id=True, checks_anchor_form=True)
    walk(target, sent, [anchor], strict)


def test_a_wildcard_over_a_public_suffix_is_refused_where_suffixes_are_known() -> None:
    strict = replace(PKIX, forbids_public_suffix_wildcard=True)
    target, sent, anchor = leaf(san(("dns", "*.co.uk")))
    walk(target, sent, [anchor], strict)
    reason = refusal(target, sent, [anchor], strict, is_public_suffix=lambda name: name == "co.uk")
    assert reason is Reason.NAME_FORM


def test_the_anchors_extended_key_usage_is_refused_where_the_profile_says_so() -> None:
    target, sent, anchor = anchor_with(purposes(CLIENT_AUTH))
    strict = replace(PKIX, applies_anchor_constraints=True)
    walk(target, sent, [anchor], strict)
    assert refusal(target, sent, [anchor], replace(strict, forbids_anchor_purpose=True)) is Reason.PROFILE_VIOLATION


def test_every_profile_has_its_own_name() -> None:
    assert all(name == rules.name for name, rules in PROFILES.items())
    assert {"pkix", "rfc5280-strict", "webpki", "device"} <= set(PROFILES)


def test_every_switch_of_the_table_is_tested_here_or_beside_its_subject() -> None:
    elsewhere = {
        "name",
        "applies_anchor_constraints",  # test_checks
        "applies_anchor_validity",  # test_checks
        "checks_anchor_form",
        "checks_anchor_key",  # conformance: webpki::forbidden-weak-rsa-key-in-root
        "forbids_leading_dot",  # test_name_constraints
        "forbids_public_suffix_wildcard",
        "accepts_any_purpose",  # test_checks
        "accepts_any_purpose_above",  # conformance: intermediate-eku-any
        "nests_purposes",  # test_search
        "forbids_anchor_purpose",
        "forbids_mixed_purposes",  # test_checks
        "rsa_in_bytes",  # conformance: webpki::forbidden-rsa-key-not-divisible-by-8
        "bans_revoked_keys",  # test_search
        "unsafe_legacy",  # test_signatures
        "unsafe_small_rsa",  # conformance
    }
    tested = {case[0] for case in CASES}
    assert {field.name for field in fields(PathRules)} == tested | elsewhere
