"""CRLs: what decodes, what is refused, what a list of a million costs."""

from __future__ import annotations

import time
from datetime import UTC, datetime
from functools import partial

import pytest

from tests.simulator.refusals import reason_of
from tests.x509 import chains
from tests.x509.chains import AT, Ext, Listed, crl, named, root, scope
from vagus.reasons import Reason
from vagus.x509 import der
from vagus.x509.crls.decoding import MAX_CRL, decode_crl, verify_crl
from vagus.x509.signatures import SignatureVerdicts

ROOT = root()


refused = partial(reason_of, decode_crl)


def contents_of(serial: int) -> bytes:
    return der.integer(serial)[2:]


def test_entries_reasons_and_numbers_are_read() -> None:
    decoded = decode_crl(crl(ROOT, [Listed(5), Listed(300, 1), Listed(0x80, 6), Listed(-7)], number=2**64))
    issuer = ROOT.parsed.subject
    assert decoded.number == 2**64
    assert [decoded.find_reason(issuer, contents_of(serial)) for serial in (5, 300, 0x80, -7, 6)] == [0, 1, 6, 0, None]
    assert not decoded.is_delta
    assert decoded.next_update is not None


def test_a_crl_without_entries_or_extensions_is_a_crl() -> None:
    first_version = decode_crl(crl(ROOT, number=None, version=b""))
    assert first_version.number is None
    assert first_version.find_reason(ROOT.parsed.subject, contents_of(1)) is None


def test_the_issuer_of_an_entry_holds_for_the_following_ones() -> None:
    other, third = root("CN=Other").parsed.subject, root("CN=Third").parsed.subject
    listed = [Listed(1), Listed(2, issuer="CN=Other"), Listed(3), Listed(4, issuer="CN=Third")]
    decoded = decode_crl(crl(ROOT, listed, scope(indirect=True)))
    assert decoded.find_reason(ROOT.parsed.subject, contents_of(1)) == 0
    assert decoded.find_reason(other, contents_of(2)) == 0
    assert decoded.find_reason(other, contents_of(3)) == 0
    assert decoded.find_reason(third, contents_of(4)) == 0
    assert decoded.find_reason(ROOT.parsed.subject, contents_of(3)) is None


KEY_COMPROMISE, HOLD, REMOVED = (der.encode_tlv(der.ENUMERATED, bytes((code,))) for code in (1, 6, 8))


def entry(*extensions: Ext, date: bytes = der.time(AT), serial: int = 9) -> bytes:
    """A revokedCertificates of one entry."""
    return der.sequence(der.sequence(der.integer(serial), date, *[der.sequence(*(e.encode() for e in extensions))]))


def spelt(oid: str, value: bytes) -> Ext:
    """An extension whose critical FALSE, the default, is written."""

    class _Spelt(Ext):
        def encode(self) -> bytes:
            return der.sequence(der.object_identifier(oid), b"\x01\x01\x00", der.octet_string(value))

    return _Spelt(oid, value)


@pytest.mark.parametrize(
    ("body", "reason"),
    [
        (entry(), 0),
        (entry(date=b"\x17\x0d991301000000Z"), 0),
        (entry(date=b"\x17\x0b2703011200Z"), 0),
        (entry(date=b"\x18\x1120260101000000.5Z"), 0),
        (entry(date=b"\x18\x00"), 0),
        (entry(Ext("2.5.29.21", der.encode_tlv(der.ENUMERATED, b"\x07"))), 0),
        (entry(Ext("2.5.29.21", der.integer(6))), 0),
        (entry(Ext("2.5.29.21", HOLD + b"\0")), 0),
        (entry(Ext("2.5.29.21", b"")), 0),
        (entry(Ext("2.5.29.24", b"\x18\x04soon"), Ext("2.5.29.21", KEY_COMPROMISE)), 1),
        (entry(spelt("2.5.29.21", HOLD)), 6),
        (entry(Ext("2.5.29.21", REMOVED)), 8),
    ],
    ids=named,
)
def test_an_entry_with_a_small_fault_counts_as_revoked_and_its_neighbours_as_before(body: bytes, reason: int) -> None:
    """Its benign twins, a hold and its end that can be read, are left as they are."""
    issuer = ROOT.parsed.subject
    neighbour = Listed(300, 6).encode()
    whole = der.sequence(body[2:], neighbour)
    decoded = decode_crl(crl(ROOT, body=whole))
    assert decoded.find_reason(issuer, contents_of(9)) == reason
    assert decoded.find_reason(issuer, contents_of(300)) == 6
    assert decoded.find_reason(issuer, contents_of(8)) is None


@pytest.mark.parametrize("number", [None, 5])
def test_empty_sequences_and_written_defaults_of_a_crl_change_nothing(number: int | None) -> None:
    issuer = ROOT.parsed.subject
    empty = decode_crl(crl(ROOT, body=der.sequence(), number=number))
    assert (empty.number, empty.find_reason(issuer, contents_of(1))) == (number, None)
    nothing = der.explicit(0, der.sequence())
    bare = decode_crl(crl(ROOT, body=der.sequence(Listed(1).encode()) + nothing, number=None))
    assert bare.find_reason(issuer, contents_of(1)) == 0
    flags = der.sequence(der.implicit(1, b"\0"), der.implicit(2, b"\xff"))
    scoped = decode_crl(crl(ROOT, [], spelt("2.5.29.20", der.integer(4)), Ext("2.5.29.28", flags), number=None))
    assert (scoped.number, scoped.scope.only_user, scoped.scope.only_ca) == (4, False, True)


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (crl(ROOT, [Listed(1, 3)], version=b"", number=None), Reason.NON_DER),
        (crl(ROOT, version=b""), Reason.NON_DER),
        (crl(ROOT, version=der.integer(2)), Reason.NON_DER),
        (crl(ROOT, body=der.sequence(der.sequence(der.integer(1)))), Reason.NON_DER),
        (crl(ROOT, body=der.sequence(der.sequence(b"\x02\x02\x00\x01", der.time(AT)))), Reason.NON_DER),
        (crl(ROOT, body=der.sequence(der.sequence(der.integer(1), der.time(AT), der.NULL_DER))), Reason.NON_DER),
        (crl(ROOT, body=der.sequence(der.sequence(der.integer(1), b"\x04\x00"))), Reason.NON_DER),
        (crl(ROOT, body=der.sequence(der.sequence(der.integer(1), b"\x17\x7f"))), Reason.NON_DER),
        (crl(ROOT, body=entry(Ext("2.5.29.29", der.sequence(), critical=True))), Reason.NON_DER),
        (crl(ROOT, body=entry(Ext("2.5.29.21", KEY_COMPROMISE), Ext("2.5.29.21", HOLD))), Reason.BAD_EXTENSION),
        (crl(ROOT, [Listed(1, extra=(Ext(chains.UNKNOWN, b"", critical=True),))]), Reason.CRL_INVALID),
        (crl(ROOT, [], Ext(chains.UNKNOWN, b"", critical=True)), Reason.CRL_INVALID),
        (crl(ROOT, [Listed(1, issuer="CN=Other")]), Reason.CRL_INVALID),
        (crl(ROOT, [], scope(only_user=True, only_ca=True)), Reason.CRL_INVALID),
        (crl(ROOT, [], Ext("2.5.29.28", der.sequence(), critical=True)), Reason.NON_DER),
        (crl(ROOT, [], Ext("2.5.29.28", der.sequence(der.implicit(1, b"\x01")), critical=True)), Reason.NON_DER),
        (crl(ROOT, number=-1), Reason.NON_DER),
        (crl(ROOT, number=1 << 200), Reason.NON_DER),
        (crl(ROOT) + b"\0", Reason.NON_DER),
        (crl(ROOT)[:-4], Reason.NON_DER),
        (b"", Reason.NON_DER),
    ],
    ids=named,
)
def test_what_is_no_crl_is_refused(content: bytes, reason: Reason) -> None:
    assert refused(content) is reason


@pytest.mark.parametrize("pair", [(1, 6), (6, 1), (1, 8), (8, 1), (None, 6), (6, None), (6, 8), (8, 6), (6, 6)])
def test_of_two_entries_for_one_serial_the_graver_counts(pair: tuple[int | None, int | None]) -> None:
    """A revocation is for ever, a hold holds until it is lifted, in whatever order the entries come."""
    decoded = decode_crl(crl(ROOT, [Listed(7, pair[0]), Listed(8, 6), Listed(7, pair[1])]))
    gravest = next(code for code in (1, None, 6) if code in pair)
    assert decoded.find_reason(ROOT.parsed.subject, b"\x07") == (gravest or 0)
    assert decoded.find_reason(ROOT.parsed.subject, b"\x08") == 6


def test_entries_of_two_issuers_do_not_affect_each_other() -> None:
    entries = [Listed(7, 1), Listed(7, 6, issuer="CN=Other"), Listed(7, 8)]
    decoded = decode_crl(crl(ROOT, entries, scope(indirect=True)))
    assert decoded.find_reason(ROOT.parsed.subject, b"\x07") == 1
    assert decoded.find_reason(root("CN=Other").parsed.subject, b"\x07") == 6


def test_a_crl_beyond_the_bound_is_not_read() -> None:
    assert refused(bytes(MAX_CRL + 1)) is Reason.TOO_LARGE


def test_only_a_key_that_may_sign_crls_verifies_one() -> None:
    verdicts = SignatureVerdicts()
    verify_crl(decode_crl(crl(ROOT)), ROOT.parsed, verdicts)
    no_crls = root("O=Harbour,CN=Root", private=ROOT.private)
    mute = chains.make("O=Harbour,CN=Root", (chains.basic(), chains.usage(5)), private=ROOT.private)
    for content, signer, reason in (
        (crl(ROOT), mute, Reason.KEY_USAGE),
        (crl(ROOT), root(), Reason.BAD_SIGNATURE),
        (crl(ROOT, flip=9), no_crls, Reason.BAD_SIGNATURE),
        (crl(ROOT, outer_algorithm=chains.identifier("1.2.840.10045.4.3.3")), ROOT, Reason.SIG_ALG_MISMATCH),
        (crl(ROOT, digest="sha1"), ROOT, Reason.UNSUPPORTED_ALGORITHM),
    ):
        assert reason_of(verify_crl, decode_crl(content), signer.parsed, verdicts) is reason


def big_list(count: int) -> bytes:
    """The revokedCertificates of a CRL of `count` 20-byte serials."""
    moment = der.time(datetime(2027, 1, 1, tzinfo=UTC))
    entries = b"".join(b"\x30\x25\x02\x14\x40" + number.to_bytes(19, "big") + moment for number in range(count))
    return der.encode_tlv(der.SEQUENCE, entries)


def test_a_crl_of_fifty_megabytes_is_read_in_bounded_time() -> None:
    """1.35 million entries; the bound of this test is CPU seconds, some five times what it takes."""
    count = 1_350_000
    content = crl(ROOT, body=big_list(count))
    assert len(content) > 50_000_000
    start = time.process_time()
    decoded = decode_crl(content)
    assert time.process_time() - start < 15
    last = b"\x40" + (count - 1).to_bytes(19, "big")
    assert decoded.find_reason(ROOT.parsed.subject, last) == 0
    assert decoded.find_reason(ROOT.parsed.subject, b"\x41" + last[1:]) is None
