"""Mutated certificates, CRLs, OCSP messages: our own errors or a value, inside the bounds, and no hang."""

from __future__ import annotations

import random
import signal
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FrameType

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.x509 import chains
from tests.x509.chains import AT, Listed, Made, crl, ocsp_id, ocsp_request, ocsp_response, root, sign
from tests.x509.random_chains import scenario
from tests.x509.rule_sets import RFC5280_STRICT
from vagus.errors import VagusError
from vagus.trust.anchors import AnchorSet
from vagus.trust.crl_status import CrlStatus
from vagus.trust.status import UnsafeNoStatus
from vagus.trust.validation import Expectation, Role, Validator
from vagus.x509 import der
from vagus.x509.certificates import decode_certificate
from vagus.x509.crls.decoding import decode_crl
from vagus.x509.ocsp.checks import check_response
from vagus.x509.ocsp.messages import decode_ocsp_request, decode_ocsp_response
from vagus.x509.paths.rules import PKIX
from vagus.x509.paths.search import Pool
from vagus.x509.signatures import SignatureVerdicts

CASES = 2_000
_NUMBERS = (der.INTEGER, der.ENUMERATED, der.BIT_STRING)
WATCHDOG = 5  # seconds of wall clock for one input
ROOT = root()
CA = ROOT.ca("O=Harbour,CN=CA", chains.constraints([("dns", "h1.example")]), chains.policies("1.2.3"))
ANYBODY = Expectation(role=Role.CLIENT, needs_identity=False)
VALIDATORS = [Validator(AnchorSet([ROOT.anchor]), UnsafeNoStatus(), profile=rules) for rules in (PKIX, RFC5280_STRICT)]
ID = ocsp_id(CA, ROOT)


@contextmanager
def watchdog() -> Iterator[None]:
    """Fail instead of hanging."""

    def bark(_number: int, _frame: FrameType | None) -> None:
        msg = f"an input took more than {WATCHDOG} s"
        raise TimeoutError(msg)

    previous = signal.signal(signal.SIGALRM, bark)
    signal.setitimer(signal.ITIMER_REAL, WATCHDOG)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, previous)


# --- mutation ----------------------------------------------------------------------------------------------------


def elements(content: bytes, start: int, end: int) -> list[tuple[int, int]]:
    """Every element of a structure, those inside constructed ones and octet strings, too."""
    found = []
    while start < end:
        try:
            tag, first, last = der.read_element(content, start, end)
        except VagusError:
            break
        found.append((start, last))
        if tag & 0x20 or tag == der.OCTET_STRING:
            found += elements(content, first, last)
        start = last
    return found


def mutate(content: bytes, rng: random.Random) -> bytes:
    """One to four changes, of bytes or of whole elements; lengths above a changed element are not mended."""
    data = bytearray(content)
    for _ in range(rng.choice([1, 1, 1, 2, 4])):
        if not data:
            break
        at = rng.randrange(len(data))
        spans = elements(bytes(data), 0, len(data))
        match rng.randrange(8):
            case 0:
                data[at] ^= 1 << rng.randrange(8)
            case 1:
                data[at] = rng.choice([0, 1, 0x7F, 0x80, 0xFF, 0x30, 0x05])
            case 2:
                del data[at : at + rng.randrange(1, 9)]
            case 3:
                data[at:at] = rng.randbytes(rng.randrange(1, 9))
            case 4 if spans:
                start, end = rng.choice(spans)
                data[start:end] = b""
            case 5 if spans:
                start, end = rng.choice(spans)
                data[start:start] = data[start:end]
            case 6 if len(spans) > 1:
                (start, end), (other_start, other_end) = rng.sample(spans, 2)
                data[start:end] = data[other_start:other_end]
            case _:
                data = data[:at]
    return bytes(data)


def mend(content: bytes, rng: random.Random) -> bytes:
    """Replace one element by another and mend all lengths, so that the change lies deep and the rest still parses."""

    def rebuild(start: int, end: int) -> bytes:
        parts = []
        while start < end:
            tag, first, last = der.read_element(content, start, end)
            if start == victim:
                parts.append(replacement)
            elif tag & 0x20:
                parts.append(der.encode_tlv(tag, rebuild(first, last)))
            else:
                parts.append(content[start:last])
            start = last
        return b"".join(parts)

    spans = [span for span in elements(content, 0, len(content)) if span[0]]
    victim, end = rng.choice(spans)
    donor = rng.choice(spans)
    tag = content[victim]
    replacement = rng.choice(
        [
            content[donor[0] : donor[1]],
            b"",
            content[victim:end] * 2,
            bytes([rng.randrange(1, 255)]) + content[victim + 1 : end],
            der.encode_tlv(tag, rng.randbytes(rng.randrange(20))) if tag & 0x1F != 0x1F else b"",
        ]
    )
    numbers = [at for at, _ in spans if content[at] in _NUMBERS]
    if numbers and rng.random() < 0.2:  # more digits than Python spells out, more bits than a list has
        victim = rng.choice(numbers)
        replacement = der.encode_tlv(content[victim], b"\0" + b"\x7f" * rng.choice([22, 200, 3_000]))
        replacement = replacement if content[victim] == der.BIT_STRING else replacement.replace(b"\0\x7f", b"\1\x7f")
    return rebuild(0, len(content))


def resign(content: bytes, issuer: Made) -> bytes:
    """The same to-be-signed part under a true signature, so that the code after the signature check is reached."""
    try:
        _, first, end = der.read_element(content, 0, len(content))
        _, _, tbs_end = der.read_element(content, first, end)
    except VagusError:
        return content
    tbs = content[first:tbs_end]
    return der.sequence(tbs, chains.algorithm_of(issuer.private), der.bit_string(sign(issuer.private, tbs)))


# --- the readers under fire --------------------------------------------------------------------------------------


SUB = CA.ca(
    "O=Harbour,CN=Sub",
    chains.constraints(
        [("dns", "icu.h1.example"), ("directory", "O=Harbour"), ("email", "h1.example")], [("ip", bytes(8))]
    ),
    chains.policies("1.2.3", chains.ANY_POLICY),
    chains.mappings(("1.2.3", "1.2.4")),
    chains.policy_constraints(require=3, inhibit=2),
    chains.inhibit_any(4),
    chains.crl_points(chains.point(chains.point_name(("uri", "http://status.example/1.crl")), reasons=(1, 2))),
    path_length=3,
)
RICH = SUB.leaf(
    chains.san(
        ("dns", "a.icu.h1.example"), ("email", "a@h1.example"), ("directory", "O=Harbour,CN=a"), ("id", "1.2.3")
    ),
    chains.policies("1.2.4"),
    chains.crl_points(chains.point(chains.point_name(("directory", "CN=x")), issuer="CN=y")),
)


Act = Callable[[], object]
"""What reads the mutant: it returns, or refuses with one of our errors."""


def fire_certificate(rng: random.Random) -> Act:
    """A certificate of a random chain, or a rich one that leads to our anchor under a true signature."""
    validator = rng.choice(VALIDATORS)
    if rng.random() < 0.7:
        is_leaf = rng.random() < 0.5
        victim, issuer = (RICH, SUB) if is_leaf else (SUB, CA)
        content = resign(mutate(victim.der, rng) if rng.random() < 0.3 else mend(victim.der, rng), issuer)
        leaf, chain = (content, [SUB.der, CA.der]) if is_leaf else (RICH.der, [content, CA.der])
    else:
        case = scenario(rng.randrange(1 << 30))
        one = rng.choice([*case.sent, case.target])
        leaf = mutate(one.der, rng) if rng.random() < 0.5 else mend(one.der, rng)
        chain = [made.der for made in case.sent] + [CA.der]
    return lambda: validator.validate(leaf, chain, ANYBODY, AT)


def fire_crl(rng: random.Random) -> Act:
    listed = [Listed(number, rng.choice([None, 1, 6])) for number in range(1, 6)]
    good = crl(CA, listed, chains.aki(CA.private), number=rng.randrange(1 << 40))
    content = mutate(good, rng) if rng.random() < 0.5 else mend(good, rng)
    if rng.random() < 0.6:
        content = resign(content, CA)
    status = CrlStatus(Pool([ROOT.anchor], [CA.parsed]))

    def act() -> None:
        decode_crl(content)
        status.load(content, AT)
        status.check_status(CA.leaf().parsed, CA.parsed, AT)

    return act


def fire_ocsp(rng: random.Random) -> Act:
    good = ocsp_response(ROOT, ID, extensions=[chains.nonce(b"n" * 16)], certificates=[CA])
    content = mutate(good, rng) if rng.random() < 0.5 else mend(good, rng)

    def act() -> None:
        decode_ocsp_response(content)
        check_response(content, CA.parsed, ROOT.parsed, AT, SignatureVerdicts())

    return act


def fire_request(rng: random.Random) -> Act:
    good = ocsp_request(ID, ID, extensions=[chains.nonce(b"n" * 32)])
    content = mutate(good, rng) if rng.random() < 0.5 else mend(good, rng)
    return lambda: decode_ocsp_request(content)


FIRES = {"certificate": fire_certificate, "crl": fire_crl, "ocsp": fire_ocsp, "request": fire_request}
SHARES = {"certificate": 0.55, "crl": 0.25, "ocsp": 0.15, "request": 0.05}


def outcome(act: Act) -> str:
    try:
        act()
    except VagusError as refused:
        return refused.reason
    return "accepted"


def run(kind: str, seeds: range) -> Counter[str]:
    counts: Counter[str] = Counter()
    for seed in seeds:
        with watchdog():
            try:
                counts[outcome(FIRES[kind](random.Random(f"{kind} {seed}")))] += 1
            except Exception as crash:
                crash.add_note(f"fuzz: {kind}, seed {seed}")
                raise
    return counts


@pytest.mark.parametrize("kind", sorted(FIRES))
def test_two_thousand_mutants_get_our_reasons(kind: str) -> None:
    count = int(CASES * SHARES[kind])
    start = time.process_time()
    counts = run(kind, range(count))
    assert time.process_time() - start < 60
    assert sum(counts.values()) == count
    assert len(counts) >= 2, counts


@pytest.mark.soak
def test_many_more_mutants_get_our_reasons(soak_seed: int, soak_seconds: float) -> None:
    """At least 20,000, and as many as the soak's time allows."""
    start, done, counts = time.monotonic(), 0, Counter[str]()
    while done < 20_000 or time.monotonic() - start < soak_seconds:
        for kind, share in SHARES.items():
            first = soak_seed * 1_000_003 + done
            counts += run(kind, range(first, first + int(1000 * share)))
        done += 1000
    print(f"fuzz: {done} mutants, seed {soak_seed}: {dict(counts)}")  # noqa: T201


@settings(max_examples=300, deadline=None)
@given(st.binary(max_size=300))
def test_any_bytes_get_our_reasons(content: bytes) -> None:
    for decode in (decode_certificate, decode_crl, decode_ocsp_request, decode_ocsp_response):
        with pytest.raises(VagusError):
            decode(content)
