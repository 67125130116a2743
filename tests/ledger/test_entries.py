"""Entries: one encoding each, no person's name in them, no text that a peer wrote."""

from __future__ import annotations

import json
from dataclasses import fields, replace
from typing import Any, get_args

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.simulator.log import SALT
from tests.simulator.refusals import refuses
from vagus.errors import Malformed
from vagus.ledger.entries import _CODECS as CODECS
from vagus.ledger.entries import (
    AuthenticatedRefusal,
    AuthorityCreated,
    CrlPublished,
    Entry,
    IssuanceRecorded,
    LoggedEntry,
    OperatorAct,
    conceal,
    decode_entry,
    encode_entry,
)
from vagus.reasons import Reason

WORDS = st.from_regex(r"[A-Za-z0-9@][A-Za-z0-9._:/#@+=*-]{0,40}", fullmatch=True)
HASHED = st.binary(min_size=32, max_size=32).map(lambda digest: "sha256:" + digest.hex())
NUMBERS = st.integers(-(2**53) + 1, 2**53 - 1)
ISSUANCE = IssuanceRecorded("h1/icu#2", 0x4402, b"t" * 32, b"k" * 32, "bedside", "device:abc", b"r" * 32)


def values(hint: object) -> st.SearchStrategy[object]:
    """Any value that a field of this kind may have, already hashed where it would be."""
    for part in get_args(hint):
        if part in {"word", "owner", "digest", "serial", "text"}:
            return {
                "word": WORDS,
                "owner": HASHED | WORDS.map(lambda word: f"authority:{word}"),
                "digest": st.binary(min_size=32, max_size=32),
                "serial": st.integers(0, 2**160 - 1),
                "text": st.text(st.characters(categories=["L", "N", "P"]), min_size=1, max_size=200),
            }[part]
        if part is type(None):
            return st.none() | values(get_args(hint)[0])
    return {int: NUMBERS, bool: st.booleans()}[hint]  # type: ignore[index]


@st.composite
def entries(draw: st.DrawFn) -> Entry:
    from typing import get_type_hints

    form = draw(st.sampled_from(get_args(Entry)))
    hints = get_type_hints(form, include_extras=True)
    made: Entry = form(**{field.name: draw(values(hints[field.name])) for field in fields(form)})
    return made


@given(entries(), st.integers(0, 2**40))
@settings(max_examples=200)
def test_every_entry_comes_back_and_has_one_spelling(entry: Entry, at: int) -> None:
    encoded = encode_entry(entry, at=at, salt=SALT)
    assert decode_entry(encoded) == LoggedEntry(at, entry)
    assert json.dumps(json.loads(encoded), sort_keys=True, separators=(",", ":")).encode() == encoded


def test_an_issuance_is_spelt_like_this() -> None:
    assert encode_entry(ISSUANCE, at=1_800_000_000, salt=SALT).decode() == (
        '{"at":1800000000,"authority":"h1/icu#2","kind":"issuance",'
        '"owner":"sha256:67c4b0fd22a2d6a2c6b3bb8c4ff68d94c2d3d12a0e4c9f3a3ebf5dcd6e8a1a25",'
        f'"profile":"bedside","request_id_hash":"{"72" * 32}","serial":"4402",'
        f'"spki_sha256":"{"6b" * 32}","tbs_sha256":"{"74" * 32}","v":1}}'
    ).replace("67c4b0fd22a2d6a2c6b3bb8c4ff68d94c2d3d12a0e4c9f3a3ebf5dcd6e8a1a25", conceal(SALT, "device:abc")[7:])


def test_an_owner_that_may_be_a_person_is_hashed_under_the_salt() -> None:
    for owner in ("device:abc", "technician:someone", "operator:root", "someone"):
        encoded = encode_entry(replace(ISSUANCE, owner=owner), at=0, salt=SALT)
        assert owner.encode() not in encoded
        assert conceal(SALT, owner).encode() in encoded
    assert conceal(SALT, "device:abc") != conceal(b"t" * 32, "device:abc")
    assert conceal(SALT, conceal(SALT, "device:abc")) == conceal(SALT, "device:abc")


def test_authorities_and_jobs_are_named_openly() -> None:
    for owner in ("authority:h1/icu#1", "job:crl", "ocsp:h1/icu#1"):
        assert conceal(SALT, owner) == owner


@pytest.mark.parametrize(
    "changes",
    [
        {"profile": "text from a peer"},
        {"profile": "b\u00e9dside"},
        {"profile": "a" * 121},
        {"profile": ""},
        {"profile": '"'},
        {"profile": None},
        {"authority": "x\n"},
        {"serial": -1},
        {"serial": 1 << 200},
        {"serial": "44"},
        {"tbs_sha256": b"short"},
        {"tbs_sha256": "74" * 32},
        {"owner": "authority:a b"},
    ],
)
def test_what_a_field_does_not_allow_is_never_written(changes: dict[str, Any]) -> None:
    with refuses(Reason.BAD_ENCODING, Malformed):
        encode_entry(replace(ISSUANCE, **changes), at=0, salt=SALT)


@pytest.mark.parametrize("number", [2**53, -(2**53), True, 1.5])
def test_a_number_that_a_reader_could_round_is_never_written(number: Any) -> None:
    entry = CrlPublished("a#1", number, 1, 2, 3, 4, bytes(32))
    with pytest.raises(Malformed):
        encode_entry(entry, at=0, salt=SALT)


def test_a_flag_is_a_flag() -> None:
    entry: Any = AuthorityCreated("a#1", "root", bytes(32), None, is_offline=1)  # type: ignore[arg-type]
    with pytest.raises(Malformed):
        encode_entry(entry, at=0, salt=SALT)


def test_a_reason_of_ours_is_a_word() -> None:
    entry = AuthenticatedRefusal("device:a", "est-simpleenroll", Reason.NAMES_CHANGED)
    assert b'"reason":"NAMES_CHANGED"' in encode_entry(entry, at=0, salt=SALT)


GOOD = encode_entry(OperatorAct("export", "job:nightly"), at=5, salt=SALT)


@pytest.mark.parametrize(
    "encoded",
    [
        b"",
        b"null",
        b"[]",
        b"\xff",
        GOOD + b" ",
        GOOD.replace(b",", b", "),
        GOOD.replace(b'"at":5', b'"at":5.0'),
        GOOD.replace(b'"at":5', b'"at":true'),
        GOOD.replace(b'"at":5', b'"at":NaN'),
        GOOD.replace(b'"at":5,', b""),
        GOOD.replace(b'"at":5', b'"at":5,"at":5'),
        GOOD.replace(b"operator-act", b"unknown-act"),
        GOOD.replace(b'"by":"job:nightly",', b""),
        GOOD.replace(b'"job:nightly"', b'"operator:x"'),
        GOOD.replace(b'"act":"export"', b'"act":7'),
        GOOD.replace(b'"act":"export"', b'"act":null'),
        GOOD.replace(b'"v":1', b'"v":1,"w":1'),
        b'{"a":' * 100_000,
        b'"\\ud800"',
    ],
)
def test_another_spelling_is_refused(encoded: bytes) -> None:
    with refuses(Reason.BAD_ENCODING, Malformed):
        decode_entry(encoded)


def test_another_version_is_refused_as_such() -> None:
    with refuses(Reason.BAD_VERSION, Malformed):
        decode_entry(GOOD.replace(b'"v":1', b'"v":2'))


@given(st.binary(max_size=80) | st.integers(0, len(GOOD) - 1).map(lambda at: GOOD[:at] + b"0" + GOOD[at + 1 :]))
@settings(max_examples=150)
def test_whatever_arrives_is_decoded_or_refused_with_our_own_error(encoded: bytes) -> None:
    try:
        logged = decode_entry(encoded)
    except Malformed:
        return
    assert encode_entry(logged.entry, at=logged.at, salt=SALT) == encoded


def test_every_field_of_every_kind_has_a_codec() -> None:
    for form in get_args(Entry):
        assert set(CODECS[form]) == {field.name for field in fields(form)}
