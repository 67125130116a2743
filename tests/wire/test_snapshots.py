"""Snapshots of what is revoked: who is revoked is always found, the rest but for one in so many, forgeries never."""

from __future__ import annotations

import hashlib
import random
from datetime import UTC, datetime, timedelta
from functools import cache, partial

import pytest
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.simulator.refusals import reason_of, refuses
from tests.x509 import chains
from vagus.errors import LimitExceeded, Malformed, NotTrusted, VagusError
from vagus.reasons import Reason
from vagus.wire import snapshots
from vagus.wire.snapshots import SnapshotFacts, decode_snapshot, encode_content, sign_snapshot, verify_snapshot
from vagus.x509 import der
from vagus.x509.algorithms import ECDSA_SHA256

NOON = datetime(2027, 3, 1, 12, tzinfo=UTC)
ISSUERS = tuple(hashlib.sha256(bytes([number])).digest() for number in range(3))
_KEY = ec.generate_private_key(ec.SECP256R1())
SPKI = chains.spki(_KEY)
SALT = bytes(range(16))


facts = partial(
    SnapshotFacts,
    number=7,
    made_at=NOON,
    next_update=NOON + timedelta(hours=24),
    key_sha256=hashlib.sha256(SPKI).digest(),
    salt=SALT,
    one_in=100,
    issuers=frozenset(ISSUERS),
)


def sign(message: bytes) -> bytes:
    return _KEY.sign(message, ec.ECDSA(hashes.SHA256()))


def signed(content: bytes) -> bytes:
    return sign_snapshot(content, ECDSA_SHA256.identifier_der, sign)


def serial(number: int) -> bytes:
    return b"\x01" + number.to_bytes(19, "big")


@cache
def million() -> tuple[bytes, list[tuple[bytes, bytes]]]:
    """10,000 revoked of the 1,000,000 that three issuers have out."""
    draw = random.Random(4)
    revoked = [(draw.choice(ISSUERS), serial(draw.getrandbits(140))) for _ in range(10_000)]
    return signed(encode_content(facts(), revoked)), revoked


def test_ten_thousand_revoked_of_a_million_take_about_ten_kilobytes() -> None:
    whole, revoked = million()
    print(f"{len(whole)} bytes for {len(revoked)} revoked, {8 * len(whole) / len(revoked):.2f} bits each")  # noqa: T201  the figure that is promised
    assert len(whole) < 10_600


def test_who_is_revoked_is_always_found() -> None:
    whole, revoked = million()
    snapshot = decode_snapshot(whole)
    verify_snapshot(snapshot, SPKI)
    assert snapshot.count == 10_000
    assert all(snapshot.may_be_revoked(*one) for one in revoked)


def test_about_one_in_so_many_other_certificates_is_found_too() -> None:
    snapshot = decode_snapshot(million()[0])
    draw = random.Random(5)
    hits = sum(snapshot.may_be_revoked(draw.choice(ISSUERS), serial(draw.getrandbits(141))) for _ in range(20_000))
    assert 140 <= hits <= 260, "200 are expected"


def test_another_salt_hits_others() -> None:
    _, revoked = million()
    some = revoked[:1000]
    one = decode_snapshot(signed(encode_content(facts(one_in=10), some)))
    other = decode_snapshot(signed(encode_content(facts(one_in=10, salt=bytes(16)), some)))
    good = [(ISSUERS[0], serial(number)) for number in range(5000)]
    unlucky = [each for each in good if one.may_be_revoked(*each)]
    again = sum(other.may_be_revoked(*each) for each in unlucky)
    assert len(unlucky) > 350
    assert again < len(unlucky) / 5


@settings(max_examples=100, deadline=None)
@given(
    numbers=st.sets(st.integers(0, 2**150), max_size=30),
    one_in=st.integers(2, 1 << 24),
    number=st.integers(0, 2**62),
    hours=st.integers(0, 168),
)
def test_what_was_encoded_decodes(numbers: set[int], one_in: int, number: int, hours: int) -> None:
    said = facts(number=number, one_in=one_in, next_update=NOON + timedelta(hours=hours))
    revoked = [(ISSUERS[each % 3], serial(each)) for each in numbers]
    found = decode_snapshot(signed(encode_content(said, revoked)))
    assert (found.facts, found.count) == (said, len(numbers))
    assert all(found.may_be_revoked(*each) for each in revoked)


def test_an_empty_snapshot_finds_no_certificate() -> None:
    found = decode_snapshot(signed(encode_content(facts(), [])))
    assert found.count == 0
    assert not found.may_be_revoked(ISSUERS[0], serial(1))


@pytest.mark.parametrize(
    "said", [facts(one_in=1), facts(one_in=(1 << 24) + 1), facts(salt=b"short"), facts(key_sha256=b"short")]
)
def test_what_no_reader_would_take_is_not_written(said: SnapshotFacts) -> None:
    assert reason_of(encode_content, said, [], error=Malformed) is Reason.BAD_ARGUMENT


def test_a_certificate_that_is_not_in_the_snapshot_is_not_found() -> None:
    assert reason_of(encode_content, facts(), [(bytes(32), serial(1))], error=Malformed) is Reason.BAD_ARGUMENT


def test_a_snapshot_has_a_bound(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(snapshots, "MAX_COUNT", 3)
    with refuses(Reason.TOO_MANY, LimitExceeded):
        encode_content(facts(), [(ISSUERS[0], serial(number)) for number in range(4)])
    monkeypatch.setattr(snapshots, "MAX_SNAPSHOT", 100)
    assert reason_of(decode_snapshot, bytes(101), error=LimitExceeded) is Reason.TOO_LARGE


def test_no_snapshot_is_written_that_no_reader_accepts(monkeypatch: pytest.MonkeyPatch) -> None:
    """1,400,000 revoked in one of 2^24 have 4.4 MB: gateways would go on with the one before until it runs out."""
    many = [(ISSUERS[0], serial(number)) for number in range(2_000)]
    whole = signed(encode_content(facts(one_in=1 << 24), many))
    monkeypatch.setattr(snapshots, "MAX_SNAPSHOT", len(whole) - 1)
    assert reason_of(decode_snapshot, whole, error=LimitExceeded) is Reason.TOO_LARGE
    assert reason_of(encode_content, facts(one_in=1 << 24), many, error=LimitExceeded) is Reason.TOO_LARGE
    monkeypatch.setattr(snapshots, "MAX_SNAPSHOT", 1 << 15)
    decode_snapshot(signed(encode_content(facts(one_in=1 << 16), many)))


def refused(snapshot_der: bytes, spki_der: bytes = SPKI) -> Reason:
    return reason_of(verify_snapshot, decode_snapshot(snapshot_der), spki_der, error=NotTrusted)


def test_only_the_trusted_key_counts() -> None:
    whole = signed(encode_content(facts(), []))
    spki = chains.spki(ec.generate_private_key(ec.SECP256R1()))
    assert refused(whole, spki) is Reason.SNAPSHOT_INVALID
    claimed = signed(encode_content(facts(key_sha256=hashlib.sha256(spki).digest()), []))
    assert refused(claimed, spki) is Reason.SNAPSHOT_INVALID, "naming a key is not signing with it"


def test_a_signature_over_the_bare_content_is_none() -> None:
    content = encode_content(facts(), [])
    bare = der.sequence(content, ECDSA_SHA256.identifier_der, der.bit_string(sign(content)))
    assert refused(bare) is Reason.SNAPSHOT_INVALID


def test_no_changed_byte_passes() -> None:
    whole = signed(encode_content(facts(), [(ISSUERS[0], serial(number)) for number in range(40)]))
    for at in range(len(whole)):
        for flip in (0x01, 0x80):
            changed = whole[:at] + bytes([whole[at] ^ flip]) + whole[at + 1 :]
            with pytest.raises(VagusError):
                verify_snapshot(decode_snapshot(changed), SPKI)


@settings(max_examples=200, deadline=None)
@given(junk=st.binary(max_size=200))
def test_no_bytes_make_it_fail_otherwise_than_by_its_own_errors(junk: bytes) -> None:
    for data in (junk, der.sequence(junk), der.sequence(der.sequence(junk), der.sequence(), der.bit_string(b""))):
        with pytest.raises(VagusError):
            decode_snapshot(data)


def content(**changes: bytes) -> bytes:
    """A Content with single fields spoiled."""
    fields = {
        "version": der.integer(1),
        "number": der.integer(7),
        "made_at": der.integer(1_800_000_000),
        "next_update": der.integer(1_800_000_001),
        "key": der.octet_string(bytes(32)),
        "salt": der.octet_string(SALT),
        "one_in": der.integer(100),
        "bits": der.integer(6),
        "counts": der.sequence(der.integer(0), der.integer(0)),
        "issuers": der.sequence(*(der.octet_string(one) for one in sorted(ISSUERS))),
        "gaps": der.octet_string(b""),
    }
    return der.sequence(*{**fields, **changes}.values())


def test_the_unspoiled_content_decodes() -> None:
    assert decode_snapshot(signed(content())).count == 0


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"version": der.integer(2)}, Reason.BAD_VERSION),
        ({"version": der.octet_string(b"")}, Reason.NON_DER),
        ({"number": der.integer(-1)}, Reason.BAD_ENCODING),
        ({"number": der.integer(1 << 63)}, Reason.BAD_ENCODING),
        ({"made_at": der.integer(1_800_000_002)}, Reason.BAD_ENCODING),
        ({"next_update": der.integer(253_402_300_800)}, Reason.BAD_ENCODING),
        ({"key": der.octet_string(bytes(31))}, Reason.BAD_ENCODING),
        ({"salt": der.octet_string(bytes(15))}, Reason.BAD_ENCODING),
        ({"one_in": der.integer(1)}, Reason.BAD_ENCODING),
        ({"bits": der.integer(41)}, Reason.BAD_ENCODING),
        ({"counts": der.sequence(der.integer(1), der.integer(0))}, Reason.BAD_ENCODING),
        ({"counts": der.sequence(der.integer(1), der.integer(2))}, Reason.BAD_ENCODING),
        ({"counts": der.sequence(der.integer(0))}, Reason.BAD_ENCODING),
        ({"issuers": der.sequence(*(der.octet_string(one) for one in sorted(ISSUERS)[::-1]))}, Reason.BAD_ENCODING),
        ({"issuers": der.sequence(der.integer(5))}, Reason.NON_DER),
        ({"gaps": der.octet_string(b"\x00")}, Reason.BAD_ENCODING),
        ({"gaps": der.integer(0)}, Reason.NON_DER),
    ],
)
def test_a_spoiled_field_has_its_reason(changes: dict[str, bytes], reason: Reason) -> None:
    assert reason_of(decode_snapshot, signed(content(**changes)), error=Malformed) is reason
