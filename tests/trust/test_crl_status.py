"""Status from CRLs: every kind of CRL, its signer and its age; no certificate passes in doubt."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta
from itertools import permutations
from typing import Any

import pytest

from tests.simulator.refusals import reason_of, refuses
from tests.x509 import chains
from tests.x509.chains import (
    AT,
    DAY,
    Ext,
    Listed,
    Made,
    crl,
    crl_points,
    ocsp_id,
    ocsp_response,
    point,
    point_name,
    root,
    san,
    scope,
)
from vagus.errors import LimitExceeded, NotTrusted
from vagus.reasons import Reason
from vagus.trust.anchors import AnchorSet, ClockFloor
from vagus.trust.crl_memory import CrlMark, VolatileCrlMemory
from vagus.trust.crl_rules import DEFAULT_CRL_RULES, STRICT_CRL_RULES, CrlRules
from vagus.trust.crl_status import CrlStatus, newest_first
from vagus.trust.status import FirstSource, StatusSource
from vagus.trust.validation import Expectation, Role, Validator
from vagus.x509 import der
from vagus.x509.crls.decoding import decode_crl
from vagus.x509.ocsp.checks import OcspRules, check_response
from vagus.x509.paths.rules import PKIX
from vagus.x509.paths.search import PathAnchor, Pool, ValidPath
from vagus.x509.signatures import SignatureVerdicts

ROOT = root()
CA = ROOT.ca("O=Harbour,CN=CA")
HOUR = timedelta(hours=1)
ANY_CLIENT = Expectation(role=Role.CLIENT, needs_identity=False)
WRAPS: dict[str, Callable[[CrlStatus], StatusSource]] = {
    "bare": lambda source: source,
    "first answer": lambda source: FirstSource([source]),
}
HERE, THERE = ("uri", "http://status.example/1.crl"), ("uri", "http://status.example/2.crl")


def status(
    *crls: bytes, known: Sequence[Made] = (CA,), rules: CrlRules = DEFAULT_CRL_RULES, at: datetime = AT
) -> CrlStatus:
    made = loaded([ROOT.anchor], known, rules=rules)
    for content in crls:
        made.load(content, at)
    return made


def ask(source: CrlStatus, leaf: Made, issuer: Made = CA, at: datetime = AT) -> None:
    source.check_status(leaf.parsed, issuer.parsed, at)


def refused(source: CrlStatus, leaf: Made, issuer: Made = CA, at: datetime = AT) -> Reason:
    return reason_of(ask, source, leaf, issuer, at)


def staleness(source: CrlStatus, leaf: Made) -> object:
    """How many seconds its status is overdue."""
    with refuses(Reason.STATUS_STALE, NotTrusted) as caught:
        ask(source, leaf)
    return caught.value.facts["stale_seconds"]


def unloadable(source: CrlStatus, content: bytes) -> Reason:
    return reason_of(source.load, content, AT)


def loaded(anchors: Iterable[PathAnchor], known: Iterable[Made], *crls: bytes, **how: Any) -> CrlStatus:
    """A source with these anchors, certificates and CRLs."""
    source = CrlStatus(Pool(anchors, [one.parsed for one in known]), **how)
    for content in crls:
        source.load(content, AT)
    return source


def serial(made: Made) -> int:
    return made.parsed.serial


def access(*methods: str) -> Ext:
    """An authorityInfoAccess."""
    places = [der.sequence(der.object_identifier(one), chains.general(*HERE)) for one in methods]
    return Ext("1.3.6.1.5.5.7.1.1", der.sequence(*places))


# --- complete CRLs -----------------------------------------------------------------------------------------------


def test_a_listed_certificate_is_refused_and_its_neighbour_is_not() -> None:
    leaf, neighbour, held = CA.leaf(), CA.leaf(), CA.leaf()
    source = status(crl(CA, [Listed(serial(leaf), 1), Listed(serial(held), 6)]))
    assert refused(source, leaf) is Reason.REVOKED
    assert refused(source, held) is Reason.ON_HOLD
    ask(source, neighbour)


def test_without_a_crl_nothing_is_known() -> None:
    """Missing status is not good."""
    assert refused(status(), CA.leaf()) is Reason.STATUS_UNAVAILABLE
    other = ROOT.ca("CN=Other")
    assert refused(status(crl(other), known=(CA, other)), CA.leaf()) is Reason.STATUS_UNAVAILABLE


def test_the_serial_of_another_issuer_says_nothing() -> None:
    leaf = CA.leaf(serial=42)
    other = ROOT.ca("CN=Other")
    source = status(crl(CA), crl(other, [Listed(42)]), known=(CA, other))
    ask(source, leaf)


def test_a_crl_is_accepted_from_its_own_issuer_only() -> None:
    """RFC 5280 6.3.3 (f), (g)."""
    forged = chains.make("O=Harbour,CN=CA", (chains.basic(), chains.CA_USAGE))
    assert unloadable(status(), crl(forged)) is Reason.BAD_SIGNATURE
    assert unloadable(status(), crl(CA, flip=4)) is Reason.BAD_SIGNATURE
    assert unloadable(status(), crl(root("CN=Stranger"))) is Reason.CRL_INVALID
    mute = ROOT.issue("CN=Mute", (chains.basic(), chains.usage(5)))
    assert unloadable(status(known=(mute,)), crl(mute)) is Reason.KEY_USAGE
    homeless = root("CN=Homeless")
    assert unloadable(status(known=(homeless,)), crl(homeless)) in {Reason.UNTRUSTED_ANCHOR, Reason.NO_PATH}
    assert unloadable(status(), b"\x30\x00") is Reason.NON_DER


class Counted(SignatureVerdicts):
    """Real verdicts that count how often they were asked for."""

    asked = 0

    def verify(
        self,
        signed_sha256: bytes,
        spki_sha256: bytes,
        spki_der: bytes,
        signed: tuple[bytes, bytes, bytes],
        *,
        unsafe_legacy: bool,
    ) -> None:
        self.asked += 1
        super().verify(signed_sha256, spki_sha256, spki_der, signed, unsafe_legacy=unsafe_legacy)


def test_look_alikes_of_the_issuer_cost_a_bounded_number_of_signature_checks() -> None:
    keys = [chains.key("p256", number) for number in range(1, 120)]
    fakes = [chains.make("O=Harbour,CN=CA", (chains.basic(), chains.CA_USAGE), private=one) for one in keys]
    named = (chains.basic(), chains.CA_USAGE, chains.ski(CA.private))
    copied = [chains.make("O=Harbour,CN=CA", named, private=one, with_key_ids=False) for one in keys]
    marked = crl(CA, [], chains.aki(CA.private))
    counted = Counted()
    # the one that the CRL names by its key identifier is tried first
    loaded([ROOT.anchor], [*fakes, CA], marked, verdicts=counted)
    assert counted.asked <= 2
    for known, content in (([*copied, CA], marked), ([*fakes, CA], crl(CA))):
        counted = Counted()
        with refuses(Reason.BUDGET_EXHAUSTED, LimitExceeded) as caught:
            loaded([ROOT.anchor], known, content, verdicts=counted)
        assert caught.value.facts["limit"] == 16
        assert counted.asked <= 16


def test_certificates_of_one_key_share_the_budget_of_their_paths() -> None:
    """A hundred certificates of the CRL's own key without a path, each below another unknown CA of one name."""
    strangers = [root("CN=Stranger", private=chains.key("p256", number)) for number in range(1, 40)]
    strays = [one.ca("O=Harbour,CN=CA", private=CA.private) for one in strangers]
    counted = Counted()
    with refuses(Reason.BUDGET_EXHAUSTED, LimitExceeded):
        loaded([ROOT.anchor], (*strangers, *strays), crl(CA), verdicts=counted)
    assert counted.asked <= 64


def test_a_certificate_without_crl_sign_makes_the_issuers_crl_useless() -> None:
    mute = ROOT.issue("O=Harbour,CN=CA", (chains.basic(), chains.usage(5)), private=CA.private)
    source = status(crl(CA))
    assert refused(source, CA.leaf(), mute) is Reason.KEY_USAGE


def test_age_is_bounded() -> None:
    leaf = CA.leaf()
    source = status(crl(CA, next_update=AT))
    ask(source, leaf, at=AT)
    assert refused(source, leaf, at=AT + timedelta(seconds=1)) is Reason.STATUS_STALE
    assert refused(status(crl(CA, this_update=AT + HOUR), at=AT + HOUR), leaf) is Reason.CRL_INVALID
    assert refused(status(crl(CA, next_update=None)), leaf) is Reason.CRL_INVALID
    week = CrlRules(longest_life=timedelta(days=7))
    ask(status(crl(CA, next_update=None), rules=week), leaf)
    assert refused(status(crl(CA, this_update=AT - 8 * DAY, next_update=AT + DAY), rules=week), leaf) is (
        Reason.STATUS_STALE
    )


def test_the_last_second_of_the_calendar_can_be_asked_about() -> None:
    end = datetime(9999, 12, 31, 23, 59, 59, tzinfo=UTC)
    anchor = root("CN=Endless", not_after=end)
    leaf = anchor.leaf(not_after=end)
    rules = CrlRules(longest_life=timedelta(days=7))
    source = CrlStatus(Pool([anchor.anchor]), rules=rules, floor=ClockFloor(AT))
    source.load(crl(anchor, this_update=end - HOUR, next_update=end), end)
    validator = Validator(AnchorSet([anchor.anchor]), source, floor=ClockFloor(AT))
    validator.validate(leaf.der, [], ANY_CLIENT, end)
    begun = end - HOUR
    response = ocsp_response(anchor, ocsp_id(leaf, anchor), this_update=begun, produced_at=begun, next_update=None)
    week = OcspRules(longest_life=timedelta(days=7))
    check_response(response, leaf.parsed, anchor.parsed, end, SignatureVerdicts(), week)


def test_a_stale_status_has_its_age() -> None:
    source = status(crl(CA, next_update=AT - HOUR, this_update=AT - DAY))
    assert staleness(source, CA.leaf()) == 3600


def stale_list(*entries: Listed, issuer: Made = CA, late: timedelta = HOUR) -> bytes:
    return crl(issuer, list(entries), this_update=AT - 30 * DAY, next_update=AT - late)


def test_a_stale_crl_still_says_revoked() -> None:
    """A revocation is permanent. A hold may have been lifted since, so it is stale, and stale is not good."""
    leaf, held, neighbour = CA.leaf(), CA.leaf(), CA.leaf()
    source = status(stale_list(Listed(serial(leaf), 1), Listed(serial(held), 6)))
    assert refused(source, leaf) is Reason.REVOKED
    assert refused(source, held) is Reason.STATUS_STALE
    assert staleness(source, neighbour) == 3600


def test_a_crl_that_cannot_say_good_still_says_revoked() -> None:
    """Without a bound to its age, of a moment ahead of the clock, or for some reasons only."""
    leaf, neighbour = CA.leaf(), CA.leaf()
    listed = [Listed(serial(leaf), 1)]
    endless = status(crl(CA, listed, next_update=None))
    ahead = status(crl(CA, listed, this_update=AT + HOUR), at=AT + HOUR)
    partial = status(crl(CA, listed, scope(reasons=(1, 2))))
    for source in (endless, ahead, partial):
        assert refused(source, leaf) is Reason.REVOKED
        silence = Reason.STATUS_UNAVAILABLE if source is partial else Reason.CRL_INVALID
        assert refused(source, neighbour) is silence


def test_a_hold_of_a_stale_crl_has_no_stale_seconds() -> None:
    """So a caller that accepts a status of a bounded age never accepts this one."""
    held = CA.leaf()
    with refuses(Reason.STATUS_STALE, NotTrusted) as caught:
        ask(status(stale_list(Listed(serial(held), 6))), held)
    assert "stale_seconds" not in caught.value.facts
    # a CRL in date, by the CA's other key, decides
    fresh = ROOT.ca("O=Harbour,CN=CA")
    ask(status(stale_list(Listed(serial(held), 6)), crl(fresh), crl(ROOT), known=(CA, fresh)), held)


def test_how_stale_is_the_least_that_covers_every_reason() -> None:
    """A status has an age only if its CRLs would suffice if they were in date."""
    leaf = CA.leaf()
    old = {"this_update": AT - 30 * DAY}
    some = crl(CA, [], scope(reasons=(1, 2)), next_update=AT - HOUR, **old)  # type: ignore[arg-type]
    rest = crl(CA, [], scope(reasons=(3, 4, 5, 6, 7, 8)), next_update=AT - 3 * HOUR, **old)  # type: ignore[arg-type]
    assert refused(status(some), leaf) is Reason.STATUS_UNAVAILABLE
    assert staleness(status(some, rest), leaf) == 3 * 3600


def test_a_stale_word_about_the_signer_hides_no_revocation() -> None:
    clerk = ROOT.issue("O=Harbour,CN=Clerk", (chains.usage(6),))
    points = crl_points(point(point_name(HERE), issuer="O=Harbour,CN=Clerk"))
    leaf, neighbour = CA.leaf(points), CA.leaf(points)
    listed = [Listed(serial(leaf), 1, issuer="O=Harbour,CN=CA")]
    late = {"this_update": AT - DAY, "next_update": AT - 3 * HOUR}
    by_clerk = crl(clerk, listed, scope(point_name(HERE), indirect=True), **late)  # type: ignore[arg-type]
    source = status(by_clerk, stale_list(issuer=ROOT), known=(CA, clerk))
    assert refused(source, leaf) is Reason.REVOKED
    assert staleness(source, neighbour) == 3 * 3600


# --- newest only -------------------------------------------------------------------------------------------------


def test_a_newer_crl_replaces_the_older_at_once() -> None:
    leaf = CA.leaf()
    source = status(crl(CA, number=1, this_update=AT - 2 * HOUR))
    ask(source, leaf)
    source.load(crl(CA, [Listed(serial(leaf))], number=2, this_update=AT - HOUR), AT)
    assert refused(source, leaf) is Reason.REVOKED
    assert [one.number for one in source.loaded] == [2]


def test_an_older_crl_is_refused_also_after_a_restart() -> None:
    """RFC 5280 5.2.3: a replayed older CRL would clear a revocation."""
    memory = VolatileCrlMemory()
    pool = Pool([ROOT.anchor], [CA.parsed])
    old, new = (crl(CA, number=number, this_update=AT - (3 - number) * HOUR) for number in (1, 2))
    first = CrlStatus(pool, memory=memory)
    first.load(new, AT)
    assert unloadable(first, old) is Reason.CRL_ROLLBACK
    again = CrlStatus(pool, memory=memory)
    assert unloadable(again, old) is Reason.CRL_ROLLBACK
    again.load(new, AT)
    assert unloadable(again, crl(CA, number=3, this_update=AT - 2 * HOUR)) is Reason.CRL_ROLLBACK
    assert unloadable(again, crl(CA, number=1, this_update=AT)) is Reason.CRL_ROLLBACK


def test_of_crls_given_at_once_the_newest_of_each_kind_counts() -> None:
    leaf = CA.leaf()
    listed = [Listed(serial(leaf))]
    old, new = crl(CA, listed, number=1, this_update=AT - 2 * HOUR), crl(CA, number=2, this_update=AT - HOUR)
    twin = crl(CA, listed, number=2, this_update=AT - HOUR)
    for given, is_revoked in (((old, new), False), ((new, twin), True), ((old, new, twin), True), ((old,), True)):
        for order in permutations(given):
            source = status()
            taken = [source.load_unless_older(one.der, AT) for one in sorted(map(decode_crl, order), key=newest_first)]
            assert [one is None for one in taken] == [False] + [True] * (len(given) - 1)
            if is_revoked:
                assert refused(source, leaf) is Reason.REVOKED
            else:
                ask(source, leaf)


def test_crls_whose_numbers_and_dates_contradict_are_refused_in_each_order() -> None:
    contradicting = crl(CA, number=9, this_update=AT - 2 * HOUR), crl(CA, number=5, this_update=AT - HOUR)
    for order in permutations(contradicting):
        source = status()
        first, second = sorted(map(decode_crl, order), key=newest_first)
        source.load_unless_older(first.der, AT)
        assert reason_of(source.load_unless_older, second.der, AT) is Reason.CRL_ROLLBACK


def test_the_memory_of_an_earlier_run_refuses_an_older_crl_that_comes_alone() -> None:
    memory, pool = VolatileCrlMemory(), Pool([ROOT.anchor], [CA.parsed])
    old, new = (crl(CA, number=number, this_update=AT - (3 - number) * HOUR) for number in (1, 2))
    CrlStatus(pool, memory=memory).load_unless_older(new, AT)
    assert reason_of(CrlStatus(pool, memory=memory).load_unless_older, old, AT) is Reason.CRL_ROLLBACK


def test_a_crl_from_the_future_is_not_loaded_and_blocks_no_proper_one() -> None:
    """An issuer whose clock ran ahead for a day must not be locked out until that day has come."""
    leaf = CA.leaf()
    source = status(crl(CA, [Listed(serial(leaf))], number=1, this_update=AT - HOUR))
    ahead = crl(CA, number=9, this_update=AT + DAY, next_update=AT + 9 * DAY)
    assert unloadable(source, ahead) is Reason.CRL_INVALID
    assert refused(source, leaf) is Reason.REVOKED, "the CRL in use stays"
    source.load(crl(CA, number=2, this_update=AT), AT)
    ask(source, leaf)


def test_two_crls_of_one_second_go_by_their_number() -> None:
    """Of two CRLs of one date OpenSSL uses the first."""
    leaf = CA.leaf()
    source = status(crl(CA, number=1), crl(CA, [Listed(serial(leaf))], number=2))
    assert refused(source, leaf) is Reason.REVOKED
    assert unloadable(source, crl(CA, number=1)) is Reason.CRL_ROLLBACK


def test_crls_without_number_go_by_their_date() -> None:
    source = status(crl(CA, number=None, this_update=AT - HOUR))
    assert unloadable(source, crl(CA, number=None, this_update=AT - 2 * HOUR)) is Reason.CRL_ROLLBACK
    source.load(crl(CA, number=None, this_update=AT - HOUR / 2), AT)


def test_a_forged_crl_with_a_high_number_blocks_no_proper_one() -> None:
    source = loaded([ROOT.anchor], [CA], memory=VolatileCrlMemory())
    forged = chains.make("O=Harbour,CN=CA", (chains.basic(), chains.CA_USAGE))
    assert unloadable(source, crl(forged, number=1 << 100)) is Reason.BAD_SIGNATURE
    source.load(crl(CA, number=1), AT)


def test_marks_are_of_an_issuer_a_scope_and_a_key() -> None:
    memory = VolatileCrlMemory()
    source = CrlStatus(Pool([ROOT.anchor], [CA.parsed]), memory=memory)
    source.load(crl(CA, number=9), AT)
    source.load(crl(CA, [], scope(point_name(HERE)), number=3), AT)
    source.load(crl(ROOT, number=1), AT)
    source.load(crl(CA, number=4, base=3), AT)
    assert len(source.loaded) == 4
    memory.remember("x", CrlMark(1, 2))
    assert memory.find("x") == CrlMark(1, 2)


def test_a_verified_crl_raises_the_clock_floor() -> None:
    floor = ClockFloor(AT - 90 * DAY)
    source = CrlStatus(Pool([ROOT.anchor], [CA.parsed]), floor=floor)
    source.load(crl(CA, this_update=AT - HOUR), AT)
    assert floor.moment == AT - HOUR
    with pytest.raises(NotTrusted):
        floor.check(AT - 2 * HOUR)


# --- partitions and reasons --------------------------------------------------------------------------------------


def test_a_shard_speaks_for_the_certificates_that_point_to_it() -> None:
    """RFC 5280 6.3.3 (b)."""
    mine = CA.leaf(crl_points(point(point_name(HERE))))
    other = CA.leaf(crl_points(point(point_name(THERE))))
    source = status(crl(CA, [Listed(serial(mine))], scope(point_name(HERE))))
    assert refused(source, mine) is Reason.REVOKED
    assert refused(source, other) is Reason.STATUS_UNAVAILABLE
    source.load(crl(CA, [], scope(point_name(THERE))), AT)
    ask(source, other)


def test_a_relative_point_name_is_completed_by_the_issuers_name() -> None:
    relative = chains.attribute("OU", "shard 1")
    mine = CA.leaf(crl_points(point(point_name(relative=relative))))
    full = "O=Harbour,CN=CA,OU=shard 1"
    ask(status(crl(CA, [], scope(point_name(relative=relative)))), mine)
    ask(status(crl(CA, [], scope(point_name(("directory", full))))), mine)
    other = status(crl(CA, [], scope(point_name(("directory", "O=Harbour,CN=CA,OU=shard 2")))))
    assert refused(other, mine) is Reason.STATUS_UNAVAILABLE


def test_crls_for_users_and_for_cas_are_distinguished() -> None:
    leaf, sub = CA.leaf(), CA.ca("CN=Sub")
    users = status(crl(CA, [], scope(only_user=True)))
    authorities = status(crl(CA, [], scope(only_ca=True)))
    ask(users, leaf)
    ask(authorities, sub)
    assert refused(users, sub) is Reason.STATUS_UNAVAILABLE
    assert refused(authorities, leaf) is Reason.STATUS_UNAVAILABLE
    assert refused(status(crl(CA, [], scope(only_attribute=True))), leaf) is Reason.STATUS_UNAVAILABLE


def test_reasons_add_up_or_nothing_is_known() -> None:
    leaf = CA.leaf()
    some = crl(CA, [], scope(reasons=(1, 2)))
    rest = crl(CA, [], scope(reasons=(3, 4, 5, 6, 7, 8)))
    assert refused(status(some), leaf) is Reason.STATUS_UNAVAILABLE
    ask(status(some, rest), leaf)
    listed = crl(CA, [Listed(serial(leaf), 4)], scope(reasons=(3, 4, 5, 6, 7, 8)))
    assert refused(status(some, listed), leaf) is Reason.REVOKED


# --- indirect CRLs -----------------------------------------------------------------------------------------------


def test_an_indirect_crl_covers_certificates_that_name_its_issuer() -> None:
    clerk = ROOT.issue("O=Harbour,CN=Clerk", (chains.usage(6),))
    leaf = CA.leaf(crl_points(point(point_name(HERE), issuer="O=Harbour,CN=Clerk")))
    silent = CA.leaf(crl_points(point(point_name(HERE))))
    listed = crl(clerk, [Listed(serial(leaf), 1, issuer="O=Harbour,CN=CA")], scope(point_name(HERE), indirect=True))
    clean = crl(clerk, [Listed(serial(leaf), 1, issuer="CN=Other")], scope(point_name(HERE), indirect=True))
    of_root = crl(ROOT)
    assert refused(status(listed, of_root, known=(CA, clerk)), leaf) is Reason.REVOKED
    ask(status(clean, of_root, known=(CA, clerk)), leaf)
    assert refused(status(clean, of_root, known=(CA, clerk)), silent) is Reason.STATUS_UNAVAILABLE
    direct = crl(clerk, [], scope(point_name(HERE)))
    assert refused(status(direct, of_root, known=(CA, clerk)), leaf) is Reason.STATUS_UNAVAILABLE
    no_indirect = CrlRules(accepts_indirect=False)
    assert refused(status(clean, of_root, known=(CA, clerk), rules=no_indirect), leaf) is Reason.STATUS_UNAVAILABLE


def test_the_signer_of_an_indirect_crl_must_itself_be_good() -> None:
    clerk = ROOT.issue("O=Harbour,CN=Clerk", (chains.usage(6),))
    leaf = CA.leaf(crl_points(point(point_name(HERE), issuer="O=Harbour,CN=Clerk")))
    listed = crl(clerk, [], scope(point_name(HERE), indirect=True))
    assert refused(status(listed, crl(ROOT, [Listed(serial(clerk))]), known=(CA, clerk)), leaf) is Reason.CRL_INVALID
    assert refused(status(listed, known=(CA, clerk)), leaf) is Reason.STATUS_UNAVAILABLE


def test_the_signer_of_a_crl_must_lead_to_the_same_anchor() -> None:
    """6.3.3 (f)."""
    foreign = root("CN=Foreign Root")
    impostor = foreign.ca("O=Harbour,CN=CA")
    source = loaded([ROOT.anchor, foreign.anchor], [CA, impostor], crl(impostor), crl(foreign), crl(ROOT))
    path = ValidPath((CA.leaf().parsed, CA.parsed), ROOT.anchor, frozenset())
    with refuses(Reason.CRL_INVALID, NotTrusted):
        source.check_path_status(path, AT)
    source.load(crl(CA), AT)
    source.check_path_status(path, AT)


def test_a_crl_by_another_anchor_of_the_same_name_says_nothing() -> None:
    """6.3.3 (f): an anchor speaks for what leads to it, not for whatever bears its name."""
    namesake = root("O=Harbour,CN=CA")
    source = loaded([ROOT.anchor, namesake.anchor], [CA], crl(namesake), crl(ROOT))
    path = ValidPath((CA.leaf().parsed, CA.parsed), ROOT.anchor, frozenset())
    with refuses(Reason.CRL_INVALID, NotTrusted):
        source.check_path_status(path, AT)
    own = ValidPath((namesake.leaf().parsed,), namesake.anchor, frozenset())
    source.check_path_status(own, AT)


@pytest.mark.parametrize("wrap", WRAPS.values(), ids=WRAPS)
def test_the_anchor_of_the_path_counts_also_within_other_sources(wrap: Callable[[CrlStatus], StatusSource]) -> None:
    foreign = root("CN=Foreign Root")
    impostor = foreign.ca("O=Harbour,CN=CA")
    anchors = AnchorSet([ROOT.anchor, foreign.anchor])
    leaf = CA.leaf()

    def judge(*crls: bytes) -> None:
        source = wrap(loaded(anchors, [CA, impostor], *crls))
        Validator(anchors, source).validate(leaf.der, [CA.der], ANY_CLIENT, AT)

    with refuses(Reason.CRL_INVALID, NotTrusted):
        judge(crl(impostor), crl(foreign), crl(ROOT))
    judge(crl(CA), crl(ROOT))
    with refuses(Reason.REVOKED_CA, NotTrusted):
        judge(crl(CA), crl(ROOT, [Listed(serial(CA))]))


# --- delta CRLs --------------------------------------------------------------------------------------------------


def test_a_delta_adds_and_lifts_holds() -> None:
    """RFC 5280 5.2.4."""
    added, lifted, kept = CA.leaf(), CA.leaf(), CA.leaf()
    base = crl(CA, [Listed(serial(lifted), 6), Listed(serial(kept), 1)], number=5)
    delta = crl(CA, [Listed(serial(added), 4), Listed(serial(lifted), 8), Listed(serial(kept), 8)], number=6, base=5)
    source = status(base, delta)
    assert refused(source, added) is Reason.REVOKED
    ask(source, lifted)
    # removeFromCRL takes back a hold, never a revocation
    assert refused(source, kept) is Reason.REVOKED
    without = status(base, delta, rules=CrlRules(uses_deltas=False))
    ask(without, added)
    assert refused(without, lifted) is Reason.ON_HOLD


FITS_NOT = pytest.mark.parametrize(
    ("number", "base"), [(7, 6), (4, 3)], ids=["builds on a later base", "is older than the base"]
)


@FITS_NOT
def test_a_delta_that_does_not_fit_its_base_brings_nothing_forward(number: int, base: int) -> None:
    """5.2.4: together they are not all that the issuer has to say, so a hold is neither set nor lifted by it."""
    held, lifted = CA.leaf(), CA.leaf()
    entries = [Listed(serial(held), 6), Listed(serial(lifted), 8)]
    source = status(crl(CA, [Listed(serial(lifted), 6)], number=5), crl(CA, entries, number=number, base=base))
    ask(source, held)
    assert refused(source, lifted) is Reason.ON_HOLD


@FITS_NOT
def test_what_a_delta_says_for_ever_it_says_over_any_base(number: int, base: int) -> None:
    """Bases are replaced every few hours and hold for days: who has the older one and the newest delta knows it all."""
    leaf = CA.leaf()
    delta = crl(CA, [Listed(serial(leaf), 1)], number=number, base=base)
    assert refused(status(crl(CA, number=5), delta), leaf) is Reason.REVOKED
    assert refused(status(crl(CA, number=None), delta), leaf) is Reason.REVOKED
    assert refused(status(delta), leaf) is Reason.REVOKED, "also without its base"
    ask(status(crl(CA, number=5), delta, rules=CrlRules(uses_deltas=False)), leaf)


def test_a_revocation_beside_another_entry_of_its_certificate_is_not_taken_back() -> None:
    """A CA that appends: keyCompromise, and after it the older hold or its release."""
    leaf = CA.leaf()
    assert refused(status(crl(CA, [Listed(serial(leaf), 1), Listed(serial(leaf), 6)])), leaf) is Reason.REVOKED
    base = crl(CA, [Listed(serial(leaf), 6)], number=5)
    delta = crl(CA, [Listed(serial(leaf), 1), Listed(serial(leaf), 8)], number=6, base=5)
    assert refused(status(base, delta), leaf) is Reason.REVOKED


def test_a_delta_revokes_nothing_beyond_its_scope_and_its_signer() -> None:
    leaf = CA.leaf(crl_points(point(point_name(HERE))))
    listed = [Listed(serial(leaf), 1)]
    elsewhere = crl(CA, listed, scope(point_name(THERE)), number=7, base=6)
    ask(status(crl(CA, number=5), elsewhere), leaf)
    here = crl(CA, listed, scope(point_name(HERE)), number=7, base=6)
    assert refused(status(crl(CA, number=5), here), leaf) is Reason.REVOKED
    fresh = ROOT.ca("O=Harbour,CN=CA")
    by_thief = crl(fresh, listed, number=7, base=6)
    thief_is_out = crl(ROOT, [Listed(serial(fresh), 1)])
    ask(status(crl(CA, number=5), by_thief, thief_is_out, known=(CA, fresh)), leaf)


def test_a_delta_alone_is_no_status() -> None:
    source = status(crl(CA, number=6, base=5))
    assert refused(source, CA.leaf()) is Reason.STATUS_UNAVAILABLE


def test_of_a_stale_delta_only_its_revocations_count() -> None:
    leaf, held, lifted = CA.leaf(), CA.leaf(), CA.leaf()
    entries = [Listed(serial(leaf)), Listed(serial(held), 6), Listed(serial(lifted), 8)]
    stale = crl(CA, entries, number=6, base=5, this_update=AT - DAY, next_update=AT - HOUR)
    source = status(crl(CA, [Listed(serial(lifted), 6)], number=5), stale)
    assert refused(source, leaf) is Reason.REVOKED
    ask(source, held)
    assert refused(source, lifted) is Reason.ON_HOLD


# --- keys that roll over -----------------------------------------------------------------------------------------


def test_a_new_key_of_the_ca_signs_for_the_old_ones_certificates() -> None:
    fresh = ROOT.ca("O=Harbour,CN=CA")
    leaf = CA.leaf()
    by_new = crl(fresh, [Listed(serial(leaf))])
    assert refused(status(by_new, crl(ROOT), known=(CA, fresh)), leaf) is Reason.REVOKED
    ask(status(crl(fresh), crl(ROOT), known=(CA, fresh)), leaf)
    # both generations publish: what either CRL names is revoked
    assert refused(status(by_new, crl(CA), crl(ROOT), known=(CA, fresh)), leaf) is Reason.REVOKED


def test_a_revoked_key_signs_no_more_crls() -> None:
    fresh = ROOT.ca("O=Harbour,CN=CA")
    leaf = CA.leaf()
    source = status(crl(fresh), crl(ROOT, [Listed(serial(fresh))]), known=(CA, fresh))
    with refuses(Reason.CRL_INVALID, NotTrusted) as caught:
        ask(source, leaf)
    assert caught.value.facts["cause"] is Reason.REVOKED
    # the leaf itself is listed nowhere: who knows better may say so
    FirstSource([source, status(crl(CA))]).check_status(leaf.parsed, CA.parsed, AT)
    held = status(crl(fresh), crl(ROOT, [Listed(serial(fresh), 6)]), known=(CA, fresh))
    assert refused(held, leaf) is Reason.CRL_INVALID


def test_a_held_ca_is_gone_around_where_the_profile_lets_a_revoked_one_be() -> None:
    """One name and key with two certificates: on hold under one root, good under the other."""
    other = root("CN=Other Root")
    twin = other.ca("O=Harbour,CN=CA", private=CA.private)
    leaf = CA.leaf(san(("dns", "a.example")))
    anchors = AnchorSet([ROOT.anchor, other.anchor])
    source = loaded(anchors, [CA, twin], crl(CA), crl(ROOT, [Listed(serial(CA), 6)]), crl(other))
    for sent in ([CA.der, twin.der], [twin.der, CA.der]):
        Validator(anchors, source, profile=PKIX).validate(leaf.der, sent, ANY_CLIENT, AT)
    with refuses(Reason.REVOKED_CA, NotTrusted):
        Validator(anchors, source).validate(leaf.der, [CA.der], ANY_CLIENT, AT)


def test_a_new_key_vouches_for_itself_by_the_standard_and_never_for_devices() -> None:
    """PKITS 4.5 wants the circle closed; a thief of the new key could close it too."""
    fresh = CA.ca("O=Harbour,CN=CA")  # self-issued: the old key certifies the new one
    lists = (crl(fresh), crl(ROOT))
    ask(status(*lists, known=(CA, fresh)), fresh)
    assert refused(status(*lists, known=(CA, fresh), rules=STRICT_CRL_RULES), fresh) is Reason.STATUS_UNAVAILABLE
    ask(status(*lists, crl(CA), known=(CA, fresh), rules=STRICT_CRL_RULES), fresh)
    revoking = crl(CA, [Listed(serial(fresh))])
    assert refused(status(*lists, revoking, known=(CA, fresh), rules=STRICT_CRL_RULES), fresh) is Reason.REVOKED


# --- the rest ----------------------------------------------------------------------------------------------------


def test_missing_status_of_a_short_lived_certificate_is_no_fault() -> None:
    """RFC 9608; a CA that says so is asked about all the same."""
    short = CA.leaf(chains.NO_REV_AVAIL)
    ask(status(), short)
    ask(status(stale_list()), short)
    ask(status(crl(CA, [], scope(reasons=(1, 2)))), short)
    strict = CrlRules(honours_no_rev_avail=False)
    assert refused(status(rules=strict), short) is Reason.STATUS_UNAVAILABLE
    assert refused(status(), CA.ca("CN=Sub", chains.NO_REV_AVAIL)) is Reason.STATUS_UNAVAILABLE


def test_what_a_crl_says_of_a_short_lived_certificate_counts() -> None:
    """The issuer may publish no status for it; a status that is published all the same counts."""
    short = CA.leaf(chains.NO_REV_AVAIL)
    revoked, held = [Listed(serial(short), 1)], [Listed(serial(short), 6)]
    assert refused(status(crl(CA, revoked)), short) is Reason.REVOKED
    assert refused(status(crl(CA, held)), short) is Reason.ON_HOLD
    assert refused(status(stale_list(*revoked)), short) is Reason.REVOKED
    assert refused(status(stale_list(*held)), short) is Reason.STATUS_STALE, "no grace covers it either"
    assert refused(status(crl(CA, revoked, number=7, base=6)), short) is Reason.REVOKED
    stranger = ROOT.ca("CN=Other")
    ask(status(crl(stranger, revoked), known=(CA, stranger)), short)


@pytest.mark.parametrize(
    "beside",
    [
        crl_points(point(point_name(HERE))),
        Ext("2.5.29.46", der.sequence(point(point_name(HERE)))),
        access("1.3.6.1.5.5.7.48.1"),
        access("1.3.6.1.5.5.7.48.2", "1.3.6.1.5.5.7.48.1"),
        Ext("1.3.6.1.5.5.7.1.1", b""),
    ],
    ids=["lists", "deltas", "a responder", "a responder behind another", "what cannot be read"],
)
def test_no_rev_avail_beside_a_pointer_is_not_believed(beside: Ext) -> None:
    """RFC 9608 3: such a certificate must not be issued, so it is not known which half is meant."""
    leaf = CA.leaf(chains.NO_REV_AVAIL, beside)
    assert refused(status(), leaf) is Reason.STATUS_UNAVAILABLE
    ask(status(crl(CA)), leaf)
    ask(status(), CA.leaf(chains.NO_REV_AVAIL, access("1.3.6.1.5.5.7.48.2")))
    assert refused(status(), CA.leaf(Ext("2.5.29.56", der.octet_string(b"")))) is Reason.STATUS_UNAVAILABLE


def test_a_path_is_asked_about_from_the_leaf_to_the_anchor() -> None:
    leaf = CA.leaf()
    path = ValidPath((leaf.parsed, CA.parsed), ROOT.anchor, frozenset())
    source = status(crl(CA), crl(ROOT))
    source.check_path_status(path, AT)
    source.load(crl(ROOT, [Listed(serial(CA))], number=2), AT)
    with refuses(Reason.REVOKED_CA, NotTrusted):
        source.check_path_status(path, AT)


def test_crls_are_replaced_while_other_threads_check() -> None:
    leaf = CA.leaf()
    source = status(crl(CA, number=1))
    contents = [crl(CA, [Listed(n) for n in range(1, 50)], number=number) for number in range(2, 30)]

    def check_often() -> None:
        for _ in range(300):
            ask(source, leaf)

    with ThreadPoolExecutor(3) as pool:
        checks = [pool.submit(check_often) for _ in range(3)]
        for content in contents:
            source.load(content, AT)
        assert [check.result(30) for check in checks] == [None] * 3
    assert [one.number for one in source.loaded] == [29]
