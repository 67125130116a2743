"""RFC 5280 6.1 rule by rule: one fault, one reason, and beside it the benign twin that passes."""

from __future__ import annotations

from dataclasses import replace
from datetime import timedelta

import pytest

from tests.x509 import chains
from tests.x509.chains import AT, DAY, Ext, Made, basic, key, make, root, usage
from tests.x509.rule_sets import RFC5280_STRICT, WEBPKI
from tests.x509.walking import refusal, walk
from vagus.errors import VagusError
from vagus.reasons import Reason
from vagus.x509 import der
from vagus.x509.budgets import DEFAULT_LIMITS, Budget
from vagus.x509.der import oid_contents
from vagus.x509.paths.checks import Descents, PathInputs, check_path
from vagus.x509.paths.policies import PolicyInputs
from vagus.x509.paths.rules import DEVICE, PKIX, PathRules

ROOT = root()
CA = ROOT.ca("O=Harbour,CN=CA")
SECOND = timedelta(seconds=1)


def test_validity_is_to_the_second_and_inclusive() -> None:
    leaf = CA.leaf(not_before=AT - DAY, not_after=AT)
    walk(leaf, [CA], [ROOT], at=AT)
    walk(leaf, [CA], [ROOT], at=AT.replace(microsecond=999_999))
    walk(leaf, [CA], [ROOT], at=AT - DAY)
    assert refusal(leaf, [CA], [ROOT], at=AT + SECOND) is Reason.EXPIRED
    assert refusal(leaf, [CA], [ROOT], at=AT - DAY - SECOND) is Reason.NOT_YET_VALID


def test_an_expired_ca_and_an_expired_leaf_have_different_reasons() -> None:
    old = ROOT.ca("CN=Old", not_after=AT - SECOND)
    assert refusal(old.leaf(), [old], [ROOT]) is Reason.EXPIRED_CA


def test_the_anchors_dates_bind_where_the_profile_says_so() -> None:
    old = root("CN=Old Root", not_after=AT - SECOND)
    leaf = old.leaf(chains.san(("dns", "a.example")))
    walk(leaf, [], [old], PKIX)
    for rules in (RFC5280_STRICT, DEVICE, WEBPKI):
        assert refusal(leaf, [], [old], rules) is Reason.EXPIRED_CA


def test_a_leaf_that_issues_is_no_ca() -> None:
    """A3, A4, A6."""
    false_ca = CA.leaf(subject="CN=False CA")
    assert refusal(false_ca.leaf(), [CA, false_ca], [ROOT]) is Reason.NOT_A_CA
    plain = CA.issue("CN=False CA", (basic(ca=False), chains.CA_USAGE))
    assert refusal(plain.leaf(), [CA, plain], [ROOT]) is Reason.NOT_A_CA
    first_version = make("CN=V1", issuer=CA, version=b"", with_key_ids=False)
    assert refusal(first_version.leaf(), [CA, first_version], [ROOT]) is Reason.BAD_VERSION
    no_sign = CA.issue("CN=No Sign", (basic(), usage(6)))
    assert refusal(no_sign.leaf(), [CA, no_sign], [ROOT]) is Reason.KEY_USAGE
    walk((good := CA.ca("CN=Good")).leaf(), [CA, good], [ROOT])


def test_path_length_counts_cas_that_are_not_self_issued() -> None:
    short = ROOT.ca("CN=Short", path_length=0)
    walk(short.leaf(), [short], [ROOT])
    sub = short.ca("CN=Sub")
    assert refusal(sub.leaf(), [short, sub], [ROOT]) is Reason.PATHLEN
    rolled = short.ca("CN=Short")
    walk(rolled.leaf(), [short, rolled], [ROOT])
    one = ROOT.ca("CN=One", path_length=1)
    two = one.ca("CN=Two", path_length=5)
    three = two.ca("CN=Three")
    walk(two.leaf(), [one, two], [ROOT])
    assert refusal(three.leaf(), [one, two, three], [ROOT]) is Reason.PATHLEN


def test_the_anchors_path_length_binds_where_the_profile_says_so() -> None:
    tight = make("CN=Tight", (basic(True, 0), chains.CA_USAGE))
    ca = tight.ca("CN=CA")
    walk(ca.leaf(), [ca], [tight], PKIX)
    assert refusal(ca.leaf(), [ca], [tight], RFC5280_STRICT) is Reason.PATHLEN


@pytest.mark.parametrize("where", ["leaf", "ca"])
def test_an_unknown_extension_binds_only_if_critical(where: str) -> None:
    for critical in (False, True):
        unknown = Ext(chains.UNKNOWN, der.NULL_DER, critical)
        ca = ROOT.ca("CN=CA", *([unknown] if where == "ca" else []))
        leaf = ca.leaf(*([unknown] if where == "leaf" else []))
        if critical:
            assert refusal(leaf, [ca], [ROOT]) is Reason.UNKNOWN_CRITICAL
        else:
            walk(leaf, [ca], [ROOT])


def test_an_extension_that_does_not_decode_is_refused_wherever_it_is() -> None:
    broken = Ext("2.5.29.54", der.NULL_DER)
    ca = ROOT.ca("CN=CA", broken)
    assert refusal(ca.leaf(), [ca], [ROOT]) is Reason.BAD_EXTENSION
    assert refusal(CA.leaf(broken), [CA], [ROOT]) is Reason.BAD_EXTENSION


def test_roles_are_distinguished() -> None:
    """E46 to E50."""
    server = CA.issue("CN=x", (chains.LEAF_USAGE, chains.purposes(chains.SERVER_AUTH)))
    without_purpose = CA.issue("CN=x", (chains.LEAF_USAGE, chains.san(("dns", "a.example"))))
    every = CA.issue("CN=x", (chains.LEAF_USAGE, chains.purposes(chains.ANY_PURPOSE), chains.san(("dns", "a.example"))))
    assert refusal(server, [CA], [ROOT]) is Reason.ROLE_FORBIDDEN
    walk(server, [CA], [ROOT], purpose=chains.SERVER_AUTH)
    walk(without_purpose, [CA], [ROOT], PKIX)
    assert refusal(without_purpose, [CA], [ROOT], DEVICE) is Reason.ROLE_MISSING
    walk(every, [CA], [ROOT], PKIX)
    assert refusal(every, [CA], [ROOT], DEVICE) is Reason.ROLE_FORBIDDEN


def test_a_certificate_for_tls_and_for_code_is_refused_where_the_profile_says_so() -> None:
    purposes = chains.purposes(chains.CLIENT_AUTH, "1.3.6.1.5.5.7.3.3")
    both = CA.issue("CN=x", (chains.LEAF_USAGE, purposes, chains.san(("dns", "a.example"))))
    walk(both, [CA], [ROOT], DEVICE)
    assert refusal(both, [CA], [ROOT], WEBPKI) is Reason.ROLE_FORBIDDEN


@pytest.mark.parametrize(
    ("private", "rules", "reason"),
    [
        ("rsa1024", PKIX, None),
        ("rsa1024", DEVICE, Reason.WEAK_KEY),
        ("rsa2048", DEVICE, None),
        ("p192", PKIX, Reason.WEAK_KEY),
        ("ed25519", DEVICE, None),
        ("mldsa65", DEVICE, None),
    ],
)
def test_the_leafs_key_must_be_strong_enough(private: str, rules: PathRules, reason: Reason | None) -> None:
    leaf = CA.leaf(chains.san(("dns", "a.example")), private=key(private))
    if reason is None:
        walk(leaf, [CA], [ROOT], rules)
    else:
        assert refusal(leaf, [CA], [ROOT], rules) is reason


def test_the_keys_of_cas_must_be_stronger() -> None:
    ca = ROOT.ca("CN=RSA CA", private=key("rsa2048"))
    names = chains.san(("dns", "a.example"))
    walk(ca.leaf(names), [ca], [ROOT], RFC5280_STRICT)
    assert refusal(ca.leaf(names), [ca], [ROOT], DEVICE) is Reason.WEAK_KEY


def test_an_explicit_curve_is_refused_in_the_leaf() -> None:
    """A10, CVE-2020-0601."""
    explicit = der.sequence(
        chains.identifier("1.2.840.10045.2.1", der.sequence(der.integer(1))), der.bit_string(b"\x04" + bytes(64))
    )
    assert refusal(CA.leaf(spki_der=explicit), [CA], [ROOT]) is Reason.EC_PARAMS


def test_a_chain_of_post_quantum_keys_holds() -> None:
    top = root("CN=PQ Root", private=key("mldsa87"))
    ca = top.ca("CN=PQ CA", private=key("mldsa65"))
    walk(ca.leaf(chains.san(("dns", "a.example")), private=key("mldsa44")), [ca], [top], DEVICE)


def test_a_chain_of_every_kind_of_key_holds() -> None:
    issuer: Made = root("CN=Mixed Root", private=key("rsa3072"))
    top, sent = issuer, []
    for kind in ("p384", "p521", "ed25519", "ed448", "p256"):
        issuer = issuer.ca(f"CN={kind}", private=key(kind))
        sent.append(issuer)
    walk(issuer.leaf(chains.san(("dns", "a.example"))), sent, [top], DEVICE)


# --- walks down the CAs are remembered -----------------------------------------------------------------------------


def verdict(leaf: Made, sent: list[Made], descents: Descents, **changes: object) -> Reason | None:
    inputs = replace(PathInputs(at=AT), **changes)  # type: ignore[arg-type]
    parsed = [made.parsed for made in reversed(sent)]
    try:
        check_path(ROOT.parsed, [*parsed, leaf.parsed], PKIX, inputs, Budget(DEFAULT_LIMITS), descents)
    except VagusError as refused:
        return refused.reason
    return None


def test_a_cached_walk_gives_the_verdict_of_a_new_one() -> None:
    gold = oid_contents("1.3.6.1.4.1.32473.1")
    ca = ROOT.ca("CN=CA", chains.constraints([("dns", "h1.example")]), chains.policies("1.3.6.1.4.1.32473.1"))
    inside, outside = (ca.leaf(chains.san(("dns", f"a.{host}.example"))) for host in ("h1", "h2"))
    with_policy = ca.leaf(chains.policies("1.3.6.1.4.1.32473.1"))
    wanted = PolicyInputs(acceptable=frozenset({gold}), require_explicit=True)
    descents = Descents()
    for _ in range(3):
        assert verdict(inside, [ca], descents) is None
        assert verdict(outside, [ca], descents) is Reason.NAME_CONSTRAINT
        assert verdict(inside, [ca], descents, policy=wanted) is Reason.POLICY_REQUIRED
        assert verdict(with_policy, [ca], descents, policy=wanted) is None
        assert verdict(inside, [ca], descents, at=AT + 400 * DAY) is Reason.EXPIRED_CA
        assert verdict(inside, [ca], descents, at=AT - 400 * DAY) is Reason.NOT_YET_VALID
        assert verdict(inside, [ca], descents, longest_path=0) is Reason.PATHLEN
        server = frozenset({oid_contents(chains.SERVER_AUTH)})
        assert verdict(inside, [ca], descents, purposes=server) is Reason.ROLE_FORBIDDEN


def test_a_walk_is_cached_for_its_own_rules_only() -> None:
    descents = Descents()
    ca = ROOT.issue("CN=CA", (basic(critical=False), chains.CA_USAGE))
    leaf = ca.leaf()
    strict = replace(PKIX, requires_critical_ca=True)
    for rules, expected in ((PKIX, None), (strict, Reason.PROFILE_VIOLATION), (PKIX, None)):
        try:
            check_path(
                ROOT.parsed, [ca.parsed, leaf.parsed], rules, PathInputs(at=AT), Budget(DEFAULT_LIMITS), descents
            )
        except VagusError as refused:
            assert refused.reason is expected
        else:
            assert expected is None


def test_a_cached_walk_costs_its_comparisons_all_the_same() -> None:
    ca = ROOT.ca("CN=CA", chains.constraints([("directory", "O=Harbour")]))
    sub = ca.ca("O=Harbour,CN=Sub")
    leaf = sub.leaf()
    descents = Descents()
    spent = []
    for _ in range(2):
        budget = Budget(DEFAULT_LIMITS)
        path = [ca.parsed, sub.parsed, leaf.parsed]
        check_path(ROOT.parsed, path, PKIX, PathInputs(at=AT), budget, descents)
        spent.append(budget.comparisons)
    assert spent[0] == spent[1] > 0


def test_the_memory_of_walks_is_bounded() -> None:
    descents = Descents(size=2)
    for number in range(5):
        ca = ROOT.ca(f"CN=CA {number}")
        assert verdict(ca.leaf(), [ca], descents) is None
