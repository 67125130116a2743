"""The search for a path: backtracking, imitations, circles, and bounds that no input passes."""

from __future__ import annotations

import time

import pytest

from tests.simulator.refusals import reason_of
from tests.x509 import chains
from tests.x509.chains import AT, CLIENT_AUTH, DAY, Ext, Made, make, root
from tests.x509.walking import refusal, walk
from vagus.errors import NotTrusted
from vagus.reasons import Reason
from vagus.x509.budgets import Limits
from vagus.x509.paths.checks import PathInputs
from vagus.x509.paths.rules import DEVICE, PKIX
from vagus.x509.paths.search import PathAnchor, Pool, Search, ValidPath, find_path
from vagus.x509.signatures import SignatureVerdicts

ROOT = root()
CA = ROOT.ca("O=Harbour,CN=CA")


def test_a_chain_in_any_order_and_with_others_in_it_is_found() -> None:
    second = CA.ca("O=Harbour,CN=Second")
    leaf = second.leaf()
    others = [root("O=Other,CN=Stranger"), root("O=Harbour,CN=CA")]
    found = walk(leaf, [*others, second, leaf, CA, ROOT], [ROOT])
    assert [one.sha256 for one in found.certificates] == [made.parsed.sha256 for made in (leaf, second, CA)]
    assert found.anchor.sha256 == ROOT.parsed.sha256
    assert found.target == leaf.parsed


def test_an_imitation_of_the_root_is_not_trusted() -> None:
    """A1: the same name, another key."""
    false_root = root()
    leaf = false_root.leaf()
    assert refusal(leaf, [false_root], [ROOT]) is Reason.BAD_SIGNATURE
    assert refusal(false_root, [], [ROOT]) is Reason.BAD_SIGNATURE
    unnamed = root("O=Other,CN=Root").leaf()
    assert refusal(unnamed, [], [ROOT]) is Reason.NO_PATH
    assert refusal(root("O=Other,CN=Root"), [], [ROOT]) is Reason.UNTRUSTED_ANCHOR


def test_an_intermediate_that_is_missing_leaves_no_path() -> None:
    assert refusal(CA.leaf(), [], [ROOT]) is Reason.NO_PATH


def test_an_anchor_may_be_an_intermediate() -> None:
    found = walk(CA.leaf(), [], [CA])
    assert found.anchor.sha256 == CA.parsed.sha256


def test_the_name_of_the_issuer_may_be_written_otherwise() -> None:
    """PKITS 4.3: case, spaces and string type of the issuer's name differ."""
    leaf = make("CN=x", (chains.LEAF_USAGE,), issuer=CA, issuer_name=chains.name("O=HARBOUR,CN= ca ", 0x13))
    walk(leaf, [CA], [ROOT], purpose=None)


@pytest.mark.parametrize(
    "bad",
    [
        {"not_after": AT - DAY},
        {"not_before": AT + DAY},
        {"extensions": (chains.CA_USAGE,)},
        {"extensions": (chains.basic(), chains.usage(6))},
        {"extensions": (chains.basic(), chains.CA_USAGE, Ext(chains.UNKNOWN, b"\x05\x00", critical=True))},
        {"extensions": (chains.basic(), chains.CA_USAGE, chains.constraints([("dns", "other.example")]))},
        {"flip": 77},
    ],
    ids=["expired", "future", "no-ca", "no-certsign", "critical", "constrained", "signature"],
)
def test_a_bad_twin_of_the_ca_is_not_used(bad: dict[str, object]) -> None:
    """RFC 4158: the same name and key certified twice, once unusably; the other one must be found, in any order."""
    private = chains.key("p256", 31)
    extensions = bad.pop("extensions", (chains.basic(), chains.CA_USAGE))
    good = ROOT.issue("CN=Twin", (chains.basic(), chains.CA_USAGE), private=private)
    twin = ROOT.issue("CN=Twin", extensions, private=private, **bad)  # type: ignore[arg-type]
    leaf = good.leaf(chains.san(("dns", "a.example")))
    for sent in ([good, twin], [twin, good]):
        found = walk(leaf, sent, [ROOT])
        # two certificates of one name and key are alternatives, never links of one path
        assert found.certificates[1].sha256 == good.parsed.sha256
    with pytest.raises(NotTrusted):
        walk(leaf, [twin], [ROOT])


def test_cross_certification_finds_the_anchor_that_is_trusted() -> None:
    other = root("O=Other,CN=Root")
    crossed = other.ca("O=Harbour,CN=CA", private=CA.private)
    leaf = CA.leaf()
    assert walk(leaf, [crossed, CA], [other]).anchor.sha256 == other.parsed.sha256
    assert walk(leaf, [crossed, CA], [ROOT]).anchor.sha256 == ROOT.parsed.sha256


def test_circles_of_certificates_end() -> None:
    """Two CAs that certify each other, and no anchor above them."""
    one = root("CN=One")
    two = one.ca("CN=Two")
    one_by_two = two.ca("CN=One", private=one.private)
    leaf = one.leaf()
    assert refusal(leaf, [two, one_by_two], [ROOT]) is Reason.NO_PATH


def test_the_first_refusal_is_what_the_caller_gets() -> None:
    expired = ROOT.ca("CN=Twin", private=chains.key("p256", 31), not_after=AT - DAY)
    assert refusal(expired.leaf(), [expired], [ROOT]) is Reason.EXPIRED_CA


def test_the_inner_and_outer_algorithm_must_be_one() -> None:
    leaf = CA.leaf(outer_algorithm=chains.identifier("1.2.840.10045.4.3.3"))
    assert refusal(leaf, [CA], [ROOT]) is Reason.SIG_ALG_MISMATCH


def test_a_bare_key_is_an_anchor() -> None:
    parsed = ROOT.parsed
    anchor = PathAnchor(parsed.subject, parsed.spki_der, parsed.spki_sha256, None, parsed.spki_sha256)
    inputs = PathInputs(at=AT)
    search = Search(Pool([anchor]), Pool((), [CA.parsed]), DEVICE, inputs, SignatureVerdicts())
    names = chains.san(("dns", "a.example"))
    assert find_path(CA.leaf(names).parsed, search).anchor.certificate is None


def test_the_search_goes_on_after_a_refusal_by_the_caller() -> None:
    private = chains.key("p256", 32)
    first, second = (ROOT.ca("CN=Twin", private=private) for _ in range(2))
    refused: list[bytes] = []

    def accept(path: ValidPath) -> None:
        if not refused:
            refused.append(path.certificates[1].sha256)
            raise NotTrusted(Reason.REVOKED_CA, "revoked")

    found = walk(first.leaf(), [first, second], [ROOT], accept=accept)
    assert found.certificates[1].sha256 != refused[0]


@pytest.mark.parametrize("reason", [Reason.REVOKED, Reason.ON_HOLD])
def test_a_revoked_target_ends_the_search(reason: Reason) -> None:
    private = chains.key("p256", 32)
    first, second = (ROOT.ca("CN=Twin", private=private) for _ in range(2))
    asked = []

    def accept(path: ValidPath) -> None:
        asked.append(path)
        raise NotTrusted(reason, "revoked")

    assert refusal(first.leaf(), [first, second], [ROOT], accept=accept) is reason
    assert len(asked) == 1


def test_no_cross_certificate_leads_around_a_revoked_ca() -> None:
    """A9, where the profile bans revoked keys."""
    private = chains.key("p256", 32)
    first, second = (ROOT.ca("CN=Twin", private=private) for _ in range(2))
    leaf = first.leaf(chains.san(("dns", "a.example")))

    def accept(path: ValidPath) -> None:
        if path.certificates[1] == first.parsed:
            raise NotTrusted(Reason.REVOKED_CA, "revoked")

    assert walk(leaf, [first, second], [ROOT], PKIX, accept=accept)
    assert refusal(leaf, [first, second], [ROOT], DEVICE, accept=accept) is Reason.REVOKED_CA


# --- bounds ------------------------------------------------------------------------------------------------------


def layers(depth: int, width: int) -> tuple[Made, list[Made]]:
    """`width` CAs in each of `depth` layers, each certified by all of the layer above; nothing leads to an anchor."""
    above = [root(f"CN=L0 {number}", private=chains.key("p256", number + 1)) for number in range(width)]
    made: list[Made] = []
    for layer in range(1, depth):
        keys = [chains.key("p256", (layer * width + number) % 38 + 1) for number in range(width)]
        made += [parent.ca(f"CN=L{layer}", private=private) for parent in above for private in keys]
        above = made[-width:]
    return above[0].leaf(), made


def test_a_search_without_end_is_stopped_by_its_counts() -> None:
    target, sent = layers(8, 6)
    start = time.process_time()
    assert refusal(target, sent, [ROOT]) in {Reason.BUDGET_EXHAUSTED, Reason.NO_PATH}
    assert time.process_time() - start < 2


def test_ten_thousand_crossed_intermediates_cost_what_64_signatures_cost() -> None:
    private = chains.key("p256", 33)
    crowd = [
        make("O=Harbour,CN=CA", (chains.basic(), chains.CA_USAGE), issuer=None, private=chains.key("p256", 34))
        for _ in range(200)
    ]
    parsed = [one.parsed for one in crowd] * 50
    leaf = make("CN=x", (chains.LEAF_USAGE,), issuer=CA, private=private)
    search = Search(Pool([ROOT.anchor]), Pool((), parsed), PKIX, PathInputs(at=AT), SignatureVerdicts(), Limits())
    start = time.process_time()
    assert reason_of(find_path, leaf.parsed, search) in {Reason.BUDGET_EXHAUSTED, Reason.BAD_SIGNATURE}
    assert time.process_time() - start < 5


def test_the_verdict_does_not_depend_on_a_warm_cache() -> None:
    """Signature checks count whether or not a cache answers them."""
    chain = [ROOT]
    for number in range(5):
        chain.append(chain[-1].ca(f"CN=Deep {number}"))
    leaf = chain[-1].leaf()
    tight = Limits(signatures=3)
    assert refusal(leaf, chain[1:], [ROOT], limits=tight) is Reason.BUDGET_EXHAUSTED
    verdicts = SignatureVerdicts()
    for limits in (Limits(), tight):
        pool, extra = Pool([ROOT.anchor]), Pool((), [one.parsed for one in chain[1:]])
        search = Search(pool, extra, PKIX, PathInputs(at=AT), verdicts, limits)
        if limits is tight:
            assert reason_of(find_path, leaf.parsed, search, match="signature checks") is Reason.BUDGET_EXHAUSTED
        else:
            find_path(leaf.parsed, search)


def test_paths_are_no_longer_than_allowed() -> None:
    second = CA.ca("CN=Second")
    leaf = second.leaf()
    walk(leaf, [CA, second], [ROOT], longest_path=2)
    assert refusal(leaf, [CA, second], [ROOT], longest_path=1) is Reason.NO_PATH
    rolled = CA.ca("O=Harbour,CN=CA")
    walk(rolled.leaf(), [CA, rolled], [ROOT], longest_path=1)


def test_purpose_is_part_of_the_search() -> None:
    private = chains.key("p256", 35)
    bound = ROOT.ca("CN=Twin", chains.purposes(chains.SERVER_AUTH), private=private)
    free = ROOT.ca("CN=Twin", private=private)
    leaf = free.leaf()
    assert walk(leaf, [bound, free], [ROOT], purpose=CLIENT_AUTH).certificates[1].sha256 == free.parsed.sha256
    assert refusal(leaf, [bound], [ROOT]) is Reason.ROLE_FORBIDDEN
