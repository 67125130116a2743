"""Large input has stated bounds: what lies within them is answered, what lies beyond is refused before it costs.

Time is CPU seconds with ample room for slow machines; the counts are what bounds the work.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import pytest

from tests.simulator.refusals import reason_of, refuses
from tests.x509 import chains
from tests.x509.chains import AT, Ext, Made, constraints, root, san
from tests.x509.walking import refusal, walk
from vagus.errors import LimitExceeded, VagusError
from vagus.reasons import Reason
from vagus.trust.anchors import AnchorSet
from vagus.trust.status import UnsafeNoStatus
from vagus.trust.validation import Expectation, Role, Validator
from vagus.x509 import der
from vagus.x509.budgets import DEFAULT_LIMITS
from vagus.x509.certificates import MAX_CERTIFICATE, decode_certificate
from vagus.x509.crls.decoding import decode_crl
from vagus.x509.crls.scope import distribution_points
from vagus.x509.der import ENUMERATED, MAX_INTEGER, MAX_SERIAL
from vagus.x509.extensions import KEY_USAGE
from vagus.x509.ocsp.messages import decode_ocsp_request, decode_ocsp_response

ROOT = root()
CA = ROOT.ca("O=Harbour,CN=CA")
VALIDATOR = Validator(AnchorSet([ROOT.anchor]), UnsafeNoStatus())
ANYBODY = Expectation(role=Role.CLIENT, needs_identity=False)


# what costs the square of its length when it is read without care
MARKS = "a" + "\u0301" * 10_000 + "\u0316" * 10_000
LONG_BITS = der.encode_tlv(der.BIT_STRING, b"\0" + b"\xff" * 90_000)


@contextmanager
def within(seconds: float) -> Iterator[None]:
    start = time.process_time()
    yield
    assert time.process_time() - start < seconds


def test_a_certificate_of_100_kb_is_judged() -> None:
    leaf = CA.leaf(Ext(chains.UNKNOWN, bytes(100_000)), san(("dns", "a.example")))
    assert 100_000 < len(leaf.der) <= MAX_CERTIFICATE
    with within(1):
        walk(leaf, [CA], [ROOT])


def test_a_certificate_of_140_kb_is_refused() -> None:
    with within(1), refuses(Reason.TOO_LARGE):
        CA.leaf(Ext(chains.UNKNOWN, bytes(140_000))).parsed  # noqa: B018  parsing is the point


def many_names(count: int) -> Made:
    return CA.leaf(san(*(("dns", f"h{number}.x") for number in range(count))))


def test_ten_thousand_names_are_judged() -> None:
    leaf = many_names(10_000)
    with within(3):
        walk(leaf, [CA], [ROOT])


def test_ten_thousand_names_under_few_constraints_are_judged_and_under_many_refused() -> None:
    few = ROOT.ca("CN=Few", constraints([("dns", "x")], [("dns", "secret.x")]))
    many = ROOT.ca("CN=Many", constraints([("dns", f"h{number}.x") for number in range(1_000)]))
    names = san(*(("dns", f"h{number % 900}.x") for number in range(10_000)))
    with within(3):
        walk(few.leaf(names), [few], [ROOT])
        # 10,000 names times 1,000 subtrees: ten million comparisons
        assert refusal(many.leaf(names), [many], [ROOT]) is Reason.BUDGET_EXHAUSTED


def test_a_thousand_constraints_are_judged() -> None:
    every: list[tuple[str, str | bytes]] = [("dns", f"d{number}.x") for number in range(250)]
    every += [("email", f"m{number}.x") for number in range(250)]
    every += [("ip", bytes([10, number, 0, 0, 255, 255, 0, 0])) for number in range(250)]
    every += [("directory", f"O=Org {number}") for number in range(250)]
    ca = ROOT.ca("CN=Many", constraints(every))
    inside = ca.leaf(san(("dns", "a.d249.x"), ("email", "a@m0.x"), ("ip", b"\x0a\xf9\0\1")), subject="O=Org 7,CN=a")
    outside = ca.leaf(san(("dns", "a.d250.x")), subject="O=Org 7,CN=a")
    with within(2):
        walk(inside, [ca], [ROOT])
        assert refusal(outside, [ca], [ROOT]) is Reason.NAME_CONSTRAINT


def test_constraints_in_every_ca_of_a_long_chain_are_counted_together() -> None:
    issuer, sent = ROOT, []
    for number in range(10):
        issuer = issuer.ca(f"CN=CA {number}", constraints([("dns", f"h{one}.x") for one in range(300)]))
        sent.append(issuer)
    leaf = issuer.leaf(san(*(("dns", f"h{one}.x") for one in range(300))))
    with within(5):
        assert refusal(leaf, sent, [ROOT]) is Reason.BUDGET_EXHAUSTED


def test_ten_thousand_crossed_intermediates_are_judged_within_the_counts() -> None:
    """A hundred names, each certified by each: no path leads to an anchor, and the search must not try them all."""
    keys = [chains.key("p256", number) for number in range(1, 39)]
    makers = [root(f"CN=X{number}", private=keys[number % 38]) for number in range(100)]
    chain = [maker.der for maker in makers]
    for maker in makers:
        chain += [
            maker.ca(f"CN=X{number}", private=keys[number % 38]).der
            for number in range(100)
            if makers[number] is not maker
        ]
    assert len(chain) == 10_000
    target = makers[0].leaf(san(("dns", "a.example")))
    with within(20):
        reason = reason_of(VALIDATOR.validate, target.der, chain, ANYBODY, AT)
    assert reason in {Reason.BUDGET_EXHAUSTED, Reason.NO_PATH}


def test_more_than_sixteen_megabytes_are_not_read() -> None:
    huge = [bytes(1 << 20)] * 17
    with within(1), refuses(Reason.TOO_LARGE):
        VALIDATOR.validate(CA.leaf().der, huge, ANYBODY, AT)
    assert DEFAULT_LIMITS.total_bytes == 16 << 20


def test_deep_nesting_costs_no_stack() -> None:
    nested = b""
    for _ in range(20_000):
        nested = der.sequence(nested)
    with within(2):
        walk(CA.leaf(Ext(chains.UNKNOWN, nested)), [CA], [ROOT])
        broken = CA.leaf(Ext("2.5.29.30", nested))
        assert refusal(broken, [CA], [ROOT]) is Reason.BAD_EXTENSION


def test_names_of_many_attributes_are_judged() -> None:
    subject = ",".join(f"OU=unit {number}" for number in range(3_000))
    with within(2):
        walk(CA.leaf(subject=subject), [CA], [ROOT])


def oversized() -> dict[str, Made]:
    """Certificates that ANYBODY can make, of some 90 kB, with a list of bits or a name that grows by the square."""
    unknown = chains.name("CN=Unknown")
    return {
        "key usage": chains.make("CN=x", (Ext("2.5.29.15", LONG_BITS, critical=True),), issuer_name=unknown),
        "subject": chains.make(f"CN={MARKS}", (chains.LEAF_USAGE,), issuer_name=unknown),
        "issuer": chains.make("CN=x", (chains.LEAF_USAGE,), issuer_name=chains.name(f"CN={MARKS}")),
        "alternative name": chains.make("CN=x", (san(("directory", f"CN={MARKS}")),), issuer_name=unknown),
        "decomposing marks": chains.make("CN=a" + "\u0f73" * 20_000, issuer_name=unknown),
    }


@pytest.mark.parametrize("kind", sorted(oversized()))
def test_long_bits_and_piled_marks_of_any_peer_cost_a_few_milliseconds(kind: str) -> None:
    """Any peer can send these before it is trusted: each is read in one pass over its bytes."""
    made = oversized()[kind]
    with within(0.15):  # some 2 s where the work is quadratic
        with pytest.raises(VagusError):
            VALIDATOR.validate(made.der, [], ANYBODY, AT)
        VALIDATOR.validate(ROOT.leaf().der, [made.der], ANYBODY, AT)


LONG_NUMBER = b"\x7f" * 3_000  # in decimal it has more digits than Python spells out


def outsized() -> dict[str, Callable[[], object]]:
    """A reader for every number in a message, each number of 3,000 bytes."""
    number, enumerated = der.encode_tlv(der.INTEGER, LONG_NUMBER), der.encode_tlv(ENUMERATED, LONG_NUMBER)
    version = chains.make("CN=x", version=der.explicit(0, number))
    revoked = der.encode_tlv(0xA1, der.generalized_time(AT) + der.explicit(0, enumerated))
    issuer = (chains.identifier("1.3.14.3.2.26", der.NULL_DER), *[der.octet_string(bytes(20))] * 2)
    return {
        "certificate version": lambda: decode_certificate(version.der),
        "certificate serial number": lambda: CA.leaf(serial=1 << 9_000).parsed,
        "CRL version": lambda: decode_crl(chains.crl(CA, version=number)),
        "OCSP status": lambda: decode_ocsp_response(der.sequence(enumerated)),
        "OCSP reason": lambda: decode_ocsp_response(chains.ocsp_response(CA, chains.ocsp_id(ROOT, ROOT), revoked)),
        "OCSP serial number": lambda: decode_ocsp_request(chains.ocsp_request(der.sequence(*issuer, number))),
    }


@pytest.mark.parametrize("kind", sorted(outsized()))
def test_a_number_of_three_thousand_bytes_is_refused_by_its_limit(kind: str) -> None:
    with refuses(Reason.TOO_LARGE, LimitExceeded) as caught:
        outsized()[kind]()
    assert caught.value.facts["limit"] in {MAX_INTEGER, MAX_SERIAL}


def test_a_number_too_long_to_spell_harms_no_good_leaf() -> None:
    odd = chains.make("CN=x", version=der.explicit(0, der.encode_tlv(der.INTEGER, LONG_NUMBER)))
    VALIDATOR.validate(ROOT.leaf().der, [odd.der], ANYBODY, AT)


def test_a_list_of_more_than_sixteen_named_bits_is_refused_by_its_limit() -> None:
    leaf = CA.leaf(Ext("2.5.29.31", der.sequence(der.sequence(der.implicit(1, LONG_BITS[5:])))))
    usage = chains.make("CN=x", (Ext("2.5.29.15", LONG_BITS, critical=True),)).parsed
    assert usage.faults[KEY_USAGE].reason is Reason.TOO_LARGE
    scope = Ext("2.5.29.28", der.sequence(der.implicit(3, LONG_BITS[5:])), critical=True)
    for read in (lambda: decode_crl(chains.crl(CA, [], scope)), lambda: distribution_points(leaf.parsed)):
        with within(0.15), refuses(Reason.TOO_LARGE, LimitExceeded) as caught:
            read()
        assert caught.value.facts["limit"] == 16


def test_a_crl_reason_of_three_thousand_bytes_is_not_read_and_its_certificate_is_revoked() -> None:
    reason = Ext("2.5.29.21", der.encode_tlv(ENUMERATED, LONG_NUMBER))
    crl = decode_crl(chains.crl(CA, [chains.Listed(5, extra=(reason,))]))
    assert crl.find_reason(CA.parsed.subject, bytes([5])) == 0
