"""The signed snapshot of what is revoked, for verifiers without a network: a file format; trusts no key by itself.

    Snapshot    ::= SEQUENCE { content Content, algorithm AlgorithmIdentifier, signature BIT STRING }
    Content     ::= SEQUENCE { version INTEGER (1), number INTEGER, madeAt INTEGER, nextUpdate INTEGER,
                               keySha256 OCTET STRING, salt OCTET STRING, oneIn INTEGER, riceBits INTEGER,
                               counts SEQUENCE { revoked INTEGER, places INTEGER },
                               issuers SEQUENCE OF OCTET STRING, gaps OCTET STRING }

Each revoked certificate is represented by a hash of (salt, issuer's key, serial), reduced to a number below
revoked * oneIn. A revoked certificate is always found. Of the others one in `oneIn` is found by chance, and other ones
with each salt. The signature covers a fixed prefix and the content, so that no other object under the same key can
pass for a snapshot.
"""

from __future__ import annotations

import hashlib
from bisect import bisect_left
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from datetime import UTC, datetime

from vagus.errors import LimitExceeded, Malformed, NotTrusted, VagusError
from vagus.reasons import Reason
from vagus.wire.golomb import MAX_RICE_BITS, decode_gaps, encode_gaps, rice_bits
from vagus.x509 import der
from vagus.x509.certificates import read_signed
from vagus.x509.keys import verify_signature

MAX_SNAPSHOT = 4 * 1024 * 1024  # limit in bytes of a whole snapshot
MAX_COUNT = 2_000_000
_SIGNATURE = 16 * 1024  # bytes reserved for signature, algorithm and frame: ML-DSA-87 needs 5 kB
SALT = 16  # bytes of random salt in a snapshot
_PREFIX = b"vagus revocation snapshot v1\0"
_LEAST, _MOST = 2, 1 << 24  # limits of the error rate: one good certificate in so many looks revoked
_LATEST = 253_402_300_799  # 99991231235959Z, the latest time of X.509, in seconds since 1970 UTC


@dataclass(frozen=True, slots=True, kw_only=True)
class SnapshotFacts:
    """What a snapshot says of itself. `number` grows with each; `issuers` are SHA-256 hashes of issuers' keys."""

    number: int
    made_at: datetime
    next_update: datetime
    key_sha256: bytes  # SHA-256 of the public key that signed the snapshot
    salt: bytes
    one_in: int
    issuers: frozenset[bytes]


@dataclass(frozen=True, slots=True)
class Snapshot:
    """A decoded snapshot. Nothing in it counts before `verify_snapshot`."""

    facts: SnapshotFacts
    count: int
    content_der: bytes = field(repr=False)
    algorithm_der: bytes = field(repr=False)
    signature: bytes = field(repr=False)
    _values: tuple[int, ...] = field(repr=False)

    def may_be_revoked(self, issuer_spki_sha256: bytes, serial_bytes: bytes) -> bool:
        """False: certainly not revoked when it was made. True: revoked, or one of the few that match by chance.

        `serial_bytes` are the contents of the serial number. Ask only about `facts.issuers`.
        """
        if not self.count:
            return False
        value = _place(self.facts.salt, issuer_spki_sha256, serial_bytes, self.count * self.facts.one_in)
        at = bisect_left(self._values, value)
        return at < len(self._values) and self._values[at] == value


def encode_content(facts: SnapshotFacts, revoked: Iterable[tuple[bytes, bytes]]) -> bytes:
    """The DER of a Content that lists `revoked`: (SHA-256 of the issuer's key, contents of the serial INTEGER).

    Raises Malformed(BAD_ARGUMENT) for facts that `decode_snapshot` would refuse, LimitExceeded(TOO_MANY|TOO_LARGE).
    """
    named = set(revoked)
    if len(named) > MAX_COUNT:
        msg = f"a snapshot of {len(named)} revocations exceeds the limit of {MAX_COUNT}; make one for each hospital"
        raise LimitExceeded(Reason.TOO_MANY, msg, limit=MAX_COUNT, value=len(named))
    unknown = {issuer for issuer, _ in named} - facts.issuers
    if unknown or not _LEAST <= facts.one_in <= _MOST or len(facts.salt) != SALT or len(facts.key_sha256) != 32:
        msg = "a snapshot of issuers that it does not name, or with a rate, salt or key that no reader accepts"
        raise Malformed(Reason.BAD_ARGUMENT, msg)
    count = len(named)
    bits = rice_bits(facts.one_in)
    places = {_place(facts.salt, issuer, serial, count * facts.one_in) for issuer, serial in named}
    content = der.sequence(
        der.integer(1),
        der.integer(facts.number),
        der.integer(int(facts.made_at.timestamp())),
        der.integer(int(facts.next_update.timestamp())),
        der.octet_string(facts.key_sha256),
        der.octet_string(facts.salt),
        der.integer(facts.one_in),
        der.integer(bits),
        der.sequence(der.integer(count), der.integer(len(places))),
        der.sequence(*(der.octet_string(one) for one in sorted(facts.issuers))),
        der.octet_string(encode_gaps(sorted(places), bits)),
    )
    if len(content) > MAX_SNAPSHOT - _SIGNATURE:  # verifiers refuse a larger snapshot, so it must not be made
        msg = f"a snapshot of {len(content)} bytes exceeds the {MAX_SNAPSHOT - _SIGNATURE} bytes that verifiers read"
        msg = f"{msg}; choose an error rate of fewer than one in {facts.one_in}, or make a snapshot for each hospital"
        raise LimitExceeded(Reason.TOO_LARGE, msg, limit=MAX_SNAPSHOT - _SIGNATURE, value=len(content))
    return content


def sign_snapshot(content_der: bytes, algorithm_der: bytes, sign: Callable[[bytes], bytes]) -> bytes:
    """The Snapshot around `content_der`; `sign` returns the signature over a message."""
    return der.sequence(content_der, algorithm_der, der.bit_string(sign(_PREFIX + content_der)))


def verify_snapshot(snapshot: Snapshot, spki_der: bytes) -> None:
    """That the key which the caller trusts for snapshots signed this one. Raises NotTrusted(SNAPSHOT_INVALID)."""
    if hashlib.sha256(spki_der).digest() != snapshot.facts.key_sha256:
        msg = "the snapshot was signed by another key than the trusted one; use the key of its own installation"
        raise NotTrusted(Reason.SNAPSHOT_INVALID, msg, key=snapshot.facts.key_sha256[:8].hex())
    try:
        verify_signature(spki_der, snapshot.algorithm_der, snapshot.signature, _PREFIX + snapshot.content_der)
    except VagusError as fault:
        msg = f"the signature of the snapshot does not verify: {fault.message}"
        raise NotTrusted(Reason.SNAPSHOT_INVALID, msg) from fault


def decode_snapshot(snapshot_der: bytes) -> Snapshot:
    """The snapshot that fills `snapshot_der`.

    Raises LimitExceeded(TOO_LARGE), Malformed(NON_DER|BAD_VERSION|BAD_ENCODING).
    """
    der.check_size(snapshot_der, MAX_SNAPSHOT, "snapshot", "is it the right file?")
    data = bytes(snapshot_der)
    (start, first, end), algorithm_der, signature = read_signed(data, "a snapshot", "content")
    facts, count, values = _read_content(data, first, end)
    return Snapshot(facts, count, data[start:end], algorithm_der, signature, values)


def _read_content(data: bytes, start: int, end: int) -> tuple[SnapshotFacts, int, tuple[int, ...]]:
    fields = der.read_children(data, start, end)
    expected = bytes((0x02,) * 4 + (0x04,) * 2 + (0x02,) * 2 + (0x30,) * 2 + (0x04,))
    if not fields or fields[0][0] != der.INTEGER:
        der.fail("a snapshot without a version")
    version = der.integer_value(data, *fields[0][2:], "version")
    if version != 1:
        msg = f"a snapshot of version {version} cannot be read, only version 1; update this verifier"
        raise Malformed(Reason.BAD_VERSION, msg)
    if bytes(tag for tag, *_ in fields) != expected:
        der.fail("a snapshot whose fields are not those of version 1")
    number, made_at, next_update, one_in, bits = (
        der.integer_value(data, *fields[index][2:], "a number of a snapshot") for index in (1, 2, 3, 6, 7)
    )
    key_sha256, salt, gaps = (data[fields[index][2] : fields[index][3]] for index in (4, 5, 10))
    counts = [der.integer_value(data, *one[2:], "a count") for one in der.read_children(data, *fields[8][2:])]
    named = der.read_children(data, *fields[9][2:])
    if any(tag != der.OCTET_STRING for tag, *_ in named):
        der.fail("an issuer of a snapshot that is no OCTET STRING")
    issuers = [data[first:last] for _, _, first, last in named]
    is_bounded = (
        0 <= number < 1 << 63
        and 0 <= made_at <= next_update <= _LATEST
        and _LEAST <= one_in <= _MOST
        and 0 <= bits <= MAX_RICE_BITS
        and len(counts) == 2
        and 0 <= counts[1] <= counts[0] <= MAX_COUNT
        and (counts[1] > 0) == (counts[0] > 0)
    )
    is_shaped = len(salt) == SALT and all(len(one) == 32 for one in (key_sha256, *issuers))
    if not (is_bounded and is_shaped and issuers == sorted(set(issuers))):
        raise Malformed(Reason.BAD_ENCODING, "a snapshot whose numbers or lengths are impossible; fetch it again")
    facts = SnapshotFacts(
        number=number,
        made_at=datetime.fromtimestamp(made_at, UTC),
        next_update=datetime.fromtimestamp(next_update, UTC),
        key_sha256=key_sha256,
        salt=salt,
        one_in=one_in,
        issuers=frozenset(issuers),
    )
    return facts, counts[0], decode_gaps(gaps, bits, counts[1], counts[0] * one_in)


def _place(salt: bytes, issuer_spki_sha256: bytes, serial_bytes: bytes, places: int) -> int:
    """A uniform value below `places`; 64 bits reduced by multiplication, which favours none by more than 2^-16."""
    digest = hashlib.sha256(salt + issuer_spki_sha256 + serial_bytes).digest()
    return (int.from_bytes(digest[:8], "big") * places) >> 64
