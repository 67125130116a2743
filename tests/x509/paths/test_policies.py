"""The policy graph of RFC 9618 against small paths, and its size against crafted ones."""

from __future__ import annotations

import dataclasses
import random
import time

import pytest

from tests.x509 import chains, policy_tree
from tests.x509.chains import ANY_POLICY, Ext, inhibit_any, mappings, policies, policy_constraints
from tests.x509.rule_sets import RFC5280_STRICT
from tests.x509.walking import refusal, walk
from vagus.reasons import Reason
from vagus.x509 import der
from vagus.x509.der import oid_contents
from vagus.x509.paths.policies import PolicyInputs

GOLD, SILVER, BRONZE = "1.3.6.1.4.1.32473.1", "1.3.6.1.4.1.32473.2", "1.3.6.1.4.1.32473.3"
ROOT = chains.root()


def build(*cas: tuple[Ext, ...], leaf: tuple[Ext, ...]) -> tuple[chains.Made, list[chains.Made]]:
    issuer, made = ROOT, []
    for number, extensions in enumerate(cas):
        issuer = issuer.ca(f"CN=CA {number}", *extensions)
        made.append(issuer)
    return issuer.leaf(*leaf), made


def wants(*oids: str, **flags: bool) -> PolicyInputs:
    return PolicyInputs(acceptable=frozenset(map(oid_contents, oids)), require_explicit=True, **flags)


def holds(*cas: tuple[Ext, ...], leaf: tuple[Ext, ...], policy: PolicyInputs) -> frozenset[bytes] | None:
    target, sent = build(*cas, leaf=leaf)
    try:
        return walk(target, sent, [ROOT], policy=policy).policies
    except Exception:  # noqa: BLE001  the kinds are distinguished below
        assert refusal(target, sent, [ROOT], policy=policy) is Reason.POLICY_REQUIRED
        return None


def oids(*dotted: str) -> frozenset[bytes]:
    return frozenset(map(oid_contents, dotted))


def test_a_policy_must_be_in_every_certificate() -> None:
    assert holds((policies(GOLD),), leaf=(policies(GOLD),), policy=wants(GOLD)) == oids(GOLD)
    assert holds((policies(SILVER),), leaf=(policies(GOLD),), policy=wants(GOLD)) is None
    assert holds((), leaf=(policies(GOLD),), policy=wants(GOLD)) is None
    assert holds((policies(GOLD),), leaf=(), policy=wants(GOLD)) is None
    assert holds((policies(GOLD),), leaf=(policies(GOLD),), policy=wants(SILVER)) is None


def test_without_demand_a_path_without_policies_holds() -> None:
    target, sent = build((), leaf=())
    assert walk(target, sent, [ROOT]).policies == frozenset()


def test_any_policy_covers_each_until_it_is_inhibited() -> None:
    every = (policies(ANY_POLICY),)
    assert holds(every, leaf=(policies(GOLD),), policy=wants(GOLD)) == oids(GOLD)
    assert holds(every, leaf=every, policy=wants(GOLD)) == oids(GOLD)
    assert holds(every, leaf=every, policy=PolicyInputs(require_explicit=True)) == oids(ANY_POLICY)
    assert holds(every, leaf=(policies(GOLD),), policy=wants(GOLD, inhibit_any=True)) is None
    stopped = (policies(GOLD), inhibit_any(0))
    assert holds(stopped, leaf=every, policy=wants(GOLD)) is None
    assert holds(stopped, leaf=(policies(GOLD),), policy=wants(GOLD)) == oids(GOLD)


def test_a_mapping_translates_and_the_result_is_in_the_first_domain() -> None:
    mapped = (policies(GOLD), mappings((GOLD, SILVER)))
    assert holds(mapped, leaf=(policies(SILVER),), policy=wants(GOLD)) == oids(GOLD)
    assert holds(mapped, leaf=(policies(GOLD),), policy=wants(GOLD)) is None
    assert holds(mapped, leaf=(policies(SILVER),), policy=wants(SILVER)) is None


def test_a_mapping_from_any_policy_grows_a_node_of_its_own() -> None:
    mapped = (policies(ANY_POLICY), mappings((GOLD, SILVER)))
    assert holds(mapped, leaf=(policies(SILVER),), policy=wants(GOLD)) == oids(GOLD)


def test_an_inhibited_mapping_removes_the_policy() -> None:
    first = (policies(GOLD), policy_constraints(inhibit=0))
    second = (policies(GOLD), mappings((GOLD, SILVER)))
    assert holds(first, second, leaf=(policies(SILVER),), policy=wants(GOLD)) is None
    mapped = (policies(GOLD), mappings((GOLD, SILVER)))
    assert holds(mapped, leaf=(policies(SILVER),), policy=wants(GOLD, inhibit_mapping=True)) is None


@pytest.mark.parametrize("pair", [(ANY_POLICY, GOLD), (GOLD, ANY_POLICY)])
def test_any_policy_is_never_mapped(pair: tuple[str, str]) -> None:
    target, sent = build((policies(GOLD), mappings(pair)), leaf=(policies(GOLD),))
    assert refusal(target, sent, [ROOT]) is Reason.POLICY_MAPPING


def test_explicit_policy_can_be_required_by_a_ca_further_down() -> None:
    none: tuple[Ext, ...] = ()
    target, sent = build((policy_constraints(require=0),), leaf=none)
    assert refusal(target, sent, [ROOT]) is Reason.POLICY_REQUIRED
    target, sent = build((policy_constraints(require=2),), leaf=none)
    walk(target, sent, [ROOT])
    target, sent = build(none, leaf=(policy_constraints(require=0),))
    assert refusal(target, sent, [ROOT]) is Reason.POLICY_REQUIRED


def test_an_unknown_qualifier_counts_only_where_the_extension_is_critical() -> None:
    unknown = der.sequence(der.sequence(der.object_identifier("1.2.3.4"), der.NULL_DER))
    target, sent = build((policies(GOLD),), leaf=(policies(GOLD, qualifier=unknown),))
    walk(target, sent, [ROOT], policy=wants(GOLD))
    target, sent = build((policies(GOLD),), leaf=(policies(GOLD, qualifier=unknown, critical=True),))
    assert refusal(target, sent, [ROOT], policy=wants(GOLD)) is Reason.UNKNOWN_CRITICAL


def test_the_anchors_own_policies_bind_where_the_profile_says_so() -> None:
    anchor = chains.root("CN=Bound Root", policies(SILVER), private=ROOT.private)
    ca = anchor.ca("CN=CA", policies(GOLD, SILVER))
    gold, silver = ca.leaf(policies(GOLD)), ca.leaf(policies(SILVER))
    assert walk(gold, [ca], [anchor], policy=wants(GOLD)).policies == oids(GOLD)
    assert refusal(gold, [ca], [anchor], RFC5280_STRICT, policy=wants(GOLD)) is Reason.POLICY_REQUIRED
    assert walk(silver, [ca], [anchor], RFC5280_STRICT, policy=wants(SILVER)).policies == oids(SILVER)


def test_crossed_mappings_cost_no_more_than_their_size() -> None:
    """CVE-2023-0464: a tree doubles with each certificate, the graph does not."""
    every = [f"1.3.6.1.4.1.32473.7.{number}" for number in range(60)]
    crossed = [(one, other) for one in every for other in every[:20]]
    cas = [(policies(*every), mappings(*crossed)) for _ in range(8)]
    target, sent = build(*cas, leaf=(policies(*every[:20]),))
    walk(target, sent, [ROOT], policy=wants(every[0]))
    start = time.process_time()
    assert walk(target, sent, [ROOT], policy=wants(every[0])).policies == oids(every[0])
    assert time.process_time() - start < 2
    assert refusal(target, sent, [ROOT], policy=wants(BRONZE)) is Reason.POLICY_REQUIRED


# --- the graph and the tree --------------------------------------------------------------------------------------

NAMES = {policy_tree.ANY: ANY_POLICY, "gold": GOLD, "silver": SILVER, "bronze": BRONZE}
KEYS = [chains.key("p256", number) for number in range(1, 6)]


def random_facts(dice: random.Random) -> policy_tree.Facts:
    named = ["gold", "silver", "bronze"]
    pairs = {(dice.choice(named), dice.choice(named)) for _ in range(dice.choice([0, 0, 1, 2]))}
    return policy_tree.Facts(
        policies=None if dice.random() < 0.05 else tuple(dice.sample([*named, policy_tree.ANY], dice.randint(1, 3))),
        mappings=tuple(sorted(pairs)),
        require=dice.choice([None, None, None, 0, 1, 2]),
        inhibit_mapping=dice.choice([None, None, None, 0, 1]),
        inhibit_any=dice.choice([None, None, None, 0, 1]),
        is_self_issued=dice.random() < 0.15,
    )


def extensions_of(facts: policy_tree.Facts, *, is_leaf: bool) -> list[Ext]:
    made = [] if facts.policies is None else [policies(*(NAMES[one] for one in facts.policies))]
    if facts.mappings and not is_leaf:
        made.append(mappings(*((NAMES[one], NAMES[other]) for one, other in facts.mappings)))
    if facts.require is not None or facts.inhibit_mapping is not None:
        made.append(policy_constraints(facts.require, facts.inhibit_mapping))
    if facts.inhibit_any is not None:
        made.append(inhibit_any(facts.inhibit_any))
    return made


def test_the_graph_says_what_the_tree_of_rfc_5280_says() -> None:
    """RFC 9618 section 5 promises the same verdicts; 500 random paths hold it to that."""
    verdicts = {True: 0, False: 0}
    for seed in range(500):
        dice = random.Random(seed)
        path = [random_facts(dice) for _ in range(dice.randint(1, 5))]
        path[-1] = dataclasses.replace(path[-1], is_self_issued=False, mappings=())
        acceptable = frozenset(dice.sample(["gold", "silver", "bronze"], dice.randint(0, 2)))
        flags = {name: dice.random() < odds for name, odds in (("require", 0.7), ("no_map", 0.1), ("no_any", 0.1))}
        issuer, sent = ROOT, []
        for number, facts in enumerate(path[:-1]):
            subject = issuer.parsed.subject.der if facts.is_self_issued else f"CN=CA {seed} {number}"
            ca = (chains.basic(), chains.CA_USAGE, *extensions_of(facts, is_leaf=False))
            issuer = chains.make(subject, ca, issuer=issuer, private=KEYS[number])
            sent.append(issuer)
        leaf = issuer.leaf(*extensions_of(path[-1], is_leaf=True))
        inputs = PolicyInputs(
            acceptable=frozenset(oid_contents(NAMES[one]) for one in acceptable),
            require_explicit=flags["require"],
            inhibit_mapping=flags["no_map"],
            inhibit_any=flags["no_any"],
        )
        wanted = policy_tree.holds(path, acceptable, **flags)
        if wanted:
            walk(leaf, sent, [ROOT], policy=inputs)
        else:
            assert refusal(leaf, sent, [ROOT], policy=inputs) is Reason.POLICY_REQUIRED, f"seed {seed}"
        verdicts[wanted] += 1
    assert min(verdicts.values()) > 100
